"""Figures of differences: forest, fixed contrasts, variants, subgroups."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.experiments import base_of, in_order
from lungmtl.figures.marks import (
    clip_intervals,
    dots_with_intervals,
    grouped_positions,
    name_rows,
    panels,
    under_heads,
    write_right,
)
from lungmtl.figures.style import Look, looks, new_figure, styled
from lungmtl.figures.words import attribute_label, captioned, extremes, scans_of
from lungmtl.words import interval_names, p_text, seeds_of, shown_difference

FOREST_HEADS = ("difference [interval]", "p differs", "p equivalent", "verdict")
FOREST_COLUMNS = ((8, "left"), (172, "right"), (240, "right"), (254, "left"))  # offset in points and alignment
CONTRAST_HEADS = ("difference [interval]", "p (Holm)", "verdict")
CONTRAST_COLUMNS = ((8, "left"), (182, "right"), (196, "left"))
VARIANT_COLUMNS = ((8, "left"), (148, "left"))
AGAINST_ALL = ", against all negatives"  # ends the name of a subgroup of positives


@styled
def forest(comparisons: pd.DataFrame) -> Figure:
    """Paired AUC differences with 95 % (thin) and 90 % (thick) intervals, a panel per reference, and the verdict.

    Args:
        comparisons: experiment, reference, difference, low, high, low_90, high_90, p_holm, equivalence_p_holm, margin,
            verdict, interval, n_family, n_seeds, n, positives; rows without a difference are left out.
    """
    rows = comparisons.dropna(subset="difference")
    experiments = in_order(rows["experiment"])
    parts = rows.groupby("reference", sort=False)
    sizes = parts.size() + 1.6
    figure, axes = new_figure(width_in=9.6, height_in=0.9 + 0.25 * sizes.sum(), rows=len(parts), share="x")
    axes[0, 0].get_gridspec().set_height_ratios(sizes)
    for axis, (reference, part) in zip(axes[:, 0], parts, strict=True):
        _draw_forest(axis, part, rows, looks(experiments))
        axis.set_title(f"against {reference}")
    axes[-1, 0].set_xlabel("difference of test AUC")
    return captioned(
        figure,
        f"Paired by scan and seed: {_drawn(rows)}; a 90 % interval inside it is equivalence at 5 % before adjustment. "
        "p values of no difference and of a difference beyond the band, each after Holm's adjustment over "
        f"{rows['n_family'].iloc[0]} comparisons. Arrow: the interval extends further.",
        alt=" ".join(f"Against {reference}: {_in_words(part)}." for reference, part in parts),
    )


def _in_words(part: pd.DataFrame) -> str:
    """Alternative text for the differences from one reference."""
    verdicts = ", ".join(f"{n} {verdict}" for verdict, n in part["verdict"].value_counts(sort=False).items())
    number = f"{len(part)} difference{'s' if len(part) > 1 else ''}"
    return f"{number} of test AUC {extremes(part, 'difference', form='+.3f')}; {verdicts}"


def _drawn(rows: pd.DataFrame) -> str:
    intervals = f"{interval_names(rows)} interval (thin), 90 % (thick)"
    return f"{scans_of(rows)}; {intervals}. Grey band: within {rows['margin'].iloc[0]:g} of the reference"


def _draw_forest(axis: Axes, part: pd.DataFrame, rows: pd.DataFrame, style: dict[str, Look]) -> None:
    experiments = in_order(part["experiment"])
    part = part.assign(position=part["experiment"].map(experiments.index))
    _draw_differences(axis, part, rows, style)
    lines = {-0.9: FOREST_HEADS}
    for row in part.itertuples():
        ps = map(p_text, (row.p_holm, row.equivalence_p_holm))
        lines[row.position] = (shown_difference(row), *ps, row.verdict)
    _write_columns(axis, lines, FOREST_COLUMNS)
    name_rows([axis], dict(enumerate(experiments)), grid=True)


@styled
def contrasts(confirmed: pd.DataFrame, *, margin: float) -> Figure:
    """Differences of test AUC that a protocol fixed beforehand, each with its interval, p value and verdict.

    Args:
        confirmed: question, experiment, reference, difference, low, high, p_holm, verdict, n_family, n_seeds, n,
            positives; rows without a difference are left out.
        margin: Half the width of the band of differences too small to matter.
    """
    rows = confirmed.dropna(subset="difference").reset_index(drop=True)
    rows = rows.assign(position=rows.index, margin=margin)
    figure, axes = new_figure(width_in=9.6, height_in=1.3 + 0.27 * len(rows))
    axis = axes[0, 0]
    _draw_differences(axis, rows, rows, looks(rows["experiment"]))
    lines = {row.position: (shown_difference(row), p_text(row.p_holm), row.verdict) for row in rows.itertuples()}
    _write_columns(axis, {-0.9: CONTRAST_HEADS} | lines, CONTRAST_COLUMNS)
    pairs = rows["experiment"] + " \N{MINUS SIGN} " + rows["reference"]
    name_rows([axis], dict(enumerate(rows["question"] + ":  " + pairs)), grid=True)
    axis.set_xlabel("difference of test AUC")
    said = [
        f"{pair} {difference}, {verdict}" for pair, (difference, _, verdict) in zip(pairs, lines.values(), strict=True)
    ]
    return captioned(
        figure,
        f"Paired by scan and seed: {scans_of(rows)}; 95 % interval. Grey band: within {margin:g} of no difference. "
        f"p of no difference after Holm's adjustment over these {rows['n_family'].iloc[0]:.0f} contrasts. "
        "Arrow: the interval extends further.",
        alt=f"{len(rows)} differences of test AUC. {'; '.join(said)}.",
    )


def _draw_differences(axis: Axes, part: pd.DataFrame, rows: pd.DataFrame, style: dict[str, Look]) -> None:
    """Dots and intervals over the band of differences too small to matter; limits from `rows`, those of all axes."""
    margin = part["margin"].iloc[0]
    axis.axvspan(-margin, margin, color="0.93", linewidth=0)
    axis.axvline(0, color="0.35", linewidth=0.9)
    dots_with_intervals(axis, part, "difference", style)
    clip_intervals(axis, part, rows, "difference", style)


def _write_columns(axis: Axes, lines: dict[float, tuple[str, ...]], columns: tuple[tuple[int, str], ...]) -> None:
    """Texts next to the rows at these heights; heads stand above 0."""
    for position, texts in lines.items():
        for text, (offset_pt, side) in zip(texts, columns, strict=True):
            write_right(axis, position, text, offset_pt=offset_pt, side=side, color="0.35" if position < 0 else "black")


@styled
def sensitivity(comparisons: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Sensitivity to settings: every variant's difference below its base's, a panel per reference.

    Args:
        comparisons: As `forest` takes it.
        selected: group (a base), experiment (the one of the group that validation scans chose); others are ignored.
    """
    rows = comparisons.dropna(subset="difference")
    names, style = in_order(rows["experiment"]), looks(rows["experiment"])
    bases = dict.fromkeys(base_of(name) for name in names if name != base_of(name))  # those with variants
    positions = grouped_positions([[name for name in names if base_of(name) == base] for base in bases], gap=0.7)
    rows = rows.assign(position=rows["experiment"].map(positions)).dropna(subset="position")
    references = list(dict.fromkeys(rows["reference"]))
    figure, axes = panels(references, size_in=(5.6, 0.6 + 0.23 * (len(positions) + 1)), x="difference of test AUC")
    for reference, axis in axes.items():
        part = rows[rows["reference"] == reference]
        if reference in positions:
            write_right(axis, positions[reference], "the reference", offset_pt=8, side="left", color="0.5")
        _draw_differences(axis, part, rows, style)
        lines = {row.position: (shown_difference(row), row.verdict) for row in part.itertuples()}
        _write_columns(axis, lines, VARIANT_COLUMNS)
        for row in part.itertuples():
            if row.experiment in set(selected["experiment"]):
                axis.plot(row.difference, row.position, "o", color="none", markeredgecolor="black", markersize=11)
            if row.experiment in bases:
                last = max(at for name, at in positions.items() if base_of(name) == row.experiment) + 0.35
                dashed = {"color": style[row.experiment].color, "linewidth": 0.9, "linestyle": (0, (3, 2))}
                axis.plot([row.difference] * 2, [row.position, last], **dashed)
        axis.set_title(f"against {reference}")
    words = {at: name.removeprefix(f"{base_of(name)}.") for name, at in positions.items()}
    name_rows(figure.axes, words, bold=[positions[base] for base in bases if base in positions], grid=False)
    return captioned(
        figure,
        "Bold: the experiment as in Table 2, its difference drawn down (dashed); below it, the same with one setting "
        f"changed. Ring: the one of its group that validation scans chose. {_drawn(rows)}. Verdicts after Holm's "
        f"adjustment over {rows['n_family'].iloc[0]} comparisons. Arrow: the interval extends further.",
        alt=" ".join(
            f"Against {reference}, with every variant: {_in_words(part)}."
            for reference, part in rows.groupby("reference", sort=False)
        ),
    )


