"""Marks that several figures share: dots with intervals, named rows, text beside an axis."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from lungmtl.experiments import base_of
from lungmtl.figures.style import COLORS, Look

BESIDE = ((8, "left"), (172, "right"), (240, "right"), (254, "left"))  # offset in points and alignment of columns
LABEL_IN = 0.14  # height of a line's name beside an axis


def dots_with_intervals(
    axis: Axes, rows: pd.DataFrame, value: str, positions: Sequence[float], style: dict[str, Look]
) -> None:
    """A marker and an interval per row, in the experiment's look; with low_90 and high_90 a thick one on a thin one."""
    is_double = "low_90" in rows
    for position, row in zip(positions, rows.to_dict("records"), strict=True):
        look = style[row["experiment"]]
        line = {"color": look.color, "solid_capstyle": "butt"}
        axis.plot([row["low"], row["high"]], [position] * 2, **line, linewidth=1.0 if is_double else 1.6)
        if is_double:
            axis.plot([row["low_90"], row["high_90"]], [position] * 2, **line, linewidth=2.8)
        dot(axis, row[value], position, look, size=7 if is_double else 5)


def dot(axis: Axes, x: float, y: float, look: Look, *, size: float = 5) -> None:
    face, edge, width = (look.color, "white", 0.6) if look.is_filled else ("white", look.color, 1.1)
    axis.plot(x, y, look.marker, color=face, markeredgecolor=edge, markeredgewidth=width, markersize=size)


def grouped_positions(groups: Sequence[Sequence[Hashable]], *, gap: float) -> dict[Hashable, float]:
    """Height of every row, one apart, with a gap between groups."""
    places = [(name, i) for i, group in enumerate(groups) for name in group]
    return {name: row + gap * i for row, (name, i) in enumerate(places)}


def name_groups(axes: np.ndarray, positions: dict[tuple[str, str], float], labels: dict) -> None:
    """Write group names, the places with an empty second part, bold and the others below them."""
    words = [labels.get(place, place[1]) or place[0] for place in positions]
    for axis in axes.flat:
        axis.grid(visible=False, axis="y")
    for axis in axes[:, 0]:
        axis.set_yticks(list(positions.values()), words)
        axis.set_ylim(max(positions.values()) + 0.6, -0.6)
        for place, label in zip(positions, axis.get_yticklabels(), strict=True):
            label.set_fontweight("normal" if place[1] else "bold")


def name_rows(axis: Axes, experiments: list[str]) -> None:
    axis.set_yticks(range(len(experiments)), experiments)
    axis.set_ylim(len(experiments) - 0.4, -0.6)


def write_beside(axis: Axes, position: float, texts: Sequence[str], *, color: str) -> None:
    """Columns of text (`BESIDE`) to the right of an axis, at a row's height."""
    for text, (offset_pt, side) in zip(texts, BESIDE, strict=False):
        write_right(axis, position, text, offset_pt=offset_pt, side=side, color=color)


def write_right(axis: Axes, position: float, text: str, *, offset_pt: float, side: str, color: str) -> None:
    axis.annotate(
        text,
        (1, position),
        (offset_pt, 0),
        xycoords=axis.get_yaxis_transform(),
        textcoords="offset points",
        ha=side,
        va="center",
        color=color,
        annotation_clip=False,
    )


def draw_band(axis: Axes, margin: float) -> None:
    """The band of differences too small to matter, and no difference."""
    axis.axvspan(-margin, margin, color="0.93", linewidth=0)
    axis.axvline(0, color="0.35", linewidth=0.9)


def panel_grid(n_panels: int) -> tuple[int, int]:
    """Rows and columns of at most five columns, as even as possible."""
    n_rows = -(-n_panels // 5)
    return n_rows, -(-n_panels // n_rows)


def trim(axes: np.ndarray, n_panels: int, *, x_label: str, y_label: str) -> None:
    """Hide empty panels and label the outer axes only."""
    for axis in axes.flat[n_panels:]:
        axis.set_visible(False)
    for column, axis in enumerate(axes[-1]):
        lowest = axis if axis.get_visible() else axes[-2, column]
        lowest.set_xlabel(x_label)
        lowest.tick_params(labelbottom=True)
    for axis in axes[:, 0]:
        axis.set_ylabel(y_label)


def variant_groups(experiments: Iterable[str]) -> list[list[str]]:
    """Every base with its variants, the base first; a base without variants is left out."""
    names = ordered(experiments)
    bases = dict.fromkeys(base_of(name) for name in names if name != base_of(name))
    return [[name for name in names if base_of(name) == base] for base in bases]


def ordered(experiments: Iterable[str]) -> list[str]:
    """Different experiments: those with a fixed colour first, in Table 2's order, each followed by its variants."""
    names = list(dict.fromkeys(experiments))
    bases = [*COLORS, *map(base_of, names)]
    return sorted(names, key=lambda name: (bases.index(base_of(name)), name != base_of(name)))


def label_ends(axis: Axes, part: pd.DataFrame, *, panel_in: float) -> None:
    """The experiment's name at the right end of each line, moved apart where lines are close."""
    ends = part[part["n"] == part["n"].max()].sort_values("detectable")
    low, high = np.log(axis.get_ylim())
    heights = (np.log(ends["detectable"].to_numpy()) - low) / (high - low)
    for row, height, place in zip(ends.itertuples(), heights, _spread(heights, LABEL_IN / panel_in), strict=True):
        axis.annotate(
            row.experiment,
            (1, height),
            (1.06, place),
            xycoords=axis.transAxes,
            textcoords=axis.transAxes,
            va="center",
            fontsize=7.5,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 0, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    axis.set_xlim(part["n"].min(), part["n"].max())


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Rising heights in [0, 1] moved apart to at least `gap`, each as little as possible (least squares)."""
    steps = gap * np.arange(len(heights))
    return np.clip(isotonic_regression(heights - steps).x, 0, max(1 - gap * (len(heights) - 1), 0)) + steps
