"""Cohort tables: read and check one.

One row of `cohort.csv` is one scan. A diagnosis is 0, 1 or blank, which means not known and becomes NaN. A row with
a reason in `excluded` stays in the table and is used nowhere.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lungmtl.data.images import outside, place_of
from lungmtl.data.masks import with_masks
from lungmtl.data.rows import read_rows
from lungmtl.data.volume import Technique
from lungmtl.experiments import SPLITS, TASKS

ANSWERS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "": np.nan}
DOWNLOAD = "download"  # begins the reason of a scan that is still to be downloaded; followed by what is there of it
MAX_LISTED = 20  # problems of a table named at once
ATTRIBUTES = (
    *("nodule_mm", "noise_hu", "thickness_mm", "n_slices", "kernel", "kvp_kv", "contrast"),
    *("manufacturer", "sex", "age_years"),
)
SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # it becomes a file name


def read_cohort(
    path: str | Path, *, tasks: Sequence[str] = TASKS, allow_outside: bool = False, allow_missing: bool = False
) -> pd.DataFrame:
    """Read a cohort table and check everything that can be wrong with it.

    Args:
        path: The csv file; its images are relative to its folder.
        tasks: Columns that hold a diagnosis; one that is not asked for rides along as text, whatever it holds.
        allow_outside: Whether an image may lie outside the table's folder: by its path, a link in it, a link among the
            slices of its folder, or a file that its header names.
        allow_missing: Whether an image may be missing, for a caller that lists such scans itself.
    Returns:
        All rows and columns in the file's order: diagnoses float (0, 1, NaN = not known), the rest text, with
        `split` and `excluded` added where the file lacks them ("" = none).
    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If a column is missing, or values of rows are not what their columns must hold: all are named.
            Images are named by their scans; the error's `shown`, for the user's own terminal, has their paths, too.
    """
    path = Path(path)
    frame = _read_text(path, tasks)
    texts = [text for name in tasks for text in _unknown(frame, name, list(ANSWERS), "0, 1 or blank")]
    texts = [*_name_problems(frame), *texts, *_split_problems(frame)]
    problems = [*((text, "") for text in texts), *_place_problems(with_masks(included(frame)), path, allow_outside)]
    if problems:
        raise _listed(ValueError, problems, path)
    missing = [] if allow_missing else missing_images(frame, path)
    if missing:
        raise _listed(FileNotFoundError, missing, path)
    return frame.assign(**{name: frame[name].map(ANSWERS).astype(float) for name in tasks})


def included(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not excluded, numbered from 0."""
    return frame[frame["excluded"] == ""].reset_index(drop=True)


def exclude_failed(frame: pd.DataFrame, report: pd.DataFrame) -> pd.DataFrame:
    """Exclude the scans that failed, with the reason of the report; a new frame.

    The report is of `prepare_cohort` or of `check_cohort`: `scan`, `reason`, and `status` or `verdict`.
    """
    state = report["status" if "status" in report else "verdict"]
    failed = report[state == "failed"].set_index("scan")["reason"]
    reasons = frame["scan"].map(failed)
    return frame.assign(excluded=reasons.where(reasons.notna(), frame["excluded"]))


def numbers_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """A column that may not be there as float, NaN where there is no number."""
    return pd.to_numeric(frame[name] if name in frame else pd.Series(np.nan, index=frame.index), errors="coerce")


def missing_images(frame: pd.DataFrame, path: str | Path) -> list[tuple[str, str]]:
    """A sentence, and apart from it the place, for every file that a table at `path` names and that is not there."""
    files = with_masks(included(frame))
    rows = zip(files["image"], files["scan"], strict=True)
    places = [(place_of(Path(path).parent, image), scan) for image, scan in rows]
    missing = [(place, scan) for place, scan in places if not os.path.exists(place)]
    return [
        (f"Every image must exist. Found none for scan {scan}.", f"It should be {place}.") for place, scan in missing
    ]


def attributes(
    frame: pd.DataFrame, truth: pd.DataFrame | None = None, report: pd.DataFrame | None = None
) -> pd.DataFrame:
    """What the table says of its scans apart from diagnoses, for subgroups: `scan` and those of `ATTRIBUTES` it has.

    Other columns are left out: they may name a patient.

    Args:
        frame: A cohort table.
        truth: Columns `scan`, `diameter_mm` (of the malignant nodule) and `noise_hu`, where a generator knows them.
        report: `prepare_cohort`'s; what the headers say counts where the table has no such column.
    Returns:
        One row per scan; numbers where a column holds nothing but numbers and blanks, else text.
    """
    if truth is not None:
        known = truth.rename(columns={"diameter_mm": "nodule_mm"})[["scan", "nodule_mm", "noise_hu"]]
        frame = frame.merge(known, on="scan", how="left")
    if report is not None:
        frame = with_technique(frame, report)
    scans = frame[["scan", *(name for name in ATTRIBUTES if name in frame)]].copy()
    for name in scans.columns.drop("scan"):
        numbers = numbers_of(scans, name)
        is_number = numbers.notna() | scans[name].isna() | (scans[name] == "")
        scans[name] = numbers if is_number.all() else scans[name]
    return scans


