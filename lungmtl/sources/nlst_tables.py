"""NLST's official tables, as CDAS or IDC delivers them."""

import csv
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl.data import check_csv
from lungmtl.files import existing
from lungmtl.words import number_of

DIAGNOSES = {"chronic_bronchitis": "diagchro", "copd": "diagcopd", "emphysema": "diagemph"}
FOLLOW_UP = ("fup_days", "canc_free_days")  # the first is meant for it; public tables have the second alone
REPORTED = {"adult": "diagadas", "childhood": "diagchas"}
LUNA25_COLUMNS = (  # in lower case, as all names are read
    *("patientid", "seriesinstanceuid", "studydate", "label"),
    *("annotationid", "age_at_studydate", "gender"),
)
TABLE_COLUMNS = {  # all that is ever read of the official tables
    *("pid", "candx_days", "cancyr", "can_scr", "conflc", "study_yr", "sct_ab_desc", *FOLLOW_UP),
    *(f"{name}{screen}" for name in ("scr_days", "scr_res") for screen in range(3)),
    *(*REPORTED.values(), *DIAGNOSES.values(), *LUNA25_COLUMNS),
}
MISSING = r"(\.[A-Z_]?)?"  # how SAS writes a missing number


class Table(NamedTuple):
    """An official table: those of its `TABLE_COLUMNS` it has, every cell as stripped text, indexed by line."""

    path: Path
    rows: pd.DataFrame


def read_table(path: str | Path, *, required: Sequence[str] = ()) -> Table:
    """Read an official table, csv or parquet (which needs the extra `nlst`), as CDAS or IDC delivers it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table or one of the `required` columns is missing.
    """
    path = existing(path, "An official table")
    rows = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    check_columns(rows, required, path)
    return Table(path, rows)


def read_participants(path: str | Path, *, screen: int = 0) -> Table:
    """Read a participant table: CDAS's `Participant`, or the public `nlst_prsn` (without reported diagnoses).

    Raises:
        ValueError: If a column is missing, or a participant comes twice.
    """
    people = read_table(path, required=["pid", "candx_days", "cancyr", f"scr_days{screen}"])
    for columns in (("can_scr", "conflc"), FOLLOW_UP):
        if not set(columns) & set(people.rows):
            raise ValueError(f"A participant table must have `{columns[0]}` or `{columns[1]}`. Found none in {path}.")
    wrong = people.rows.index[(people.rows["pid"] == "") | people.rows["pid"].duplicated()]
    if len(wrong):
        raise ValueError(f"Every row must have its own `pid`. Found a blank or a double in row {wrong[0]} of {path}.")
    return people


def read_abnormalities(path: str | Path) -> Table:
    """Read a table of CT abnormalities: CDAS's `Spiral CT Abnormalities`, or the public `nlst_ctab`."""
    return read_table(path, required=["pid", "study_yr", "sct_ab_desc"])


def query(path: Path, sql: str) -> pd.DataFrame:
    """Run SQL with the file's name as its one parameter; all text, blank for NULL."""
    if importlib.util.find_spec("duckdb") is None:
        raise FileNotFoundError(f"A parquet file must have the package duckdb. Found none for {path}.")
    import duckdb

    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            result = connection.execute(sql, [str(path)])
            names = [column[0] for column in result.description]
            rows = [["" if cell is None else str(cell) for cell in row] for row in result.fetchall()]
    except duckdb.Error as error:
        raise ValueError(f"A parquet file must be readable and whole. Found in {path}: {error}") from error
    return pd.DataFrame(rows, columns=names, dtype=str)


def check_columns(rows: pd.DataFrame, required: Sequence[str], path: Path) -> None:
    """Check that each of the required columns is there once."""
    for name in required:
        if (found := list(rows).count(name)) != 1:
            raise ValueError(f"The table must have one column `{name}`. Found {found} in {path}.")


def _read_csv(path: Path) -> pd.DataFrame:
    check_csv(path, "An official table")
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        lines = csv.reader(stream)
        names = [name.strip().lower() for name in next(lines, [])]
        kept = [place for place, name in enumerate(names) if name in TABLE_COLUMNS]
        rows = {}
        for row in filter(None, lines):
            if len(row) != len(names):
                found = f"{len(row)} in row {lines.line_num} of {path}"
                raise ValueError(f"Every row must have the header's {len(names)} cells. Found {found}.")
            rows[lines.line_num] = [row[place].strip() for place in kept]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[names[place] for place in kept], dtype=str)


def _read_parquet(path: Path) -> pd.DataFrame:
    rows = query(path, "select * from read_parquet(?)").rename(columns=lambda name: name.strip().lower())
    rows = rows[[name for name in rows if name in TABLE_COLUMNS]]
    return rows.apply(lambda column: column.str.strip()).set_axis(range(2, len(rows) + 2))  # 1 is the header


def numbers(table: Table, name: str, *, allowed: Sequence[int] | None = None) -> pd.Series:
    """Return a column as float, NaN where missing."""
    text = table.rows[name]
    is_missing = text.str.fullmatch(MISSING)
    found = pd.to_numeric(text.mask(is_missing), errors="coerce")
    is_wrong = ~is_missing & (found.isna() | (~found.isin(allowed) if allowed else False))
    if is_wrong.any():
        what = " or ".join(str(number) for number in allowed) if allowed else "a number"
        row, n_rows = is_wrong.idxmax(), number_of(is_wrong.sum(), "row")
        case = f"{text[row]!r} in row {row} of {table.path} ({n_rows})"
        raise ValueError(f"`{name}` must be {what}, blank or a missing code such as .N. Found {case}.")
    return found


def optional(table: Table, name: str, *, allowed: Sequence[int] | None = None) -> pd.Series:
    """As `numbers`, and all NaN where the table does not have the column."""
    return numbers(table, name, allowed=allowed) if name in table.rows else pd.Series(np.nan, index=table.rows.index)


def check_cells(table: Table, name: str, pattern: str, what: str, *, is_secret: bool = False) -> None:
    """Check that every cell of a column matches; what is found is not shown of a column that may name a patient."""
    text = table.rows[name]
    wrong = text.index[~text.str.fullmatch(pattern)]
    if len(wrong):
        found = "another value" if is_secret else repr(text[wrong[0]])
        case = f"{found} in row {wrong[0]} of {table.path} ({number_of(len(wrong), 'row')})"
        raise ValueError(f"`{name}` must be {what}. Found {case}.")
