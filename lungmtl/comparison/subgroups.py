"""Table of AUCs and differences in parts of the test scans."""

from collections.abc import Sequence

import pandas as pd

from lungmtl.comparison.aucs import FEWER
from lungmtl.comparison.scans import bootstrapped, of_task, pairs_of

MAX_KINDS = 5  # chosen by us: a numeric attribute with at most as many values is a category, not a measurement


def subgroup_table(
    predictions: pd.DataFrame,
    attributes: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """AUC and differences in subgroups of the test scans: exploratory, so without p values.

    There are many subgroups and none was planned, so some intervals exclude 0 by chance alone. Whether two subgroups
    differ from each other is not tested.

    Args:
        predictions: The known labels of every other task define subgroups, too (yes, no).
        attributes: `scan` and any further columns. A numeric column is cut at its median over the test scans that
            have a value; with at most `MAX_KINDS` values, like text and booleans, it is a category. An attribute
            that only positives have (a nodule's diameter) splits the positives, each part against all negatives.
        references: Experiments to compare with.
        task: The task whose AUC it is.
        replicates: Number of bootstrap replicates; at most `FEWER` are drawn, from `seed`.
    Returns:
        attribute, subgroup, experiment, reference ("" = the AUC itself), value, low, high, interval, n_seeds, n,
        positives. Values of a subgroup with fewer than two patients of a class are NaN.
    """
    groups = of_task(predictions, "test", task)
    rows = []
    for attribute, subgroup, names in _subgroups(predictions, attributes, task):
        members = {name: scans.among(names) for name, scans in groups.items()}
        inside = bootstrapped(members, min(replicates, FEWER), seed)
        found = [
            {"experiment": name, "reference": ""} | scans.mean_auc._asdict() | scans.about
            for name, scans in inside.items()
        ]
        for pair in pairs_of(inside, references):
            difference = pair.mean_difference._asdict()
            found.append(pair.place | difference | {"value": difference["difference"]} | pair.a.about)
        rows += [{"attribute": attribute, "subgroup": subgroup} | row for row in found]
    columns = ["attribute", "subgroup", "experiment", "reference", "value", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=[*columns, "n_seeds", "n", "positives"])


def _subgroups(predictions: pd.DataFrame, attributes: pd.DataFrame, task: str) -> list[tuple[str, str, list[str]]]:
    """Attribute, subgroup and the scans in it."""
    test = predictions[predictions["split"] == "test"].drop_duplicates(["scan", "task"])
    targets = test.pivot(index="scan", columns="task", values="target")  # noqa: PD010 (it refuses duplicates)
    known = targets[task].dropna()
    names = attributes["scan"]
    if names.duplicated().any():
        raise ValueError(f"`attributes` must have one row per scan. Found two of {names[names.duplicated()].iloc[0]}.")
    table = attributes.set_index("scan").reindex(known.index)
    found = []
    for attribute in table.columns:
        values = table[attribute].dropna()
        kinds = _kinds(values)
        only_positives = len(values) > 0 and known[values.index].eq(1).all() and known.ne(1).any()
        negatives = list(known.index[known == 0]) if only_positives else []
        ending = ", against all negatives" if only_positives else ""
        for kind in sorted(kinds.unique(), key=lambda kind: (kind.startswith("above"), kind)):
            found.append((attribute, f"{kind}{ending}", [*values.index[kinds == kind], *negatives]))
    for other in [name for name in predictions["task"].unique() if name != task]:
        answers = targets.loc[known.index, other].dropna().map({1.0: "yes", 0.0: "no"})
        found += [(other, answer, list(answers.index[answers == answer])) for answer in ("yes", "no")]
    return found


def _kinds(values: pd.Series) -> pd.Series:
    """The subgroup of every value, as text."""
    values = values.infer_objects()  # booleans among blanks were read as objects
    if pd.api.types.is_bool_dtype(values):
        return values.map({True: "yes", False: "no"})
    if not pd.api.types.is_numeric_dtype(values) or values.nunique() <= MAX_KINDS:
        return values.map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    middle = values.median()
    return (values <= middle).map({True: f"at most {middle:.3g}", False: f"above {middle:.3g}"})
