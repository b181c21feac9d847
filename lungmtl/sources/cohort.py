"""A cohort of any label tables and images: columns become tasks, volumes without geometry become complete files.

The order of a run: `read_scans` takes one row per scan from the tables, `name_patients` and `name_splits` place it,
`find_images` looks for its file, `convert_images` makes readable what is not, `write_cohort` writes the table and a
side file with every choice. A scan without an image is excluded with the reason; the same command finds it later.
"""

import argparse
import ast
import logging
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from sklearn.model_selection import train_test_split
from tqdm import tqdm

from lungmtl.data import DOWNLOAD
from lungmtl.sources.cohort_options import (
    FIELD,
    SPLIT_WORDS,
    add_cohort,
    is_number,
    kept_of,
    needs_conversion,
    other_columns,
    parts_of,
    table_of,
    tasks_of,
)
from lungmtl.sources.conversion import Geometry, convert
from lungmtl.sources.label_tables import Wanted, check_known, columns_of, header, read_scans
from lungmtl.sources.table import file_facts, one_per, place_in, warn_of_splits, write_cohort
from lungmtl.words import number_of
from lungmtl.workers import run_jobs

CONVERTED = "images-mha"  # folder next to the table
AGE = re.compile(r"0*(\d+)Y")  # as DICOM writes it
CHECK = (
    "Look at what was made, `lungmtl check cohort.csv --params PARAMS`: in every picture the head is up, the heart on "
    "the right and the spine below."
)

_logger = logging.getLogger(__name__)

__all__ = ["add_cohort", "cohort"]


def cohort(options: argparse.Namespace) -> int:
    """Make a cohort table of any label tables and images."""
    tables = [table_of(text) for text in options.table]
    tasks, kept = tasks_of(options.map), kept_of(options.keep)
    is_bare = needs_conversion(options)
    wanted = Wanted(options.scan, tasks, other_columns(options, list(kept)), options.blank)
    rows = read_scans(tables, options.metadata, wanted)
    rows = name_splits(name_patients(rows, options), options, list(tasks))
    if options.one_per:
        check_known(options.one_per, rows.columns, "The scans")
        rows = one_per(rows, options.one_per, keep="first", reason=f"another scan of the same {options.one_per}")
    rows = find_images(rows, options.images, options.image)
    if is_bare:
        rows = convert_images(rows, options)
    else:
        place = place_in(options.out.absolute().parent, options.images)
        rows = rows.assign(image=[str(Path(place, image)) for image in rows["image"]])
    rows = rows.assign(**{name: rows[column].str.replace(AGE, r"\1", regex=True) for column, name in kept.items()})
    warn_of_splits(rows, list(tasks))
    write_cohort(rows, options.out, tasks=list(tasks), columns=list(kept.values()), facts=facts(options, tables, tasks))
    _logger.info("For the params file: tasks: [%s]. %s", ", ".join(tasks), CHECK)
    return 0


