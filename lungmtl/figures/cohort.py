"""Figures of a cohort: prevalence, co-occurrence, distributions."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.figures.style import BLUE, RED, SPLIT_COLORS, new_figure, styled
from lungmtl.figures.words import captioned, sentence


@styled
def prevalence(shares: pd.DataFrame) -> Figure:
    """Share of positive scans of every diagnosis, a bar per split with its interval.

    Args:
        shares: split, task, n, positives, unknown, share, low, high.
    """
    figure, axes = new_figure(width_in=7.5, height_in=2.9)
    axis, shares = axes[0, 0], shares.assign(task=shares["task"].map(sentence))
    n_scans = (shares["n"] + shares["unknown"]).groupby(shares["split"], sort=False).max()
    look = {"hue": "split", "palette": SPLIT_COLORS[: len(n_scans)], "saturation": 1, "gap": 0.07, "errorbar": None}
    drawn = shares.fillna({"share": 0.0})  # a task without labels keeps its place
    sns.barplot(drawn, x="task", y="share", linewidth=0, ax=axis, **look)
    for bars, (_, part) in zip(axis.containers, shares.groupby("split", sort=False), strict=True):
        middles = {task: bar.get_center()[0] for task, bar in zip(shares["task"].unique(), bars, strict=True)}
        axis.vlines(part["task"].map(middles), part["low"], part["high"], color="0.2", linewidth=1)
    axis.set(xlabel="", ylabel="share of positive scans", ylim=(0, 1))
    sns.move_legend(axis, "upper right", ncols=len(n_scans), title=None)
    caption = ", ".join(f"{n} {split}" for split, n in n_scans.items())
    return captioned(figure, f"Scans: {caption}; scans without an answer are left out. Lines: 95 % Wilson interval.")


@styled
def cooccurrence(shares: pd.DataFrame, *, caption: str) -> Figure:
    """Of the scans with the row's diagnosis, the share that also has the column's.

    Args:
        shares: Tasks by tasks, in [0, 1].
        caption: How many scans of which cohort.
    """
    figure, axes = new_figure(width_in=5.2, height_in=3.6)
    cells = {"annot": True, "fmt": ".2f", "square": True, "cmap": "Blues", "vmin": 0, "vmax": 1}
    bar = {"label": "share of scans", "shrink": 0.9}
    axis = sns.heatmap(shares.rename(index=sentence, columns=sentence), ax=axes[0, 0], cbar_kws=bar, **cells)
    axis.set(xlabel="also has", ylabel="of the scans with")
    axis.tick_params(axis="y", rotation=0)
    axis.set_xticks(axis.get_xticks(), map(sentence, shares), rotation=30, ha="right", rotation_mode="anchor")
    return captioned(figure, caption)


@styled
def histograms(scans: pd.DataFrame, *, labels: dict[str, str], reference: dict[str, float], caption: str) -> Figure:
    """One histogram per quantity, with a line for a reference scan.

    Args:
        scans: One row per scan; NaN is left out.
        labels: Column to axis label, quantity and unit.
        reference: Column to the value of the reference scan; a missing column has no line.
        caption: How many scans of which cohort, and what the line is.
    """
    figure, axes = new_figure(width_in=2.6 * len(labels), height_in=2.6, columns=len(labels), share="y")
    for axis, (column, label) in zip(axes[0], labels.items(), strict=True):
        sns.histplot(scans, x=column, bins=12, color=BLUE, alpha=1, ax=axis)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if column in reference:
            axis.axvline(reference[column], color=RED, linestyle=(0, (4, 2)))
        axis.set(xlabel=label, ylabel="scans")
    return captioned(figure, caption)
