"""Tables of AUCs and of their differences.

Every run counts once, every table says how many scans and seeds stand behind a row and names its interval.
Where a split holds fewer than two patients of a class, the numbers that need them are NaN (blank in the csv).
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lungmtl.comparison.curves import ROC_POINTS
from lungmtl.comparison.scans import (
    COUNTS,
    Draws,
    Pair,
    Scans,
    blank_difference,
    bootstrapped,
    interval_name,
    mean_auc_of,
    mean_of_runs,
    named,
    of_task,
    pairs_over,
    scans_of,
    threshold_of,
    with_family,
)
from lungmtl.evidence import (
    Difference,
    auc,
    auc_interval,
    calibration,
    compare_auc,
    difference_interval,
    equivalence,
    mcnemar_exact,
    mean_difference,
    rate,
    roc_curve,
    run_scores,
)

COMPARISON_COLUMNS = (
    *("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval"),
    *("error", "freedom", "low_90", "high_90", "equivalence_p", "equivalence_p_holm", "margin"),
    *("experiment_only_right", "reference_only_right", "mcnemar_p", "mcnemar_p_holm", "n_family", "n_seeds", *COUNTS),
)
ENSEMBLE_COMPARISON_COLUMNS = (
    *("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval"),
    *("n_family", "n_seeds", *COUNTS),
)
MARGIN = 0.02  # chosen by us: an AUC difference too small to matter; what the paper's test set can just resolve
FEWER = 400  # chosen by us: replicates where many intervals are wanted; their deviation has an error of 3.5 %


def auc_table(predictions: pd.DataFrame, *, replicates: int, seed: int, split: str = "test") -> pd.DataFrame:
    """Mean AUC over seeds of every experiment and task, with the interval of `metrics.bootstrap_auc`.

    Returns:
        experiment, task, auc, low, high, interval, seed_sd (deviation of single runs; NaN with one), n_seeds, n,
        positives, unknown (scans of the split without a label).
    """
    rows = []
    for (experiment, task), scans in bootstrapped(scans_of(predictions, split), replicates, seed).items():
        rows.append((experiment, task, *mean_auc_of(scans), interval_name(len(scans.seeds)), _seed_sd(scans)))
        rows[-1] += (len(scans.seeds), *scans.counts.values())
    columns = ["experiment", "task", "auc", "low", "high", "interval", "seed_sd", "n_seeds"]
    return pd.DataFrame(rows, columns=[*columns, *COUNTS])


def ensemble_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """AUC of the mean probability over seeds, beside the mean AUC of single runs.

    The ensemble is one predictor, so its interval is over patients only: another ensemble of as many seeds would
    differ, and nothing here says how much.

    Returns:
        experiment, auc, low, high, interval, mean_auc (of single runs), n_seeds, n, positives, unknown.
    """
    groups = of_task(predictions, "test", task)
    ensembles = bootstrapped({name: scans.ensemble for name, scans in groups.items()}, replicates, seed)
    rows = [
        (name, *mean_auc_of(ensembles[name]), interval_name(1), mean_of_runs(scans), len(scans.seeds), *counts)
        for name, scans in groups.items()
        for counts in [scans.counts.values()]
    ]
    columns = ["experiment", "auc", "low", "high", "interval", "mean_auc", "n_seeds", *COUNTS]
    return pd.DataFrame(rows, columns=columns)


def ensemble_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """Ensembles of every experiment against those of every reference: paired DeLong, Holm over all rows.

    Returns:
        experiment, reference, difference, low, high, p, p_holm, interval, n_family, n_seeds, n, positives, unknown.
    """
    rows = []
    for pair in pairs_over(predictions, references, task):
        a, b = pair.test
        values = blank_difference()
        if a.has_both:
            values = compare_auc(a.target, a.mean, b.mean)
        rows.append(
            {"experiment": pair.experiment, "reference": pair.reference}
            | values._asdict()
            | {"interval": "95 % paired DeLong", "n_seeds": len(a.seeds)}
            | a.counts
        )
    return with_family(rows, ENSEMBLE_COMPARISON_COLUMNS)


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
        for run_seed in scans.seeds:
            one = scans.of([run_seed])
            place = {"experiment": experiment, "seed": run_seed, "task": task}
            threshold = threshold_of(validation[experiment, task].of([run_seed]))
            rows.append(place | _scores(one, weights) | _rates(one, threshold) | scans.counts)
    return pd.DataFrame(rows)


def comparison_table(
    predictions: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    replicates: int,
    seed: int,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Every experiment against every reference on the test scans of one task, over the seeds that both have.

    The AUC difference is paired by scan and by seed (`metrics.bootstrap_difference`). McNemar's test needs one
    decision per scan: the mean probability over those seeds, at the Youden threshold of the same mean on validation
    scans. Equivalence is tested too (`metrics.equivalence`): a pair may turn out different, equivalent, both (a
    difference that is there but small) or neither (too few scans or seeds to tell). Holm adjusts over all rows
    (n_family), each of the three tests for itself. Two references meet once.

    Returns:
        experiment, reference, difference, low, high, p, p_holm, interval, error, freedom, low_90, high_90 (90 %, which
        lies inside the margin exactly where equivalence_p is below 5 %), equivalence_p, equivalence_p_holm, margin,
        experiment_only_right, reference_only_right, mcnemar_p, mcnemar_p_holm, n_family, n_seeds, n, positives,
        unknown.
    """

    def test(a: Scans, b: Scans) -> Difference:
        return mean_difference(a.areas, b.areas)

    pairs = pairs_over(predictions, references, task, bootstrap=(replicates, seed))
    rows = [comparison_of(pair, test) | equivalence_of(pair, test, margin) for pair in pairs]
    return with_family(rows, COMPARISON_COLUMNS)


