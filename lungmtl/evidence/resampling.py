"""Bootstrap over patients: AUCs of several runs and their differences, with intervals over patients and seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lungmtl.evidence.areas import (
    Difference,
    Interval,
    area_interval,
    check_two_of_each,
    checked_binary,
    checked_rows,
    difference_of,
    placements,
)
from lungmtl.evidence.variance import variance_parts


class Areas(NamedTuple):
    """AUC of S runs on the same scans (S,), and of every run in every bootstrap replicate (S, R)."""

    value: np.ndarray
    draws: np.ndarray
    sets: Sequence[int] | None = None  # training set of every run, where there are several

    def __sub__(self, other: "Areas") -> "Areas":
        """Differences, paired by seed and by draw."""
        if self.draws.shape != other.draws.shape:
            raise ValueError(
                "A paired comparison needs the same seeds and draws on both sides. "
                f"Found shapes {self.draws.shape} and {other.draws.shape}."
            )
        return Areas(self.value - other.value, self.draws - other.draws, self.sets)

    def of(self, rows: Sequence[int]) -> "Areas":
        """The same for some of the runs."""
        return Areas(self.value[rows], self.draws[rows], self.sets and [self.sets[row] for row in rows])

    def by_set(self) -> "Areas":
        """Means over the runs of each training set, which are not independent; unchanged where all runs share one."""
        if len(set(self.sets or ())) in (0, 1, len(self.value)):
            return self
        of_set = np.stack([np.equal(self.sets, one) / self.sets.count(one) for one in sorted(set(self.sets))])
        return Areas(of_set @ self.value, of_set @ self.draws)

    def error(self) -> tuple[float, float]:
        """Standard error of the mean over seeds or training sets, and the degrees of freedom of its t quantile."""
        value, draws, _ = self.by_set()
        if len(value) == 1:
            return float(draws[0].std(ddof=1)), np.inf
        parts = variance_parts(value, np.cov(draws))
        return float(np.sqrt(parts.total)), parts.freedom


def patient_weights(target: np.ndarray, patient: np.ndarray, *, replicates: int, seed: int) -> np.ndarray:
    """How often every scan is drawn in every replicate, (N, R); to be shared by all predictors of the same scans.

    Args:
        target: 0 or 1, (N,); at least two of each.
        patient: (N,); the scans of a patient are drawn together, patients with a positive scan are one stratum.
        replicates: Number of bootstrap replicates R, at least 100.
        seed: Seeds the draws; the same seed draws the same patients for every predictor.

    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.2 (strata).
    """
    target, patient = checked_binary("target", target, n_scans=np.size(target)), np.asarray(patient)
    if replicates < 100:
        raise ValueError(f"A bootstrap standard error needs at least 100 replicates. Found {replicates}.")
    if patient.shape != target.shape:
        raise ValueError(f"`patient` must have one value per scan. Found {patient.size} for {target.size} scans.")
    check_two_of_each(target)
    patients, index = np.unique(patient, return_inverse=True)
    with_positive = np.bincount(index, weights=target) > 0
    counts = np.zeros((len(patients), replicates), dtype=np.float32)
    generator = np.random.default_rng(seed)
    for members in (np.flatnonzero(with_positive), np.flatnonzero(~with_positive)):
        if len(members):
            drawn = generator.integers(len(members), size=(len(members), replicates)) * replicates
            flat = np.bincount((drawn + np.arange(replicates)).ravel(), minlength=len(members) * replicates)
            counts[members] = flat.reshape(len(members), replicates)
    weight = counts[index]
    empty = np.sum((weight[target == 1].sum(axis=0) == 0) | (weight[target == 0].sum(axis=0) == 0))
    if empty:
        raise ValueError(
            f"Every bootstrap replicate must hold both classes. Found {empty} of {replicates} with one class "
            f"among {len(patients)} patients."
        )
    return weight


def bootstrap_areas(target: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> Areas:
    """AUC of the runs of one experiment, (N,) or (S, N), on all scans and under the weights of every replicate."""
    target, probability = checked_rows(target, probability)
    draws = np.stack([area_of(*weighted_negatives(target, row, weight)) for row in probability])
    return Areas(placements(target, probability)[0].mean(axis=1), draws)


def mean_auc(target: np.ndarray, areas: Areas) -> Interval:
    """Mean AUC over the runs of one experiment, with an interval over patients and, if several runs, seeds.

    One run: the standard deviation of its replicates is the standard error. S runs: the variance between seeds is added
    to the covariance of the replicates (`variance_parts`), so the interval covers other patients and other seeds.
    The variance between seeds is floored at the seed-by-scan interaction variance, estimated from the replicates. The
    interval is on the logit scale, with a t quantile whose degrees of freedom are S - 1 where seeds are all that varies
    and grow with the patients' share (`FREEDOM_POWER`): with three seeds that dominate the variance, 95 % intervals
    cover 92 to 94 %.

    Source: Searle, Casella & McCulloch 1992, Variance Components, chapter 3 (parts of a variance). Coverage:
    benchmarks/coverage.py.
    """
    return area_interval(np.asarray(target), float(areas.by_set().value.mean()), *areas.error())


def mean_difference(a: Areas, b: Areas) -> Difference:
    """Mean AUC difference a - b, paired by scan and by seed: interval and p value with the error of `mean_auc`.

    Row s of a and of b come from the same seed, and both from the same `patient_weights`.
    """
    areas = a - b
    return difference_of(float(areas.by_set().value.mean()), *areas.error())


def weighted_negatives(
    target: np.ndarray, probability: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights of positives by falling probability (P, R), of negatives below and not above each, of all negatives.

    They are whole numbers, exact in float32; that halves the memory traffic, which dominates the run time.
    """
    positive = target == 1
    rows_positive = np.flatnonzero(positive)[np.argsort(-probability[positive], kind="stable")]
    rows_negative = np.flatnonzero(~positive)[np.argsort(probability[~positive], kind="stable")]
    negatives = probability[rows_negative]
    cumulated = np.zeros((len(negatives) + 1, weight.shape[1]), dtype=weight.dtype)
    np.cumsum(weight[rows_negative], axis=0, out=cumulated[1:])  # row i: weight of the i lowest negatives
    first = np.searchsorted(negatives, probability[rows_positive], side="left")
    last = np.searchsorted(negatives, probability[rows_positive], side="right")
    below = cumulated[first]
    not_above = below if np.array_equal(first, last) else cumulated[last]
    return weight[rows_positive], below, not_above, cumulated[-1].astype(np.float64)


def area_of(drawn: np.ndarray, below: np.ndarray, not_above: np.ndarray, n_negatives: np.ndarray) -> np.ndarray:
    """AUC in every replicate (R,) from `weighted_negatives`."""
    pairs = below + not_above
    pairs *= drawn
    return pairs.sum(axis=0, dtype=np.float64) / (2 * drawn.sum(axis=0, dtype=np.float64) * n_negatives)
