"""Figures of what limits a comparison: parts of variance, power, coverage of intervals."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

from lungmtl.figures.marks import LABEL_IN, grouped_positions, label_ends, name_groups, name_rows, ordered, write_right
from lungmtl.figures.style import (
    COLORS,
    PART_COLORS,
    SPLIT_COLORS,
    Look,
    add_caption,
    looks,
    new_figure,
    percent_text,
    seeds_of,
    styled,
)

COVERAGE_BAND = (0.93, 0.97)  # chosen by us: a 95 % interval outside it would mislead
COVERAGE_ROWS = 40  # chosen by us: beyond it there are two columns
SIZE_TICKS = (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)
DIFFERENCE_TICKS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)


@styled
def variance_parts(parts: pd.DataFrame) -> Figure:
    """Variance of a mean over seeds: the part of the seeds and the part of the test scans, a panel per quantity.

    Args:
        parts: experiment, reference ("" = the AUC itself), seed_variance, patient_variance, seed_share, n_seeds, n;
            NaN rows are left out.
    """
    rows = parts.dropna(subset=["seed_variance", "patient_variance"])
    references = list(dict.fromkeys(rows["reference"]))
    experiments = ordered(rows["experiment"])
    figure, axes = new_figure(
        width_in=1.2 + 3.0 * len(references),
        height_in=1.6 + 0.23 * len(experiments),
        columns=len(references),
        share_x=True,
        share_y=True,
    )
    for axis, reference in zip(axes[0], references, strict=True):
        _draw_variances(axis, rows[rows["reference"] == reference], experiments)
        axis.set_title(f"difference from {reference}" if reference else "AUC")
        axis.set_xlabel("variance, 1 = standard error of 0.01")
    name_rows(axes[0, 0], experiments)
    axes[0, 0].set_xlim(0, 1.2e4 * (rows["seed_variance"] + rows["patient_variance"]).max())  # room for the shares
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    add_caption(
        figure,
        f"Variance of the mean over {seeds_of(rows)} on {rows['n'].iloc[0]} test scans, in units of 0.01 squared: what "
        "other seeds and what other scans would change. Beside the bars: the share of the seeds. More seeds shrink the "
        "first part, more test scans the second.",
    )
    return figure


def _draw_variances(axis: Axes, rows: pd.DataFrame, experiments: list[str]) -> None:
    positions = np.array([experiments.index(name) for name in rows["experiment"]])
    seeds, scans = (1e4 * rows[f"{part}_variance"].to_numpy() for part in ("seed", "patient"))
    axis.barh(positions, seeds, height=0.6, color=PART_COLORS["seeds"], label="other seeds")
    axis.barh(positions, scans, left=seeds, height=0.6, color=PART_COLORS["scans"], label="other test scans")
    for position, end, share in zip(positions, seeds + scans, rows["seed_share"], strict=True):
        axis.annotate(percent_text(share), (end, position), (4, 0), textcoords="offset points", va="center")
    axis.grid(visible=False, axis="y")


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
    n_lines = max(rows[rows["reference"] == reference]["experiment"].nunique() for reference in references)
    panel_in = max(2.6, 0.4 + LABEL_IN * n_lines)
    figure, axes = new_figure(
        width_in=1 + 4.2 * len(n_seeds),
        height_in=0.9 + (panel_in + 0.35) * len(references),
        rows=len(references),
        columns=len(n_seeds),
        share_x=True,
        share_y=True,
    )
    places = product(references, n_seeds)
    for axis, (reference, seeds) in zip(axes.flat, places, strict=True):
        part = rows[(rows["reference"] == reference) & (rows["n_seeds"] == seeds)]
        _draw_power(axis, part, looks(rows["experiment"]))
        _mark_sizes(axis, {f"this study, {n}": n, f"paper, {published_n}": published_n})
        axis.set_title(f"against {reference}, {seeds} seed{'s' if seeds > 1 else ''}", pad=16)
        axis.set(xlabel="test scans" if reference == references[-1] else "", ylim=_decades(rows["detectable"]))
        label_ends(axis, part, panel_in=panel_in)
    for axis in axes[:, 0]:
        axis.set_ylabel("detectable difference of AUC")
    add_caption(figure, caption)
    return figure


def _draw_power(axis: Axes, part: pd.DataFrame, style: dict[str, Look]) -> None:
    for experiment, line in part.sort_values("n").groupby("experiment"):
        look = style[experiment]
        axis.plot(line["n"], line["detectable"], color=look.color, linestyle=look.line, linewidth=1.3)
    axis.set(xscale="log", yscale="log")
    for one, ticks in ((axis.xaxis, SIZE_TICKS), (axis.yaxis, DIFFERENCE_TICKS)):
        one.set_major_locator(FixedLocator(ticks))
        one.set_minor_locator(NullLocator())
        one.set_major_formatter(StrMethodFormatter("{x:,g}"))


def _mark_sizes(axis: Axes, sizes: dict[str, int]) -> None:
    """A line at each size, named above the axis: the smaller to the left, the larger to the right."""
    for (name, size), side in zip(sorted(sizes.items(), key=lambda item: item[1]), ("right", "left"), strict=True):
        axis.axvline(size, color="0.35", linewidth=0.9, linestyle=(0, (4, 2)))
        text = {"textcoords": "offset points", "xycoords": axis.get_xaxis_transform(), "fontsize": 7.5, "va": "bottom"}
        axis.annotate(name, (size, 1), (-2 if side == "right" else 2, 2), ha=side, **text, color="0.35")


@styled
def coverage(table: pd.DataFrame) -> Figure:
    """How often each interval holds the true value in simulations, by setting.

    Args:
        table: interval, setting, nominal, coverage, low, high, n_simulations.
    """
    groups = [part for _, part in table.groupby("interval", sort=False)]
    n_rows = np.cumsum([len(part) + 1 for part in groups])
    n_columns = 1 + int(n_rows[-1] > COVERAGE_ROWS)
    columns = [[] for _ in range(n_columns)]
    for part, last in zip(groups, n_rows, strict=True):
        columns[(last - len(part)) * n_columns // (n_rows[-1] + 1)].append(part)
    n_longest = max(sum(len(part) + 1.4 for part in column) for column in columns)
    figure, axes = new_figure(
        width_in=1 + 6 * n_columns, height_in=1.3 + 0.2 * n_longest, columns=n_columns, share_x=True
    )
    for axis, column in zip(axes[0], columns, strict=True):
        _draw_coverage(axis, pd.concat(column))
    low, high = table["n_simulations"].min(), table["n_simulations"].max()
    add_caption(
        figure,
        f"{low if low == high else f'{low} to {high}'} simulations per row; lines: 95 % Wilson interval of the share. "
        f"Asked for: {percent_text(table['nominal'].iloc[0])}. Grey band: {' to '.join(map(percent_text, COVERAGE_BAND))}; red "
        "crosses lie outside with their whole interval.",
    )
    return figure


def _draw_coverage(axis: Axes, table: pd.DataFrame) -> None:
    groups = table.groupby("interval", sort=False)["setting"]
    places = [[(interval, ""), *((interval, name) for name in settings)] for interval, settings in groups]
    positions = grouped_positions(places, gap=0.4)
    axis.axvspan(*COVERAGE_BAND, color="0.93", linewidth=0)
    axis.axvline(table["nominal"].iloc[0], color="0.35", linewidth=0.9)
    for row in table.itertuples():
        position = positions[row.interval, row.setting]
        is_inside = row.high >= COVERAGE_BAND[0] and row.low <= COVERAGE_BAND[1]
        color = SPLIT_COLORS[0] if is_inside else COLORS["ITW2"]
        axis.plot([row.low, row.high], [position] * 2, color=color, solid_capstyle="butt")
        axis.plot(row.coverage, position, "o" if is_inside else "X", color=color, markeredgecolor="white")
        write_right(axis, position, percent_text(row.coverage, decimals=1), offset_pt=8, side="left", color="black")
    name_groups(np.array([[axis]]), positions, {})
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axis.set_xlabel("simulations whose interval holds the true value")


def _decades(values: pd.Series) -> tuple[float, float]:
    return values.min() / 1.15, values.max() * 1.15