def name_patients(rows: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Add `patient` and the parts of the scans' names; a scan without a patient is excluded. A new frame."""
    rows = rows.assign(excluded="")
    if options.parts:
        parts = rows["scan"].str.extract(parts_of(options.parts))
        missing = parts.isna().any(axis=1)
        if missing.any():
            found = f"{rows.loc[missing.idxmax(), 'scan']}, the first of {missing.sum()} that do not"
            raise ValueError(f"`--parts` must match every scan's name, with all its parts. Found {found}.")
        rows = rows.assign(**{name: parts[name] for name in parts})
    if options.patient:
        rows = rows.assign(patient=rows[options.patient])
    if "patient" not in rows:
        must = "`--patient COLUMN` or `--parts` with a part (?P<patient>...) must say whose scan it is"
        all_own = "where every scan is a patient's only one: `--parts '(?P<patient>.+)'`"
        raise ValueError(f"{must}; {all_own}. Found neither.")
    return rows.assign(excluded=rows["excluded"].mask(rows["patient"] == "", "no patient in the tables"))


def name_splits(rows: pd.DataFrame, options: argparse.Namespace, tasks: Sequence[str]) -> pd.DataFrame:
    """Add the splits of the column, and draw validation patients from the training where there are none."""
    if options.split:
        words = rows[options.split].str.lower()
        wrong = sorted(set(words) - set(SPLIT_WORDS))
        if wrong:
            raise ValueError(f"`{options.split}` must be train, validation or test. Found {', '.join(wrong[:5])}.")
        rows = rows.assign(split=words.map(SPLIT_WORDS))
    n_splits = rows[(rows["patient"] != "") & (rows["split"] != "")].groupby("patient")["split"].nunique()
    if (n_splits > 1).any():
        raise ValueError(
            f"A patient must be in one split. Found {number_of((n_splits > 1).sum(), 'patient')} in two or more."
        )
    has_none = set(rows["split"]) in ({"train"}, {"train", "test"})
    return _with_validation(rows, options, tasks[0]) if has_none else rows


def _with_validation(rows: pd.DataFrame, options: argparse.Namespace, central: str) -> pd.DataFrame:
    """Draw validation patients from those of the training, stratified as a study does that draws its splits."""
    share = options.validation_share
    if not 0 < share < 1:
        raise ValueError(f"`--validation-share` must be above 0 and below 1. Found {share}.")
    part = rows[(rows["split"] == "train") & (rows["excluded"] == "")]
    positive = part.groupby("patient")[central].max().fillna(0)  # sorted by patient
    try:
        drawn = train_test_split(positive.index, test_size=share, random_state=options.seed, stratify=positive)[1]
    except ValueError as error:
        must = "`--validation-share` must leave patients of both classes in training and validation"
        found = f"{share} of {len(positive)}, {int(positive.sum())} positive: {error}"
        raise ValueError(f"{must}. Found {found}") from error
    return rows.assign(split=rows["split"].mask(rows["patient"].isin(drawn), "validation"))


def find_images(rows: pd.DataFrame, images: Path, pattern: str) -> pd.DataFrame:
    """Add `image`, relative to the folder of images; a scan without one is excluded as still to be downloaded."""
    places = [FIELD.sub(lambda field, row=row: row[field[1]], pattern) for row in rows.to_dict("records")]
    is_missing = pd.Series([not (images / place).exists() for place in places], index=rows.index)
    if is_missing.all():
        _logger.warning(
            "Of %s none is there; the first is looked for at %s", number_of(len(rows), "image"), images / places[0]
        )
    is_open = is_missing & (rows["excluded"] == "")
    return rows.assign(image=places, excluded=rows["excluded"].mask(is_open, f"{DOWNLOAD}: no image"))


def convert_images(rows: pd.DataFrame, options: argparse.Namespace) -> pd.DataFrame:
    """Convert every volume that is there to a complete file next to the table; what cannot be is excluded."""
    folder = options.out.absolute().parent / CONVERTED
    jobs, reasons = [], {}
    for row in rows[rows["excluded"] == ""].to_dict("records"):
        try:
            spacing_mm = _spacing(row, options)
            rescale = tuple(_number(row, cell, "--rescale") for cell in options.rescale or ("1", "0"))
            geometry = Geometry(spacing_mm, options.axes, rescale, options.key)
        except ValueError as error:
            reasons[row["scan"]] = str(error)
            continue
        jobs.append((row["scan"], options.images / row["image"], folder / f"{row['scan']}.mha", geometry))
    done = run_jobs(convert, jobs, workers=options.workers)
    bar = tqdm(done, total=len(jobs), desc="converted", unit="scan", disable=not sys.stderr.isatty())
    reasons |= {outcome["scan"]: outcome["reason"] for outcome in bar}
    excluded = rows["excluded"].where(rows["excluded"] != "", rows["scan"].map(reasons).fillna(""))
    return rows.assign(image=CONVERTED + "/" + rows["scan"] + ".mha", excluded=excluded)


def facts(
    options: argparse.Namespace, tables: Sequence[tuple[str, Path]], tasks: dict[str, list[str]]
) -> dict[str, Any]:
    """What the side file says: files, columns and choices (no paths)."""
    files = [path for _, path in tables]
    named = {f"table {path.name}": path for path in files} | {f"metadata {p.name}": p for p in options.metadata}
    columns = {
        task: sorted({name for path in files for name in columns_of(spelled, header(path), path)})
        for task, spelled in tasks.items()
    }
    names = ("scan", "patient", "parts", "split", "one_per", "image", "validation_share", "blank", "keep", "seed")
    geometry = {"spacing_mm": options.spacing_mm, "axes": options.axes, "rescale": options.rescale, "key": options.key}
    return {
        "files": file_facts(named),
        "splits_of_tables": {path.name: split or "drawn" for split, path in tables},
        "tasks": columns,
        "rule": "1 where one column or row of the scan is 1, 0 where all are 0, else not known",
        "options": {name: getattr(options, name) for name in names},
        "conversion": {**geometry, "to": CONVERTED, "check": CHECK} if needs_conversion(options) else "none",
    }


def _spacing(row: Mapping[str, str], options: argparse.Namespace) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x); a column may hold "[y, x]", as DICOM's pixel spacing does."""
    if not options.spacing_mm:
        return None
    sizes = [_number(row, cell, "--spacing-mm", place=max(0, axis - 1)) for axis, cell in enumerate(options.spacing_mm)]
    if not min(sizes) > 0:
        raise ValueError(f"The voxel size must be positive. Found {sizes}.")
    return tuple(sizes)


def _number(row: Mapping[str, str], cell: str, option: str, *, place: int = 0) -> float:
    """A number that is given, or that of the row's column; of a list the one at `place`."""
    text = cell if is_number(cell) else row[cell]
    try:
        found = ast.literal_eval(text)
        number = float(found[place] if isinstance(found, list | tuple) else found)
    except (ValueError, SyntaxError, TypeError, IndexError):
        number = math.nan
    if not math.isfinite(number):
        found = "something else" if text else "none"  # it may be any text, a name too
        raise ValueError(f"`{option}` must be numbers. Found {found} in the column {cell}.")
    return number
