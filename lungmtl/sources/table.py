"""What sources of real CT write: cohort.csv and, next to it, a json file of the same name that says how it was made."""

import argparse
import difflib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lungmtl.data import DOWNLOAD, judge_splits
from lungmtl.experiments import SPLITS
from lungmtl.files import sha256, write
from lungmtl.tables import write_csv

_logger = logging.getLogger(__name__)


def new_table(text: str) -> Path:
    """The path of a table to write, for argparse: never over one that was made otherwise, which has no json file."""
    path = Path(text)
    if path.suffix.lower() != ".csv" or path.is_dir():
        raise argparse.ArgumentTypeError(f"a table, NAME.csv, is required. Found {text}")
    if path.exists() and not path.with_suffix(".json").is_file():
        must = "a new table is required, or one with the json file that says how it was made"
        raise argparse.ArgumentTypeError(f"{must}. Found another table, {text}: name a new one")
    return path


def place_in(root: str | Path, images: str | Path) -> str:
    """Folder of images relative to the table's folder `root`.

    Raises:
        ValueError: If it is not inside.
    """
    place = os.path.relpath(images, root)
    if place.startswith(os.pardir):
        must = "`--images` must lie in the folder of `--out`; a link there will do, with `check --allow-outside`."
        raise ValueError(f"{must} Found {images}, outside {root}.")
    return place


def one_per(rows: pd.DataFrame, name: str, *, keep: str, reason: str) -> pd.DataFrame:
    """Exclude all but the first or the last usable scan of every value of a column; a new frame."""
    usable = rows[rows["excluded"] == ""]
    others = usable.index[usable.duplicated(name, keep=keep)]
    return rows.assign(excluded=rows["excluded"].mask(rows.index.isin(others), reason))


def write_cohort(
    rows: pd.DataFrame, path: str | Path, *, tasks: Sequence[str], columns: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a cohort table, and next to it a json file with `facts` and the counts that are returned.

    Args:
        rows: One per scan: `scan`, `patient`, `image`, `split`, `excluded`, the tasks (0, 1, NaN) and the `columns`.
        tasks: Diagnosis columns, the central one first.
        columns: What rides along.
    """
    path = Path(path)
    whole = {name: rows[name].astype("Int64") for name in tasks}
    order = ["scan", "patient", "image", *tasks, "split", "excluded", *columns]
    write_csv(rows.assign(**whole)[order], path)
    counts = _summary(rows, tasks)
    write(path.with_suffix(".json"), json.dumps({**facts, **counts}, indent=2) + "\n")
    _logger.info("%s: %s", path.name, json.dumps(counts, indent=2))
    return counts


def warn_of_splits(rows: pd.DataFrame, tasks: Sequence[str]) -> None:
    """Say what a study would miss in a table whose scans all have a split: both classes of every task in each."""
    wanted = rows[(rows["excluded"] == "") | rows["excluded"].str.startswith(DOWNLOAD)]
    if wanted["split"].isin(SPLITS).all():
        rules = {"fractions": (), "seed": 0, "batch_size": 1}  # nothing is drawn
        if stops := judge_splits(wanted.assign(excluded=""), tasks=tasks, **rules)[1]:
            _logger.warning("A study would stop here: %s", " ".join(stops))


def highest(answers: pd.DataFrame) -> pd.Series:
    """One answer of several, row by row: 1 if one is, 0 if all are, else NaN, not known."""
    most = answers.max(axis=1)
    return most.mask((most == 0) & answers.isna().any(axis=1))


def file_facts(files: Mapping[str, Path | None]) -> dict[str, dict[str, str]]:
    """Name and hash of every file that was given, without its path."""
    return {what: {"name": path.name, "sha256": sha256(path)} for what, path in files.items() if path}


def close_to(name: str, known: Iterable[str]) -> str:
    """End of a sentence on an unknown name: those close to it, or nothing."""
    folded = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), folded, n=4, cutoff=0.5)
    return f" Close to it: {', '.join(folded[other] for other in close)}." if close else ""


def _summary(rows: pd.DataFrame, tasks: Sequence[str]) -> dict[str, Any]:
    """Count scans and reasons, and labels and splits of the scans that are there or still to be downloaded."""
    is_missing = rows["excluded"].str.startswith(DOWNLOAD)
    wanted = rows[(rows["excluded"] == "") | is_missing]
    reasons = rows.loc[(rows["excluded"] != "") & ~is_missing, "excluded"]
    answers = {1.0: "positive", 0.0: "negative"}
    labels = {task: wanted[task].map(answers).fillna("unknown").value_counts().to_dict() for task in tasks}
    return {
        "n_scans": int((rows["excluded"] == "").sum()),
        "n_patients": int(wanted["patient"].nunique()),
        "n_to_download": int(is_missing.sum()),
        "excluded": reasons.value_counts().to_dict(),
        "labels": labels,
        "splits": wanted["split"].value_counts().to_dict(),
    }
