"""Metrics of one run, each with its interval."""

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from lungmtl.evidence.areas import Interval, area_interval, auc, auc_interval, checked, logit_interval, quantile_of
from lungmtl.evidence.resampling import area_of, weighted_negatives

SPECIFICITIES = (0.90, 0.95)  # at which sensitivity is reported


def scores(predictions: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    """Score a run's predictions.

    Args:
        predictions: One row per scan and task: split, task, target (NaN = unknown), probability.
    Returns:
        split to task to auc, low, high (95 %, DeLong), n and positives of known labels. The AUC is NaN if the split has
        one class or no known label, the interval also if a class has one scan; the counts tell which.
    """
    table: dict[str, dict[str, dict[str, float]]] = {}
    for (split, task), rows in predictions.groupby(["split", "task"], sort=False):
        known = rows.dropna(subset=["target"])
        table.setdefault(split, {})[task] = _score(known["target"].to_numpy(), known["probability"].to_numpy())
    return table


def run_scores(
    target: np.ndarray, probability: np.ndarray, patient: np.ndarray, weight: np.ndarray
) -> dict[str, Interval]:
    """Metrics of one run with 95 % intervals, all from the same draws of patients.

    They are auc, average_precision, brier, sensitivity_at_90 and sensitivity_at_95 (`SPECIFICITIES`). AUC and average
    precision (step-wise area under the precision-recall curve): standard deviation of the replicates, on the logit
    scale. Both hold for test sets with this prevalence, on which average precision depends; its t quantile has one
    degree of freedom less than there are positives. Brier score: `brier_interval`. Sensitivity: in every replicate two
    scans called positive and two not are added to the positives (Agresti-Coull), and the interval is the normal one
    from mean and standard deviation of the replicates; unlike percentiles it does not vanish near 1. With ten positives
    these intervals cover 91 to 97 % (benchmarks/coverage.py).

    `weight` is what `patient_weights` returns for these scans, (N, R).

    Source: Zhou & Qin 2005, Statistics in Medicine 24:465-477 (BTII, for sensitivity at a given specificity); Boyd et
    al. 2013, ECML PKDD, LNCS 8190:451-466 (logit scale for average precision).
    """
    target, probability = checked(target, probability)
    areas, precisions, sensitivities = _weighted_scores(target, probability, weight)
    of = (target, probability)
    precision = float(sklearn_metrics.average_precision_score(*of))
    found = {
        "auc": area_interval(target, auc(*of), float(areas.std(ddof=1)), np.inf),
        "average_precision": area_interval(target, precision, float(precisions.std(ddof=1)), target.sum() - 1),
        "brier": brier_interval(*of, patient),
    }
    for share, draws in zip(SPECIFICITIES, sensitivities, strict=True):
        value = sensitivity_at_specificity(*of, specificity=share)
        found[f"sensitivity_at_{100 * share:.0f}"] = _adjusted_rate(value, draws, target.sum())
    return found


def brier_interval(target: np.ndarray, probability: np.ndarray, patient: np.ndarray) -> Interval:
    """Brier score with the 95 % interval of a mean over patients: for newly sampled scans and prevalence.

    The score is the mean squared distance of probability and target, 0 is perfect. The interval is on the logit scale,
    because a few scans with large errors skew the distribution of the mean.
    """
    target, probability = checked(target, probability)
    squared = (target - probability) ** 2
    _, index = np.unique(patient, return_inverse=True)
    residual = np.bincount(index, weights=squared - squared.mean())  # (patients,), sums to 0
    n_patients = len(residual)
    error = np.sqrt(n_patients / max(n_patients - 1, 1) * np.sum(residual**2)) / target.size
    return logit_interval(float(squared.mean()), error, n_patients - 1)


def sensitivity_at_specificity(target: np.ndarray, probability: np.ndarray, *, specificity: float) -> float:
    """Highest sensitivity of any threshold whose specificity is at least the one asked for."""
    if not 0 < specificity < 1:
        raise ValueError(f"`specificity` must be inside (0, 1). Found {specificity}.")
    false_positive_rate, sensitivity, _ = _roc(target, probability)
    return float(sensitivity[false_positive_rate <= 1 - specificity + 1e-12].max())


def roc_curve(target: np.ndarray, probability: np.ndarray, *, false_positive_rate: np.ndarray) -> np.ndarray:
    """Sensitivity at the given false positive rates, linear between the points of the curve.

    Where the curve is vertical, its upper end is returned.
    """
    rates, sensitivity, _ = _roc(target, probability)
    return np.interp(false_positive_rate, rates, sensitivity)


def youden_threshold(target: np.ndarray, probability: np.ndarray) -> float:
    """Threshold with the largest sensitivity + specificity - 1, to be taken from validation scans only.

    A scan is called positive if its probability is at least the threshold. The threshold is one of the
    given probabilities, the highest of equally good ones.
    """
    false_positive_rate, sensitivity, threshold = _roc(target, probability)
    best = np.argmax((sensitivity - false_positive_rate)[1:])  # the first threshold is infinite
    return float(threshold[1:][best])


def _roc(target: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """False positive rate, sensitivity and threshold of every point of the curve."""
    return sklearn_metrics.roc_curve(*checked(target, probability), drop_intermediate=False)


def _score(target: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    counts = {"n": len(target), "positives": int(target.sum())}
    fewest = min(counts["positives"], counts["n"] - counts["positives"])
    value = auc(target, probability) if fewest else np.nan
    interval = auc_interval(target, probability) if fewest > 1 else (value, np.nan, np.nan)
    return dict(zip(("auc", "low", "high"), interval, strict=True)) | counts


def _weighted_scores(
    target: np.ndarray, probability: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUC (R,), average precision (R,) and sensitivity at each of `SPECIFICITIES` (2, R) in every replicate."""
    drawn, below, not_above, n_negatives = weighted_negatives(target, probability, weight)
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
    return area_of(drawn, below, not_above, n_negatives), precisions, np.stack(sensitivities)


def _adjusted_rate(value: float, draws: np.ndarray, n_positives: float) -> Interval:
    quantile = quantile_of(np.inf)
    adjusted = (draws * n_positives + quantile**2 / 2) / (n_positives + quantile**2)
    middle, half_width = adjusted.mean(), quantile * adjusted.std(ddof=1)
    low, high = np.clip([middle - half_width, middle + half_width], 0, 1)
    return Interval(value, float(min(low, value)), float(max(high, value)))
