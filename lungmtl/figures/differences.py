"""Figures of differences to a reference: forest, variants, subgroups; and what each settles."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.experiments import base_of
from lungmtl.figures.marks import (
    dots_with_intervals,
    draw_band,
    grouped_positions,
    name_groups,
    name_rows,
    ordered,
    panel_grid,
    trim,
    variant_groups,
    write_beside,
    write_right,
)
from lungmtl.figures.style import (
    AGAINST_ALL,
    LEVEL,
    Look,
    add_caption,
    attribute_label,
    interval_names,
    interval_text,
    looks,
    new_figure,
    p_text,
    seeds_of,
    styled,
)

FOREST_HEADS = ("difference [interval]", "p differs", "p equivalent", "verdict")


def verdicts(comparisons: pd.DataFrame) -> pd.Series:
    """What each row of a comparison settles, from its two adjusted p values.

    Args:
        comparisons: difference, p_holm, equivalence_p_holm, margin.
    Returns:
        "higher" or "lower" where no difference is rejected, "equivalent within <margin>" where differences beyond the
        margin are, both joined by a comma, and "not settled" otherwise; "" where there is no difference.
    """
    return comparisons.apply(_verdict, axis=1, result_type="reduce").astype(object)


def _verdict(row: pd.Series) -> str:
    if np.isnan(row["difference"]):
        return ""
    side = "higher" if row["difference"] > 0 else "lower"
    equivalent = f"equivalent within {row['margin']:g}"
    found = [word for p, word in ((row["p_holm"], side), (row["equivalence_p_holm"], equivalent)) if p < LEVEL]
    return ", ".join(found) or "not settled"


@styled
def forest(comparisons: pd.DataFrame) -> Figure:
    """Paired AUC differences with 95 % (thin) and 90 % (thick) intervals, a panel per reference, and the verdict.

    Args:
        comparisons: experiment, reference, difference, low, high, low_90, high_90, p_holm, equivalence_p_holm, margin,
            interval, n_family, n_seeds, n, positives; NaN rows are left out.
    """
    rows = comparisons.dropna(subset="difference")
    panels = {reference: part for reference, part in rows.groupby("reference", sort=False)}
    sizes = [len(part) + 1.6 for part in panels.values()]
    figure, axes = new_figure(
        width_in=9.6, height_in=0.9 + 0.25 * sum(sizes), rows=len(panels), share_x=True, height_ratios=sizes
    )
    for axis, (reference, part) in zip(axes[:, 0], panels.items(), strict=True):
        _draw_forest(axis, part, looks(rows["experiment"]))
        axis.set_title(f"against {reference}")
    axes[-1, 0].set_xlabel("difference of test AUC")
    first = rows.iloc[0]
    add_caption(
        figure,
        f"Paired by scan and seed: {first['n']} test scans, {first['positives']} positive, {seeds_of(rows)}; "
        f"{interval_names(rows)} interval (thin), 90 % (thick). Grey band: within {first['margin']:g} of the reference; a 90 % "
        "interval inside it is equivalence at 5 % before adjustment. p of no difference and of a difference beyond the "
        f"band, each after Holm over the family of {first['n_family']} comparisons.",
    )
    return figure


def _draw_forest(axis: Axes, part: pd.DataFrame, style: dict[str, Look]) -> None:
    experiments = ordered(part["experiment"])
    positions = [experiments.index(name) for name in part["experiment"]]
    draw_band(axis, part["margin"].iloc[0])
    dots_with_intervals(axis, part, "difference", positions, style)
    write_beside(axis, -0.9, FOREST_HEADS, color="0.35")
    for position, row, verdict in zip(positions, part.itertuples(), verdicts(part), strict=True):
        texts = (
            interval_text(row.difference, row.low, row.high),
            p_text(row.p_holm),
            p_text(row.equivalence_p_holm),
            verdict,
        )
        write_beside(axis, position, texts, color="black")
    name_rows(axis, experiments)


@styled
def sensitivity(comparisons: pd.DataFrame, selected: pd.DataFrame) -> Figure:
    """Whether a conclusion survives other choices: every variant's difference below its base's, a panel per reference.

    Args:
        comparisons: As `forest` takes it.
        selected: group (a base), experiment (the one of the group that validation scans chose); others are ignored.
    """
    rows = comparisons.dropna(subset="difference")
    groups = variant_groups(rows["experiment"])
    positions = grouped_positions(groups, gap=0.7)
    references = list(dict.fromkeys(rows["reference"]))
    figure, axes = new_figure(
        width_in=1.2 + 4.2 * len(references),
        height_in=1.5 + 0.23 * (max(positions.values()) + 1),
        columns=len(references),
        share_x=True,
        share_y=True,
    )
    for axis, reference in zip(axes[0], references, strict=True):
        part = rows[(rows["reference"] == reference) & rows["experiment"].isin(positions)]
        if reference in positions:
            write_right(axis, positions[reference], "the reference", offset_pt=8, side="left", color="0.5")
        _draw_sensitivity(axis, part, positions, set(selected["experiment"]), looks(rows["experiment"]))
        axis.set_title(f"against {reference}")
        axis.set_xlabel("difference of test AUC")
    name_groups(axes, {tuple(name.partition(".")[::2]): at for name, at in positions.items()}, {})
    add_caption(figure, _sensitivity_caption(rows))
    return figure


def _draw_sensitivity(
    axis: Axes, part: pd.DataFrame, positions: dict[str, float], chosen: set[str], style: dict[str, Look]
) -> None:
    draw_band(axis, part["margin"].iloc[0])
    dots_with_intervals(axis, part, "difference", [positions[name] for name in part["experiment"]], style)
    for row, verdict in zip(part.itertuples(), verdicts(part), strict=True):
        position = positions[row.experiment]
        write_right(axis, position, verdict, offset_pt=8, side="left", color="black")
        if row.experiment in chosen:
            axis.plot(row.difference, position, "o", color="none", markeredgecolor="black", markersize=11)
        if row.experiment == base_of(row.experiment):
            last = max(place for name, place in positions.items() if base_of(name) == row.experiment)
            look = {"color": style[row.experiment].color, "linewidth": 0.9, "linestyle": (0, (3, 2))}
            axis.plot([row.difference] * 2, [position, last + 0.35], **look)


def _sensitivity_caption(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return (
        "Bold: the experiment as in Table 2, its difference carried down (dashed); below it, the same with one setting "
        f"changed. Ring: what validation scans chose of its group. {first['n']} test scans, {first['positives']} "
        f"positive, {seeds_of(rows)}; {interval_names(rows)} interval (thin), 90 % (thick). Grey band: within "
        f"{first['margin']:g} of the reference. Verdicts after Holm over the family of {first['n_family']} comparisons."
    )


@styled
def subgroups(table: pd.DataFrame) -> Figure:
    """AUC, or its difference from one reference, in subgroups of scans, a panel per experiment. Exploratory.

    Args:
        table: attribute, subgroup, experiment, reference ("" = the AUC itself; one value only), value, low, high,
            interval, n_seeds, n, positives; rows with NaN are counted and left out.
    """
    rows = table.dropna(subset="value")
    experiments, reference = ordered(rows["experiment"]), rows["reference"].iloc[0]
    groups = rows.drop_duplicates(["attribute", "subgroup"]).groupby("attribute", sort=False)["subgroup"]
    places = [[(attribute, ""), *((attribute, name) for name in names)] for attribute, names in groups]
    positions = grouped_positions(places, gap=0.4)
    n_rows, n_columns = panel_grid(len(experiments))
    figure, axes = new_figure(
        width_in=2.2 + 1.7 * n_columns,
        height_in=1.1 + n_rows * (0.5 + 0.18 * (max(positions.values()) + 1)),
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        part = rows[rows["experiment"] == experiment]
        at = [positions[place] for place in zip(part["attribute"], part["subgroup"], strict=True)]
        axis.axvline(0 if reference else 0.5, color="0.35", linewidth=0.9, linestyle="-" if reference else ":")
        dots_with_intervals(axis, part, "value", at, looks(experiments))
        axis.set_title(experiment)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4))
    trim(axes, len(experiments), x_label=f"AUC minus {reference}'s" if reference else "test AUC", y_label="")
    name_groups(axes, positions, _subgroup_labels(rows))
    add_caption(
        figure,
        f"EXPLORATORY: subgroups were not fixed beforehand, intervals are not adjusted, and of {len(rows)} shown some "
        f"stand apart by chance. Beside each subgroup: scans (positive); *: only these positives, all negatives. "
        f"{seeds_of(rows)}; {interval_names(rows)} interval.",
    )
    return figure


def _subgroup_labels(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Words for every row: attributes as readers write them; subgroups with their scans."""
    first = rows.drop_duplicates(["attribute", "subgroup"])
    heads = {(name, ""): attribute_label(name) for name in first["attribute"]}
    names = first["subgroup"].str.replace(AGAINST_ALL, " *", regex=False)
    counts = [
        f"{name}  {n} ({positives})" for name, n, positives in zip(names, first["n"], first["positives"], strict=True)
    ]
    return heads | dict(zip(zip(first["attribute"], first["subgroup"], strict=True), counts, strict=True))
