"""Figures of what limits a comparison: parts of variance, power, coverage of intervals."""

from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter
from scipy.optimize import isotonic_regression

from lungmtl.experiments import in_order
from lungmtl.figures.marks import name_rows, panels, under_heads, write_right
from lungmtl.figures.style import BLUE, RED, looks, new_figure, styled
from lungmtl.figures.words import captioned, percent_text, seeds_of

COVERAGE_BAND = (0.93, 0.97)  # chosen by us: a 95 % interval outside it would mislead
COVERAGE_ROWS = 40  # chosen by us: beyond it there are two columns
SIZE_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
DIFFERENCE_TICKS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
LABEL_IN = 0.14  # height of a line's name next to an axis


@styled
def variance_parts(parts: pd.DataFrame) -> Figure:
    """Variance of a mean over seeds: the part of the seeds and the part of the test scans, a panel per quantity.

    Args:
        parts: experiment, reference ("" = the AUC itself), seed_variance, patient_variance, seed_share, n_seeds, n;
            NaN rows are left out.
    """
    rows = parts.dropna(subset=["seed_variance", "patient_variance"])
    rows = rows.assign(seeds=1e4 * rows["seed_variance"], scans=1e4 * rows["patient_variance"])
    references, experiments = list(dict.fromkeys(rows["reference"])), in_order(rows["experiment"])
    x_label = "variance, 1 = standard error of 0.01"
    figure, axes = panels(references, size_in=(3.2, 0.7 + 0.23 * len(experiments)), x=x_label)
    for reference, axis in axes.items():
        part = rows[rows["reference"] == reference]
        positions, ends = part["experiment"].map(experiments.index), part["seeds"] + part["scans"]
        axis.barh(positions, part["seeds"], height=0.6, linewidth=0, color=RED, label="other seeds")
        scans = {"left": part["seeds"], "color": BLUE, "label": "other test scans"}
        axis.barh(positions, part["scans"], height=0.6, linewidth=0, **scans)
        for position, end, share in zip(positions, ends, part["seed_share"], strict=True):
            axis.annotate(percent_text(share), (end, position), (4, 0), textcoords="offset points", va="center")
        axis.set_title(f"difference from {reference}" if reference else "AUC")
    name_rows(figure.axes, dict(enumerate(experiments)), grid=False)
    figure.axes[0].set_xlim(0, 1.2 * (rows["seeds"] + rows["scans"]).max())  # room for the shares
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return captioned(
        figure,
        f"Variance of the mean over {seeds_of(rows)} on {rows['n'].iloc[0]} test scans, in units of 0.01 squared: what "
        "other seeds and what other scans would change. Next to the bars: the share of the seeds. More seeds shrink "
        "the first part, more test scans the second.",
    )


@styled
def power(detectable: pd.DataFrame, *, n: int, published_n: int, caption: str) -> Figure:
    """Smallest AUC difference that a test set of a size would show, a row per reference, a column per n of seeds.

    Args:
        detectable: experiment, reference, n, detectable, n_seeds; a line per experiment.
        n: Test scans of this study, marked.
        published_n: Test scans of the paper, marked.
        caption: Power and level, and what is taken from which scans.
    """
    rows = detectable.dropna(subset="detectable")
    references, n_seeds = list(dict.fromkeys(rows["reference"])), sorted(set(rows["n_seeds"]))
    panel_in = max(2.6, 0.4 + LABEL_IN * rows.groupby("reference")["experiment"].nunique().max())
    size = {"width_in": 1 + 4.2 * len(n_seeds), "height_in": 0.9 + (panel_in + 0.35) * len(references)}
    figure, axes = new_figure(**size, rows=len(references), columns=len(n_seeds), share="xy")
    style, y_limits = looks(rows["experiment"]), (rows["detectable"].min() / 1.15, rows["detectable"].max() * 1.15)
    palette, dashes = ({name: getattr(look, key) for name, look in style.items()} for key in ("color", "dashes"))
    for axis, (reference, seeds) in zip(axes.flat, product(references, n_seeds), strict=True):
        part = rows[(rows["reference"] == reference) & (rows["n_seeds"] == seeds)]
        drawn = {"hue": "experiment", "palette": palette, "style": "experiment", "dashes": dashes, "linewidth": 1.3}
        sns.lineplot(part, x="n", y="detectable", estimator=None, legend=False, ax=axis, **drawn)
        axis.set(xscale="log", yscale="log", ylim=y_limits, xlim=(part["n"].min(), part["n"].max()))
        axis.set(xlabel="test scans", ylabel="detectable difference of AUC")
        axis.set_title(f"against {reference}, {seeds} seed{'s' if seeds > 1 else ''}", pad=16)
        axis.label_outer()
        _mark_sizes(axis, {f"this study, {n}": n, f"paper, {published_n}": published_n})
        _label_ends(axis, part[part["n"] == part["n"].max()].sort_values("detectable"), panel_in=panel_in)
    for one, ticks in ((axes[0, 0].xaxis, SIZE_TICKS), (axes[0, 0].yaxis, DIFFERENCE_TICKS)):  # of all panels
        one.set(major_locator=FixedLocator(ticks), minor_locator=NullLocator())
        one.set_major_formatter(StrMethodFormatter("{x:,g}"))
    return captioned(figure, caption)


