"""Figures of training: loss weights, learning curves, run time."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from lungmtl.experiments import in_order
from lungmtl.figures.marks import legend, name_rows, panels
from lungmtl.figures.style import groups_of, line_colors, looks, new_figure, styled
from lungmtl.figures.words import captioned, extremes, sentence
from lungmtl.words import seeds_of, task_label

MAX_TICKS = 16  # of the colour bar of weights; a strip with more different weights has none in its title
BAR_IN = 7.5  # greatest height of the colour bar


@styled
def weight_timeline(steps: pd.DataFrame) -> Figure:
    """Loss weight of every task at every step, one strip of tasks per experiment; a line where the phase changes.

    A strip's title holds the largest weight of each task, if its weights are few; so the colour bar has a tick at each.

    Args:
        steps: experiment, step (from 0; a missing one is like the one before), phase (free text) and weight_<task>
            (positive, 0, or NaN = task not trained); of several seeds the first is drawn. An experiment without any
            weight, one that learns them and whose steps.csv is not there, is named under the figure.
    """
    is_known = steps.filter(like="weight_").notna().any(axis=1).groupby(steps["experiment"]).transform("any")
    unknown, steps = in_order(steps.loc[~is_known, "experiment"]), steps[is_known]
    weights, names = steps.filter(like="weight_"), in_order(steps["experiment"])
    norm = LogNorm(weights[weights > 0].min(axis=None), weights.max(axis=None))
    figure, axes = panels(names, size_in=(3.95, 0.96), x="optimiser step", n_columns=2)
    for experiment, axis in axes.items():
        own = steps[steps["experiment"] == experiment].drop_duplicates("step")
        _draw_strip(axis, own, norm)
        axis.set_title(f"{experiment}   {_largest(own)}".rstrip())
    shrink = min(0.8, BAR_IN / figure.get_figheight())
    bar = figure.colorbar(axis.collections[0], ax=figure.axes, label="loss weight", shrink=shrink, pad=0.01)
    values = _apart(np.unique(weights.to_numpy()[weights > 0].round(4)))
    if len(values) <= MAX_TICKS:
        bar.ax.yaxis.set_major_locator(FixedLocator(values))
    bar.ax.yaxis.set(minor_locator=NullLocator(), major_formatter="{x:g}")
    n_steps = steps["step"].max() + 1
    without = f" Weights not recorded here: {', '.join(unknown)}." if unknown else ""
    return captioned(
        figure,
        f"{n_steps} steps. Next to a name: the largest weights, central : auxiliary, if they are few. White: task not "
        f"trained, or weight 0. Dashed line: the phase changes.{without}",
        alt="Largest loss weights: "
        + "; ".join(f"{name} {_largest(steps[steps['experiment'] == name]) or 'many'}" for name in names),
    )


def _largest(steps: pd.DataFrame) -> str:
    """The largest weight of every task that is trained; the auxiliary ones once if they are equal: 3 : 1.

    Nothing where a rule sets other weights at every step.
    """
    if len(np.unique(steps.filter(like="weight_").dropna(axis="columns"))) > MAX_TICKS:
        return ""
    first, *others = [f"{weight:.3g}" for weight in steps.filter(like="weight_").max().dropna()]
    return " : ".join([first, *(others[:1] if len(set(others)) == 1 else others)])


def _apart(values: np.ndarray) -> list[float]:
    """The values, ascending, without those less than a fifth above the previous one."""
    kept: list[float] = []
    for value in values:
        kept += [value] if not kept or value > 1.2 * kept[-1] else []
    return kept


def _draw_strip(axis: Axes, steps: pd.DataFrame, norm: LogNorm) -> None:
    weights = steps.set_index("step").filter(like="weight_").rename(columns=lambda name: name.removeprefix("weight_"))
    weights = weights.reindex(range(weights.index.max() + 1), method="ffill")
    grid = weights.where(weights > 0).T.rename(index=task_label)  # (T, steps)
    grid = grid.rename_axis(index="", columns=axis.get_xlabel())
    drawn = {"norm": norm, "cmap": "viridis", "cbar": False, "rasterized": True}
    sns.heatmap(grid, xticklabels=False, yticklabels=True, ax=axis, **drawn)
    axis.xaxis.set(major_locator=MaxNLocator(nbins=6, integer=True), major_formatter=ScalarFormatter())
    axis.tick_params(axis="y", rotation=0)
    axis.grid(False)
    for first_step in steps.groupby("phase", sort=False)["step"].min().iloc[1:]:
        axis.axvline(first_step, color="black", linestyle="--")


@styled
def learning_curves(
    history: pd.DataFrame, *, task: str = "", value: str = "loss", starts: Mapping[str, float] | None = None
) -> Figure:
    """Training of every experiment, the experiments of a group in one panel: validation AUC, or loss, of one task.

    The loss axis ends at one and a half times the 90th percentile of the means, so that a spike flattens nothing else.

    Args:
        history: experiment, seed, epoch (from 0), split, task, loss, auc.
        task: The task shown; empty = the first one.
        value: auc or loss; of loss training is dashed, validation solid.
        starts: Experiment to the epoch (counted from 1) after which its last stage begins: a dotted line.
    """
    task = task or history["task"].iloc[0]
    rows = history[(history["task"] == task) & history[value].notna()].assign(epoch=lambda rows: rows["epoch"] + 1)
    rows = rows[rows["split"] == "validation"] if value == "auc" else rows
    groups, starts = groups_of(rows["experiment"]), starts or {}
    what = "validation AUC" if value == "auc" else "loss"
    figure, axes = panels(list(groups), size_in=(3.4, 2.6), x="epoch", y=what, n_columns=3)
    means = rows.groupby(["experiment", "split", "epoch"])[value].mean()
    for title, axis in axes.items():
        _draw_curves(axis, means, rows[rows["experiment"].isin(groups[title])], value, groups[title])
        for start in sorted({starts[name] for name in groups[title] if starts.get(name)}):
            axis.axvline(start, color="0.35", linewidth=0.9, linestyle=":")
        legend(axis, "best" if value == "auc" else "upper right")
    notes = ["Dotted line: Internal-Transfer Weighting begins."] if starts else []
    if value == "loss":
        cut = 1.5 * means.quantile(0.9)
        figure.axes[0].set_ylim(top=min(cut, 1.05 * means.max()))
        notes += ["Solid: validation; dashed: training."]
        notes += [f"Curves are cut off above {cut:.2f}."] if means.max() > cut else []
    seeds = rows.groupby("experiment")["seed"].nunique().rename("n_seeds").to_frame()
    last = means.xs("validation", level="split").groupby("experiment").last().reset_index()
    return captioned(
        figure,
        f"{sentence(task)}. Thick: mean over {seeds_of(seeds)}; thin: one seed, where a panel holds no more than two "
        f"experiments. {' '.join([*notes, 'No interval'])}: validation curves are not a result.",
        alt=f"Curves of {what} by epoch, {task_label(task)}; at the end validation {extremes(last, value)}.",
    )


def _draw_curves(axis: Axes, means: pd.Series, rows: pd.DataFrame, value: str, names: Sequence[str]) -> None:
    """Mean curves, and those of single seeds on validation scans where there are few experiments."""
    for name, color in line_colors(names).items():
        own = rows[(rows["experiment"] == name) & (rows["split"] == "validation")]
        if len(names) <= 2:
            of_seeds = own.pivot_table(index="epoch", columns="seed", values=value)
            axis.plot(of_seeds, color=color, linewidth=0.6, alpha=0.5)
        for split in sorted(set(means[name].index.get_level_values("split"))):
            dashes, label = ((3.7, 1.6), "") if split == "train" else ((None, None), name)
            axis.plot(means[name, split], color=color, linewidth=1.9, dashes=dashes, label=label)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


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
        alt=f"Seconds per run {extremes(seconds, 'total', form='.0f')}.",
    )
