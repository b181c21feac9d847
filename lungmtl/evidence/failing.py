"""Intervals that allow for seeds which do not learn: few seeds say little about how often that happens.

If one training in five fails, one study of five seeds in three shows no failure, and an interval from the variance of
its seeds is then too narrow. Here the mean over all trainings is split into the mean of those that learn, the share of
those that do not, and how far these lie below. Each is drawn from its fiducial distribution, given the seeds.

No such interval can cover exactly 95 % at every share of failures: S seeds show one of S + 1 counts of failures, and
the interval holds the truth after some of these counts and not after others. With four seeds and 5 % of failures, one
that holds it after no failure covers 81 %, and one that holds it after one failure too covers 99 %. So this interval
covers about 95 % on average over shares (Jeffreys' prior), and more or less at a given share; results/coverage, by
benchmarks/coverage.py, has the figures, from which the report derives its warning.

Sources: Hannig et al. 2016, JASA 111:1346-1361 (fiducial intervals); Brown, Cai & DasGupta 2001, Statistical Science
16:101-133 (Jeffreys' beta distribution for a share).
"""

import numpy as np

from lungmtl.evidence.areas import Difference, Interval
from lungmtl.evidence.resampling import Areas, mean_auc, mean_difference

DRAWS = 4000  # chosen by us: leaves 0.3 % error in the level of a limit
LEVELS = (0.025, 0.975)
CHANCE = 0.5  # AUC that a network which learnt nothing has


def allowing_mean(target: np.ndarray, areas: Areas, learnt: np.ndarray, *, bound: float) -> Interval:
    """Mean AUC with an interval that allows for seeds which do not learn.

    Args:
        target: As for `mean_auc`.
        areas: Of S runs, S at least 2.
        learnt: Whether each learnt, bool (S,).
        bound: AUC that separates runs that learnt from those that did not; with fewer than two runs on a side, its mean
            may lie anywhere between `CHANCE` and `bound`, or between `bound` and 1.
    """
    value, draws = mean_auc(target, areas).value, _means(areas, learnt, bound, np.random.default_rng(0))
    low, high = np.clip(np.quantile(draws, LEVELS), 0, 1)
    return Interval(value, min(value, float(low)), max(value, float(high)))


def allowing_difference(a: Areas, b: Areas, learnt_a: np.ndarray, learnt_b: np.ndarray, *, bound: float) -> Difference:
    """Mean AUC difference a - b, paired by scan and seed, that allows for seeds which do not learn.

    Seeds that learnt on both sides give the difference of trainings that learn; each side is lowered by the share of
    its trainings that fail, times what these lose. The p value is twice the smaller tail of the draws.
    """
    plain, generator = mean_difference(a, b), np.random.default_rng(0)
    both = np.flatnonzero(learnt_a & learnt_b)
    if len(both) > 1:
        draws = _centre((a - b).of(both), generator)
        draws = draws - _loss(a, learnt_a, bound, generator) + _loss(b, learnt_b, bound, generator)
    else:
        draws = _means(a, learnt_a, bound, generator) - _means(b, learnt_b, bound, generator)
    low, high = np.clip(np.quantile(draws, LEVELS), -1, 1)
    p = 2 * (1 + min(np.sum(draws <= 0), np.sum(draws >= 0))) / (1 + DRAWS)
    limits = {"low": min(plain.difference, float(low)), "high": max(plain.difference, float(high))}
    return plain._replace(**limits, p=float(min(p, 1)))


def _means(areas: Areas, learnt: np.ndarray, bound: float, generator: np.random.Generator) -> np.ndarray:
    """Draws of the mean over all trainings."""
    if learnt.sum() > 1:
        return _centre(areas.of(np.flatnonzero(learnt)), generator) - _loss(areas, learnt, bound, generator)
    if (~learnt).sum() > 1:
        return _centre(areas.of(np.flatnonzero(~learnt)), generator) - _loss(areas, ~learnt, bound, generator, -1)
    return _centre(areas, generator)


def _centre(areas: Areas, generator: np.random.Generator) -> np.ndarray:
    """Draws of a mean over seeds."""
    error, freedom = areas.error()
    return areas.by_set().value.mean() + error * generator.standard_t(min(freedom, 1e6), DRAWS)


def _loss(areas: Areas, usual: np.ndarray, bound: float, generator: np.random.Generator, side: int = 1) -> np.ndarray:
    """Draws of what the other trainings take from the mean of the usual ones: their share times their distance."""
    share = generator.beta((~usual).sum() + 0.5, usual.sum() + 0.5, DRAWS)
    others = areas.value[~usual]
    span = (CHANCE, bound) if side == 1 else (bound, 1.0)
    if len(others) > 1:
        noise = generator.standard_t(len(others) - 1, DRAWS)
        mean = others.mean() + others.std(ddof=1) / np.sqrt(len(others)) * noise
    else:
        mean = generator.uniform(*span, DRAWS)
    return share * (areas.value[usual].mean() - mean)
