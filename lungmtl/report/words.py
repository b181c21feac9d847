"""Words: values of runs as text, and the templates that they are put into."""

import re
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from lungmtl.words import number_of, some_of, task_label

HASH = re.compile(r"[0-9a-f]{40,64}")
HEX_DIGITS = 10  # of a commit or a sha256 that are shown
NOT_RECORDED = "not recorded"
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def render(template: str, **values: Any) -> str:
    """Fill in a Markdown template of this folder; a name that it uses and is not given is an error."""
    loader = PackageLoader("lungmtl.report", "")
    environment = Environment(loader=loader, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {
        "shown": shown,
        "ends": ends,
        "label": task_label,
        "number_of": number_of,
        "some_of": some_of,
    }
    return environment.get_template(template).render(values).strip()


def number(n: int) -> str:
    """A count in a sentence: a word up to twelve, digits above."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def ends(values: pd.Series, form: str) -> str:
    """From the least value to the greatest; one where all are equal."""
    return " to ".join(dict.fromkeys(form.format(value) for value in (values.min(), values.max())))


def recorded(runs: pd.DataFrame, column: str, between: str = ", ") -> str:
    """The value of a column; where runs differ, each value with its number of runs."""
    return counted(runs[column].map(lambda value: shown(value, between))) if column in runs else NOT_RECORDED


def spanned(runs: pd.DataFrame, column: str) -> str:
    """The least to the greatest of a column's whole numbers, in which runs of several training sets differ."""
    is_known = column in runs and runs[column].notna().all()
    return ends(runs[column], "{:.0f}") if is_known else NOT_RECORDED


def counted(texts: pd.Series) -> str:
    """The text that all rows have; where rows differ, each text with its number of runs."""
    counts = texts.value_counts(sort=False)
    if len(counts) == 1:
        return counts.index[0]
    return ", ".join(f"{text} ({number_of(n, 'run')})" for text, n in counts.items())


def shown(value: Any, between: str = ", ") -> str:
    """A value for readers: lists joined, yes and no, numbers without trailing zeros, hashes by their first digits."""
    if isinstance(value, list | tuple):
        return between.join(map(shown, value)) or "none"
    if value is None or isinstance(value, str):
        return (f"`{value[:HEX_DIGITS]}`" if HASH.fullmatch(value) else value) if value else "none"
    if pd.isna(value):
        return NOT_RECORDED
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.10g}" if isinstance(value, int | float) else str(value)