def _mark_sizes(axis: Axes, sizes: dict[str, int]) -> None:
    """A line at each size, named above the axis: the smaller to the left, the larger to the right."""
    text = {"textcoords": "offset points", "xycoords": axis.get_xaxis_transform(), "fontsize": 7.5, "color": "0.35"}
    for (name, size), side in zip(sorted(sizes.items(), key=lambda item: item[1]), ("right", "left"), strict=True):
        axis.axvline(size, color="0.35", linewidth=0.9, linestyle=(0, (4, 2)))
        axis.annotate(name, (size, 1), (-2 if side == "right" else 2, 2), ha=side, va="bottom", **text)


def _label_ends(axis: Axes, ends: pd.DataFrame, *, panel_in: float) -> None:
    """The experiment's name at the right end of each line, rising, moved apart as little as needed (least squares)."""
    low, high = np.log(axis.get_ylim())
    heights = (np.log(ends["detectable"].to_numpy()) - low) / (high - low)
    steps = LABEL_IN / panel_in * np.arange(len(heights))
    places = np.clip(isotonic_regression(heights - steps).x, 0, max(1 - steps[-1], 0)) + steps
    leader = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 0, "relpos": (0, 0.5)}
    text = {"xycoords": axis.transAxes, "textcoords": axis.transAxes, "va": "center", "fontsize": 7.5}
    for name, height, place in zip(ends["experiment"], heights, places, strict=True):
        axis.annotate(name, (1, height), (1.06, place), **text, arrowprops=leader, annotation_clip=False)


@styled
def coverage(table: pd.DataFrame) -> Figure:
    """How often each interval holds the true value in simulations, by setting.

    Args:
        table: interval, setting, nominal, coverage, low, high, n_simulations.
    """
    n_settings = table.groupby("interval", sort=False).size()
    n_rows = (n_settings + 1).cumsum()  # with a head for each interval
    n_columns = 1 + int(n_rows.iloc[-1] > COVERAGE_ROWS)
    column_of = (n_rows - n_settings) * n_columns // (n_rows.iloc[-1] + 1)
    columns = [part for _, part in table.groupby(table["interval"].map(column_of))]
    height_in = 1.3 + 0.2 * max(len(part) + 1.4 * part["interval"].nunique() for part in columns)
    figure, axes = new_figure(width_in=1 + 6 * n_columns, height_in=height_in, columns=len(columns), share="x")
    for axis, part in zip(axes[0], columns, strict=True):
        _draw_coverage(axis, part)
    low, high = table["n_simulations"].min(), table["n_simulations"].max()
    return captioned(
        figure,
        f"{low if low == high else f'{low} to {high}'} simulations per row; lines: 95 % Wilson interval of the share. "
        f"Asked for: {percent_text(table['nominal'].iloc[0])}. Grey band: "
        f"{' to '.join(map(percent_text, COVERAGE_BAND))}; red crosses lie outside with their whole interval.",
    )


def _draw_coverage(axis: Axes, table: pd.DataFrame) -> None:
    table, words, heads = under_heads(table, "interval", "setting")
    axis.axvspan(*COVERAGE_BAND, color="0.93", linewidth=0)
    axis.axvline(table["nominal"].iloc[0], color="0.35", linewidth=0.9)
    for row in table.itertuples():
        is_outside = row.high < COVERAGE_BAND[0] or row.low > COVERAGE_BAND[1]
        color, marker = (RED, "X") if is_outside else (BLUE, "o")
        axis.plot([row.low, row.high], [row.position] * 2, color=color)
        axis.plot(row.coverage, row.position, marker, color=color, markeredgecolor="white", markersize=6)
        write_right(axis, row.position, percent_text(row.coverage, decimals=1), offset_pt=8, side="left")
    name_rows([axis], words, bold=heads, grid=False)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_xlabel("simulations whose interval holds the true value")
