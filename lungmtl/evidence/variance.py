"""Variance of a mean over seeds, split into seeds and test scans, and the difference that it can detect."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import nctdtrinc

from lungmtl.evidence.areas import MIN_ERROR

# chosen by us: Satterthwaite's 2 treats the variance estimated from few seeds as the true one and covers 1 % less; with
# three seeds that dominate the variance the coverage is 92 to 94 %, with five 95 % (benchmarks/coverage.py)
FREEDOM_POWER = 1.5
MAX_FREEDOM = 1e6  # stands for infinite degrees of freedom: the t quantile is the normal one to six digits


class VarianceParts(NamedTuple):
    """Variance of a mean over seeds: the part that more seeds would remove, and the part that would remain."""

    seeds: float  # everything that differs between seeds on these scans; includes `interaction`
    patients: float  # what remains with any number of seeds
    interaction: float  # the part of `seeds` that would vanish with infinitely many test scans
    n_seeds: int

    @property
    def total(self) -> float:
        """Variance of the mean over seeds; `seeds` is floored at the `interaction` that it includes."""
        return max(self.seeds, self.interaction) + self.patients

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `total`: S - 1 where seeds are all that varies, growing with the patients' share."""
        if self.seeds < MIN_ERROR**2:
            return np.inf
        return (self.n_seeds - 1) * float(self.total / self.seeds) ** FREEDOM_POWER

    def with_scans(self, factor: float) -> "VarianceParts":
        """The same with `factor` times as many test scans; the effect of seeds alone is unchanged."""
        alone = max(self.seeds - self.interaction, 0.0)
        interaction = self.interaction / factor
        return VarianceParts(alone + interaction, self.patients / factor, interaction, self.n_seeds)


def variance_parts(values: np.ndarray, covariance: np.ndarray) -> VarianceParts:
    """Split the variance of a mean over S seeds that share their test scans.

    The value of seed s is mean + seed_s + scans + interaction_s: `seed_s` is the effect of that seed on infinitely many
    scans, `scans` the effect of these test scans that every seed shares, `interaction_s` their effect on seed s alone.
    The raw variance between seeds contains seed and interaction, but not the shared effect of the scans. The covariance
    over resampled patients is scans plus interaction on its diagonal and scans alone off it. Unbiased estimates are:
    `seeds` = raw variance / S, `patients` = mean covariance of two different seeds, `interaction` = (mean of the
    diagonal - `patients`) / S. A part below 0 is set to 0.

    Args:
        values: AUC or AUC difference of every seed, (S,), S at least 2.
        covariance: Their covariance over other patients, (S, S): DeLong's, or that of the draws of `Areas`.
    """
    n_seeds = len(values)
    if n_seeds < 2 or np.shape(covariance) != (n_seeds, n_seeds):
        found = f"{n_seeds} and shape {np.shape(covariance)}"
        raise ValueError(f"A split needs two seeds and their covariance. Found {found}.")
    own = float(np.trace(covariance)) / n_seeds
    shared = (float(np.sum(covariance)) - own * n_seeds) / (n_seeds * (n_seeds - 1))
    seeds = float(np.var(values, ddof=1)) / n_seeds
    patients = max(shared, 0.0)
    return VarianceParts(seeds, patients, max(own - patients, 0.0) / n_seeds, n_seeds)


def detectable_difference(error: np.ndarray, *, freedom: np.ndarray, power: float = 0.8) -> np.ndarray:
    """Smallest true difference that a two-sided 5 % t test with this standard error finds with this power.

    With infinite degrees of freedom that is (1.960 + 0.842) standard errors at 80 %.
    """
    freedom = np.minimum(freedom, MAX_FREEDOM)
    return nctdtrinc(freedom, 1 - power, stats.t.ppf(0.975, freedom)) * error
