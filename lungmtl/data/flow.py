"""Flow of a study's scans and patients: in the table, excluded with reasons, used, in every split, by class.

Sources: CLAIM 2024 update (Tejani et al. 2024, Radiology: AI 6:e240300) and TRIPOD+AI (Collins et al. 2024, BMJ
385:e078378) ask for it.
"""

import pandas as pd

from lungmtl.data.cohort import DOWNLOAD, exclude_failed, included
from lungmtl.data.splits import in_training_set
from lungmtl.experiments import SPLITS

MAX_REASONS = 20  # told one by one, the most frequent first


def patient_flow(frame: pd.DataFrame, report: pd.DataFrame, *, task: str, n_sets: int = 1) -> pd.DataFrame:
    """Count scans and patients from the table to the splits.

    Args:
        frame: A cohort with its splits, nothing excluded but by the table.
        report: What preparation found, `scan`, `status` and `reason`.
        task: The central one.
        n_sets: Training sets, as of `judge_splits`; of several each has rows of its own (train of set 0).
    Returns:
        One row per step: `step` (in the table, excluded, used, train, validation, test), `reason` of an exclusion
        without what was found in the single scan, `scans`, `patients` (who have such a scan: over reasons they may
        add up to more than there are), and `positive`, `negative`, `unknown` scans of the task.
    """
    left = exclude_failed(frame, report)
    by_table = frame.loc[frame["excluded"] != "", "excluded"]
    by_table = by_table.map(lambda reason: DOWNLOAD if reason.startswith(DOWNLOAD) else reason)  # not the files there
    failed = left.loc[(frame["excluded"] == "") & (left["excluded"] != ""), "excluded"].str.split(" Found ").str[0]
    reasons = pd.concat(["by the table: " + by_table, "in preparation: " + failed])
    reasons = reasons.where(reasons.isin(reasons.value_counts().index[:MAX_REASONS]), "other reasons")
    used = included(left)
    steps = [("in the table", "", frame)]
    for reason in reasons.value_counts().index:
        steps.append(("excluded", reason, frame.loc[reasons.index[reasons == reason]]))
    steps += [("used", "", used), *((split, "", used[used["split"] == split]) for split in SPLITS)]
    for number in range(n_sets) if n_sets > 1 else ():
        own = in_training_set(used, number)
        steps += [(f"{split} of set {number}", "", own[own["split"] == split]) for split in SPLITS[:2]]
    return pd.DataFrame([_counted(*step, task) for step in steps])


def _counted(step: str, reason: str, rows: pd.DataFrame, task: str) -> dict[str, str | int]:
    answers = {"positive": rows[task] == 1, "negative": rows[task] == 0, "unknown": rows[task].isna()}
    counts = {"scans": len(rows), "patients": rows["patient"].nunique()}
    return {"step": step, "reason": reason} | counts | {name: int(found.sum()) for name, found in answers.items()}
