"""Diagnoses of a cohort: counts, prevalence, co-occurrence, and a scan to show of each."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from lungmtl.data.cohort import included
from lungmtl.experiments import SPLITS

ALL = "all"  # in place of a split


def counts(frame: pd.DataFrame, *, tasks: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Count scans that are not excluded: split to task to `n` (known), `positives` and `unknown`."""
    return {split: _counts(frame[frame["split"] == split], tasks) for split in SPLITS}


def _counts(frame: pd.DataFrame, tasks: Sequence[str]) -> dict[str, dict[str, int]]:
    labels = included(frame)[list(tasks)]
    table = pd.DataFrame({"n": labels.count(), "positives": (labels == 1).sum(), "unknown": labels.isna().sum()})
    return table.to_dict("index")


def label_table(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Share of positive scans in the whole cohort (split `all`) and in every split.

    Returns:
        split, task, n, positives, unknown, share, and Wilson's 95 % interval low, high. Scans without an answer are
        left out of the share; it is NaN where none has one.
    """
    found = {ALL: _counts(frame, tasks), **counts(frame, tasks=tasks)}
    table = pd.DataFrame(
        {"split": split, "task": task, **count} for split, by_task in found.items() for task, count in by_task.items()
    )
    known = table["n"].where(table["n"] > 0)
    low, high = proportion_confint(table["positives"], known, method="wilson")
    return table.assign(share=table["positives"] / known, low=low, high=high)


def cooccurrence(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Share of the scans with the row's diagnosis that also have the column's, of those where both are known."""
    labels = included(frame)[list(tasks)]
    return pd.DataFrame({given: labels[labels[given] == 1].mean() for given in tasks}).T


def examples(frame: pd.DataFrame, truth: pd.DataFrame, *, tasks: Sequence[str]) -> dict[str, str]:
    """Scan to show of every task, each of which has a positive one: the one with the highest severity, else the first.

    `truth` holds `scan` and, where known, severity_<task>, as a phantom cohort has it; it may be empty.
    """
    rows = included(frame)
    severity = rows[["scan"]].merge(truth.astype({"scan": str}), on="scan", how="left")
    found = {}
    for task in tasks:
        score = severity.get(f"severity_{task}", pd.Series(0.0, index=rows.index)).fillna(0.0)
        found[task] = rows.loc[score[rows[task] == 1].idxmax(), "scan"]
    return found


def known_together(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.Series:
    """Which labels occur together: names of the known tasks, as `a + b`, to the number of scans, most first."""
    known = included(frame)[list(tasks)].notna()
    return known.apply(lambda row: " + ".join(known.columns[row]) or "(none)", axis=1).value_counts()


def odds_ratios(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Odds ratio of every auxiliary diagnosis with the first one, over scans where both are known.

    Returns:
        `task`, `n`, `odds_ratio` and Woolf's 95 % interval `low`, `high`, with half a scan added to each of the four
        counts (Haldane and Anscombe); NaN without scans.
    """
    from statsmodels.stats.contingency_tables import Table2x2  # takes a second to import

    labels = included(frame)
    rows = []
    for task in tasks[1:]:
        both = labels[[tasks[0], task]].dropna()
        counts = [[((both == [a, b]).all(axis=1)).sum() for b in (1, 0)] for a in (1, 0)]
        table = Table2x2(np.array(counts) + 0.5)
        ratio = (table.oddsratio, *table.oddsratio_confint()) if len(both) else (np.nan,) * 3
        rows.append((task, len(both), *ratio))
    return pd.DataFrame(rows, columns=["task", "n", "odds_ratio", "low", "high"])
