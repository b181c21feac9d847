"""Tables of AUCs: mean over seeds, ensembles, every metric of every run, ROC and reliability curves.

Every run counts once; every table gives the number of scans and seeds behind a row and the name of its interval.
If a split has fewer than two patients of a class, the numbers that need them are NaN (blank in the csv).
"""

from contextlib import suppress
from itertools import chain

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import COUNTS, ENDS, Scans, bootstrapped, named, of_task, scans_of
from lungmtl.evidence import auc_interval, calibration, rate, reliability, roc_curve, run_scores

FEWER = 400  # chosen by us: replicates of tables with many intervals; their standard error is off by 3.5 %
ROC_POINTS = 101  # chosen by us: steps of 0.01 of the false positive rate
CALIBRATION = ("calibration_slope", "calibration_intercept")
RUN_METRICS = ("average_precision", "brier", *CALIBRATION, "sensitivity_at_90", "sensitivity_at_95")
RUN_COLUMNS = (
    *("experiment", "seed", "task", "auc", "low", "high", "bootstrap_low", "bootstrap_high"),
    *(f"{name}{end}" for name in RUN_METRICS for end in ENDS),
    *("threshold", *(f"{name}{end}" for name in ("sensitivity", "specificity") for end in ENDS), *COUNTS),
)


def auc_table(predictions: pd.DataFrame, *, replicates: int, seed: int) -> pd.DataFrame:
    """Mean test AUC over seeds of every experiment and task, with the interval of `evidence.mean_auc`.

    Returns:
        experiment, task, auc, low, high, interval, seed_sd (standard deviation of single runs; NaN with one), n_seeds,
        n, positives, unknown (scans without a label).
    """
    rows = []
    for (experiment, task), scans in bootstrapped(scans_of(predictions, "test"), replicates, seed).items():
        rows.append({"experiment": experiment, "task": task} | scans.mean_auc._asdict() | scans.about)
        if scans.areas and len(scans.seeds) > 1:
            rows[-1]["seed_sd"] = float(scans.areas.value.std(ddof=1))
    columns = ["experiment", "task", "value", "low", "high", "interval", "seed_sd", "n_seeds", *COUNTS]
    return pd.DataFrame(rows, columns=columns).rename(columns={"value": "auc"})


def ensemble_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """AUC of the mean probability over seeds, and the mean AUC of single runs.

    The ensemble is one predictor, so its interval is over patients only. It does not include the variance between
    ensembles of other seeds.

    Returns:
        experiment, auc, low, high, interval, mean_auc (of single runs), n_seeds, n, positives, unknown.
    """
    groups = of_task(predictions, "test", task)
    ensembles = bootstrapped({name: scans.ensemble for name, scans in groups.items()}, replicates, seed)
    rows = [
        {"experiment": name, "mean_auc": scans.mean_of_runs, **ensembles[name].mean_auc._asdict()}
        | ensembles[name].about
        | {"n_seeds": len(scans.seeds)}
        for name, scans in groups.items()
    ]
    columns = ["experiment", "value", "low", "high", "interval", "mean_auc", "n_seeds", *COUNTS]
    return pd.DataFrame(rows, columns=columns).rename(columns={"value": "auc"})


def run_table(predictions: pd.DataFrame, *, replicates: int, seed: int) -> pd.DataFrame:
    """Every metric of every run and task; sensitivity and specificity at the run's own validation threshold.

    Intervals are 95 %: AUC `low`, `high` DeLong on the logit scale; `bootstrap_*`, average precision and
    `sensitivity_at_*` stratified patient bootstrap, one set of draws for all (at most `FEWER` replicates); Brier
    score over patients; calibration cluster-robust; sensitivity and specificity at the threshold Wilson, with
    the threshold taken as fixed.

    Returns:
        `RUN_COLUMNS`; sensitivity_at_90 and _95 are at percent specificity.
    """
    validation = scans_of(predictions, "validation")
    rows = []
    for (experiment, task), scans in scans_of(predictions, "test").items():
        for one in (scans.of([run_seed]) for run_seed in scans.seeds):
            threshold = validation[experiment, task].of(one.seeds).threshold
            rows.append({"experiment": experiment, "seed": one.seeds[0], "task": task, "threshold": threshold})
            if one.has_both:
                rows[-1] |= _scores(one, one.weights(min(replicates, FEWER), seed)) | _rates(one, threshold)
            rows[-1] |= one.counts
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def roc_table(predictions: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """ROC curve of every run on test scans, at `ROC_POINTS` false positive rates: sensitivity by linear interpolation.

    Returns:
        experiment, seed, false_positive_rate, sensitivity.
    """
    grid = np.linspace(0, 1, ROC_POINTS)
    rows = [
        (experiment, seed, *point)
        for experiment, scans in of_task(predictions, "test", task).items()
        if scans.has_both
        for seed, values in zip(scans.seeds, scans.probability, strict=True)
        for point in zip(grid, roc_curve(scans.target, values, false_positive_rate=grid), strict=True)
    ]
    return pd.DataFrame(rows, columns=["experiment", "seed", "false_positive_rate", "sensitivity"])


def reliability_table(predictions: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """Reliability curve of every experiment: share of positives by predicted probability, in ten bins of equal count.

    The predictions of all seeds are pooled (`evidence.reliability`), because calibration is a property of a single
    network; the mean over seeds is another, less extreme predictor. The band counts patients, not predictions.

    Returns:
        experiment, predicted (mean of the bin), observed, low, high (95 % Wilson), n (different scans in the bin),
        n_effective (independent patients that the band assumes), n_seeds.
    """
    rows = [
        (name, *found, len(scans.seeds))
        for name, scans in of_task(predictions, "test", task).items()
        if scans.has_both
        for found in reliability(scans.target, scans.probability, scans.patient)
    ]
    columns = ["experiment", "predicted", "observed", "low", "high", "n", "n_effective", "n_seeds"]
    return pd.DataFrame(rows, columns=columns)


def _scores(scans: Scans, weight: np.ndarray) -> dict[str, float]:
    """Metrics of one run; no calibration if its slope is not finite."""
    arrays = scans.target, scans.probability[0]
    found = run_scores(*arrays, scans.patient, weight)
    found["bootstrap"] = found.pop("auc")
    auc, low, high = auc_interval(*arrays)
    with suppress(ValueError):
        found |= dict(zip(CALIBRATION, calibration(*arrays, scans.patient), strict=True))
    columns = (named(name, interval).items() for name, interval in found.items())
    return {"auc": auc, "low": low, "high": high} | dict(chain.from_iterable(columns))


def _rates(scans: Scans, threshold: float) -> dict[str, float]:
    """Sensitivity and specificity at a threshold; empty without one."""
    if np.isnan(threshold):
        return {}
    called = scans.mean >= threshold
    positives, negatives = called[scans.target == 1], ~called[scans.target == 0]
    sensitivity, specificity = (rate(int(right.sum()), len(right)) for right in (positives, negatives))
    return named("sensitivity", sensitivity) | named("specificity", specificity)
