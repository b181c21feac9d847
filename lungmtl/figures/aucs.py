"""Figures of AUCs: by task, ROC curves, next to the paper's, reliability."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lungmtl.experiments import in_order
from lungmtl.figures.marks import CHANCE, dots_with_intervals, grouped_positions, marker, name_rows, panels
from lungmtl.figures.style import looks, new_figure, styled
from lungmtl.figures.words import captioned, interval_names, scans_of, seeds_of, sentence, task_label


@styled
def auc_by_task(aucs: pd.DataFrame) -> Figure:
    """AUC of every experiment, one panel per task on a shared axis.

    Args:
        aucs: experiment, task, auc, low, high, interval, n_seeds, n, positives; NaN rows are left out.
    """
    rows = aucs.dropna(subset="auc")
    experiments, tasks = in_order(rows["experiment"]), list(dict.fromkeys(rows["task"]))
    rows = rows.assign(position=rows["experiment"].map(experiments.index))
    figure, axes = panels(tasks, size_in=(1.87, 0.6 + 0.23 * len(experiments)), x="test AUC")
    for task, axis in axes.items():
        part = rows[rows["task"] == task]
        n, positives = part[["n", "positives"]].iloc[0]
        dots_with_intervals(axis, part, "auc", looks(experiments))
        axis.axvline(0.5, **CHANCE)
        axis.set_title(task_label(task), pad=17)
        axis.text(0, 1.015, f"{positives} of {n} scans", transform=axis.transAxes, color="0.35")
    name_rows(figure.axes, dict(enumerate(experiments)), grid=True)
    caption = f"Mean over {seeds_of(rows)} with its {interval_names(rows)} interval. Dotted line: chance."
    return captioned(figure, caption)


@styled
def roc_curves(curves: pd.DataFrame, aucs: pd.DataFrame) -> Figure:
    """ROC curves of one task, one panel per experiment: thin = a seed, thick = mean, grey = the first experiment.

    Args:
        curves: experiment, seed, false_positive_rate, sensitivity on the same rates for every run.
        aucs: The rows of that task: experiment, task, auc, low, high, interval, n_seeds, n, positives.
    """
    experiments = in_order(curves["experiment"])
    wide = curves.pivot_table(index="false_positive_rate", columns=["experiment", "seed"], values="sensitivity")
    start = pd.DataFrame(0.0, index=[0.0], columns=wide.columns)  # the stored curves start at the upper end of a rise
    wide, of_experiment = pd.concat([start, wide]), aucs.set_index("experiment")
    figure, axes = panels(experiments, size_in=(1.95, 2.05), x="1 - specificity", y="sensitivity")
    for experiment, axis in axes.items():
        color, row = looks(experiments)[experiment].color, of_experiment.loc[experiment]
        axis.plot(wide[experiments[0]].mean(axis=1), color="0.6", linewidth=1.2)
        axis.plot(wide[experiment], color=color, linewidth=0.6, alpha=0.5)
        axis.plot(wide[experiment].mean(axis=1), color=color, linewidth=1.9)
        axis.plot([0, 1], [0, 1], **CHANCE)
        text = f"AUC {row['auc']:.2f}\n[{row['low']:.2f}, {row['high']:.2f}]"
        axis.text(0.97, 0.05, text, transform=axis.transAxes, ha="right", va="bottom")
        axis.set_aspect("equal")
    return captioned(
        figure,
        f"{sentence(aucs['task'].iloc[0])}, {scans_of(aucs)}. Thin: one seed; thick: mean over seeds; grey: mean of "
        f"{experiments[0]}; dotted: chance. In brackets: {interval_names(aucs)}.",
    )


@styled
def published_aucs(published: pd.DataFrame) -> Figure:
    """The paper's AUCs next to ours, grouped by the paper's four settings.

    Args:
        published: setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n.
    """
    settings = published.groupby("setting", sort=False)
    positions = grouped_positions([part.index for _, part in settings], gap=0.6)  # by row of the frame
    ours = published.assign(position=published.index.map(positions)).dropna(subset="auc")
    figure, axes = new_figure(width_in=7.2, height_in=1.6 + 0.25 * (len(published) + 0.6 * len(settings)))
    axis = axes[0, 0]
    dots_with_intervals(axis, ours, "auc", looks(published["experiment"]))
    for setting, part in settings:
        first, last, paper_auc = positions[part.index[0]], positions[part.index[-1]], part["paper_auc"].iloc[0]
        axis.vlines(paper_auc, first - 0.35, last + 0.35, color="0.35", linewidth=4, alpha=0.35)
        text = f"{setting}\npaper: {paper_auc:.3f}"
        axis.text(1.02, (first + last) / 2, text, transform=axis.get_yaxis_transform(), va="center")
    name_rows([axis], {position: published.loc[row, "experiment"] for row, position in positions.items()}, grid=False)
    axis.set_xlabel("test AUC, lung cancer")
    return captioned(
        figure,
        f"Two different cohorts. Points: this study, {int(ours['n'].iloc[0])} test scans, mean over {seeds_of(ours)}, "
        f"{interval_names(ours)} interval. Grey bars: the paper, {published['paper_n'].iloc[0]} test scans of NLST and "
        "Vanderbilt, no interval published; it does not say which experiment its last two values belong to, so all "
        "candidates are shown.",
    )


@styled
def reliability(bins: pd.DataFrame, *, caption: str) -> Figure:
    """Observed share of positive scans against predicted probability, one panel per experiment.

    Args:
        bins: experiment, predicted, observed, low, high, n.
        caption: Which task, scans and seeds, and the name of the interval.
    """
    experiments = in_order(bins["experiment"])
    figure, axes = panels(experiments, size_in=(1.95, 2.05), x="predicted", y="observed")
    for experiment, axis in axes.items():
        part, look = bins[bins["experiment"] == experiment].sort_values("predicted"), looks(experiments)[experiment]
        axis.plot([0, 1], [0, 1], **CHANCE)
        axis.fill_between(part["predicted"], part["low"], part["high"], color=look.color, alpha=0.22, linewidth=0)
        sns.lineplot(part, x="predicted", y="observed", estimator=None, ax=axis, **marker(look))
        axis.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return captioned(figure, f"{caption} Dotted: perfect calibration; below it, risk is predicted too high.")
