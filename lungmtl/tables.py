"""CSV tables: written so that a spreadsheet computes none of their texts, and read as they were before.

Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection.
"""

import re
from pathlib import Path

import pandas as pd

from lungmtl.files import write

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # how a cell begins that a spreadsheet computes, guarded before or not
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def write_csv(
    frame: pd.DataFrame, path: str | Path, *, float_format: str | None = None, index_label: str | None = None
) -> Path:
    """Write a table as `csv_text` gives it, atomically; returns the path."""
    return write(path, csv_text(frame, float_format=float_format, index_label=index_label))


def csv_text(frame: pd.DataFrame, *, float_format: str | None = None, index_label: str | None = None) -> str:
    """A table as CSV, with the same bytes for the same values everywhere.

    A text that a spreadsheet would compute gets a ' before it, names of columns and rows, too; numbers stay numbers.
    `unguarded` takes it off.

    Args:
        float_format: Of numbers, all digits where not given.
        index_label: Name of the index as a column; without it the index is left out.
    """
    guarded = frame.assign(**{name: frame[name].map(_guard) for name in _texts(frame)})
    has_index = index_label is not None
    guarded = guarded.rename(columns=_guard, index=_guard if has_index else None)
    return guarded.to_csv(index=has_index, index_label=index_label, float_format=float_format, lineterminator="\n")


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as it was before `write_csv`, from one that was read; a new frame."""
    return frame.assign(**{name: frame[name].map(unguard) for name in _texts(frame)}).rename(columns=unguard)


def unguard(value: object) -> object:
    """A text without the mark that `write_csv` put before it."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and FORMULA.match(value) else value


def _guard(value: object) -> object:
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def _texts(frame: pd.DataFrame) -> list[str]:
    return list(frame.select_dtypes(exclude=["number", "bool"]))
