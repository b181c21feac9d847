"""Marks that several figures share: panels, dots with intervals, named rows, text next to an axis."""

from collections.abc import Collection, Hashable, Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungmtl.figures.style import Look, new_figure

CHANCE_LINE = {"color": "0.5", "linewidth": 0.9, "linestyle": ":", "zorder": 1}


def panels(
    names: Sequence[str], *, size_in: tuple[float, float], x: str, y: str = "", n_columns: int = 5
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with a panel per name, at most `n_columns` in a row and as even as possible, on the same axes.

    `size_in` is a panel's width and height, `x` labels the lowest axes and `y` the leftmost ones. Returns the figure,
    and name to axes.
    """
    n_rows = -(-len(names) // n_columns)
    n_columns = -(-len(names) // n_rows)
    size = {"width_in": max(0.6 + size_in[0] * n_columns, 4.5), "height_in": 1.0 + size_in[1] * n_rows}
    figure, axes = new_figure(**size, rows=n_rows, columns=n_columns, share="xy")
    for axis in axes.flat[len(names) :]:
        axis.remove()
    for place, (axis, name) in enumerate(zip(figure.axes, names, strict=True)):
        is_lowest = place >= len(names) - n_columns
        axis.tick_params(labelbottom=is_lowest)
        axis.set(title=name, xlabel=x if is_lowest else "", ylabel=y if place % n_columns == 0 else "")
    return figure, dict(zip(names, figure.axes, strict=True))


def dots_with_intervals(axis: Axes, rows: pd.DataFrame, value: str, style: dict[str, Look]) -> None:
    """A marker and an interval per row, in the experiment's look; with low_90 and high_90 a thick one over a thin one.

    `rows` has experiment, position (height of the row), low, high and the column `value`.
    """
    lines = [("low", "high", 1.0), ("low_90", "high_90", 2.8)] if "low_90" in rows else [("low", "high", 1.6)]
    for row in rows.to_dict("records"):
        look = style[row["experiment"]]
        for low, high, width in lines:
            axis.plot([row[low], row[high]], [row["position"]] * 2, color=look.color, linewidth=width)
        axis.plot(row[value], row["position"], **marker(look, size=7 if "low_90" in rows else 5))


def clip_intervals(axis: Axes, part: pd.DataFrame, rows: pd.DataFrame, value: str, style: dict[str, Look]) -> None:
    """Limit an axis to all values and most intervals of `rows`, with an arrow where an interval of `part` is cut.

    `part` are the axis's own rows, with experiment, position, low, high and the column `value`.
    """
    ends = rows[["low", "high"]].abs().to_numpy()
    bound = max(1.15 * rows[value].abs().max(), 1.2 * np.quantile(ends, 0.75))
    bound = 1.05 * ends.max() if ends.max() < 1.5 * bound else bound  # draw in full what extends a little further
    low, high = max(1.05 * rows["low"].min(), -bound), min(1.05 * rows["high"].max(), bound)
    low, high = min(low, -0.1 * bound), max(high, 0.1 * bound)
    axis.set_xlim(low, high)
    for row in part.to_dict("records"):
        for limit, shape, goes_on in ((low, "<", row["low"] < low), (high, ">", row["high"] > high)):
            if goes_on:
                color = style[row["experiment"]].color
                axis.plot(limit, row["position"], marker=shape, markersize=6, color=color, clip_on=False)


def legend(axis: Axes, place: str = "best") -> None:
    """Small legend of a panel's lines, in two columns if there are many."""
    handles, _ = axis.get_legend_handles_labels()
    axis.legend(loc=place, fontsize=6.5, handlelength=1.8, ncols=1 + (len(handles) > 5), columnspacing=1)


def marker(look: Look, *, size: float = 5) -> dict[str, str | float]:
    """Arguments of matplotlib and seaborn for an experiment's marker."""
    face, edge, width = (look.color, "white", 0.6) if look.is_filled else ("white", look.color, 1.1)
    edges = {"markeredgecolor": edge, "markeredgewidth": width}
    return {"marker": look.marker, "markersize": size, "markerfacecolor": face, "color": look.color, **edges}


def grouped_positions(groups: Iterable[Iterable[Hashable]], *, gap: float) -> dict[Hashable, float]:
    """Height of every row, one apart, with a gap between groups."""
    places = [(name, i) for i, group in enumerate(groups) for name in group]
    return {name: row + gap * i for row, (name, i) in enumerate(places)}


def under_heads(rows: pd.DataFrame, group: str, name: str) -> tuple[pd.DataFrame, dict[float, str], list[float]]:
    """The rows with their position, in groups under headings; text of every position; positions of the headings."""
    groups = rows.drop_duplicates([group, name]).groupby(group, sort=False)[name]
    places = grouped_positions([[(head, ""), *((head, one) for one in names)] for head, names in groups], gap=0.4)
    rows = rows.assign(position=[places[place] for place in zip(rows[group], rows[name], strict=True)])
    words = {position: one or head for (head, one), position in places.items()}
    return rows, words, [position for (_, one), position in places.items() if not one]


def name_rows(axes: Iterable[Axes], words: dict[float, str], *, bold: Collection[float] = (), grid: bool) -> None:
    """Label the rows at these heights, the first one on top, with or without horizontal grid lines."""
    for axis in axes:
        axis.set_yticks(list(words), list(words.values()))
        axis.set_ylim(max(words) + 0.6, -0.6)
        axis.grid(visible=grid, axis="y")
        for position, label in zip(words, axis.get_yticklabels(), strict=False):  # inner panels have none
            label.set_fontweight("bold" if position in bold else "normal")


def write_right(axis: Axes, position: float, text: str, *, offset_pt: float, side: str, color: str = "black") -> None:
    """Write to the right of an axis, at a row's height."""
    place = {"xycoords": axis.get_yaxis_transform(), "textcoords": "offset points", "annotation_clip": False}
    axis.annotate(text, (1, position), (offset_pt, 0), ha=side, va="center", color=color, **place)
