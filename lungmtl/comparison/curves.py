"""Tables of curves: ROC and reliability."""

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import of_task
from lungmtl.evidence import reliability, roc_curve

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
