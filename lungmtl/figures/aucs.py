"""Figures of AUCs: by task, ROC curves, beside the paper's, reliability."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lungmtl.figures.marks import dot, dots_with_intervals, name_rows, ordered, panel_grid, trim
from lungmtl.figures.style import add_caption, interval_names, looks, new_figure, seeds_of, sentence, styled, task_label


@styled
def auc_by_task(aucs: pd.DataFrame) -> Figure:
    """AUC of every experiment, one panel per task on a shared axis.

    Args:
        aucs: experiment, task, auc, low, high, interval, n_seeds, n, positives; NaN rows are left out.
    """
    aucs = aucs.dropna(subset="auc")
    tasks, experiments = list(dict.fromkeys(aucs["task"])), ordered(aucs["experiment"])
    height_in = 1.5 + 0.23 * len(experiments)
    figure, axes = new_figure(
        width_in=1.2 + 1.75 * len(tasks), height_in=height_in, columns=len(tasks), share_x=True, share_y=True
    )
    for axis, task in zip(axes[0], tasks, strict=True):
        rows = aucs[aucs["task"] == task]
        positions = [experiments.index(name) for name in rows["experiment"]]
        dots_with_intervals(axis, rows, "auc", positions, looks(experiments))
        axis.axvline(0.5, color="0.6", linewidth=0.9, linestyle=":")
        first = rows.iloc[0]
        axis.set_title(task_label(task), pad=17)
        axis.text(0, 1.015, f"{first['positives']} of {first['n']} scans", transform=axis.transAxes, color="0.35")
        axis.set_xlabel("test AUC")
    name_rows(axes[0, 0], experiments)
    add_caption(figure, f"Mean over {seeds_of(aucs)} with its {interval_names(aucs)} interval. Dotted line: chance.")
    return figure


@styled
def roc_curves(curves: pd.DataFrame, aucs: pd.DataFrame) -> Figure:
    """ROC curves of one task, one panel per experiment: thin = a seed, thick = mean, grey = the first experiment.

    Args:
        curves: experiment, seed, false_positive_rate, sensitivity on the same rates for every run.
        aucs: The rows of that task: experiment, task, auc, low, high, interval, n_seeds, n, positives.
    """
    experiments = ordered(curves["experiment"])
    n_rows, n_columns = panel_grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 2.05 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    wide = curves.pivot_table(index="false_positive_rate", columns=["experiment", "seed"], values="sensitivity")
    of_experiment = aucs.set_index("experiment")
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        look, runs, row = looks(experiments)[experiment], wide[experiment], of_experiment.loc[experiment]
        _roc_line(axis, wide[experiments[0]].mean(axis=1), color="0.6", linewidth=1.2)
        for seed in runs if runs.shape[1] > 1 else ():
            _roc_line(axis, runs[seed], color=look.color, linewidth=0.6, alpha=0.5)
        _roc_line(axis, runs.mean(axis=1), color=look.color, linewidth=1.9)
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":")
        axis.set_title(experiment)
        text = f"AUC {row['auc']:.2f}\n[{row['low']:.2f}, {row['high']:.2f}]"
        axis.text(0.97, 0.05, text, transform=axis.transAxes, ha="right", va="bottom")
        axis.set_aspect("equal")
    trim(axes, len(experiments), x_label="1 - specificity", y_label="sensitivity")
    first = aucs.iloc[0]
    add_caption(
        figure,
        f"{sentence(first['task'])}, {first['n']} test scans, {first['positives']} positive, "
        f"{seeds_of(aucs)}. Thin: one seed; thick: mean over seeds; grey: mean of {experiments[0]}; dotted: chance. "
        f"In brackets: {interval_names(aucs)}.",
    )
    return figure


def _roc_line(axis: Axes, sensitivity: pd.Series, *, color: str, linewidth: float, alpha: float = 1) -> None:
    """A curve from (0, 0), where the stored one starts at the upper end of its first rise."""
    axis.plot([0, *sensitivity.index], [0, *sensitivity], color=color, linewidth=linewidth, alpha=alpha)


@styled
def published_aucs(published: pd.DataFrame) -> Figure:
    """The paper's AUCs beside ours, grouped by the paper's four settings.

    Args:
        published: setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n.
    """
    settings = list(dict.fromkeys(published["setting"]))
    n_rows = len(published) + 0.6 * len(settings)
    figure, axes = new_figure(width_in=7.2, height_in=1.6 + 0.25 * n_rows)
    axis, position, ticks = axes[0, 0], 0.0, {}
    for setting in settings:
        rows = published[published["setting"] == setting]
        positions = position + np.arange(len(rows))
        ticks |= dict(zip(positions, rows["experiment"], strict=True))
        is_known = rows["auc"].notna().to_numpy()
        dots_with_intervals(axis, rows[is_known], "auc", positions[is_known], looks(published["experiment"]))
        paper_auc, edges = rows["paper_auc"].iloc[0], [positions[0] - 0.35, positions[-1] + 0.35]
        axis.plot([paper_auc] * 2, edges, color="0.35", linewidth=4, alpha=0.35, solid_capstyle="butt")
        text = f"{setting}\npaper: {paper_auc:.3f}"
        axis.text(1.02, positions.mean(), text, transform=axis.get_yaxis_transform(), va="center")
        position = positions[-1] + 1.6
    axis.set_yticks(list(ticks), list(ticks.values()))
    axis.invert_yaxis()
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("test AUC, lung cancer")
    ours = published.dropna(subset="auc")
    add_caption(
        figure,
        f"Two different cohorts. Points: this study, {int(ours['n'].iloc[0])} test scans, mean over {seeds_of(ours)}, "
        f"{interval_names(ours)} interval. Grey bars: the paper, {published['paper_n'].iloc[0]} test scans of NLST and "
        "Vanderbilt, no interval published; it does not say which experiment its last two values belong to, so all "
        "candidates are shown.",
    )
    return figure


@styled
def reliability(bins: pd.DataFrame, *, caption: str) -> Figure:
    """Observed share of positive scans against predicted probability, one panel per experiment.

    Args:
        bins: experiment, predicted, observed, low, high, n.
        caption: Which task, scans and seeds, and the name of the interval.
    """
    experiments = ordered(bins["experiment"])
    n_rows, n_columns = panel_grid(len(experiments))
    figure, axes = new_figure(
        width_in=max(0.6 + 1.95 * n_columns, 4.5),
        height_in=0.9 + 2.05 * n_rows,
        rows=n_rows,
        columns=n_columns,
        share_x=True,
        share_y=True,
    )
    for axis, experiment in zip(axes.flat, experiments, strict=False):
        part, look = bins[bins["experiment"] == experiment].sort_values("predicted"), looks(experiments)[experiment]
        axis.plot([0, 1], [0, 1], color="0.6", linewidth=0.9, linestyle=":")
        axis.fill_between(part["predicted"], part["low"], part["high"], color=look.color, alpha=0.22, linewidth=0)
        axis.plot(part["predicted"], part["observed"], color=look.color)
        for x, y in zip(part["predicted"], part["observed"], strict=True):
            dot(axis, x, y, look)
        axis.set(title=experiment, aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    trim(axes, len(experiments), x_label="predicted", y_label="observed")
    add_caption(figure, f"{caption} Dotted: perfect calibration; below it, risk is predicted too high.")
    return figure
