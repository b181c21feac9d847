"""Figures of the limits of a comparison: parts of variance, power, coverage of intervals."""

from itertools import product

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter
from scipy.optimize import isotonic_regression

from lungmtl.experiments import in_order
from lungmtl.figures.marks import name_rows, panels
from lungmtl.figures.style import BLUE, RED, looks, new_figure, styled
from lungmtl.figures.words import captioned, extremes, percent_text
from lungmtl.words import seeds_of

COVERAGE_BAND = (0.93, 0.97)  # chosen by us: a 95 % interval outside it would mislead
SIZE_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
DIFFERENCE_TICKS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
LABEL_IN = 0.14  # height of a line's name next to an axis


@styled
def variance_parts(parts: pd.DataFrame) -> Figure:
    """Standard error of a mean over seeds: from seeds, from test scans and in total, a panel per quantity.

    Args:
        parts: experiment, reference ("" = the AUC itself), seed_variance, patient_variance, total_variance, n_seeds, n;
            NaN rows are left out.
    """
    rows = parts.dropna(subset=["seed_variance", "patient_variance"])
    references, experiments = list(dict.fromkeys(rows["reference"])), in_order(rows["experiment"])
    figure, axes = panels(references, size_in=(3.2, 0.7 + 0.25 * len(experiments)), x="standard error of test AUC")
    for reference, axis in axes.items():
        part = rows[rows["reference"] == reference]
        positions = part["experiment"].map(experiments.index)
        for shift, column, color, label in (
            (-0.18, "seed", RED, "other seeds"),
            (0.18, "patient", BLUE, "other scans"),
        ):
            bars = {"height": 0.32, "linewidth": 0, "color": color, "label": label}
            axis.barh(positions + shift, np.sqrt(part[f"{column}_variance"]), **bars)
        total = np.sqrt(part["total_variance"])
        axis.plot(total, positions, "|", color="black", markersize=11, markeredgewidth=1.6, label="both")
        axis.set_title(f"difference from {reference}" if reference else "AUC")
    name_rows(figure.axes, dict(enumerate(experiments)), grid=False)
    figure.axes[0].set_xlim(0, 1.05 * np.sqrt(rows["total_variance"]).max())
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    first = rows[rows["reference"] == references[0]].assign(error=lambda rows: np.sqrt(rows["total_variance"]))
    return captioned(
        figure,
        f"Standard errors of the mean over {seeds_of(rows)} on {rows['n'].iloc[0]} test scans: what other seeds and "
        "other test scans would change, and both (root of the sum of squares). More seeds shrink the first, more test "
        "scans the second.",
        alt=f"Standard errors of test AUC, seeds and scans together: {extremes(first, 'error', form='.3f')}.",
    )


@styled
def power(detectable: pd.DataFrame, *, n: int, published_n: int, caption: str) -> Figure:
    """Smallest AUC difference that a test set of a size detects, a row per reference, a column per number of seeds.

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
    here = rows[rows["n"] == n]
    alt = f"Detectable difference of AUC with {n} test scans {extremes(here, 'detectable', form='.3f')}."
    return captioned(figure, caption, alt=alt)


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
    """How often each interval contains the true value in simulations: a row per interval, a mark per setting.

    Args:
        table: interval, setting, nominal, coverage, low, high, n_simulations.
    """
    intervals = list(dict.fromkeys(table["interval"]))
    figure, axes = new_figure(width_in=7.5, height_in=1.4 + 0.25 * len(intervals))
    axis, positions = axes[0, 0], table["interval"].map(intervals.index)
    axis.axvspan(*COVERAGE_BAND, color="0.93", linewidth=0)
    axis.axvline(table["nominal"].iloc[0], color="0.35", linewidth=0.9)
    is_outside = (table["high"] < COVERAGE_BAND[0]) | (table["low"] > COVERAGE_BAND[1])
    for rows, color, mark in ((~is_outside, BLUE, "o"), (is_outside, RED, "X")):
        axis.plot(table["coverage"][rows], positions[rows], mark, color=color, markeredgecolor="white", markersize=6.5)
    name_rows([axis], dict(enumerate(intervals)), grid=True)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_xlabel("simulations whose interval holds the true value")
    low, high = table["n_simulations"].min(), table["n_simulations"].max()
    misses, below = table[is_outside], table[table["high"] < COVERAGE_BAND[0]]
    lowest = below.groupby("interval", sort=False)["coverage"].min()
    named = "; ".join(f"{interval} {percent_text(share)}" for interval, share in lowest.items())
    return captioned(
        figure,
        f"A mark per setting of {low if low == high else f'{low} to {high}'} simulated studies. Nominal: "
        f"{percent_text(table['nominal'].iloc[0])}. Grey band: {' to '.join(map(percent_text, COVERAGE_BAND))}; red "
        f"crosses lie outside it with their whole 95 % Wilson interval{f' (lowest: {named})' if named else ''}.",
        alt=f"Coverage of {len(intervals)} kinds of intervals in {len(table)} simulated settings, "
        f"{extremes(table, 'coverage', name='interval', form='.3f')}; {len(misses)} outside the band.",
    )