def seed_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """The same comparison seed by seed: paired DeLong, and exact McNemar at each run's own validation threshold.

    Every seed predicts the same scans, so the rows of a pair are not independent: no p value may be pooled.

    Returns:
        experiment, reference, seed, difference, low, high, p, error, freedom, interval, experiment_only_right,
        reference_only_right, mcnemar_p, n_seeds, n, positives, unknown.
    """

    def test(a: Scans, b: Scans) -> Difference:
        return compare_auc(a.target, a.probability[0], b.probability[0])

    rows = []
    for pair in pairs_over(predictions, references, task):
        for seed in pair.test[0].seeds:
            sides = (tuple(scans.of([seed]) for scans in split) for split in (pair.test, pair.validation))
            one = Pair(pair.experiment, pair.reference, *sides)
            place = {"experiment": pair.experiment, "reference": pair.reference, "seed": seed}
            rows.append(place | comparison_of(one, test) | {"interval": "95 % paired DeLong"})
    return pd.DataFrame(rows)


def roc_table(predictions: pd.DataFrame, *, task: str, split: str = "test") -> pd.DataFrame:
    """ROC curve of every run, on `ROC_POINTS` false positive rates: sensitivity by linear interpolation.

    Returns:
        experiment, seed, false_positive_rate, sensitivity.
    """
    grid = np.linspace(0, 1, ROC_POINTS)
    curves = [pd.DataFrame(columns=["experiment", "seed", "false_positive_rate", "sensitivity"])]
    for experiment, scans in of_task(predictions, split, task).items():
        for seed, values in zip(scans.seeds, scans.probability, strict=True) if scans.has_both else []:
            sensitivity = roc_curve(scans.target, values, false_positive_rate=grid)
            curves.append(pd.DataFrame({"experiment": experiment, "seed": seed, "false_positive_rate": grid}))
            curves[-1]["sensitivity"] = sensitivity
    return pd.concat(curves[1:] or curves, ignore_index=True)


def equivalence_of(pair: Pair, test: Callable[[Scans, Scans], Difference], margin: float) -> dict[str, float]:
    if not pair.test[0].has_both:
        return dict.fromkeys(("low_90", "high_90", "equivalence_p"), np.nan) | {"margin": margin}
    found = test(*pair.test)
    inner = difference_interval(found, level=0.90)
    p = equivalence(found, margin=margin)
    return {"low_90": inner.low, "high_90": inner.high, "equivalence_p": p, "margin": margin}


def comparison_of(pair: Pair, test: Callable[[Scans, Scans], Difference]) -> dict[str, object]:
    a, b = pair.test
    values = test(a, b) if a.has_both else blank_difference()
    thresholds = [threshold_of(scans) for scans in pair.validation]
    errors = (np.nan,) * 3
    if not np.isnan(thresholds).any():
        errors = mcnemar_exact(a.target, a.mean >= thresholds[0], b.mean >= thresholds[1])
    return (
        {"experiment": pair.experiment, "reference": pair.reference}
        | values._asdict()
        | {"interval": interval_name(len(a.seeds))}
        | dict(zip(("experiment_only_right", "reference_only_right", "mcnemar_p"), errors, strict=True))
        | {"n_seeds": len(a.seeds)}
        | a.counts
    )


def _scores(scans: Scans, weights: Draws) -> dict[str, float]:
    """Metrics of one run; NaN where the test scans hold one class."""
    values = {"auc": np.nan, "low": np.nan, "high": np.nan, "bootstrap_low": np.nan, "bootstrap_high": np.nan}
    lines = ("calibration_slope", "calibration_intercept")
    for name in ("average_precision", "brier", *lines, "sensitivity_at_90", "sensitivity_at_95"):
        values |= named(name, (np.nan,) * 3)
    if not scans.has_both:
        return values
    arrays = scans.target, scans.probability[0]
    found = run_scores(*arrays, scans.patient, weights.of(scans))._asdict()
    bootstrap = found.pop("auc")
    values |= dict(zip(("auc", "low", "high"), auc_interval(*arrays), strict=True))
    values |= {"bootstrap_low": bootstrap.low, "bootstrap_high": bootstrap.high}
    for name, interval in found.items():
        values |= named(name, interval)
    if values["auc"] not in (0.0, 1.0) and np.ptp(arrays[1]) > 0:
        for name, interval in zip(lines, calibration(*arrays, scans.patient), strict=True):
            values |= named(name, interval)
    return values


def _rates(scans: Scans, threshold: float) -> dict[str, float]:
    called = scans.mean >= threshold
    shares = [(np.nan,) * 3] * 2
    if scans.has_both and not np.isnan(threshold):
        right = called[scans.target == 1], ~called[scans.target == 0]
        shares = [rate(int(side.sum()), len(side)) for side in right]
    return {"threshold": threshold} | named("sensitivity", shares[0]) | named("specificity", shares[1])


def _seed_sd(scans: Scans) -> float:
    if not scans.has_both or len(scans.seeds) == 1:
        return np.nan
    return float(np.std([auc(scans.target, values) for values in scans.probability], ddof=1))
