"""Figures of predictions: AUCs by task and next to the paper's, ROC curves, reliability."""

import pandas as pd
from matplotlib.figure import Figure

from lungmtl.experiments import in_order
from lungmtl.figures.marks import CHANCE_LINE, dots_with_intervals, grouped_positions, legend, marker, name_rows, panels
from lungmtl.figures.style import dashes_of, groups_of, line_colors, looks, new_figure, styled
from lungmtl.figures.words import captioned, extremes, scans_of, sentence
from lungmtl.words import interval_names, seeds_of, task_label


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
        axis.axvline(0.5, **CHANCE_LINE)
        axis.set_title(task_label(task), pad=17)
        axis.annotate(f"{positives} of {n} scans", (0, 1), (0, 5), "axes fraction", "offset points", color="0.35")
    name_rows(figure.axes, dict(enumerate(experiments)), grid=True)
    caption = f"Mean over {seeds_of(rows)} with its {interval_names(rows)} interval. Dotted line: chance."
    first = rows[rows["task"] == tasks[0]]
    alt = f"Test AUC of every experiment in {len(tasks)} tasks; {task_label(tasks[0])}: {extremes(first, 'auc')}."
    return captioned(figure, caption, alt=alt)


@styled
def roc_curves(curves: pd.DataFrame, aucs: pd.DataFrame) -> Figure:
    """ROC curves of one task, mean over seeds, the experiments of a group in one panel; grey: the first experiment.

    Args:
        curves: experiment, seed, false_positive_rate, sensitivity on the same rates for every run.
        aucs: The rows of that task: experiment, task, auc, low, high, interval, n_seeds, n, positives.
    """
    wide = curves.pivot_table(index="false_positive_rate", columns=["experiment", "seed"], values="sensitivity")
    start = pd.DataFrame(0.0, index=[0.0], columns=wide.columns)  # the stored curves start at the upper end of a rise
    means, of_experiment = pd.concat([start, wide]).T.groupby("experiment").mean().T, aucs.set_index("experiment")
    groups, first = groups_of(means.columns), in_order(means.columns)[0]
    figure, axes = panels(list(groups), size_in=(3.2, 3.2), x="1 - specificity", y="sensitivity", n_columns=3)
    for title, axis in axes.items():
        axis.plot([0, 1], [0, 1], **CHANCE_LINE)
        axis.plot(means[first], color="0.5", linewidth=1.2)
        for name, color in line_colors(groups[title]).items():
            auc, low, high = of_experiment.loc[name, ["auc", "low", "high"]]
            words = f"{name}  {auc:.2f} [{low:.2f}, {high:.2f}]"
            axis.plot(means[name], color=color, dashes=dashes_of(looks(curves["experiment"])[name]), label=words)
        axis.legend(loc="lower right", fontsize=6.5, handlelength=1.8)
        axis.set_aspect("equal")
    task = aucs["task"].iloc[0]
    return captioned(
        figure,
        f"{sentence(task)}, {scans_of(aucs)}. Mean over seeds; grey: {first}; dotted: chance. AUC in brackets: "
        f"{interval_names(aucs)}.",
        alt=f"ROC curves of {task_label(task)}, mean over seeds: AUC {extremes(aucs, 'auc')}.",
    )


@styled
def published_aucs(published: pd.DataFrame) -> Figure:
    """The paper's AUCs next to ours, grouped by the paper's four settings.

    Args:
        published: setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n; NaN rows are left out.
    """
    published = published.dropna(subset="auc")
    settings = published.groupby("setting", sort=False)
    positions = grouped_positions([part.index for _, part in settings], gap=0.6)  # by row of the frame
    ours = published.assign(position=published.index.map(positions))
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
        "candidates of this study are shown. It publishes no value of ITW without PFLP (ITW1).",
        alt="; ".join(
            f"{row.experiment} {row.auc:.2f} here, {row.paper_auc:.2f} in the paper ({row.setting})"
            for row in ours.itertuples()
        ),
    )


@styled
def reliability(bins: pd.DataFrame, *, caption: str) -> Figure:
    """Observed share of positive scans against predicted probability, the experiments of a group in one panel.

    Args:
        bins: experiment, predicted, observed, low, high, n; the band is drawn where a panel holds two at most.
        caption: Which task, scans and seeds, and the name of the interval.
    """
    groups = groups_of(bins["experiment"])
    figure, axes = panels(list(groups), size_in=(3.2, 3.2), x="predicted", y="observed", n_columns=3)
    for title, axis in axes.items():
        axis.plot([0, 1], [0, 1], **CHANCE_LINE)
        for name, color in line_colors(groups[title]).items():
            part = bins[bins["experiment"] == name].sort_values("predicted")
            look = looks(bins["experiment"])[name]._replace(color=color)
            if len(groups[title]) <= 2:
                axis.fill_between(part["predicted"], part["low"], part["high"], color=color, alpha=0.18, linewidth=0)
            axis.plot(part["predicted"], part["observed"], dashes=dashes_of(look), label=name, **marker(look, size=4))
        legend(axis, "upper left")
        axis.set(aspect="equal", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    gaps = bins.assign(gap=bins["predicted"] - bins["observed"]).groupby("experiment", as_index=False)["gap"].mean()
    return captioned(
        figure,
        f"{caption} The band is drawn where a panel holds no more than two experiments. Dotted: perfect calibration; "
        "below it, risk is predicted too high.",
        alt=f"Observed against predicted risk; mean of predicted minus observed {extremes(gaps, 'gap', form='+.2f')}.",
    )
