"""Table of the variants that validation scans choose."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import (
    Scans,
    blank_difference,
    bootstrapped,
    holm_known,
    interval_name,
    mean_auc_of,
    mean_of_runs,
    of_task,
)
from lungmtl.evidence import mean_difference
from lungmtl.experiments import base_of


def selected_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """The best variant of every experiment, chosen on validation scans, and what it does on test scans.

    `BASE.change` (e.g. `ITW2.start0.5`) is a variant of `BASE`. Of a group of at least two, the member with the
    highest mean validation AUC over seeds is taken (the first of equals). Test scans have no part in the choice, so
    intervals are what they say for the chosen one; how far another choice would have gone is not in them.

    Returns:
        group, experiment (the chosen), validation_auc, test_auc, low, high, reference, difference, difference_low,
        difference_high, p, p_holm (over all rows), interval, n_candidates, n_seeds. One row per group and
        reference; reference "" where the chosen is the only one.
    """
    validation = of_task(predictions, "validation", task)
    test = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    rows = []
    for base in dict.fromkeys(map(base_of, test)):
        members = [name for name in test if base_of(name) == base]
        if len(members) > 1:
            rows += _selected_rows(base, members, validation, test, references)
    columns = ["group", "experiment", "validation_auc", "test_auc", "low", "high", "reference", "difference"]
    columns += ["difference_low", "difference_high", "p", "p_holm", "interval", "n_candidates", "n_seeds"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.assign(p_holm=holm_known(frame["p"]))


def _selected_rows(
    base: str,
    members: list[str],
    validation: dict[str, Scans],
    test: dict[str, Scans],
    references: Sequence[str],
) -> list[dict[str, object]]:
    areas = {name: mean_of_runs(validation[name]) for name in members}
    chosen = max(members, key=lambda name: np.nan_to_num(areas[name], nan=-1.0))  # the first of equals
    found = mean_auc_of(test[chosen])
    row = {"group": base, "experiment": chosen, "validation_auc": areas[chosen], "test_auc": found.value}
    row |= {"low": found.low, "high": found.high, "reference": "", "n_candidates": len(members)}
    row |= {"interval": interval_name(len(test[chosen].seeds)), "n_seeds": len(test[chosen].seeds)}
    rows = []
    for reference in [name for name in references if name in test and name != chosen]:
        seeds = [seed for seed in test[chosen].seeds if seed in test[reference].seeds]
        a, b = (test[name].of(seeds) for name in (chosen, reference))
        values = mean_difference(a.areas, b.areas) if seeds and a.has_both else blank_difference()
        names = ("difference", "difference_low", "difference_high", "p")
        rows.append(row | {"reference": reference, "n_seeds": len(seeds)} | dict(zip(names, values[:4], strict=True)))
    return rows or [row]
