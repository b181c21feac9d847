"""Maps over relatedness, scans and steps: heat maps of differences, with intervals and the share that learnt."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lungmtl.figures.style import new_figure, styled
from lungmtl.figures.words import captioned, seeds_of

LIMIT = 0.08  # AUC difference at the ends of the colours
LEVEL = 0.01  # a difference gets a frame if its interval excludes 0 and its value is beyond this


@styled
def difference_maps(contrasts: pd.DataFrame, *, titles: dict[tuple[str, str], str]) -> Figure:
    """One row of heat maps per contrast, one heat map per number of steps.

    Args:
        contrasts: Rows of the grid: `relatedness`, `n_scans`, `n_steps`, `experiment`, `reference`, `difference`,
            `low`, `high`, `n_seeds`.
        titles: Experiment and reference to the contrast's name, in the order of the rows.
    Returns:
        Differences of test AUC; bold = the 95 % interval excludes 0; framed = and the difference exceeds 0.01.
    """
    steps = sorted(contrasts["n_steps"].unique())
    size = {"width_in": 1.2 + 2.3 * len(steps), "height_in": 0.9 + 1.75 * len(titles)}
    figure, axes = new_figure(**size, rows=len(titles), columns=len(steps))
    for row, ((experiment, reference), title) in zip(axes, titles.items(), strict=True):
        chosen = contrasts[(contrasts["experiment"] == experiment) & (contrasts["reference"] == reference)]
        for axis, n_steps in zip(row, steps, strict=True):
            _heat_map(axis, chosen[chosen["n_steps"] == n_steps])
            axis.set(title=f"{title}\n{n_steps:,} steps" if axis is row[0] else f"\n{n_steps:,} steps")
            axis.set(ylabel="relatedness" if axis is row[0] else "", xlabel="training scans" if row is axes[-1] else "")
    return captioned(
        figure,
        f"Differences of test AUC, mean over {seeds_of(contrasts)}, each a world of its own. Bold: the 95 % t interval "
        f"over seeds excludes 0; framed: and the difference is beyond {LEVEL}. Feature phantoms, not scans.",
    )


def _heat_map(axis: Axes, rows: pd.DataFrame) -> None:
    grid = {name: rows.pivot_table(index="relatedness", columns="n_scans", values=name).sort_index(ascending=False)
            for name in ("difference", "low", "high")}  # fmt: skip
    labels = grid["difference"].map("{:+.3f}".format)
    options = {"cmap": "RdBu", "vmin": -LIMIT, "vmax": LIMIT, "cbar": False, "linewidths": 1.5, "linecolor": "white"}
    sns.heatmap(grid["difference"], annot=labels, fmt="", annot_kws={"fontsize": 8}, ax=axis, **options)
    axis.tick_params(axis="y", rotation=0, length=0)
    axis.tick_params(axis="x", length=0)
    axis.set_yticklabels([f"{value:.2g}" for value in grid["difference"].index])
    clear = (grid["low"] > 0) | (grid["high"] < 0)
    for text, is_clear in zip(axis.texts, clear.to_numpy().ravel(), strict=True):
        text.set_fontweight("bold" if is_clear else "normal")
    for i, j in np.argwhere(clear & (grid["difference"].abs() > LEVEL)):
        axis.add_patch(Rectangle((j + 0.04, i + 0.06), 0.92, 0.88, fill=False, edgecolor="0.1", linewidth=1.2))


@styled
def learnt_map(table: pd.DataFrame) -> Figure:
    """Share of the seeds that learnt, experiments down, cells across; columns of `experiment_table`."""
    wide = table.pivot_table(index="experiment", columns=["n_steps", "n_scans"], values="learnt", sort=False)
    wide = wide.sort_index(axis=1)
    figure, axes = new_figure(width_in=7.2, height_in=1.2 + 0.24 * len(wide))
    axis = axes[0, 0]
    options = {"cmap": "viridis", "vmin": 0, "vmax": 1, "annot": True, "fmt": ".2f", "annot_kws": {"fontsize": 7}}
    sns.heatmap(wide, ax=axis, cbar=False, linewidths=0.5, **options)
    axis.set(xlabel="optimiser steps, training scans", ylabel="")
    axis.set_xticklabels([f"{steps:,}\n{scans:,}" for steps, scans in wide], rotation=0)
    axis.tick_params(axis="both", length=0)
    return captioned(figure, f"Share of trainings that learnt, over relatedness and {seeds_of(table)}.")
