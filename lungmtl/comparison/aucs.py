"""Tables of AUCs: mean over seeds, ensembles, and every metric of every run.

Every run counts once, every table says how many scans and seeds stand behind a row and names its interval.
Where a split holds fewer than two patients of a class, the numbers that need them are NaN (blank in the csv).
"""

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import COUNTS, Draws, Scans, bootstrapped, interval_name, named, of_task, scans_of
from lungmtl.evidence import auc_interval, calibration, rate, run_scores

FEWER = 400  # chosen by us: replicates where many intervals are wanted; their deviation has an error of 3.5 %
CALIBRATION = ("calibration_slope", "calibration_intercept")
RUN_METRICS = ("average_precision", "brier", *CALIBRATION, "sensitivity_at_90", "sensitivity_at_95")
RUN_COLUMNS = (
    *("experiment", "seed", "task", "auc", "low", "high", "bootstrap_low", "bootstrap_high"),
    *(f"{name}{end}" for name in RUN_METRICS for end in ("", "_low", "_high")),
    *(
        "threshold",
        *(f"{name}{end}" for name in ("sensitivity", "specificity") for end in ("", "_low", "_high")),
        *COUNTS,
    ),
)


def auc_table(predictions: pd.DataFrame, *, replicates: int, seed: int, split: str = "test") -> pd.DataFrame:
    """Mean AUC over seeds of every experiment and task, with the interval of `evidence.mean_auc`.

    Returns:
        experiment, task, auc, low, high, interval, seed_sd (deviation of single runs; NaN with one), n_seeds, n,
        positives, unknown (scans of the split without a label).
    """
    rows = []
    for place, scans in bootstrapped(scans_of(predictions, split), replicates, seed).items():
        n_seeds = len(scans.seeds)
        seed_sd = float(scans.areas.value.std(ddof=1)) if scans.areas and n_seeds > 1 else np.nan
        rows.append((*place, *scans.mean_auc, interval_name(n_seeds), seed_sd, n_seeds, *scans.counts.values()))
    columns = ["experiment", "task", "auc", "low", "high", "interval", "seed_sd", "n_seeds"]
    return pd.DataFrame(rows, columns=[*columns, *COUNTS])


def ensemble_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """AUC of the mean probability over seeds, and the mean AUC of single runs.

    The ensemble is one predictor, so its interval is over patients only: another ensemble of as many seeds would
    differ, and nothing here says how much.

    Returns:
        experiment, auc, low, high, interval, mean_auc (of single runs), n_seeds, n, positives, unknown.
    """
    groups = of_task(predictions, "test", task)
    ensembles = bootstrapped({name: scans.ensemble for name, scans in groups.items()}, replicates, seed)
    rows = [
        (
            name,
            *ensembles[name].mean_auc,
            interval_name(1),
            scans.mean_of_runs,
            len(scans.seeds),
            *scans.counts.values(),
        )
        for name, scans in groups.items()
    ]
    columns = ["experiment", "auc", "low", "high", "interval", "mean_auc", "n_seeds", *COUNTS]
    return pd.DataFrame(rows, columns=columns)


def run_table(predictions: pd.DataFrame, *, replicates: int, seed: int, split: str = "test") -> pd.DataFrame:
    """Every metric of every run and task; sensitivity and specificity at the run's own validation threshold.

    Intervals are 95 %: AUC `low`, `high` DeLong on the logit scale; `bootstrap_*`, average precision and
    `sensitivity_at_*` stratified patient bootstrap, one set of draws for all (no more than `FEWER` replicates); Brier
    score over patients; calibration cluster-robust; sensitivity and specificity at the threshold Wilson, the
    threshold taken as given.

    Returns:
        experiment, seed, task, auc, low, high, bootstrap_low, bootstrap_high; then each with _low and _high:
        average_precision, brier, calibration_slope, calibration_intercept, sensitivity_at_90, sensitivity_at_95
        (percent specificity); threshold; sensitivity and specificity, each with _low and _high; n, positives, unknown.
    """
    validation = scans_of(predictions, "validation")
    weights = Draws(min(replicates, FEWER), seed)
    rows = []
    for (experiment, task), scans in scans_of(predictions, split).items():
        for one in (scans.of([run_seed]) for run_seed in scans.seeds):
            threshold = validation[experiment, task].of(one.seeds).threshold
            rows.append({"experiment": experiment, "seed": one.seeds[0], "task": task, "threshold": threshold})
            if one.has_both:
                rows[-1] |= _scores(one, weights) | _rates(one, threshold)
            rows[-1] |= one.counts
    return pd.DataFrame(rows, columns=list(RUN_COLUMNS))


def _scores(scans: Scans, weights: Draws) -> dict[str, float]:
    """Metrics of one run; no calibration where it has no finite slope."""
    arrays = scans.target, scans.probability[0]
    found = run_scores(*arrays, scans.patient, weights.of(scans))._asdict()
    _, bootstrap_low, bootstrap_high = found.pop("auc")
    values = dict(zip(("auc", "low", "high"), auc_interval(*arrays), strict=True))
    values |= {"bootstrap_low": bootstrap_low, "bootstrap_high": bootstrap_high}
    if values["auc"] not in (0.0, 1.0) and np.ptp(arrays[1]) > 0:
        found |= dict(zip(CALIBRATION, calibration(*arrays, scans.patient), strict=True))
    for name, interval in found.items():
        values |= named(name, interval)
    return values


def _rates(scans: Scans, threshold: float) -> dict[str, float]:
    """Sensitivity and specificity at a threshold, nothing without one."""
    if np.isnan(threshold):
        return {}
    called = scans.mean >= threshold
    right = {"sensitivity": called[scans.target == 1], "specificity": ~called[scans.target == 0]}
    intervals = [named(name, rate(int(side.sum()), len(side))) for name, side in right.items()]
    return intervals[0] | intervals[1]
