"""Figures of training: loss weights, learning curves, run time."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from lungmtl.experiments import in_order
from lungmtl.figures.marks import name_rows, panels
from lungmtl.figures.style import looks, new_figure, styled
from lungmtl.figures.words import captioned, seeds_of, sentence, task_label


@styled
def weight_timeline(steps: pd.DataFrame) -> Figure:
    """Loss weight of every task at every step, one strip of tasks per experiment; a line where the phase changes.

    Args:
        steps: experiment, step (from 0; one that is not there is like the last), phase (free text) and weight_<task>
            (positive, 0, or NaN = task not trained); of several seeds the first counts, because policies do not draw.
    """
    weights = steps.filter(like="weight_")
    norm = LogNorm(weights[weights > 0].min(axis=None), weights.max(axis=None))
    names = in_order(steps["experiment"])
    figure, axes = panels(names, size_in=(3.95, 0.96), x="optimiser step", n_columns=2)
    for experiment, axis in axes.items():
        _draw_strip(axis, steps[steps["experiment"] == experiment].drop_duplicates("step"), norm)
    figure.colorbar(axis.collections[0], ax=figure.axes, label="loss weight", shrink=0.6, pad=0.01)
    n_steps = steps["step"].max() + 1
    return captioned(figure, f"{n_steps} steps. White: task not trained, or weight 0. Dashed line: the phase changes.")


def _draw_strip(axis: Axes, steps: pd.DataFrame, norm: LogNorm) -> None:
    weights = steps.set_index("step").filter(like="weight_").rename(columns=lambda name: name.removeprefix("weight_"))
    weights = weights.reindex(range(weights.index.max() + 1), method="ffill")
    grid = weights.where(weights > 0).T.rename(index=task_label)  # (T, steps)
    grid = grid.rename_axis(index="", columns=axis.get_xlabel())
    sns.heatmap(grid, norm=norm, cmap="viridis", cbar=False, xticklabels=False, ax=axis, rasterized=True)
    axis.xaxis.set(major_locator=MaxNLocator(nbins=6, integer=True), major_formatter=ScalarFormatter())
    axis.tick_params(axis="y", rotation=0)
    axis.grid(False)
    for first_step in steps.groupby("phase", sort=False)["step"].min().iloc[1:]:
        axis.axvline(first_step, color="black", linestyle="--")


@styled
def learning_curves(history: pd.DataFrame, *, task: str = "", value: str = "loss") -> Figure:
    """Training of every experiment: AUC (validation) or loss (training dashed, validation solid) of one task.

    Args:
        history: experiment, seed, epoch (from 0), split, task, loss, auc.
        task: The task shown; empty = the first one.
        value: auc or loss.
    """
    task = task or history["task"].iloc[0]
    rows = history[(history["task"] == task) & history[value].notna()].assign(epoch=lambda rows: rows["epoch"] + 1)
    rows = rows[rows["split"] == "validation"] if value == "auc" else rows
    experiments = in_order(rows["experiment"])
    labels = {"x": "epoch", "y": "validation AUC" if value == "auc" else "loss"}
    figure, axes = panels(experiments, size_in=(1.95, 1.6), **labels)
    dashes = {"train": (3.7, 1.6), "validation": ""}
    for experiment, axis in axes.items():
        part = rows[rows["experiment"] == experiment]
        drawn = {"x": "epoch", "y": value, "color": looks(experiments)[experiment].color, "ax": axis, "legend": False}
        sns.lineplot(
            part[part["split"] == "validation"], units="seed", estimator=None, linewidth=0.6, alpha=0.5, **drawn
        )
        sns.lineplot(part, style="split", dashes=dashes, errorbar=None, linewidth=1.9, **drawn)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    seeds = rows.groupby("experiment")["seed"].nunique().rename("n_seeds").to_frame()
    splits = "" if value == "auc" else "Solid: validation; dashed: training, mean only. "
    return captioned(
        figure,
        f"{sentence(task)}, {seeds_of(seeds)}. Thin: one seed; thick: mean over seeds. {splits}"
        "No interval: validation curves are not a result.",
    )


@styled
def run_seconds(seconds: pd.DataFrame) -> Figure:
    """Mean run time of every experiment by part, with the range over seeds.

    Args:
        seconds: experiment, n_seeds, prepare, train, evaluate, total, total_min, total_max.
    """
    experiments = in_order(seconds["experiment"])
    seconds = seconds.set_index("experiment").loc[experiments].reset_index()
    figure, axes = new_figure(width_in=6.2, height_in=1.4 + 0.23 * len(experiments))
    axis, left = axes[0, 0], 0
    colors = [look.color for look in looks(experiments).values()]
    for part, shade in {"prepare": "0.75", "train": colors, "evaluate": "0.45"}.items():
        axis.barh(seconds.index, seconds[part], left=left, height=0.62, color=shade, linewidth=0)
        left += seconds[part]
    spread = (seconds[["total_min", "total_max"]].T - seconds["total"]).abs()
    axis.errorbar(seconds["total"], seconds.index, xerr=spread, fmt="none", ecolor="0.2", elinewidth=1, capsize=2)
    for row in seconds.itertuples():
        axis.annotate(f"{row.total:.0f} s", (row.total_max, row.Index), (5, 0), textcoords="offset points", va="center")
    axis.set(xlabel="seconds per run", xlim=(0, 1.1 * seconds["total_max"].max()))
    name_rows([axis], dict(enumerate(experiments)), grid=False)
    return captioned(
        figure,
        f"Mean over {seeds_of(seconds)}: preparation (light grey), training (colour), evaluation (dark grey); "
        "whiskers: fastest and slowest seed.",
    )
