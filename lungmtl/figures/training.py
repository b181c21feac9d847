"""Figures of training: learning curves and run time."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lungmtl.figures.marks import ordered, panel_grid, trim
from lungmtl.figures.style import add_caption, looks, new_figure, seeds_of, sentence, styled


@styled
def learning_curves(history: pd.DataFrame, *, task: str = "", value: str = "loss") -> Figure:
    """Training of every experiment: AUC (validation) or loss (training dashed, validation solid) of one task.

    Args:
        history: experiment, seed, epoch (from 0), split, task, loss, auc.
        task: The task shown; empty = the first one.
        value: auc or loss.
    """
    task = task or history["task"].iloc[0]
    rows = history[(history["task"] == task) & history[value].notna()]
    if value == "auc":
        rows = rows[rows["split"] == "validation"]
    experiments = ordered(rows["experiment"])
    n_rows, n_columns = panel_grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 1.6 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        color = looks(experiments)[experiment].color
        part = rows[rows["experiment"] == experiment]
        for _, run in part[part["split"] == "validation"].groupby("seed"):
            axis.plot(run["epoch"] + 1, run[value], color=color, linewidth=0.6, alpha=0.5)
        for split, line in {"train": "--", "validation": "-"}.items():
            mean = part[part["split"] == split].groupby("epoch")[value].mean()
            axis.plot(mean.index + 1, mean, color=color, linestyle=line, linewidth=1.9)
        axis.set_title(experiment)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    trim(axes, len(experiments), x_label="epoch", y_label="validation AUC" if value == "auc" else "loss")
    seeds = rows.groupby("experiment")["seed"].nunique().rename("n_seeds").to_frame()
    splits = "" if value == "auc" else "Solid: validation; dashed: training, mean only. "
    add_caption(
        figure,
        f"{sentence(task)}, {seeds_of(seeds)}. Thin: one seed; thick: mean over seeds. {splits}"
        "No interval: validation curves are not a result.",
    )
    return figure


@styled
def run_seconds(seconds: pd.DataFrame) -> Figure:
    """Mean run time of every experiment by part, with the range over seeds.

    Args:
        seconds: experiment, n_seeds, prepare, train, evaluate, total, total_min, total_max.
    """
    experiments = ordered(seconds["experiment"])
    seconds = seconds.set_index("experiment").loc[experiments].reset_index()
    figure, axes = new_figure(width_in=6.2, height_in=1.4 + 0.23 * len(experiments))
    axis, left = axes[0, 0], np.zeros(len(experiments))
    shades = {"prepare": "0.75", "train": None, "evaluate": "0.45"}
    colors = [looks(experiments)[name].color for name in experiments]
    for part, shade in shades.items():
        axis.barh(experiments, seconds[part], left=left, height=0.62, color=shade or colors)
        left += seconds[part].to_numpy()
    spread = np.abs(seconds[["total_min", "total_max"]].to_numpy().T - seconds["total"].to_numpy())
    axis.errorbar(seconds["total"], experiments, xerr=spread, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    for position, row in enumerate(seconds.itertuples()):
        axis.annotate(f"{row.total:.0f} s", (row.total_max, position), (5, 0), textcoords="offset points", va="center")
    axis.margins(x=0.1)
    axis.set_xlim(left=0)
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("seconds per run")
    add_caption(
        figure,
        f"Mean over {seeds_of(seconds)}: preparation (light grey), training (colour), evaluation (dark grey); "
        "whiskers: fastest and slowest seed.",
    )
    return figure