@styled
def subgroups(table: pd.DataFrame) -> Figure:
    """AUC, or its difference from one reference, in subgroups of scans, a panel per experiment. Exploratory.

    Args:
        table: attribute, subgroup, experiment, reference ("" = the AUC itself; one value only), value, low, high,
            interval, n_seeds, n, positives; rows with NaN are counted and left out.
    """
    rows = table.dropna(subset="value")
    experiments, reference = in_order(rows["experiment"]), rows["reference"].iloc[0]
    scans = "  " + rows["n"].astype(str) + " (" + rows["positives"].astype(str) + ")"
    names = rows["subgroup"].str.replace(AGAINST_ALL, " *", regex=False) + scans
    rows = rows.assign(attribute=rows["attribute"].map(attribute_label), subgroup=names)
    rows, words, heads = under_heads(rows, "attribute", "subgroup")
    x_label = f"AUC minus {reference}'s" if reference else "test AUC"
    figure, axes = panels(experiments, size_in=(1.85, 0.5 + 0.18 * (max(words) + 1)), x=x_label)
    for experiment, axis in axes.items():
        axis.axvline(0 if reference else 0.5, color="0.35", linewidth=0.9, linestyle="-" if reference else ":")
        dots_with_intervals(axis, rows[rows["experiment"] == experiment], "value", looks(experiments))
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    name_rows(figure.axes, words, bold=heads, grid=False)
    return captioned(
        figure,
        f"EXPLORATORY: subgroups were not fixed beforehand, intervals are not adjusted, and some of the {len(rows)} "
        "shown differ by chance. Next to each subgroup: scans (positive); *: these positives against all negatives. "
        f"{seeds_of(rows)}; {interval_names(rows)} interval.",
        alt=f"{x_label} in {rows['subgroup'].nunique()} subgroups of scans, {extremes(rows, 'value', form='+.2f')}.",
    )
