"""Table of the variants that are selected on validation scans."""

from collections.abc import Sequence

import pandas as pd

from lungmtl.comparison.scans import Scans, best_on, bootstrapped, holm_known, named, of_task, pair_of
from lungmtl.experiments import base_of


def selected_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """The best variant of every experiment, chosen on validation scans, and its result on test scans.

    `BASE.change` (e.g. `ITW2.start0.5`) is a variant of `BASE`. Of a group of at least two, the member with the
    highest mean validation AUC over seeds is taken (the first if tied). Test scans play no part in the choice, so
    the intervals are valid for the chosen variant; they do not include the variance of the choice.

    Returns:
        group, experiment (the chosen), validation_auc, test_auc, low, high, reference, difference, difference_low,
        difference_high, p, p_holm (over all rows), interval, n_candidates, n_seeds. One row per group and
        reference; reference "" if the chosen one has no other to be compared with.
    """
    validation = of_task(predictions, "validation", task)
    test = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    rows = []
    for base in dict.fromkeys(map(base_of, test)):
        members = [name for name in test if base_of(name) == base]
        if len(members) > 1:
            chosen = best_on(validation, members)
            row = {"group": base, "n_candidates": len(members), "validation_auc": validation[chosen].mean_of_runs}
            rows += [row | found for found in _rows_of(chosen, test, references)]
    columns = ["group", "experiment", "validation_auc", "value", "low", "high", "reference", "difference"]
    columns += ["difference_low", "difference_high", "p", "p_holm", "interval", "n_candidates", "n_seeds"]
    frame = pd.DataFrame(rows, columns=columns).rename(columns={"value": "test_auc"})
    return frame.assign(p_holm=holm_known(frame["p"]))


def _rows_of(chosen: str, test: dict[str, Scans], references: Sequence[str]) -> list[dict[str, object]]:
    """The chosen variant on test scans: a row per reference, or one with its AUC alone."""
    row = {"experiment": chosen, "reference": "", **test[chosen].mean_auc._asdict(), **test[chosen].about}
    rows = []
    for reference in references:
        if pair := pair_of(test, chosen, reference):
            found = pair.mean_difference
            rows.append(
                row | pair.place | named("difference", found[:3]) | {"p": found.p, "n_seeds": len(pair.a.seeds)}
            )
    return rows or [row]
