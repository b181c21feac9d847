"""What a cohort as a whole can have wrong: leakage between splits, missing classes, an unusual mix of scanners."""

from pathlib import Path

import pandas as pd

from lungmtl.data.cohort import included, with_technique
from lungmtl.data.images import place_of
from lungmtl.data.labels import ALL
from lungmtl.experiments import SPLITS
from lungmtl.words import number_of

# counted where the table has them, or else the headers
SCANNER_COLUMNS = ("kernel", "thickness_mm", "kvp_kv", "contrast", "manufacturer", "round")


def mix(frame: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Count scans of `check_scans` by voxel size in mm, and by those of the `SCANNER_COLUMNS` that the cohort has.

    Returns:
        One row per value: `what`, `value`, and the number of scans in all and in every split.
    """
    rows = with_technique(included(frame), scans).merge(scans[["scan", "slice_mm", "pixel_mm"]].round(1), on="scan")
    names = ["slice_mm", "pixel_mm", *[name for name in SCANNER_COLUMNS if name in rows]]
    parts = [rows.assign(split=ALL), rows]
    long = pd.concat(part.melt(id_vars="split", value_vars=names, var_name="what") for part in parts)
    long["value"] = long["value"].astype(str).replace({"": "not given", "nan": "not given"})
    table = long.pivot_table(index=["what", "value"], columns="split", aggfunc="size", fill_value=0)
    table = table.reindex(columns=[ALL, *SPLITS], fill_value=0).reset_index()
    order = table["what"].map({name: place for place, name in enumerate(names)})
    rows = table.assign(order=order).sort_values(["order", ALL], ascending=[True, False], ignore_index=True)
    return rows.drop(columns="order").rename_axis(columns=None)


def shared(frame: pd.DataFrame, scans: pd.DataFrame, root: str | Path) -> pd.DataFrame:
    """List scans that share their image, their voxels, or a patient across splits.

    Patients are compared without upper and lower case: `P1` and `p1` are one.

    Returns:
        One row per group: `what`, `scans` (the first five), `n_scans`, `n_patients`, `splits`, and `leaks`: whether
        the group is in two splits, or under two patients, whom a draw may separate.
    """
    keys = {
        "the same patient": frame["patient"].str.casefold(),
        "the same image": pd.Series([str(place_of(root, image)) for image in frame["image"]], index=frame.index),
        "identical voxels": frame["scan"].map(scans.set_index("scan")["voxels"]),
    }
    groups = []
    for what, key in keys.items():
        for _, group in frame[key.notna() & key.duplicated(keep=False)].groupby(key, sort=False):
            n_patients, splits = group["patient"].nunique(), sorted(set(group["split"]) - {""})
            names = " ".join(group["scan"].head(5)) + (" ..." if len(group) > 5 else "")
            leaks = len(splits) > 1 or n_patients > 1
            if leaks or what != "the same patient":
                groups.append((what, names, len(group), n_patients, " ".join(splits), leaks))
    return pd.DataFrame(groups, columns=["what", "scans", "n_scans", "n_patients", "splits", "leaks"])


def leak_notes(groups: pd.DataFrame) -> list[str]:
    """A sentence for every group of `shared` that leaks."""
    return [
        f"Leakage: {row.what} in {row.n_scans} scans ({row.scans}), under "
        f"{number_of(row.n_patients, 'patient name')}, in {row.splits.replace(' ', ' and ') or 'no split yet'}."
        for row in groups[groups["leaks"].astype(bool)].itertuples()
    ]
