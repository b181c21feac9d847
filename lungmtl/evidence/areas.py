"""Areas under ROC curves: AUC, DeLong's intervals, paired tests; arrays in, numbers out.

Everywhere in this room `target` is 0 or 1 with one value per scan (N,), `probability` lies in [0, 1] in the same order,
and `patient` names the patient of every scan. Several runs of one experiment (one per seed) are rows of `probability`
(S, N). The caller leaves out scans without a label; a class without scans raises a ValueError. Everything is
float64; ties count one half. Intervals are two-sided, 95 %.

Sources: DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845; in O(n log n) through midranks: Sun & Xu 2014,
IEEE Signal Processing Letters 21:1389-1393. Reference implementation: R pROC, tests/data/proc_reference.R.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.special import expit, logit, ndtri, stdtrit

LEVEL = 0.95
MIN_ERROR = 1e-10  # chosen by us: a standard error below this is 0 up to rounding


class Interval(NamedTuple):
    """A value with its two-sided interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """AUC of a minus AUC of b on the same scans, its interval and the two-sided p value of no difference."""

    difference: float
    low: float
    high: float
    p: float
    error: float  # standard error
    freedom: float  # degrees of freedom of the t distribution that interval and p value are taken from


def auc(target: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve of one predictor."""
    target, probability = checked(target, probability)
    return float(placements(target, probability[None])[0].mean())


def delong_covariance(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUCs (K,) of K predictors (K, N) on the same scans, and DeLong's covariance of these AUCs (K, K).

    At least two scans of each class are required. The variance is 0 if the classes are fully separated.
    """
    target, probability = checked_rows(target, probability)
    check_two_of_each(target)
    of_positives, of_negatives = placements(target, probability)  # (K, P), (K, N - P)
    covariance = sum(np.atleast_2d(np.cov(v)) / v.shape[1] for v in (of_positives, of_negatives))
    return of_positives.mean(axis=1), covariance


def auc_interval(target: np.ndarray, probability: np.ndarray) -> Interval:
    """AUC with DeLong's interval on the logit scale, which never leaves [0, 1].

    With full separation (AUC 0 or 1) the variance is 0 and not informative. The open side is then bounded by
    the k = min(positives, negatives) independent pairs: if the true AUC were below 0.025**(1 / k), all k pairs would be
    ordered correctly with a probability below 2.5 %. With ten positives among 60 scans it covers 93 to 95 %
    (benchmarks/coverage.py).
    """
    target, probability = checked(target, probability)
    areas, covariance = delong_covariance(target, probability)
    return area_interval(target, float(areas[0]), float(np.sqrt(covariance[0, 0])), np.inf)


def compare_auc(target: np.ndarray, probability_a: np.ndarray, probability_b: np.ndarray) -> Difference:
    """Paired DeLong test of two predictors on the same scans.

    Predictors that rank all scans alike have a difference of 0 with variance 0: p is 1. A difference other
    than 0 with variance 0 (AUC 1 against 0) has p 0, as in pROC.
    """
    both = np.stack([checked(target, probability)[1] for probability in (probability_a, probability_b)])
    areas, covariance = delong_covariance(target, both)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return difference_of(float(areas[0] - areas[1]), float(np.sqrt(max(variance, 0.0))), np.inf)


def difference_interval(difference: Difference, *, level: float) -> Interval:
    """Interval of a difference at another level, from its standard error and degrees of freedom."""
    return Interval(*difference_of(difference.difference, difference.error, difference.freedom, level)[:3])


def equivalence(difference: Difference, *, margin: float) -> float:
    """p value of two one-sided t tests (TOST): small means that the true difference lies within +-`margin`.

    It is below 5 % exactly where the 90 % interval lies inside the margin, the largest difference that is too small to
    matter. A large p value does not show a difference.

    Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657-680.
    """
    if not margin > 0:
        raise ValueError(f"`margin` must be above 0. Found {margin}.")
    room = margin - abs(difference.difference)
    if difference.error < MIN_ERROR:
        return float(room <= 0)
    return float(stats.t.sf(room / difference.error, difference.freedom))


def placements(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per positive, the share of negatives below it (K, P); per negative, of positives above it (K, N - P)."""
    positive = target == 1
    ranks = stats.rankdata(probability, axis=1)
    above = [ranks[:, own] - stats.rankdata(probability[:, own], axis=1) for own in (positive, ~positive)]
    return above[0] / np.sum(~positive), 1 - above[1] / np.sum(positive)


def area_interval(target: np.ndarray, area: float, error: float, freedom: float) -> Interval:
    """Interval of an AUC on the logit scale; with full separation the bound that `auc_interval` documents."""
    if area in (0.0, 1.0):
        bound = ((1 - LEVEL) / 2) ** (1 / min(target.sum(), (1 - target).sum()))
        return Interval(area, float(bound) if area else 0.0, 1.0 if area else float(1 - bound))
    return logit_interval(area, error, freedom)


def logit_interval(value: float, error: float, freedom: float) -> Interval:
    """Interval of a value inside (0, 1), symmetric on the logit scale."""
    if error < MIN_ERROR:
        return Interval(value, value, value)
    half_width = quantile_of(freedom) * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half_width, half_width]))
    return Interval(value, float(low), float(high))


def difference_of(difference: float, error: float, freedom: float, level: float = LEVEL) -> Difference:
    """Interval and p value of a difference from its standard error; if that is 0, p is 1 for no difference, else 0."""
    quantile = quantile_of(freedom, level)
    if error < MIN_ERROR:
        return Difference(difference, difference, difference, float(abs(difference) < MIN_ERROR), 0.0, freedom)
    low, high = np.clip([difference - quantile * error, difference + quantile * error], -1, 1)
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Difference(difference, float(low), float(high), p, error, freedom)


def quantile_of(freedom: float, level: float = LEVEL) -> float:
    """Half-width of a two-sided t interval in standard errors; normal with infinite degrees of freedom."""
    if not 0 < level < 1:
        raise ValueError(f"`level` must be inside (0, 1). Found {level}.")
    share = (1 + level) / 2
    return float(ndtri(share) if np.isinf(freedom) else stdtrit(freedom, share))


def check_two_of_each(target: np.ndarray) -> None:
    """Raise a ValueError without two scans of each class."""
    n_positives, n_negatives = int(np.sum(target == 1)), int(np.sum(target == 0))
    if min(n_positives, n_negatives) < 2:
        raise ValueError(
            f"An interval needs two scans of each class. Found {n_positives} positive and {n_negatives} negative scans."
        )


def checked_binary(name: str, values: np.ndarray, *, n_scans: int) -> np.ndarray:
    """Values as float64, (N,), after a check that each is 0 or 1."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n_scans,):
        raise ValueError(f"`{name}` must have one value per scan, {n_scans} in all. Found shape {values.shape}.")
    wrong = values[~np.isin(values, (0, 1))]
    if wrong.size:
        raise ValueError(f"`{name}` must be 0 or 1, unknown scans left out. Found {wrong[:3].tolist()}.")
    return values


def checked_rows(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Target (N,) and probability (K, N) as float64, after every check that a metric needs."""
    target = checked_binary("target", target, n_scans=np.size(target))
    probability = np.atleast_2d(np.asarray(probability, dtype=np.float64))
    if probability.ndim != 2 or probability.shape[1] != target.size:
        raise ValueError(
            f"`probability` must have one value per scan, {target.size} in all. Found shape {probability.shape}."
        )
    wrong = probability[~((probability >= 0) & (probability <= 1))]
    if wrong.size:
        raise ValueError(f"`probability` must be numbers in [0, 1]. Found {wrong.size} others, first {wrong[0]}.")
    n_positives = int(target.sum())
    if n_positives in (0, target.size):
        raise ValueError(
            f"Both classes are required. Found {n_positives} positive and {target.size - n_positives} negative scans."
        )
    return target, probability


def checked(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`checked_rows` for one predictor, (N,)."""
    target, rows = checked_rows(target, probability)
    if np.ndim(probability) != 1:
        raise ValueError(f"`probability` must be of one predictor, (N,). Found shape {np.shape(probability)}.")
    return target, rows[0]
