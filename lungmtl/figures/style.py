"""Style of all figures: colours, markers, names for readers, captions.

An experiment has one colour, marker and line style in every figure (`looks`). A variant, named BASE.change
(ITW2.start0.5), stands beside its base, in the base's colour, with an open marker.

Sources: Okabe & Ito 2008 (colour-blind safe hues), https://jfly.uni-koeln.de/color.
"""

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure

from lungmtl.experiments import base_of

STYLE = {
    "figure.dpi": 110,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # ships with matplotlib, so a figure is the same on every machine
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.edgecolor": "0.35",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
styled = matplotlib.rc_context(STYLE)  # used as a decorator: the style holds inside the function only
# one family, one hue: STL black, BW amber, PFLP blue (darker = heavier auxiliaries), ITW vermillion
COLORS = {
    "STL": "#000000",
    "MTL": "#E6A800",
    "MTL0": "#9CCBEA",
    "MTL1": "#6AAEDC",
    "MTL2": "#3A8CC8",
    "MTL3": "#1566A8",
    "MTL4": "#073B73",
    "ITW1": "#F08A5D",
    "ITW2": "#D1490C",
    "ITW3": "#7E2300",
}
FAMILIES = {"STL": "STL", "MTL": "BW", "ITW1": "ITW", "ITW2": "ITW", "ITW3": "ITW"} | {
    f"MTL{number}": "PFLP" for number in range(5)
}
FAMILY_MARKERS = {"STL": "D", "BW": "s", "PFLP": "o", "ITW": "^", "other": "X"}
FAMILY_LINES = {"STL": (0, (5, 1.5)), "BW": (0, (1.2, 1.2)), "PFLP": "-", "ITW": "-", "other": (0, (4, 1, 1, 1))}
VARIANT_MARKERS = ("o", "s", "^", "D", "v", "p", "<", "h", ">", "P", "*", "d")  # open, in order of name
VARIANT_LINES = ((0, (5, 1)), (0, (2, 1)), (0, (7, 1, 2, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 1)))
OTHER_COLORS = ("#009E73", "#CC79A7", "#7F7F7F", "#5B3E96", "#A8B400")  # experiments outside Table 2, in order
TASK_COLORS = ("#D1490C", "#009E73", "#E6A800", "#3A8CC8", "#A0559A")  # by position: the central task first
SPLIT_COLORS = ("#3A8CC8", "#E6A800", "#7F7F7F")  # train, validation, test
PART_COLORS = {"seeds": "#D1490C", "scans": "#3A8CC8"}  # the two parts of a variance
UNITS = {"mm": "mm", "hu": "HU", "kg": "kg", "cm": "cm", "years": "years"}  # last words of column names
MINUS = "\N{MINUS SIGN}"
AGAINST_ALL = ", against all negatives"  # ends the name of a subgroup of positives
LEVEL = 0.05  # of the adjusted p values, two-sided for a difference


class Look(NamedTuple):
    """How one experiment is drawn, in every figure."""

    color: str
    marker: str
    line: str | tuple
    is_filled: bool = True


class NotebookFigure(Figure):
    """A Figure outside pyplot that a notebook shows by itself. It is laid out once, however often it is saved."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw, and keep the layout that this has found."""
        super().draw(renderer)
        self.set_layout_engine(None)  # of matplotlib's settings, which have none

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


def looks(experiments: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and line style of every experiment; Table 2 experiments always have the same one.

    A variant has its base's colour, and a marker by its place among the base's variants.
    """
    names = list(dict.fromkeys(experiments))
    others = [base for base in dict.fromkeys(map(base_of, names)) if base not in COLORS]
    colors = COLORS | {base: OTHER_COLORS[i % len(OTHER_COLORS)] for i, base in enumerate(others)}
    return {name: _look(name, names, colors[base_of(name)]) for name in names}


def _look(name: str, names: list[str], color: str) -> Look:
    base = base_of(name)
    if name == base:
        family = FAMILIES.get(name, "other")
        return Look(color, FAMILY_MARKERS[family], FAMILY_LINES[family])
    place = sorted(other for other in names if base_of(other) == base != other).index(name)
    line = VARIANT_LINES[place % len(VARIANT_LINES)]
    return Look(color, VARIANT_MARKERS[place % len(VARIANT_MARKERS)], line, is_filled=False)


def task_colors(tasks: Iterable[str]) -> dict[str, str]:
    """Colour of every task, by its position: the central task comes first and is vermillion."""
    return {task: TASK_COLORS[i % len(TASK_COLORS)] for i, task in enumerate(tasks)}


def task_label(task: str) -> str:
    """A task's name for readers: lung_cancer -> lung cancer, copd -> COPD."""
    return "COPD" if task == "copd" else task.replace("_", " ")


def attribute_label(name: str) -> str:
    """A column's name for readers: nodule_mm -> nodule (mm); tasks as `task_label` has them."""
    words, _, unit = name.rpartition("_")
    return f"{words.replace('_', ' ')} ({UNITS[unit]})" if unit in UNITS and words else task_label(name)


def new_figure(
    *,
    width_in: float,
    height_in: float,
    rows: int = 1,
    columns: int = 1,
    share_x: bool = False,
    share_y: bool = False,
    height_ratios: Sequence[float] | None = None,
) -> tuple[Figure, np.ndarray]:
    """An empty figure outside pyplot (shown once by a notebook) and its axes, always (rows, columns)."""
    figure = NotebookFigure(figsize=(width_in, height_in), layout="constrained")
    shared = {"sharex": share_x, "sharey": share_y}
    return figure, figure.subplots(rows, columns, **shared, height_ratios=height_ratios, squeeze=False)


def add_caption(figure: Figure, text: str) -> None:
    """Write a wrapped caption under the figure: scans, seeds and the name of the interval belong in it."""
    columns = int(figure.get_figwidth() * 18)
    figure.supxlabel("\n".join(textwrap.wrap(text, columns)), x=0.01, ha="left", fontsize=7.5, color="0.35")


def sentence(task: str) -> str:
    """A task's name at the start of a sentence: COPD stays COPD."""
    return task_label(task)[0].upper() + task_label(task)[1:]


def seeds_of(frame: pd.DataFrame) -> str:
    low, high = int(frame["n_seeds"].min()), int(frame["n_seeds"].max())
    return f"{low} to {high} seeds" if low != high else f"{low} seed{'s' if low > 1 else ''}"


def interval_names(frame: pd.DataFrame) -> str:
    return " or ".join(sorted(set(frame["interval"])))


def p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def percent_text(share: float, *, decimals: int = 0) -> str:
    return f"{100 * share:.{decimals}f} %"


def interval_text(value: float, low: float, high: float) -> str:
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", MINUS)
