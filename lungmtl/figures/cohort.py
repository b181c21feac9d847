"""Figures of a cohort: prevalence, co-occurrence, distributions."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.figures.style import COLORS, SPLIT_COLORS, add_caption, new_figure, sentence, styled


@styled
def prevalence(shares: pd.DataFrame) -> Figure:
    """Share of positive scans of every diagnosis, a bar per split with its interval.

    Args:
        shares: split, task, n, positives, unknown, share, low, high.
    """
    tasks, splits = shares["task"].unique(), shares["split"].unique()
    figure, axes = new_figure(width_in=7.5, height_in=2.9)
    for index, split in enumerate(splits):
        rows = shares[shares["split"] == split]
        x = np.arange(len(tasks)) + (index - (len(splits) - 1) / 2) * 0.27
        axes[0, 0].bar(x, rows["share"], width=0.25, color=SPLIT_COLORS[index % len(SPLIT_COLORS)], label=split)
        errors = np.abs(rows[["low", "high"]].to_numpy().T - rows["share"].to_numpy())
        axes[0, 0].errorbar(x, rows["share"], errors, fmt="none", ecolor="0.2", elinewidth=1)
    axes[0, 0].set_xticks(range(len(tasks)), [sentence(task) for task in tasks])
    axes[0, 0].set(ylabel="share of positive scans", ylim=(0, 1))
    axes[0, 0].grid(axis="x", visible=False)
    axes[0, 0].legend(ncols=len(splits), loc="upper right")
    n_scans = (shares["n"] + shares["unknown"]).groupby(shares["split"]).max()
    caption = ", ".join(f"{n_scans[split]} {split}" for split in splits)
    add_caption(figure, f"Scans: {caption}; scans without an answer are left out. Lines: 95 % Wilson interval.")
    return figure


@styled
def cooccurrence(shares: pd.DataFrame, *, caption: str) -> Figure:
    """Of the scans with the row's diagnosis, the share that also has the column's.

    Args:
        shares: Tasks by tasks, in [0, 1].
        caption: How many scans of which cohort.
    """
    names = [sentence(task) for task in shares]
    figure, axes = new_figure(width_in=5.2, height_in=3.6)
    axis = axes[0, 0]
    image = axis.imshow(shares.to_numpy(), cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares.to_numpy()):
        axis.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.6 else "0.15")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="also has", ylabel="of the scans with")
    axis.grid(False)
    figure.colorbar(image, ax=axis, label="share of scans", shrink=0.9)
    add_caption(figure, caption)
    return figure


@styled
def histograms(scans: pd.DataFrame, *, labels: dict[str, str], reference: dict[str, float], caption: str) -> Figure:
    """One histogram per quantity, with a line for a reference scan.

    Args:
        scans: One row per scan; NaN is left out.
        labels: Column to axis label, quantity and unit.
        reference: Column to the value of the reference scan; a column that is not there has no line.
        caption: How many scans of which cohort, and what the line is.
    """
    figure, axes = new_figure(width_in=2.6 * len(labels), height_in=2.6, columns=len(labels), share_y=True)
    for axis, (column, label) in zip(axes[0], labels.items(), strict=True):
        axis.hist(scans[column].dropna(), bins=12, color=SPLIT_COLORS[0], edgecolor="white")
        axis.xaxis.set_major_locator(MaxNLocator(5))
        if column in reference:
            axis.axvline(reference[column], color=COLORS["ITW2"], linestyle=(0, (4, 2)))
        axis.set_xlabel(label)
    axes[0, 0].set_ylabel("scans")
    add_caption(figure, caption)
    return figure
