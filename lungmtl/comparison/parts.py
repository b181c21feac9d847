"""Parts of a difference: named contrasts of two experiments that differ in one thing, each where both are there.

A control is an arm, `<experiment>-<arm>`, or a static experiment; params/controls and params/disjoint hold them.
"""

from collections.abc import Iterable

import pandas as pd

from lungmtl.comparison.scans import bootstrapped, of_task, pairs_of
from lungmtl.experiments import in_order, root_of

QUESTIONS = {
    "sharing": "What does sharing the encoder with the auxiliary tasks do, at fixed weights?",
    "focus": "What does taking turns do, at the same mean weight of every task?",
    "scale": "What does the lower mean weight do, turns or no turns being the same on both sides?",
    "rhythm": "What does the square wave of the central weight do without any auxiliary loss?",
    "auxiliaries": "What do the auxiliary losses add to that square wave?",
    "signal": "What do the true auxiliary labels add to labels exchanged at random?",
    "transfer": "What does the final stage on the central task do, which also ends the turns of PFLP?",
    "warm-up": "What does a warm-up on all tasks add to one on the central task alone?",
    "separation": "What does it do that labels lie on different scans, at the same number of labels of every task?",
    "labels": "What do the labels of all other scans add?",
    "sampling": "What does drawing batches by label do?",
    "turns of scans": "What does taking turns in scans do, against taking turns in weights?",
}
STATIC = {"MTL0": "MTL.aux0.01", "MTL1": "MTL.aux0.1", "MTL2": "MTL.aux1", "MTL3": "MTL", "MTL4": "MTL.aux6"}
CONTRASTS = (  # part, experiment, the one subtracted; {} is any experiment, {static} its base weights without turns
    ("sharing", "MTL", "STL"),
    ("sharing", "{static}", "STL"),
    ("focus", "{}", "{}-mean"),
    ("focus", "{}.keepmean", "{static}"),
    ("scale", "{}-mean", "{static}"),
    ("scale", "{}", "{}.keepmean"),
    ("rhythm", "STL-wave", "STL"),
    ("rhythm", "{}-alone", "STL"),
    ("auxiliaries", "MTL0", "STL-wave"),
    ("auxiliaries", "{}", "{}-alone"),
    ("signal", "{}", "{}-shuffled"),
    ("transfer", "ITW1", "MTL"),
    ("transfer", "ITW2", "MTL2"),
    ("transfer", "ITW3", "MTL3"),
    ("warm-up", "{}", "{}-single"),
    ("separation", "{}", "{}-matched"),
    ("labels", "{}-full", "{}-matched"),
    ("labels", "STL-full", "STL"),
    ("sampling", "{}-each", "{}"),
    ("sampling", "{}-turns", "{}"),
    ("turns of scans", "MTL-focus", "MTL3"),
)
COLUMNS = ("part", "experiment", "reference", "difference", "low", "high", "interval", "n_seeds", "n", "positives")


def parts_table(predictions: pd.DataFrame, *, task: str, replicates: int, seed: int) -> pd.DataFrame:
    """Differences of test AUC that each tell one part, paired by scan and seed; exploratory, so without p values.

    Returns:
        `COLUMNS`, a row per contrast of `CONTRASTS` whose experiments are both there; no row if none is.
    """
    pairs = contrasts(predictions["experiment"].unique())
    wanted = {name for _, *pair in pairs for name in pair}
    groups = of_task(predictions[predictions["experiment"].isin(wanted)], "test", task) if pairs else {}
    groups = bootstrapped(groups, replicates, seed)
    rows = []
    for part, experiment, reference in pairs:
        for pair in pairs_of({name: groups[name] for name in (experiment, reference)}, [reference]):
            rows.append({"part": part} | pair.place | pair.mean_difference._asdict() | pair.a.about)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def contrasts(experiments: Iterable[str]) -> list[tuple[str, str, str]]:
    """Part, experiment and reference of every contrast between these experiments, in the order of `CONTRASTS`."""
    there, roots = set(experiments), in_order(map(root_of, experiments))
    found = {
        (part, *(name.format(root, static=STATIC.get(root, "")) for name in pair)): None
        for part, *pair in CONTRASTS
        for root in roots
    }
    return [contrast for contrast in found if set(contrast[1:]) <= there]
