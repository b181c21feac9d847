"""Methods of a study in words, every number from the records."""

from functools import partial
from typing import Any

import pandas as pd

from lungmtl.experiments import SPLITS, in_order
from lungmtl.report.words import counted, recorded, render, shown

NOT_METHODS = (  # places and names; `methods.md.j2` says what a phantom, the tasks and their weights are
    *("study", "experiment", "seed", "results_dir", "cache_dir", "cohort", "threads", "weights"),
    *("phantom_scans", "phantom_seed", "phantom_label_noise"),
)


def methods(runs: pd.DataFrame) -> str:
    """The methods in Markdown, every number from the records; where runs differ, each value with its number of runs.

    Args:
        runs: As `study.collect` returns them, one row per run. A field that an old record lacks is "not recorded".
    """
    tasks = dict.fromkeys(task for tasks in runs["tasks"] for task in tasks)
    settings = _settings(runs)
    differing = [name for name in settings if len(set(settings[name]) - {""}) > 1]
    return render(
        "methods.md.j2",
        is_phantom=set(runs["config_cohort"]) == {""},
        splits=SPLITS,
        recorded=partial(recorded, runs.assign(**_sizes(runs), epoch=runs["selection_epoch"] + 1)),
        tasks={task: partial(recorded, runs[[task in tasks for tasks in runs["tasks"]]]) for task in tasks},
        n_runs=len(runs),
        experiments=[_experiment(name, runs, settings[differing]) for name in in_order(runs["experiment"])],
        differing=differing,
        same={name: max(settings[name]) for name in settings if name not in (*differing, "tasks")},  # "" comes first
        hours=runs.filter(regex="^seconds_").sum(axis=None) / 3600,
    )


def _sizes(runs: pd.DataFrame) -> dict[str, pd.Series]:
    """Number of scans of every split, NaN where a record does not say."""
    start = "cohort_counts_{}_" + runs["tasks"].iloc[0][0]
    parts = {split: [f"{start.format(split)}_{part}" for part in ("n", "unknown")] for split in SPLITS}
    return {split: runs.reindex(columns=names).sum(axis=1, min_count=2) for split, names in parts.items()}


def _experiment(name: str, runs: pd.DataFrame, settings: pd.DataFrame) -> dict[str, Any]:
    """An experiment with some settings; its policies, from the outside in, and their weights as in its first run."""
    rows = runs[runs["experiment"] == name]
    run = rows.iloc[0]
    weights = [values["weights"] for values in run["policy_settings"].values() if "weights" in values]
    return {
        "name": name,
        "seeds": shown(sorted(rows["seed"])),
        "policies": run["policy_settings"],
        "weights": [*weights, run.get("config_weights")][0],
        "is_single": len(run["tasks"]) == 1,
        "settings": settings.loc[rows.index].apply(counted).to_list(),
    }


def _settings(runs: pd.DataFrame) -> pd.DataFrame:
    """Settings of every run as text; those of its policies as `ITW start`, empty where a run has no such policy."""
    n_tasks = max(map(len, runs["tasks"]))
    tasks = [shown(tasks) if len(tasks) < n_tasks else f"all {n_tasks}" for tasks in runs["tasks"]]
    own = runs.filter(regex="^config_").rename(columns=lambda name: name.removeprefix("config_"))
    own = own.assign(tasks=tasks).drop(columns=[*NOT_METHODS], errors="ignore").map(shown)
    of_policies = [
        {f"{policy} {name}": shown(value) for policy in row for name, value in row[policy].items() if name != "weights"}
        for row in runs["policy_settings"]
    ]
    return own.join(pd.DataFrame(of_policies, index=runs.index).fillna(""))
