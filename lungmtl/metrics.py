"""Metrics: AUC, intervals and paired tests; arrays in, numbers out.

`target` is 0 or 1 with one value per scan (N,), `probability` lies in [0, 1] in the same order. Several
runs of one experiment (one per seed) are rows of `probability` (S, N). Unknown labels are left out by the
caller. Everything is float64; ties count one half. Intervals are two-sided, 95 % unless `level` says else.

Sources:
    DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845; in O(n log n) through midranks: Sun & Xu
    2014, IEEE Signal Processing Letters 21:1389-1393. Referee: R pROC, tests/data/proc_reference.R.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import statsmodels.api as sm
from scipy import stats
from scipy.special import expit, logit, nctdtrinc, ndtri, stdtrit
from sklearn import metrics as sklearn_metrics
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

MIN_PROBABILITY = 1e-6  # chosen by us: stored predictions have six digits, so a logit beyond this is rounding
MIN_ERROR = 1e-10  # chosen by us: a standard error below this is rounding of 0
FREEDOM_POWER = 1.5  # chosen by us: Satterthwaite's 2 takes the few seeds' own variance for the true one and covers 1 %
# less; with three seeds that outweigh the patients 92 to 94 % remain, with five 95 % (benchmarks/coverage.py)
MAX_FREEDOM = 1e6  # stands for endless degrees of freedom: the t quantile is the normal one to six digits
SPECIFICITIES = (0.90, 0.95)  # at which sensitivity is given


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


class Areas(NamedTuple):
    """AUC of S runs on the same scans (S,), and of every run in every bootstrap replicate (S, R)."""

    value: np.ndarray
    draws: np.ndarray

    def of(self, rows: Sequence[int]) -> "Areas":
        """The same of these runs only."""
        return Areas(self.value[rows], self.draws[rows])


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


class RunScores(NamedTuple):
    """Metrics of one run, each with its interval."""

    auc: Interval
    average_precision: Interval
    brier: Interval
    sensitivity_at_90: Interval
    sensitivity_at_95: Interval


class ReliabilityBin(NamedTuple):
    """Mean probability of a bin, the share of positives in it with its interval, and the scans it holds."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int
    n_effective: float


class McNemar(NamedTuple):
    """Scans that only one of two decisions gets right, and the exact two-sided p value."""

    only_a_right: int
    only_b_right: int
    p: float


class Calibration(NamedTuple):
    """Slope (1 is perfect, below 1 is overconfident) and intercept (0 is perfect), each with its interval."""

    slope: Interval
    intercept: Interval


class HitRate(NamedTuple):
    """Share of N scans that were hit, the share that chance gives, and the one-sided p value of no more than chance."""

    hits: int
    n_scans: int
    rate: Interval
    chance: float
    p: float


def auc(target: np.ndarray, probability: np.ndarray) -> float:
    """Area under the ROC curve; a tie between a positive and a negative counts one half.

    Raises:
        ValueError: If one class is missing, or the arrays do not fit (as for every function here).
    """
    target, probability = _checked(target, probability)
    return float(_placements(target, probability[None])[0].mean())


