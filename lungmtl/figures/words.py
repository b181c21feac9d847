"""Words in figures: captions, names of tasks and attributes, counts."""

import textwrap

import pandas as pd
from matplotlib.figure import Figure

from lungmtl.words import seeds_of, task_label

UNITS = {"mm": "mm", "hu": "HU", "kg": "kg", "cm": "cm", "years": "years"}  # last words of column names


def captioned(figure: Figure, text: str, *, alt: str = "") -> Figure:
    """The figure with a wrapped caption under it: scans, seeds and the name of the interval belong in it.

    `alt` is its alternative text, what it shows with numbers; empty = the caption.
    """
    figure.alt = alt or text
    columns = int(figure.get_figwidth() * 18)
    lines = textwrap.wrap(text.replace(" %", "\N{NO-BREAK SPACE}%"), columns)
    figure.supxlabel("\n".join(lines).replace("\N{NO-BREAK SPACE}", " "), x=0.01, ha="left", fontsize=7.5, color="0.35")
    return figure


def sentence(task: str) -> str:
    """A task's name at the start of a sentence: COPD stays COPD."""
    return task_label(task)[0].upper() + task_label(task)[1:]


def attribute_label(name: str) -> str:
    """A column's name for readers: nodule_mm -> nodule (mm); tasks as `task_label`."""
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')} ({UNITS[unit]})" if unit in UNITS and words else task_label(name)


def scans_of(frame: pd.DataFrame) -> str:
    """Test scans, positive ones and seeds: 600 test scans, 180 positive, 5 seeds."""
    first = frame.iloc[0]
    return f"{first['n']} test scans, {first['positives']} positive, {seeds_of(frame)}"


def extremes(rows: pd.DataFrame, value: str, *, name: str = "experiment", form: str = ".2f") -> str:
    """The ends of a column in words: from 0.62 (MTL4) to 0.86 (STL)."""
    ordered = rows.sort_values(value)
    low, high = ordered.iloc[0], ordered.iloc[-1]
    if len(rows) == 1:
        return f"{low[value]:{form}} ({low[name]})"
    return f"from {low[value]:{form}} ({low[name]}) to {high[value]:{form}} ({high[name]})"


def percent_text(share: float) -> str:
    """A share in whole percent."""
    return f"{100 * share:.0f} %"
