"""Tables of curves: ROC, reliability, and what early validation curves tell of the test result."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import of_task
from lungmtl.evidence import reliability, roc_curve

EARLY = (0.25, 0.5, 0.75, 1.0)  # shares of the epochs
ROC_POINTS = 101  # chosen by us: steps of 0.01 of the false positive rate


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


def early_table(history: pd.DataFrame, learnt: pd.DataFrame, *, references: Sequence[str]) -> pd.DataFrame:
    """Whether validation AUCs after a part of the epochs tell the order on test scans: differences from each reference.

    Experiments that share their first epochs, as one with ITW and one without, cannot be told apart by them.

    Args:
        history: experiment, seed, epoch, split, auc of the central task; may have no rows.
        learnt: As `learnt_table` returns it, for the test AUCs.
        references: Experiments that all others are compared with.
    Returns:
        reference, share (of the epochs), epoch (the last one looked at, from 1), n_pairs (other experiments), rank
        correlation of early and final mean differences over seeds, and same_sign, the share of equal signs.
    """
    validation = history[history["split"] == "validation"]
    curves = validation.pivot_table(index="experiment", columns="epoch", values="auc")
    final, rows = learnt.groupby("experiment")["auc"].mean(), []
    for reference, share in product([name for name in references if name in curves.index], EARLY):
        epoch = max(int(share * curves.shape[1]) - 1, 0)
        pairs = pd.DataFrame({"early": curves.iloc[:, epoch], "final": final})
        pairs = (pairs - pairs.loc[reference]).drop(reference).dropna()
        if len(pairs) > 2:
            agree = float((np.sign(pairs["early"]) == np.sign(pairs["final"])).mean())
            correlation = float(pairs["early"].corr(pairs["final"], method="spearman"))
            rows.append((reference, share, epoch + 1, len(pairs), correlation, agree))
    return pd.DataFrame(rows, columns=["reference", "share", "epoch", "n_pairs", "correlation", "same_sign"])