def delong_covariance(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC of K predictors on the same scans and DeLong's covariance of them.

    Args:
        target: 0 or 1, (N,); at least two of each.
        probability: (K, N), in [0, 1].
    Returns:
        AUC (K,) and covariance (K, K). The variance is 0 where the classes are fully separated.
    """
    target, probability = _checked_rows(target, probability)
    _check_two_of_each(target)
    of_positives, of_negatives = _placements(target, probability)  # (K, P), (K, N - P)
    covariance = sum(np.atleast_2d(np.cov(v)) / v.shape[1] for v in (of_positives, of_negatives))
    return of_positives.mean(axis=1), covariance


def auc_interval(target: np.ndarray, probability: np.ndarray, *, level: float = 0.95) -> Interval:
    """AUC with DeLong's interval on the logit scale, which never leaves [0, 1].

    With full separation (AUC 0 or 1) the variance is 0 and says nothing. The open side is then bounded by
    the k = min(positives, negatives) independent pairs: were the true AUC below ((1 - level) / 2)**(1 / k),
    all k pairs would be in order with a chance of less than (1 - level) / 2. With ten positives among 60 scans the
    95 % interval covers 93 to 95 % (benchmarks/coverage.py).
    """
    target, probability = _checked(target, probability)
    areas, covariance = delong_covariance(target, probability)
    return _area_interval(target, float(areas[0]), float(np.sqrt(covariance[0, 0])), np.inf, level)


def scores(predictions: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Score a run's predictions.

    Args:
        predictions: One row per scan and task: split, task, target (NaN = not known), probability.
    Returns:
        split to task to auc, low, high (95 %, DeLong), n and positives of known labels; an AUC that a split with one
        class does not have is NaN, and so is the interval where a class has one scan: the counts say why.
    """
    known = predictions.dropna(subset=["target"])
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (split, task), rows in known.groupby(["split", "task"], sort=False):
        table.setdefault(split, {})[task] = _score(rows["target"].to_numpy(), rows["probability"].to_numpy())
    return table


def compare_auc(
    target: np.ndarray, probability_a: np.ndarray, probability_b: np.ndarray, *, level: float = 0.95
) -> Difference:
    """Paired DeLong test of two predictors on the same scans.

    Predictors that rank all scans alike have a difference of 0 with variance 0: p is 1. A difference other
    than 0 with variance 0 (AUC 1 against 0) has p 0, as in pROC.
    """
    target, probability_a = _checked(target, probability_a)
    target, probability_b = _checked(target, probability_b)
    areas, covariance = delong_covariance(target, np.stack([probability_a, probability_b]))
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    return _difference(float(areas[0] - areas[1]), float(np.sqrt(max(variance, 0.0))), np.inf, level)


def bootstrap_auc(
    target: np.ndarray,
    probability: np.ndarray,
    patient: np.ndarray,
    *,
    replicates: int = 2000,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Mean AUC over the runs of one experiment, with an interval over patients and, if several runs, seeds.

    One run: every replicate draws patients with replacement, stratified by class, and the deviation of the replicates
    is the standard error. S runs: to the covariance of the replicates between seeds comes the variance between seeds
    (`variance_parts`), so the interval covers other patients and other seeds. Variance between seeds is never taken
    smaller than the luck that single seeds have with these scans, which the replicates show. The interval is on the
    logit scale, with a t quantile whose degrees of freedom are S - 1 where seeds are all that varies and grow with
    the patients' share (`FREEDOM_POWER`): with three seeds that outweigh the patients 95 % are 92 to 94.

    Args:
        target: 0 or 1, (N,).
        probability: (N,) or one row per seed (S, N), in [0, 1].
        patient: (N,); the scans of a patient are drawn together.
        replicates: Number of bootstrap replicates R.
        seed: Seeds the draws; the same seed draws the same patients for every predictor.
        level: Coverage of the interval.

    Source: Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.2 (strata); Searle, Casella &
    McCulloch 1992, Variance Components, chapter 3 (parts of a variance). Coverage: benchmarks/coverage.py.
    """
    weight = patient_weights(target, patient, replicates=replicates, seed=seed)
    return mean_auc(target, bootstrap_areas(target, probability, weight), level=level)


def bootstrap_difference(
    target: np.ndarray,
    probability_a: np.ndarray,
    probability_b: np.ndarray,
    patient: np.ndarray,
    *,
    replicates: int = 2000,
    seed: int,
    level: float = 0.95,
) -> Difference:
    """Mean AUC difference, paired by scan and by seed: interval and p value of the bootstrap of `bootstrap_auc`.

    Args:
        target: 0 or 1, (N,).
        probability_a: (N,) or (S, N); row s of a and of b come from the same seed.
        probability_b: The same shape.
        patient: (N,); the scans of a patient are drawn together.
        replicates: Number of bootstrap replicates R.
        seed: Seeds the draws.
        level: Coverage of the interval.
    """
    if np.shape(probability_a) != np.shape(probability_b):
        raise ValueError(
            "A paired comparison needs the same seeds and scans on both sides. "
            f"Found shapes {np.shape(probability_a)} and {np.shape(probability_b)}."
        )
    weight = patient_weights(target, patient, replicates=replicates, seed=seed)
    a, b = (bootstrap_areas(target, probability, weight) for probability in (probability_a, probability_b))
    return mean_difference(a, b, level=level)


def patient_weights(target: np.ndarray, patient: np.ndarray, *, replicates: int, seed: int) -> np.ndarray:
    """How often every scan is drawn in every replicate, (N, R): once for all predictors of the same scans.

    Args:
        target: 0 or 1, (N,); at least two of each.
        patient: (N,); the scans of a patient are drawn together, patients with a positive scan are one stratum.
        replicates: Number of bootstrap replicates R, at least 100.
        seed: Seeds the draws.
    """
    target = _checked_binary("target", target, n_scans=np.size(target))
    if replicates < 100:
        raise ValueError(f"A bootstrap standard error needs at least 100 replicates. Found {replicates}.")
    _check_two_of_each(target)
    return _patient_weights(target, np.asarray(patient), replicates, np.random.default_rng(seed))


def bootstrap_areas(target: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> Areas:
    """AUC of the runs of one experiment, (N,) or (S, N), on all scans and under the weights of every replicate."""
    target, probability = _checked_rows(target, probability)
    draws = np.stack([_weighted_auc(target, row, weight) for row in probability])
    return Areas(_placements(target, probability)[0].mean(axis=1), draws)


def mean_auc(target: np.ndarray, areas: Areas, *, level: float = 0.95) -> Interval:
    """Mean AUC over the runs of `areas`, with the interval of `bootstrap_auc`."""
    return _area_interval(np.asarray(target), float(areas.value.mean()), *_error(areas), level)


def mean_difference(a: Areas, b: Areas, *, level: float = 0.95) -> Difference:
    """Mean difference a - b over seeds, with the interval of `bootstrap_difference`."""
    areas = Areas(a.value - b.value, a.draws - b.draws)
    return _difference(float(areas.value.mean()), *_error(areas), level)


def difference_interval(difference: Difference, *, level: float) -> Interval:
    """Interval of a difference at another level, from its standard error and degrees of freedom."""
    again = _difference(difference.difference, difference.error, difference.freedom, level)
    return Interval(again.difference, again.low, again.high)


def equivalence(difference: Difference, *, margin: float) -> float:
    """p value of two one-sided t tests (TOST): small means that the true difference lies within +-`margin`.

    It is below 5 % exactly where the 90 % interval lies inside the margin. Large means not shown, not different.

    Args:
        difference: With its standard error and degrees of freedom.
        margin: Largest difference that is too small to matter, above 0.

    Source: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657-680.
    """
    if not margin > 0:
        raise ValueError(f"`margin` must be above 0. Found {margin}.")
    room = margin - abs(difference.difference)
    if difference.error < MIN_ERROR:
        return float(room <= 0)
    return float(stats.t.sf(room / difference.error, difference.freedom))


def variance_parts(values: np.ndarray, covariance: np.ndarray) -> VarianceParts:
    """Split the variance of a mean over S seeds that share their test scans.

    The value of seed s is mean + seed_s + scans + interaction_s: `seed_s` is the network of that seed on endless scans,
    `scans` the luck of these test scans that every seed shares, `interaction_s` the luck that only seed s has with
    them. Raw variance between seeds holds seed and interaction but not the scans, which are shared. Covariance over
    drawn patients holds scans plus interaction on its diagonal and scans alone beside it. Hence, without bias:
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


def run_scores(
    target: np.ndarray, probability: np.ndarray, patient: np.ndarray, weight: np.ndarray, *, level: float = 0.95
) -> RunScores:
    """Metrics of one run with intervals, all from the same draws of patients.

    AUC and average precision: deviation of the replicates, on the logit scale. Both are for test sets with this
    prevalence, which average precision depends on; its t quantile has as many degrees of freedom as positives but one.
    Brier score: `brier_interval`. Sensitivity: two scans called positive and two not are added to the positives
    (Agresti-Coull) in every replicate, and the interval is their mean and deviation; unlike percentiles it does
    not shrink to nothing near 1. With ten positives these intervals cover 91 to 97 % (benchmarks/coverage.py).

    Args:
        target: 0 or 1, (N,).
        probability: (N,), in [0, 1].
        patient: (N,).
        weight: As `patient_weights` returns it for these scans, (N, R).
        level: Coverage of the intervals.

    Source: Zhou & Qin 2005, Statistics in Medicine 24:465-477 (BTII, for sensitivity at a given specificity); Boyd et
    al. 2013, ECML PKDD, LNCS 8190:451-466 (logit scale for average precision).
    """
    target, probability = _checked(target, probability)
    areas, precisions, sensitivities = _weighted_scores(target, probability, weight)
    of = (target, probability)
    return RunScores(
        _area_interval(target, auc(*of), float(areas.std(ddof=1)), np.inf, level),
        _area_interval(target, average_precision(*of), float(precisions.std(ddof=1)), target.sum() - 1, level),
        brier_interval(*of, patient, level=level),
        *(
            _adjusted_rate(sensitivity_at_specificity(*of, specificity=share), draws, target.sum(), level)
            for share, draws in zip(SPECIFICITIES, sensitivities, strict=True)
        ),
    )


def average_precision(target: np.ndarray, probability: np.ndarray) -> float:
    """Average precision (step-wise area under the precision-recall curve); chance level is the prevalence."""
    target, probability = _checked(target, probability)
    return float(sklearn_metrics.average_precision_score(target, probability))


def brier(target: np.ndarray, probability: np.ndarray) -> float:
    """Brier score: mean squared distance of probability and target, 0 is perfect."""
    target, probability = _checked(target, probability)
    return float(sklearn_metrics.brier_score_loss(target, probability))


def brier_interval(
    target: np.ndarray, probability: np.ndarray, patient: np.ndarray, *, level: float = 0.95
) -> Interval:
    """Brier score with the interval of a mean over patients: of scans drawn anew, prevalence included.

    On the logit scale: a few scans with large errors make the mean's distribution skew.
    """
    target, probability = _checked(target, probability)
    squared = (target - probability) ** 2
    _, index = np.unique(patient, return_inverse=True)
    residual = np.bincount(index, weights=squared - squared.mean())  # (patients,), sums to 0
    n_patients = len(residual)
    error = np.sqrt(n_patients / max(n_patients - 1, 1) * np.sum(residual**2)) / target.size
    return _logit_interval(float(squared.mean()), error, _quantile(n_patients - 1, level))


def reliability(
    target: np.ndarray, probability: np.ndarray, patient: np.ndarray, *, n_bins: int = 10, level: float = 0.95
) -> list[ReliabilityBin]:
    """Reliability curve of the runs of one experiment: share of positives in bins of equal count.

    The predictions of all seeds are pooled, so the curve is that of one network, not of the (less extreme) mean over
    seeds. A scan that several seeds put into a bin counts that often in the share, but no more than once as
    evidence: the band is Wilson's with Kish's effective number of patients, (sum w)^2 / sum w^2, w being a patient's
    predictions in the bin. With one seed and one scan per patient that is Wilson's interval as it is; in a bin of six
    scans that expects no positive it covers anything between 91 and 100 %.

    Args:
        target: 0 or 1, (N,).
        probability: (N,) or (S, N), in [0, 1].
        patient: (N,).
        n_bins: Bins wanted; equal probabilities stay together, so there may be fewer.
        level: Coverage of the band, bin by bin.
    Returns:
        Bins in order of probability.

    Source: Wilson 1927, JASA 22:209-212; Kish 1965, Survey Sampling, section 11.7.
    """
    target, probability = _checked_rows(target, probability)
    edges = np.unique(np.quantile(probability, np.arange(1, n_bins) / n_bins, method="higher"))
    place = np.searchsorted(edges, probability, side="right")  # (S, N)
    _, index = np.unique(patient, return_inverse=True)
    return [_reliability_bin(target, probability, index, place == k, level) for k in np.unique(place)]


def _reliability_bin(
    target: np.ndarray, probability: np.ndarray, index: np.ndarray, inside: np.ndarray, level: float
) -> ReliabilityBin:
    times = inside.sum(axis=0)  # (N,): seeds that put the scan into the bin
    per_patient = np.bincount(index, weights=times)
    n_effective = times.sum() ** 2 / np.sum(per_patient**2)
    observed = rate(times @ target / times.sum() * n_effective, n_effective, level=level)
    return ReliabilityBin(float(probability[inside].mean()), *observed, int(np.sum(times > 0)), float(n_effective))


def rate(hits: float, n_scans: float, *, level: float = 0.95) -> Interval:
    """Share of scans with Wilson's interval; blank without a scan.

    Source: Wilson 1927, JASA 22:209-212.
    """
    if not n_scans:
        return Interval(np.nan, np.nan, np.nan)
    low, high = proportion_confint(hits, n_scans, alpha=1 - level, method="wilson")
    share = float(hits / n_scans)
    return Interval(share, min(float(low), share), max(float(high), share))  # the bound at 0 or 1 is off by rounding


def calibration(
    target: np.ndarray, probability: np.ndarray, patient: np.ndarray | None = None, *, level: float = 0.95
) -> Calibration:
    """Logistic recalibration: slope on the logit, and intercept with the slope fixed at 1.

    Probabilities are kept `MIN_PROBABILITY` away from 0 and 1. The intervals are of scans drawn anew, prevalence
    included, and allow for errors of the logistic form and for several scans of a patient (cluster-robust
    variance); without `patient` every scan is a patient.

    Raises:
        ValueError: If all probabilities are equal or the classes are fully separated (no finite slope).

    Source: Cox 1958, Biometrika 45:562-565; Van Calster et al. 2019, BMC Medicine 17:230.
    """
    target, probability = _checked(target, probability)
    area = auc(target, probability)
    if area in (0.0, 1.0) or np.ptp(probability) == 0:
        raise ValueError(
            "A calibration slope needs probabilities that differ and classes that overlap. "
            f"Found AUC {area:g} over {np.unique(probability).size} different probabilities."
        )
    logits = logit(np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    binomial = sm.families.Binomial()
    groups = np.arange(target.size) if patient is None else np.unique(patient, return_inverse=True)[1]
    robust = {"cov_type": "cluster", "cov_kwds": {"groups": groups}}
    with np.errstate(divide="ignore", invalid="ignore"):  # nearly separated classes: the interval is NaN
        slope = sm.GLM(target, sm.add_constant(logits, has_constant="add"), family=binomial).fit(**robust)
        intercept = sm.GLM(target, np.ones_like(logits), offset=logits, family=binomial).fit(**robust)
    return Calibration(
        Interval(float(slope.params[1]), *map(float, slope.conf_int(1 - level)[1])),
        Interval(float(intercept.params[0]), *map(float, intercept.conf_int(1 - level)[0])),
    )


def sensitivity_at_specificity(target: np.ndarray, probability: np.ndarray, *, specificity: float) -> float:
    """Highest sensitivity of any threshold whose specificity is at least the one asked for."""
    if not 0 < specificity < 1:
        raise ValueError(f"`specificity` must be inside (0, 1). Found {specificity}.")
    target, probability = _checked(target, probability)
    false_positive_rate, sensitivity, _ = sklearn_metrics.roc_curve(target, probability, drop_intermediate=False)
    return float(sensitivity[false_positive_rate <= 1 - specificity + 1e-12].max())


def roc_curve(target: np.ndarray, probability: np.ndarray, *, false_positive_rate: np.ndarray) -> np.ndarray:
    """Sensitivity at the given false positive rates, linear between the points of the curve.

    Where the curve rises at one rate, that is its upper end.
    """
    target, probability = _checked(target, probability)
    rates, sensitivity, _ = sklearn_metrics.roc_curve(target, probability, drop_intermediate=False)
    return np.interp(false_positive_rate, rates, sensitivity)


def youden_threshold(target: np.ndarray, probability: np.ndarray) -> float:
    """Threshold with the largest sensitivity + specificity - 1; call it on validation scans only.

    A scan is called positive if its probability is at least the threshold. The threshold is one of the
    given probabilities, of equally good ones the highest.
    """
    target, probability = _checked(target, probability)
    false_positive_rate, sensitivity, threshold = sklearn_metrics.roc_curve(
        target, probability, drop_intermediate=False
    )
    best = np.argmax((sensitivity - false_positive_rate)[1:])  # the first threshold is infinite: nobody is positive
    return float(threshold[1:][best])


def mcnemar_exact(target: np.ndarray, decision_a: np.ndarray, decision_b: np.ndarray) -> McNemar:
    """Exact (binomial) McNemar test: do two sets of decisions on the same scans err equally often?

    Args:
        target: 0 or 1, (N,).
        decision_a: 0 or 1, (N,): probability at or above the threshold of a.
        decision_b: The same for b.
    """
    n_scans = np.size(target)
    target = _checked_binary("target", target, n_scans=n_scans)
    right_a = _checked_binary("decision_a", decision_a, n_scans=n_scans) == target
    right_b = _checked_binary("decision_b", decision_b, n_scans=n_scans) == target
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    p = stats.binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    return McNemar(only_a, only_b, float(p))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values over one family of comparisons, in the order given."""
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1 or not np.all((p_values >= 0) & (p_values <= 1)):
        raise ValueError(f"p values must be a list of numbers in [0, 1]. Found {p_values.tolist()}.")
    return multipletests(p_values, method="holm")[1] if p_values.size else p_values


def touched_cells(mask: np.ndarray, *, cell: int) -> np.ndarray:
    """Cells of a network's feature grid that a mask touches: every input voxel belongs to the nearest feature voxel.

    Convolutions of size 3, stride 2 and padding 1 centre feature voxel i on input voxel `cell * i`. Its cell reaches
    half a cell to either side, so it is touched if its centre lies in the mask dilated by half a feature voxel; the
    last cell of an axis reaches to the end of the input.

    Args:
        mask: bool (Z, Y, X), on the network's input grid.
        cell: Input voxels per feature voxel along each axis.
    Returns:
        bool (z, y, x), the feature grid: the mask's shape by `cell`, rounded up.
    """
    shape = np.array([-(-n // cell) for n in mask.shape])
    nearest = np.minimum((np.argwhere(mask) + cell // 2) // cell, shape - 1)  # (voxels, 3)
    touched = np.zeros(shape, dtype=bool)
    touched[tuple(nearest.T)] = True
    return touched


def peak_inside(attention: np.ndarray, target: np.ndarray, lungs: np.ndarray, *, cell: int) -> tuple[bool, float]:
    """Does the highest voxel of an attention map touch the target, and how likely is that by chance?

    Args:
        attention: (z, y, x), the feature grid.
        target: bool (Z, Y, X), on the network's input grid, e.g. a nodule.
        lungs: bool (Z, Y, X).
        cell: Input voxels per feature voxel along each axis.
    Returns:
        The hit, and its chance for a peak drawn evenly from the cells that touch the lungs.
    Raises:
        ValueError: If shapes do not fit or there is no lung.
    """
    touched, inner = touched_cells(target, cell=cell), touched_cells(lungs, cell=cell)
    if not touched.shape == inner.shape == attention.shape:
        raise ValueError(
            f"`attention` must be the masks' shape by {cell}, rounded up. "
            f"Found {attention.shape} for {target.shape} and {lungs.shape}."
        )
    if not inner.any():
        raise ValueError("`lungs` must have a voxel in the grid. Found none.")
    peak = np.unravel_index(np.argmax(attention), attention.shape)
    return bool(touched[peak]), float((touched & inner).sum() / inner.sum())


def swapped_chance(attentions: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, cell: int) -> np.ndarray:
    """Chance of a hit with another scan's attention map: what knowing the usual place alone is worth.

    Args:
        attentions: N maps (z, y, x).
        targets: N masks, bool (Z, Y, X), on the network's input grid.
        cell: Input voxels per feature voxel along each axis.
    Returns:
        (N,), per scan the share of the other scans' peaks that touch its target.
    Raises:
        ValueError: If there are not two scans at least.
    """
    if len(attentions) != len(targets) or len(targets) < 2:
        raise ValueError(
            f"Swapping needs one map per target and two scans. Found {len(attentions)} maps, {len(targets)} targets."
        )
    peaks = [np.unravel_index(np.argmax(attention), attention.shape) for attention in attentions]
    touched = [touched_cells(target, cell=cell) for target in targets]
    hits = np.array([[cells[peak] for peak in peaks] for cells in touched], dtype=np.float64)  # (N targets, N maps)
    return (hits.sum(axis=1) - np.diag(hits)) / (len(targets) - 1)


def hit_rate(hit: np.ndarray, chance: np.ndarray, *, level: float = 0.95) -> HitRate:
    """Share of hits with Wilson's interval, against the mean chance of a hit.

    The p value is binomial with the mean chance; where chances differ between scans that is conservative, because
    their sum varies less than a binomial one.

    Args:
        hit: bool (N,), one per scan.
        chance: (N,), in [0, 1].
        level: Coverage of the interval.

    Source: Wilson 1927, JASA 22:209-212; Hoeffding 1956, Annals of Mathematical Statistics 27:713-721, theorem 4.
    """
    hit, chance = np.asarray(hit, dtype=bool), np.asarray(chance, dtype=np.float64)
    if hit.ndim != 1 or hit.shape != chance.shape or not hit.size:
        raise ValueError(f"There must be one hit and one chance per scan. Found {hit.shape} and {chance.shape}.")
    hits, n_scans, mean_chance = int(hit.sum()), hit.size, float(chance.mean())
    p = float(stats.binomtest(hits, n_scans, mean_chance, alternative="greater").pvalue)
    return HitRate(hits, n_scans, rate(hits, n_scans, level=level), mean_chance, p)


def _score(target: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    counts = {"n": len(target), "positives": int(target.sum())}
    fewest = min(counts["positives"], counts["n"] - counts["positives"])
    value = auc(target, probability) if fewest else np.nan
    interval = auc_interval(target, probability) if fewest > 1 else (value, np.nan, np.nan)
    return dict(zip(("auc", "low", "high"), interval, strict=True)) | counts


def _placements(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per positive, the share of negatives below it (K, P); per negative, of positives above it (K, N - P)."""
    positive = target == 1
    ranks = stats.rankdata(probability, axis=1)
    ranks_positive = stats.rankdata(probability[:, positive], axis=1)
    ranks_negative = stats.rankdata(probability[:, ~positive], axis=1)
    of_positives = (ranks[:, positive] - ranks_positive) / np.sum(~positive)
    of_negatives = 1 - (ranks[:, ~positive] - ranks_negative) / np.sum(positive)
    return of_positives, of_negatives


def _patient_weights(
    target: np.ndarray, patient: np.ndarray, replicates: int, generator: np.random.Generator
) -> np.ndarray:
    """How often every scan is drawn in every replicate, (N, R); patients with a positive scan are one stratum."""
    if patient.shape != target.shape:
        raise ValueError(f"`patient` must have one value per scan. Found {patient.size} for {target.size} scans.")
    patients, index = np.unique(patient, return_inverse=True)
    with_positive = np.bincount(index, weights=target) > 0
    counts = np.zeros((len(patients), replicates), dtype=np.float32)
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


def _weighted_auc(target: np.ndarray, probability: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """AUC of one predictor under the scan weights of every replicate, (R,)."""
    drawn, below, not_above, n_negatives = _weighted_negatives(target, probability, weight)
    return _area(drawn, below, not_above, n_negatives)


def _weighted_negatives(
    target: np.ndarray, probability: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights of positives from the highest probability down (P, R), of negatives below and not above each, of all.

    They are whole numbers, exact in float32, which halves the memory that the time goes into.
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


def _area(drawn: np.ndarray, below: np.ndarray, not_above: np.ndarray, n_negatives: np.ndarray) -> np.ndarray:
    pairs = below + not_above
    pairs *= drawn
    return pairs.sum(axis=0, dtype=np.float64) / (2 * drawn.sum(axis=0, dtype=np.float64) * n_negatives)


def _weighted_scores(
    target: np.ndarray, probability: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC (R,), average precision (R,) and sensitivity at each of `SPECIFICITIES` (2, R) in every replicate."""
    drawn, below, not_above, n_negatives = _weighted_negatives(target, probability, weight)
    falling = np.sort(-probability[target == 1])
    called = np.zeros((len(falling) + 1, weight.shape[1]), dtype=weight.dtype)
    np.cumsum(drawn, axis=0, out=called[1:])  # row i: weight of the i highest positives
    n_positives = called[-1].astype(np.float64)
    wrong = n_negatives.astype(weight.dtype) - below  # negatives at or above each positive
    allowed = [(1 - share + 1e-12) * n_negatives for share in SPECIFICITIES]
    n_called = [np.count_nonzero(wrong <= np.floor(limit).astype(weight.dtype), axis=0) for limit in allowed]
    sensitivities = [np.take_along_axis(called, n[None], axis=0)[0] / n_positives for n in n_called]
    hits = called[np.searchsorted(falling, falling, side="right")]  # positives at or above each positive
    wrong += hits
    np.maximum(wrong, 1, out=wrong)  # 0 only where nothing is drawn that high, which has weight 0
    precision = np.divide(hits, wrong, out=hits)
    precision *= drawn
    precisions = precision.sum(axis=0, dtype=np.float64) / n_positives
    return _area(drawn, below, not_above, n_negatives), precisions, np.stack(sensitivities)


def _adjusted_rate(value: float, draws: np.ndarray, n_positives: float, level: float) -> Interval:
    quantile = _quantile(np.inf, level)
    adjusted = (draws * n_positives + quantile**2 / 2) / (n_positives + quantile**2)
    middle, half_width = adjusted.mean(), quantile * adjusted.std(ddof=1)
    low, high = np.clip([middle - half_width, middle + half_width], 0, 1)
    return Interval(value, float(min(low, value)), float(max(high, value)))


def _error(areas: Areas) -> tuple[float, float]:
    """Standard error of the mean over seeds, and the degrees of freedom of its t quantile."""
    if len(areas.value) == 1:
        return float(areas.draws[0].std(ddof=1)), np.inf
    parts = variance_parts(areas.value, np.cov(areas.draws))
    return float(np.sqrt(parts.total)), parts.freedom


def _area_interval(target: np.ndarray, area: float, error: float, freedom: float, level: float) -> Interval:
    """Interval of an AUC on the logit scale; with full separation the bound that `auc_interval` documents."""
    quantile = _quantile(freedom, level)
    if area in (0.0, 1.0):
        bound = ((1 - level) / 2) ** (1 / min(target.sum(), (1 - target).sum()))
        return Interval(area, float(bound) if area else 0.0, 1.0 if area else float(1 - bound))
    return _logit_interval(area, error, quantile)


def _logit_interval(value: float, error: float, quantile: float) -> Interval:
    if error < MIN_ERROR:
        return Interval(value, value, value)
    half_width = quantile * error / (value * (1 - value))
    low, high = expit(logit(value) + np.array([-half_width, half_width]))
    return Interval(value, float(low), float(high))


def _difference(difference: float, error: float, freedom: float, level: float) -> Difference:
    quantile = _quantile(freedom, level)
    if error < MIN_ERROR:
        return Difference(difference, difference, difference, float(abs(difference) < MIN_ERROR), 0.0, freedom)
    low, high = np.clip([difference - quantile * error, difference + quantile * error], -1, 1)
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Difference(difference, float(low), float(high), p, error, freedom)


def _quantile(freedom: float, level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"`level` must be inside (0, 1). Found {level}.")
    share = (1 + level) / 2
    return float(ndtri(share) if np.isinf(freedom) else stdtrit(freedom, share))  # normal or t quantile


def _check_two_of_each(target: np.ndarray) -> None:
    n_positives, n_negatives = int(np.sum(target == 1)), int(np.sum(target == 0))
    if min(n_positives, n_negatives) < 2:
        raise ValueError(
            f"An interval needs two scans of each class. Found {n_positives} positive and {n_negatives} negative scans."
        )


def _checked_binary(name: str, values: np.ndarray, *, n_scans: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n_scans,):
        raise ValueError(f"`{name}` must have one value per scan, {n_scans} in all. Found shape {values.shape}.")
    wrong = values[~np.isin(values, (0, 1))]
    if wrong.size:
        raise ValueError(f"`{name}` must be 0 or 1, unknown scans left out. Found {wrong[:3].tolist()}.")
    return values


def _checked_rows(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Target (N,) and probability (K, N) as float64, after every check that a metric needs."""
    target = _checked_binary("target", target, n_scans=np.size(target))
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


def _checked(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same for one predictor, (N,)."""
    target, rows = _checked_rows(target, probability)
    if np.ndim(probability) != 1:
        raise ValueError(f"`probability` must be of one predictor, (N,). Found shape {np.shape(probability)}.")
    return target, rows[0]
