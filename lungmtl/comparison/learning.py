"""Tables of learning: which seeds learnt, whether curves were flat at the end, what they show early, the ceiling."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import of_task
from lungmtl.evidence import auc_interval
from lungmtl.experiments import in_order

# chosen by us, after the first results: no run of phantom-full or sensitivity had its lower limit in 0.622 to 0.686
LEARNT_LOW = 0.65
# chosen by us: a rise of the median validation AUC per epoch below which a curve is flat; 0.02 in ten epochs
FLAT_RISE = 0.002
EARLY = (0.25, 0.5, 0.75, 1.0)  # shares of the epochs
LEARNING_COLUMNS = (
    *("experiment", "n_seeds", "n_learnt", "train_auc", "validation_auc", "test_auc", "ceiling"),
    *("rise", "is_flat", "n_epochs"),
)


def learnt_table(predictions: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """Which runs learnt the task: those whose test AUC has a lower DeLong limit above `LEARNT_LOW`.

    Returns:
        experiment, seed, auc, low, high, learnt ("yes", "no", or "" with too few scans of a class).
    """
    rows = []
    for experiment, scans in of_task(predictions, "test", task).items():
        for seed, probability in zip(scans.seeds, scans.probability, strict=True):
            found = auc_interval(scans.target, probability) if scans.has_both else (np.nan,) * 3
            learnt = ("yes" if found[1] > LEARNT_LOW else "no") if scans.has_both else ""
            rows.append((experiment, seed, *found, learnt))
    return pd.DataFrame(rows, columns=["experiment", "seed", "auc", "low", "high", "learnt"])


def learning_table(learnt: pd.DataFrame, history: pd.DataFrame, *, ceiling: float = np.nan) -> pd.DataFrame:
    """How far every experiment learnt the central task, and whether its validation curve was flat at the end.

    The rise is the least-squares slope per epoch of the median validation AUC over seeds, over the last quarter of the
    epochs and the epoch before it. The falling learning rate itself changes the end of a curve, so flat is no proof.

    Args:
        learnt: As `learnt_table` returns it.
        history: experiment, seed, epoch, split, auc of the central task; may have no rows.
        ceiling: AUC of an error-free measurement of the scans' ground truth, if known.
    Returns:
        `LEARNING_COLUMNS`, one row per experiment; AUCs are means over seeds, train and validation in the last epoch
        (train: with augmentation). Blank if history has no rows.
    """
    rows = []
    for experiment in in_order(learnt["experiment"]):
        runs, own = learnt[learnt["experiment"] == experiment], history[history["experiment"] == experiment]
        counts = {"n_seeds": len(runs), "n_learnt": int((runs["learnt"] == "yes").sum())}
        last = own[own["epoch"] == own["epoch"].max()].groupby("split")["auc"].mean()
        ends = {f"{split}_auc": last.get(split, np.nan) for split in ("train", "validation")}
        row = {"experiment": experiment, **counts, **ends, "test_auc": runs["auc"].mean(), "ceiling": ceiling}
        rows.append(row | _end_of_curve(own[own["split"] == "validation"]))
    return pd.DataFrame(rows, columns=list(LEARNING_COLUMNS))


def _end_of_curve(validation: pd.DataFrame) -> dict[str, object]:
    medians = validation.groupby("epoch")["auc"].median().dropna()
    end = medians.iloc[-(-(-len(medians) // 4) + 1) :]
    if len(end) < 2:
        return {"is_flat": ""}
    rise = float(np.polyfit(end.index.astype(float), end, 1)[0])
    return {"rise": rise, "is_flat": "yes" if rise < FLAT_RISE else "no", "n_epochs": len(medians)}


def early_table(history: pd.DataFrame, learnt: pd.DataFrame, *, references: Sequence[str]) -> pd.DataFrame:
    """Whether validation AUCs after a part of the epochs predict the order on test scans, reference by reference.

    Experiments that share their first epochs, as one with ITW and one without, cannot be distinguished by them.

    Args:
        history: experiment, seed, epoch, split, auc of the central task; may have no rows.
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


def ceiling_table(predictions: pd.DataFrame, readings: pd.DataFrame) -> pd.DataFrame:
    """AUC of error-free readings of every test scan against the recorded labels: what a network can hope for.

    It accounts for wrong labels, cancers that show nothing and classes that overlap, but not for noise or the grid.

    Args:
        predictions: Of any runs; the targets are taken from there.
        readings: `scan` and columns `<task>`, one measurement, or `<task>:<reader>`; may have no rows.
    Returns:
        task, reader, auc, low, high, interval, n, positives; only readings that every scan has.
    """
    test = predictions[predictions["split"] == "test"].drop_duplicates(["scan", "task"]).dropna(subset="target")
    known = readings.set_index("scan")
    rows = []
    for task in test["task"].unique():
        scans = test[test["task"] == task]
        target = scans["target"].to_numpy()
        for column in [name for name in known if name.partition(":")[0] == task]:
            ranks = scans["scan"].map(known[column]).rank(pct=True)
            if ranks.notna().all() and min(target.sum(), (1 - target).sum()) > 1:
                found = auc_interval(target, ranks.to_numpy())
                reader = column.partition(":")[2] or "one measurement"
                rows.append((task, reader, *found, "95 % DeLong", len(scans), int(target.sum())))
    return pd.DataFrame(rows, columns=["task", "reader", "auc", "low", "high", "interval", "n", "positives"])
