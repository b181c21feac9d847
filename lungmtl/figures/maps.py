"""Maps over relatedness, scans and steps: heat maps of differences with intervals, contours, the share that failed."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungmtl.experiments import SMALL_DIFFERENCE
from lungmtl.figures.style import new_figure, styled
from lungmtl.figures.words import captioned
from lungmtl.words import seeds_of

LIMIT = 0.08  # AUC difference at the ends of the colours
LINES = {-SMALL_DIFFERENCE: "dashed", 0.0: "solid", SMALL_DIFFERENCE: "dotted"}  # contours
EDGE = 0.03  # of a panel: a contour's label nearer to the border would be cut off and is left out
FINE = 61  # points per axis on which contours are interpolated


@styled
def difference_maps(contrasts: pd.DataFrame, *, titles: dict[tuple[str, str], str]) -> Figure:
    """One row of heat maps per contrast, one heat map per number of steps.

    Args:
        contrasts: Rows of the grid: `relatedness`, `n_scans`, `n_steps`, `experiment`, `reference`, `difference`,
            `low`, `high`, `n_seeds`.
        titles: Experiment and reference to the contrast's name, in the order of the rows.
    Returns:
        Differences of test AUC above their intervals; bold: 0 is excluded; framed: and the difference exceeds 0.01.
    """
    figure = _panels(contrasts, titles, _heat_map, size_in=(2.7, 1.9))
    return captioned(
        figure,
        f"Differences of test AUC, mean over {seeds_of(contrasts)}, each a world of its own, with the 95 % t interval. "
        f"Bold: it excludes 0; framed: and the difference exceeds {SMALL_DIFFERENCE}. Feature phantoms, not scans.",
    )


@styled
def contour_maps(contrasts: pd.DataFrame, *, titles: dict[tuple[str, str], str]) -> Figure:
    """The panels of `difference_maps` (same arguments) interpolated between cells, with contours of 0 and +-0.01."""
    figure = _panels(contrasts, titles, _contours, size_in=(2.4, 1.75))
    return captioned(
        figure,
        f"Differences of test AUC, mean over {seeds_of(contrasts)}, interpolated in relatedness and log scans. Lines: "
        f"0 (solid), {-SMALL_DIFFERENCE} (dashed), +{SMALL_DIFFERENCE} (dotted). Dots: the cells computed; open: the "
        "95 % t interval includes 0. Feature phantoms, not scans.",
    )


def _panels(
    contrasts: pd.DataFrame,
    titles: dict[tuple[str, str], str],
    draw: Callable[[Axes, dict[str, pd.DataFrame]], None],
    *,
    size_in: tuple[float, float],
) -> Figure:
    """A row per contrast, a panel per number of steps; `draw` gets difference, low and high, relatedness downwards."""
    steps = sorted(contrasts["n_steps"].unique())
    size = {"width_in": 1.2 + size_in[0] * len(steps), "height_in": 0.9 + size_in[1] * len(titles)}
    figure, axes = new_figure(**size, rows=len(titles), columns=len(steps))
    for row, ((experiment, reference), title) in zip(axes, titles.items(), strict=True):
        chosen = contrasts[(contrasts["experiment"] == experiment) & (contrasts["reference"] == reference)]
        for axis, n_steps in zip(row, steps, strict=True):
            cells = chosen[chosen["n_steps"] == n_steps]
            draw(axis, {name: cells.pivot_table(index="relatedness", columns="n_scans", values=name).sort_index(
                ascending=False) for name in ("difference", "low", "high")})  # fmt: skip
            axis.set(title=f"{title if axis is row[0] else ''}\n{n_steps:,} steps")
            axis.set(ylabel="relatedness" if axis is row[0] else "")
            axis.set(xlabel="training scans" if row[0] is axes[-1, 0] else "")
    return figure


def _is_clear(grid: dict[str, pd.DataFrame]) -> np.ndarray:
    """Whether the interval of each cell excludes 0."""
    return ((grid["low"] > 0) | (grid["high"] < 0)).to_numpy()


def _heat_map(axis: Axes, grid: dict[str, pd.DataFrame]) -> None:
    options = {"cmap": "RdBu", "vmin": -LIMIT, "vmax": LIMIT, "cbar": False, "linewidths": 1.5, "linecolor": "white"}
    sns.heatmap(grid["difference"], annot=grid["difference"].map(_signed), fmt="", annot_kws={"fontsize": 8}, ax=axis,
                **options)  # fmt: skip
    axis.tick_params(axis="both", length=0)
    axis.set_yticklabels([f"{value:.2g}" for value in grid["difference"].index], rotation=0)
    ends = zip(*(grid[name].to_numpy().ravel() for name in ("difference", "low", "high")), strict=True)
    for text, is_clear, (value, low, high) in zip(list(axis.texts), _is_clear(grid).ravel(), ends, strict=True):
        x, y = text.get_position()
        text.set(y=y - 0.16, fontweight="bold" if is_clear else "normal")
        axis.text(x, y + 0.24, f"[{_signed(low)}, {_signed(high)}]", ha="center", va="center", fontsize=6,
                  color=text.get_color())  # fmt: skip
        if is_clear and abs(value) > SMALL_DIFFERENCE:
            corner = (int(x) + 0.03, int(y) + 0.06)
            axis.add_patch(Rectangle(corner, 0.94, 0.88, fill=False, edgecolor="0.1", linewidth=1.2))


def _contours(axis: Axes, grid: dict[str, pd.DataFrame]) -> None:
    from scipy.interpolate import RegularGridInterpolator

    found = grid["difference"].sort_index()
    down, across = found.index.to_numpy(), np.log(found.columns.to_numpy(dtype=float))
    y, x = np.linspace(down[0], down[-1], FINE), np.linspace(across[0], across[-1], FINE)
    between = RegularGridInterpolator((down, across), found.to_numpy())(np.stack(np.meshgrid(y, x, indexing="ij"), -1))
    axis.pcolormesh(x, y, between, cmap="RdBu", vmin=-LIMIT, vmax=LIMIT, rasterized=True, shading="gouraud")
    drawn = {level: line for level, line in LINES.items() if between.min() < level < between.max()}
    if drawn:
        options = {"linestyles": list(drawn.values()), "colors": "0.1", "linewidths": 1.2}
        lines = axis.contour(x, y, between, levels=list(drawn), **options)
        for text in axis.clabel(lines, fmt=lambda level: f"{level:+.2f}" if level else "0", fontsize=7):
            at = np.divide(np.subtract(text.get_position(), (x[0], y[0])), (x[-1] - x[0], y[-1] - y[0]))
            text.set_visible(bool((np.abs(at - 0.5) < 0.5 - EDGE).all()))
    is_clear = _is_clear(grid)[::-1].ravel()
    places = np.stack(np.meshgrid(down, across, indexing="ij"), -1).reshape(-1, 2)
    for shown, color in ((is_clear, "0.1"), (~is_clear, "white")):
        axis.scatter(places[shown, 1], places[shown, 0], s=16, c=color, edgecolors="0.1", zorder=3, clip_on=False)
    axis.set_xticks(across, [f"{n:,}" for n in found.columns])
    axis.set_yticks(down, [f"{value:.2g}" for value in down])
    axis.grid(visible=False)


def _signed(value: float) -> str:
    """+.006: three decimals, without the zero before the point."""
    return f"{value:+.3f}".replace("0.", ".", 1)


@styled
def failure_map(table: pd.DataFrame) -> Figure:
    """Share of the trainings that failed to learn, with its interval: experiments down, cells across.

    Args:
        table: `experiment`, `n_steps`, `n_scans`, `failed`, `low`, `high`, `n_seeds`.
    """
    texts = [f"{100 * row.failed:.0f} [{100 * row.low:.0f}, {100 * row.high:.0f}]" for row in table.itertuples()]
    places = {"index": "experiment", "columns": ["n_steps", "n_scans"], "aggfunc": "first", "sort": False}
    wide, labels = (table.assign(text=texts).pivot_table(values=name, **places).sort_index(axis=1)
                    for name in ("failed", "text"))  # fmt: skip
    n = table["n_seeds"].iloc[0]
    figure, axes = new_figure(width_in=8.2, height_in=1.2 + 0.24 * len(wide))
    options = {"cmap": "Reds", "vmin": 0, "vmax": 1, "annot": labels, "fmt": "", "annot_kws": {"fontsize": 6.5}}
    sns.heatmap(wide, ax=axes[0, 0], cbar=False, linewidths=0.5, **options)
    axes[0, 0].set(xlabel="optimiser steps, training scans", ylabel="")
    axes[0, 0].set_xticklabels([f"{steps:,}\n{scans:,}" for steps, scans in wide], rotation=0)
    axes[0, 0].tick_params(axis="both", length=0)
    text = f"Trainings that failed to learn, %, mean over relatedness, with the 95 % Wilson interval of {n} trainings"
    return captioned(figure, f"{text} ({seeds_of(table)}, whose scans are the same at every relatedness).")
