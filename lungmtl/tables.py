"""CSV tables: written with a guard against spreadsheet formulas, which reading removes.

Source: OWASP, CSV injection, https://owasp.org/www-community/attacks/CSV_Injection.
"""

import re
from pathlib import Path

import pandas as pd

from lungmtl.files import write

FORMULA = re.compile(r"'*[=+\-@\t\r]")  # start of a cell that a spreadsheet evaluates, guarded or not
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def write_csv(
    frame: pd.DataFrame, path: str | Path, *, float_format: str | None = None, index_label: str | None = None
) -> Path:
    """Write `csv_text` of a table atomically; returns the path."""
    return write(path, csv_text(frame, float_format=float_format, index_label=index_label))


def csv_text(frame: pd.DataFrame, *, float_format: str | None = None, index_label: str | None = None) -> str:
    """Format a table as CSV; equal values give equal bytes on every machine.

    A text that a spreadsheet would evaluate is prefixed with ', in names of columns and rows as well; numbers stay
    numbers. `unguarded` removes the prefix.

    Args:
        float_format: Format of numbers; all digits by default.
        index_label: Name of the index as a column; without it the index is left out.
    """
    guarded = frame.assign(**{name: frame[name].map(_guard) for name in _texts(frame)})
    has_index = index_label is not None
    guarded = guarded.rename(columns=_guard, index=_guard if has_index else None)
    has_return = any(frame[name].astype(str).str.contains("\r").any() for name in _texts(frame))
    end = "\r\n" if has_return else "\n"  # pandas quotes a cell only if it holds a part of the line's end
    return guarded.to_csv(index=has_index, index_label=index_label, float_format=float_format, lineterminator=end)


def unguarded(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo the guard of `write_csv` in a table that was read; returns a new frame."""
    return frame.assign(**{name: frame[name].map(unguard) for name in _texts(frame)}).rename(columns=unguard)


def unguard(value: object) -> object:
    """A text without the prefix of `write_csv`."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and FORMULA.match(value) else value


def _guard(value: object) -> object:
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def _texts(frame: pd.DataFrame) -> list[str]:
    return list(frame.select_dtypes(exclude=["number", "bool"]))
