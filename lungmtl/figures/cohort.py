"""Figures of a cohort: prevalence, co-occurrence, distributions."""

import pandas as pd
import seaborn as sns
import seaborn.objects as so
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.figures.style import BLUE, RED, SPLIT_COLORS, STYLE, new_figure, styled
from lungmtl.figures.words import captioned, sentence


@styled
def prevalence(shares: pd.DataFrame) -> Figure:
    """Share of positive scans of every diagnosis, a bar per split with its interval.

    Args:
        shares: split, task, n, positives, unknown, share, low, high.
    """
    figure, axes = new_figure(width_in=7.5, height_in=2.9)
    bars = so.Plot(shares.assign(task=shares["task"].map(sentence)), x="task", y="share", color="split")
    bars = bars.add(so.Bar(edgewidth=0, alpha=1), so.Dodge(gap=0.07)).scale(color=SPLIT_COLORS)
    bars = bars.add(so.Range(color="0.2", linewidth=1), so.Dodge(), ymin="low", ymax="high", legend=False)
    bars.label(x="", y="share of positive scans").limit(y=(0, 1)).theme(STYLE).on(axes[0, 0]).plot()
    n_scans = (shares["n"] + shares["unknown"]).groupby(shares["split"], sort=False).max()
    handles = figure.legends.pop().legend_handles  # seaborn's legend stands outside the figure
    axes[0, 0].legend(handles, n_scans.index, ncols=len(n_scans), loc="upper right")
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
    colors = {"cmap": "Blues", "vmin": 0, "vmax": 1, "cbar_kws": {"label": "share of scans", "shrink": 0.9}}
    named = shares.rename(index=sentence, columns=sentence)
    axis = sns.heatmap(named, annot=True, fmt=".2f", square=True, ax=axes[0, 0], **colors)
    axis.set(xlabel="also has", ylabel="of the scans with")
    axis.tick_params(axis="y", rotation=0)
    axis.set_xticks(axis.get_xticks(), named.columns, rotation=30, ha="right", rotation_mode="anchor")
    return captioned(figure, caption)


@styled
def histograms(scans: pd.DataFrame, *, labels: dict[str, str], reference: dict[str, float], caption: str) -> Figure:
    """One histogram per quantity, with a line for a reference scan.

    Args:
        scans: One row per scan; NaN is left out.
        labels: Column to axis label, quantity and unit.
        reference: Column to the value of the reference scan; a column that is not there has no line.
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