def with_technique(frame: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """A table with how its scans were made (`Technique`), where it has no such column and a header says it."""
    said = scans.set_index("scan").reindex(columns=[name for name in Technique._fields if name not in frame])
    said = said.replace("", np.nan).dropna(axis="columns", how="all")
    return frame.merge(said, left_on="scan", right_index=True, how="left")


def _read_text(path: Path, tasks: Sequence[str]) -> pd.DataFrame:
    """Read every cell as stripped text and check the columns."""
    rows = read_rows(path)
    header = rows[0]
    if ragged := [number for number, row in enumerate(rows, start=1) if len(row) != len(header)]:
        raise ValueError(
            f"Every row must have as many cells as the header. Found another count in row {ragged[0]} of {path}."
        )
    if len(set(header)) < len(header):
        raise ValueError(f"Column names must differ. Found {', '.join(header)} in {path}.")
    frame = pd.DataFrame(rows[1:], columns=header, dtype=str)
    if missing := [f"`{name}`" for name in ("scan", "patient", "image", *tasks) if name not in frame]:
        more = [f"and {len(header) - MAX_LISTED} more"] if len(header) > MAX_LISTED else []
        found = ", ".join([*header[:MAX_LISTED], *more]) or "none"
        raise ValueError(f"A cohort must have the column {' and '.join(missing)}. Found {found} in {path}.")
    if frame.empty:
        raise ValueError(f"A cohort must have at least one scan. Found none in {path}.")
    return frame.assign(**{name: "" for name in ("split", "excluded") if name not in frame})


def _listed(kind: type[Exception], problems: Sequence[tuple[str, str]], path: Path) -> Exception:
    """An error of one problem as a sentence, of several as a list; `shown` has what only the user may see, too."""
    more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    texts = []
    for listed in ([text for text, _ in problems], [f"{text} {place}".strip() for text, place in problems]):
        lines = [f"{path} has {len(problems)} problems:", *listed[:MAX_LISTED], *more]
        texts.append(f"{listed[0]} In {path}." if len(problems) == 1 else "\n  - ".join(lines))
    error = kind(texts[0])
    error.shown = texts[1]
    return error


def _unknown(frame: pd.DataFrame, name: str, known: Sequence[str], what: str) -> list[str]:
    wrong = frame[~frame[name].isin(known)]
    pairs = zip(wrong[name], wrong["scan"], strict=True)
    return [f"`{name}` must be {what}. Found {value!r} in scan {scan}." for value, scan in pairs]


def _name_problems(frame: pd.DataFrame) -> list[str]:
    must = "A scan's name must be letters, digits, dot, dash and underscore."
    rows = enumerate(frame["scan"], start=2)  # the header is row 1
    twice = frame["scan"][frame["scan"].str.lower().duplicated()]  # some file systems ignore case
    nameless = frame.loc[frame["patient"] == "", "scan"]
    return [
        *(f"{must} Found {scan!r} in row {row}." for row, scan in rows if not SCAN_NAME.fullmatch(scan)),
        *(f"Every scan must have one row. Found {scan} again." for scan in twice),
        *(f"Every scan must have a patient. Found none in scan {scan}." for scan in nameless),
    ]


def _split_problems(frame: pd.DataFrame) -> list[str]:
    given = frame[frame["split"].isin(SPLITS)].drop_duplicates(["patient", "split"])
    shared = given[given["patient"].duplicated(keep=False)].groupby("patient", sort=False)["split"].agg(" and ".join)
    problems = _unknown(frame, "split", ["", *SPLITS], "train, validation, test or blank")
    return problems + [f"A patient must be in one split. Found {name} in {splits}." for name, splits in shared.items()]


def _place_problems(frame: pd.DataFrame, path: Path, allow_outside: bool) -> list[tuple[str, str]]:
    """What is wrong with places of images, and, apart, the place."""
    problems = [
        (f"Every scan must have an image. Found none in scan {scan}.", "")
        for scan in frame.loc[frame["image"] == "", "scan"]
    ]
    named = frame[frame["image"] != ""] if not allow_outside else frame[:0]
    must = "An image must lie in the table's folder with all its files, unless `--allow-outside` is given"
    elsewhere = outside([place_of(path.parent, image) for image in named["image"]], path.parent)
    return problems + [
        (f"{must}. Found another place in scan {scan}.", f"It is {image}, which leads to {place}.")
        for scan, image, place in zip(named["scan"], named["image"], elsewhere, strict=True)
        if place
    ]
