"""Named contrasts: pairs of experiments that differ in one thing, each of which isolates a part of a difference.

A control is an arm, `<experiment>-<arm>`, or a static experiment; params/controls and params/disjoint hold them.
"""

from collections.abc import Iterable

import pandas as pd

from lungmtl.comparison.scans import bootstrapped, of_task, pair_of
from lungmtl.experiments import in_order, root_of

TELLS = {
    "sharing": "sharing the encoder with the auxiliary tasks, at fixed weights",
    "focus": "taking turns, at the same mean weight of every task",
    "scale": "the lower mean weight that taking turns brings",
    "focus and scale": "taking turns, with the lower mean weight",
    "rhythm": "the square wave of the central weight, without any auxiliary loss",
    "auxiliaries": "the auxiliary losses, added to that square wave",
    "signal": "true auxiliary labels in place of labels exchanged at random",
    "transfer": "a final stage on the central task, which also ends the turns of PFLP",
    "not fine-tuning": "damped auxiliary weights in the final stage, not none and a fresh optimiser",
    "warm-up": "a warm-up on all tasks in place of one on the central task alone",
    "separation": "labels that lie on different scans, at the same number of labels of every task",
    "labels": "the labels of all other scans",
    "sampling": "batches drawn by label",
    "turns of scans": "taking turns in scans in place of turns in weights",
}
STATIC = {"MTL0": "MTL.aux0.01", "MTL1": "MTL.aux0.1", "MTL2": "MTL.aux1", "MTL3": "MTL", "MTL4": "MTL.aux6"}
CONTRASTS = (  # part, experiment, reference; {} is any experiment, {static} its base weights without turns
    ("sharing", "MTL", "STL"),
    ("sharing", "{static}", "STL"),
    ("focus", "{}", "{}-mean"),
    ("focus", "{}.keepmean", "{static}"),
    ("scale", "{}-mean", "{static}"),
    ("scale", "{}", "{}.keepmean"),
    ("focus and scale", "{}", "{static}"),
    ("rhythm", "STL-wave", "STL"),
    ("rhythm", "{}-alone", "STL"),
    ("auxiliaries", "MTL0", "STL-wave"),
    ("auxiliaries", "{}", "{}-alone"),
    ("signal", "{}", "{}-shuffled"),
    ("transfer", "ITW1", "MTL"),
    ("transfer", "ITW2", "MTL2"),
    ("transfer", "ITW2.keepmean", "MTL2.keepmean"),
    ("transfer", "ITW3", "MTL3"),
    ("not fine-tuning", "{}", "{}.finetune"),
    ("warm-up", "{}", "{}-single"),
    ("separation", "{}", "{}-matched"),
    ("labels", "{}-full", "{}-matched"),
    ("labels", "STL-full", "STL"),
    ("sampling", "{}-each", "{}"),
    ("sampling", "{}-turns", "{}"),
    ("turns of scans", "MTL-focus", "MTL3"),
)
PART_COLUMNS = ("part", "tells", "experiment", "reference", "difference", "low", "high", "n_agree", "interval")


def parts_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """Differences of test AUC of the named contrasts, paired by scan and seed.

    Estimates with intervals (`evidence.mean_difference`), but no adjusted p values: these pairs are not in the
    protocol's family.

    Returns:
        `PART_COLUMNS`, n_seeds, n, positives: a row per contrast of `CONTRASTS` whose two experiments are present.
        n_agree counts the seeds whose difference has the sign of the mean.
    """
    named = contrasts(predictions["experiment"].unique())
    wanted = {name for _, *pair in named for name in pair}
    groups = of_task(predictions[predictions["experiment"].isin(wanted)], "test", task) if named else {}
    groups = bootstrapped(groups, replicates, seed)
    rows = []
    for part, experiment, reference in named:
        if pair := pair_of(groups, experiment, reference):
            found = pair.mean_difference._asdict() | pair.a.about | {"n_agree": pair.n_agree}
            rows.append({"part": part, "tells": TELLS[part]} | pair.place | found)
    return pd.DataFrame(rows, columns=[*PART_COLUMNS, "n_seeds", "n", "positives"])


def contrasts(experiments: Iterable[str]) -> list[tuple[str, str, str]]:
    """Part, experiment and reference of every contrast between these experiments, in the order of `CONTRASTS`."""
    there, roots = set(experiments), in_order(map(root_of, experiments))
    found = {
        (part, *(name.format(root, static=STATIC.get(root, "")) for name in pair)): None
        for part, *pair in CONTRASTS
        for root in roots
    }
    return [contrast for contrast in found if set(contrast[1:]) <= there]
