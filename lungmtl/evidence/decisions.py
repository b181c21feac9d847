"""Decisions and shares: McNemar's test, Wilson's interval, Holm's adjustment."""

from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from lungmtl.evidence.areas import Interval, checked_binary


class McNemar(NamedTuple):
    """Scans that only one of two decisions gets right, and the exact two-sided p value."""

    only_a_right: int
    only_b_right: int
    p: float


def mcnemar_exact(target: np.ndarray, decision_a: np.ndarray, decision_b: np.ndarray) -> McNemar:
    """Exact (binomial) McNemar test: do two sets of decisions on the same scans err equally often?

    A decision is 0 or 1, (N,): whether the probability is at or above the threshold.
    """
    n_scans = np.size(target)
    target = checked_binary("target", target, n_scans=n_scans)
    right_a = checked_binary("decision_a", decision_a, n_scans=n_scans) == target
    right_b = checked_binary("decision_b", decision_b, n_scans=n_scans) == target
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    p = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values over one family of comparisons, in the order given."""
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        raise ValueError(f"p values must be a list of numbers in [0, 1]. Found {p_values.tolist()}.")
    return multipletests(p_values, method="holm")[1] if p_values.size else p_values


def rate(hits: float, n_scans: float, *, level: float = 0.95) -> Interval:
    """Share of scans with Wilson's interval; NaN without a scan.

    Source: Wilson 1927, JASA 22:209-212.
    """
    if not n_scans:
        return Interval(np.nan, np.nan, np.nan)
    low, high = proportion_confint(hits, n_scans, alpha=1 - level, method="wilson")
    share = float(hits / n_scans)
    return Interval(share, min(float(low), share), max(float(high), share))  # bounds at 0 and 1 are off by rounding
