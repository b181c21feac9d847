"""Table of the test scans that runs call wrongly, and the selection of runs to look at."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import of_task


def chosen(frame: pd.DataFrame, experiments: Collection[str], seeds: Collection[int]) -> pd.DataFrame:
    """Rows of some experiments and seeds.

    Raises:
        ValueError: If there is none.
    """
    rows = frame[frame["experiment"].isin(experiments) & frame["seed"].isin(seeds)]
    if rows.empty:
        raise ValueError(f"There must be runs of what is chosen. Found none of {list(experiments)}, {list(seeds)}.")
    return rows


def missed_table(predictions: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """How often every labelled test scan is called wrongly, at the Youden threshold of each run's validation scans.

    Returns:
        experiment, scan, target, wrong (share of the seeds; NaN where validation scans hold one class), probability
        (mean over seeds), n_seeds.
    """
    validation, parts = of_task(predictions, "validation", task), []
    for name, scans in of_task(predictions, "test", task).items():
        thresholds = np.array([[validation[name].of([seed]).threshold] for seed in scans.seeds])  # (S, 1)
        wrong = np.where(np.isnan(thresholds), np.nan, (scans.probability >= thresholds) != scans.target)  # (S, N)
        columns = {"scan": scans.scan, "target": scans.target, "wrong": wrong.mean(axis=0), "probability": scans.mean}
        parts.append(pd.DataFrame({"experiment": name, **columns, "n_seeds": len(scans.seeds)}))
    return pd.concat(parts, ignore_index=True)
