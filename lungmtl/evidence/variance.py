"""Variance of a mean over seeds: the part of seeds, the part of test scans, and what they could show."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import nctdtrinc

from lungmtl.evidence.areas import MIN_ERROR

# chosen by us: Satterthwaite's 2 takes the few seeds' own variance for the true one and covers 1 % less; with three
# seeds that outweigh the patients 92 to 94 % remain, with five 95 % (benchmarks/coverage.py)
FREEDOM_POWER = 1.5
MAX_FREEDOM = 1e6  # stands for endless degrees of freedom: the t quantile is the normal one to six digits


class VarianceParts(NamedTuple):
    """Variance of a mean over seeds: the part that more seeds would remove, and the part that they would not."""

    seeds: float  # all that differs between seeds on these scans; holds `interaction`
    patients: float  # what a mean over any number of seeds would keep
    interaction: float  # of `seeds`: what would be gone with endless test scans
    n_seeds: int

    @property
    def total(self) -> float:
        """Variance of the mean over seeds; `seeds` counts at least as much as the `interaction` it must hold."""
        return max(self.seeds, self.interaction) + self.patients

    @property
    def freedom(self) -> float:
        """Degrees of freedom of `total`: S - 1 where seeds are all that varies, growing with the patients' share."""
        if self.seeds < MIN_ERROR**2:
            return np.inf
        return (self.n_seeds - 1) * float(self.total / self.seeds) ** FREEDOM_POWER

    def with_scans(self, factor: float) -> "VarianceParts":
        """The same with `factor` times as many test scans: what seeds alone make stays."""
        alone = max(self.seeds - self.interaction, 0.0)
        interaction = self.interaction / factor
        return VarianceParts(alone + interaction, self.patients / factor, interaction, self.n_seeds)


def variance_parts(values: np.ndarray, covariance: np.ndarray) -> VarianceParts:
    """Split the variance of a mean over S seeds that share their test scans.

    The value of seed s is mean + seed_s + scans + interaction_s: `seed_s` is the network of that seed on endless scans,
    `scans` the effect of these test scans that every seed shares, `interaction_s` their effect on seed s alone.
    Raw variance between seeds holds seed and interaction but not the scans, which are shared. Covariance over
    drawn patients holds scans plus interaction on its diagonal and scans alone off it. Hence, without bias:
    `seeds` = raw variance / S, `patients` = mean covariance of two different seeds, `interaction` = (mean of the
    diagonal - `patients`) / S. A part below 0 is set to 0.

    Args:
        values: AUC or AUC difference of every seed, (S,), S at least 2.
        covariance: Their covariance over other patients, (S, S): DeLong's, or that of the draws of `Areas`.
    """
    n_seeds = len(values)
    if n_seeds < 2 or np.shape(covariance) != (n_seeds, n_seeds):
        raise ValueError(
            f"A split needs two seeds and their covariance. Found {n_seeds} and shape {np.shape(covariance)}."
        )
    own = float(np.trace(covariance)) / n_seeds
    shared = (float(np.sum(covariance)) - own * n_seeds) / (n_seeds * (n_seeds - 1))
    seeds = float(np.var(values, ddof=1)) / n_seeds
    patients = max(shared, 0.0)
    return VarianceParts(seeds, patients, max(own - patients, 0.0) / n_seeds, n_seeds)


def detectable_difference(error: np.ndarray, *, freedom: np.ndarray, power: float = 0.8) -> np.ndarray:
    """Smallest true difference that a two-sided 5 % t test with this standard error finds with this power.

    With endless degrees of freedom that is (1.960 + 0.842) standard errors at 80 %.
    """
    freedom = np.minimum(freedom, MAX_FREEDOM)
    return nctdtrinc(freedom, 1 - power, stats.t.ppf(0.975, freedom)) * error
