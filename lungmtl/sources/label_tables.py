"""Label tables of any cohort: csv files with a row per scan, or per nodule of one, to one row per scan.

A column is spelled by its name, or by a pattern in which `*` stands for any text and `[*]` for an asterisk; the exact
name comes first, so that `cancer*lung` is that column of RAD-ChestCT alone and `cancer[*]*` all of its locations.
"""

import fnmatch
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl.data import ANSWERS, SCAN_NAME, check_csv
from lungmtl.files import existing
from lungmtl.sources.table import close_to, highest

IMAGE_SUFFIX = re.compile(r"\.(nii\.gz|nii|mha|mhd|nrrd|npz)$", re.IGNORECASE)


class Wanted(NamedTuple):
    """What is taken from the tables.

    Attributes:
        scan: Column that names the scan, in the tables of labels and in those of metadata.
        tasks: Task to the spellings of its columns.
        others: Further columns, by their exact names, of either kind of table.
        blank: Cells of labels that mean not known, besides an empty one.
    """

    scan: str
    tasks: dict[str, list[str]]
    others: Sequence[str]
    blank: Sequence[str]


def read_scans(tables: Sequence[tuple[str, Path]], metadata: Sequence[Path], wanted: Wanted) -> pd.DataFrame:
    """Read labels and metadata.

    Args:
        tables: Split (blank if none) and file of every table of labels.
    Returns:
        One row per scan, by name: `scan`, `split`, a column per task (1 if a row of the scan is, 0 if all are, else
        NaN), and the other columns as text, blank where no metadata has the scan.
    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a column is missing, a cell is not what it must be, or rows of a scan differ.
    """
    headers = {path: header(path) for path in [*(path for _, path in tables), *metadata]}
    for name in wanted.others:
        check_known(name, [column for columns in headers.values() for column in columns], "The tables")
    rows = pd.concat([_read_labels(path, split, headers[path], wanted) for split, path in tables], ignore_index=True)
    rows = _by_scan(rows, list(wanted.tasks))
    parts = [_read_others(path, headers[path], wanted) for path in metadata]
    if parts:
        further = _by_scan(pd.concat(parts, ignore_index=True), [])
        rows = rows.merge(further, on="scan", how="left", suffixes=("", " of metadata"))
    return rows.assign(**{name: rows[name].fillna("") for name in wanted.others})


def header(path: Path) -> list[str]:
    """Names of a csv table's columns.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no csv table in UTF-8.
    """
    check_csv(existing(path, "A table"), "A table")
    return list(_read_csv(path, nrows=0))


def columns_of(spellings: Sequence[str], names: Sequence[str], path: Path) -> list[str]:
    """Columns that these spellings name, in the table's order.

    Raises:
        ValueError: If one names none.
    """
    found = set()
    for spelling in spellings:
        is_exact = spelling in names
        matches = {spelling} if is_exact else {name for name in names if fnmatch.fnmatchcase(name, spelling)}
        if not matches:
            check_known(spelling, names, f"{path.name}")
        found |= matches
    return [name for name in names if name in found]


def check_known(name: str, names: Iterable[str], where: str) -> None:
    """Check that a column is there; the error names those that are close."""
    names = list(names)
    if name not in names:
        more = f" and {len(names) - 6} more" if len(names) > 6 else ""
        near = close_to(name, names) or f" There are {', '.join(names[:6])}{more}."
        raise ValueError(f"{where} must have the column `{name}`. Found none.{near}")


def _read_csv(path: Path, **options: object) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", **options)
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"A table must be csv in UTF-8, with commas. Found in {path}: {error}") from error


def _read_labels(path: Path, split: str, names: list[str], wanted: Wanted) -> pd.DataFrame:
    check_known(wanted.scan, names, path.name)
    columns = {task: columns_of(spellings, names, path) for task, spellings in wanted.tasks.items()}
    others = [name for name in wanted.others if name in names]
    needed = {wanted.scan, *others, *(name for group in columns.values() for name in group)}
    rows = _read_csv(path, usecols=sorted(needed)).apply(lambda column: column.str.strip())
    answers = ANSWERS | dict.fromkeys(wanted.blank, np.nan)
    labels = {}
    for task, group in columns.items():
        _check_answers(rows[group], answers, path)
        labels[task] = highest(rows[group].apply(lambda column: column.map(answers).astype(float)))
    return pd.DataFrame({"scan": _scan_names(rows[wanted.scan], path), "split": split, **labels, **rows[others]})


def _read_others(path: Path, names: list[str], wanted: Wanted) -> pd.DataFrame:
    check_known(wanted.scan, names, path.name)
    others = [name for name in wanted.others if name in names]
    rows = _read_csv(path, usecols=sorted({wanted.scan, *others})).apply(lambda column: column.str.strip())
    return pd.DataFrame({"scan": _scan_names(rows[wanted.scan], path), **rows[others]})


def _scan_names(cells: pd.Series, path: Path) -> pd.Series:
    """Names of scans without the suffix of an image."""
    names = cells.str.replace(IMAGE_SUFFIX, "", regex=True)
    wrong = names.index[~names.str.fullmatch(SCAN_NAME)]
    if len(wrong):
        must = f"`{cells.name}` must name scans by letters, digits, dot, dash and underscore"
        raise ValueError(f"{must}. Found {cells[wrong[0]]!r} in row {wrong[0] + 2} of {path}.")
    return names


def _check_answers(cells: pd.DataFrame, answers: dict[str, float], path: Path) -> None:
    is_wrong = ~cells.isin(list(answers))
    if is_wrong.any(axis=None):
        row = is_wrong.any(axis=1).idxmax()
        name = is_wrong.loc[row].idxmax()
        found = f"{cells.loc[row, name]!r} in row {row + 2} of {path}"
        remedy = f"`--blank {cells.loc[row, name]}` takes it as not known."
        raise ValueError(f"`{name}` must be 0, 1 or blank. Found {found}: {remedy}")


def _by_scan(rows: pd.DataFrame, tasks: list[str]) -> pd.DataFrame:
    """One row per scan; other columns than labels must be the same in all rows of a scan."""
    groups = rows.groupby("scan")
    others = rows.columns.drop(["scan", *tasks])
    for name in others:
        n_values = groups[name].transform("nunique")
        if (n_values > 1).any():
            scan = rows.loc[n_values.idxmax(), "scan"]
            raise ValueError(f"`{name}` must be the same in all rows of a scan. Found {n_values.max()} in {scan}.")
    labels = groups[tasks].max()
    is_open = groups[tasks].count().lt(groups.size(), axis=0) & (labels == 0)
    return labels.mask(is_open).join(groups[list(others)].first()).reset_index()
