"""Table of named contrasts: sharing, focus, scale and transfer, each between experiments that differ by it alone."""

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import bootstrapped, of_task, pairs_of

# name, what it tells, experiment, reference: the two differ by that alone
PARTS = (
    ("sharing", "learning the auxiliary tasks along with the central one", "MTL", "STL"),
    ("focus", "taking turns, at equal mean weights", "MTL2.keepmean", "MTL.aux1"),
    ("scale", "the smaller mean weight that taking turns brings", "MTL2", "MTL2.keepmean"),
    ("focus and scale", "taking turns, with the smaller mean weight", "MTL2", "MTL.aux1"),
    ("focus and scale", "taking turns, with the smaller mean weight", "MTL3", "MTL"),
    ("transfer", "a final stage on the central task, after balanced weights", "ITW1", "MTL"),
    ("transfer", "a final stage on the central task, after taking turns", "ITW2", "MTL2"),
    ("transfer", "the same, with mean-preserving weights", "ITW2.keepmean", "MTL2.keepmean"),
    ("transfer", "a final stage on the central task, after taking turns", "ITW3", "MTL3"),
    ("transfer, not fine-tuning", "damped auxiliary weights in the final stage, not none", "ITW1", "ITW1.finetune"),
)
PART_COLUMNS = ("part", "tells", "experiment", "reference", "difference", "low", "high", "n_agree", "interval")


def parts_table(
    predictions: pd.DataFrame, *, task: str, replicates: int, seed: int, parts: tuple[tuple[str, ...], ...] = PARTS
) -> pd.DataFrame:
    """Paired AUC difference of every part whose two experiments are there, over the seeds that both have.

    Estimates with intervals (`evidence.mean_difference`): the protocol's family does not hold these pairs, so there is
    no adjusted p value.

    Returns:
        `PART_COLUMNS`, n_seeds, n, positives; n_agree counts the seeds whose difference has the sign of the mean.
    """
    groups = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    rows = []
    for part, tells, *names in parts:
        for pair in pairs_of({name: groups[name] for name in names if name in groups}, names[1:]):
            found = pair.mean_difference._asdict()
            by_seed = (pair.a.areas - pair.b.areas).value if pair.a.areas else np.array([])
            agreeing = int(np.sum(np.sign(by_seed) == np.sign(found["difference"])))
            rows.append({"part": part, "tells": tells, **pair.place, **found, **pair.a.about, "n_agree": agreeing})
    return pd.DataFrame(rows, columns=[*PART_COLUMNS, "n_seeds", "n", "positives"])
