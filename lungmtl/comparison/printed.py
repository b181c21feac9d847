"""Tables for readers: the paper's AUCs next to ours, run time and cost, results as text.

Sources: Yang et al. 2020, Table 2 and abstract, arXiv 1912.07167 (the published AUCs).
"""

import pandas as pd

from lungmtl.experiments import base_of, in_order
from lungmtl.words import interval_names, seeds_of, task_label

PUBLISHED = (  # the paper's test AUCs of lung cancer; it does not say which row of Table 2 the last two belong to
    ("single task", 0.8080, ("STL",)),
    ("multi-task, weights not adaptive", 0.6720, ("MTL",)),
    ("multi-task with PFLP", 0.8402, ("MTL0", "MTL1", "MTL2", "MTL3", "MTL4")),
    ("multi-task with PFLP and ITW", 0.8462, ("ITW2", "ITW3")),
)
PUBLISHED_N = 592  # test scans of the paper, NLST and Vanderbilt


def seconds_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Run time of every experiment: mean seconds over seeds, and the share of training.

    Returns:
        experiment, n_seeds, prepare, train, evaluate, total, total_min, total_max, train_share.
    """
    parts = ["prepare", "train", "evaluate"]
    seconds = runs.set_index("experiment")[[f"seconds_{part}" for part in parts]].set_axis(parts, axis=1)
    grouped = seconds.assign(total=seconds.sum(axis=1)).groupby("experiment")
    total = grouped["total"]
    table = grouped.mean().assign(n_seeds=grouped.size(), total_min=total.min(), total_max=total.max())
    table["train_share"] = table["train"] / table["total"]
    columns = ["n_seeds", *parts, "total", "total_min", "total_max", "train_share"]
    return table.loc[in_order(runs["experiment"]), columns].reset_index()


def cost_table(runs: pd.DataFrame) -> pd.DataFrame:
    """Cost of every experiment: trials of its group in this study, steps, passes and seconds per step.

    Returns:
        experiment, n_seeds, trials (variants of one base, itself included), steps, and means over seeds: forward,
        backward and backward_features per step (`network.counted`), seconds_per_step with its minimum and maximum. Runs
        that recorded no cost are left out.
    """
    passes = ["forward", "backward", "backward_features"]
    columns = ["n_seeds", "trials", "steps", *passes, "seconds_per_step", "seconds_min", "seconds_max"]
    costs = runs.filter(regex="^(experiment$|cost_)").rename(columns=lambda name: name.removeprefix("cost_"))
    costs = costs.reindex(columns=["experiment", "steps", *passes, "seconds_per_step"]).dropna()
    costs[passes] = costs[passes].div(costs["steps"], axis=0)
    grouped = costs.groupby("experiment")
    seconds, bases = grouped["seconds_per_step"], pd.Series(map(base_of, runs["experiment"].unique()))
    table = grouped.mean().assign(n_seeds=grouped.size(), seconds_min=seconds.min(), seconds_max=seconds.max())
    table["trials"] = table.index.map(base_of).map(bases.value_counts())
    return table.loc[in_order(costs["experiment"]), columns].reset_index()


def published_table(aucs: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """The paper's four AUCs next to those of our experiments that may correspond; the cohorts differ.

    Returns:
        setting, experiment, paper_auc, paper_n, auc, low, high, interval, n_seeds, n.
    """
    columns = ["auc", "low", "high", "interval", "n_seeds", "n"]
    ours = aucs[aucs["task"] == task].set_index("experiment")[columns]
    rows = [(s, name, auc, PUBLISHED_N) for s, auc, experiments in PUBLISHED for name in experiments]
    paper = pd.DataFrame(rows, columns=["setting", "experiment", "paper_auc", "paper_n"])
    return paper.join(ours, on="experiment")


def format_table(aucs: pd.DataFrame) -> str:
    """The table of AUCs as text: a row per experiment, a column per task, mean [low, high].

    Args:
        aucs: As `auc_table` returns it, or its csv.
    """
    cells = aucs.assign(cell=_cells(aucs))
    wide = cells.pivot_table(index="experiment", columns="task", values="cell", aggfunc="first")
    wide = wide.loc[in_order(aucs["experiment"]), list(dict.fromkeys(aucs["task"]))].fillna("")
    wide.columns = wide.columns.map(task_label)
    return f"{wide.reset_index().to_string(index=False)}\n{_notes(aucs)}"


def format_result(aucs: pd.DataFrame, comparisons: pd.DataFrame) -> str:
    """The result on the central task as text: `result_table` for the first reference, interval, seeds and scans."""
    first = comparisons[comparisons["reference"] == next(iter(comparisons["reference"]), "")]
    table, central = result_table(aucs, first), aucs[aucs["task"] == aucs["task"].iloc[0]]
    return f"{table.to_string(index=False)}\n{_notes(central)}"


def result_table(aucs: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """The result on the central task as texts: AUC, and for each reference the paired difference and its verdict.

    Args:
        aucs: As `auc_table` returns it, or its csv; the first task is the central one.
        comparisons: As `comparison_table` returns it with its verdicts, or its csv.
    """
    central = aucs[aucs["task"] == aucs["task"].iloc[0]]
    table = pd.DataFrame({"experiment": central["experiment"], "test AUC": _cells(central, decimals=3)})
    for reference, rows in comparisons.dropna(subset="difference").groupby("reference", sort=False):
        texts = [f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]" for row in rows.itertuples()]
        for column, values in ((f"minus {reference}", texts), (f"against {reference}", rows["verdict"])):
            table[column] = table["experiment"].map(dict(zip(rows["experiment"], values, strict=True))).fillna("")
    return table


def _notes(aucs: pd.DataFrame) -> str:
    """Name of the interval, number of seeds and scans, in two lines."""
    counts = aucs.drop_duplicates("task").itertuples()
    scans = "; ".join(f"{task_label(row.task)} {row.n} ({row.positives} positive)" for row in counts)
    return f"Test AUC [{interval_names(aucs)}], mean over {seeds_of(aucs)}.\nScans: {scans}."


def _cells(aucs: pd.DataFrame, *, decimals: int = 2) -> list[str]:
    values = zip(aucs["auc"], aucs["low"], aucs["high"], strict=True)
    cells = [[f"{value:.{decimals}f}" for value in row] for row in values]
    return ["one class only" if auc == "nan" else f"{auc} [{low}, {high}]" for auc, low, high in cells]
