"""Methods of a study in words, every number from the records."""

import re
from functools import partial
from typing import Any

import pandas as pd

from lungmtl.experiments import SPLITS, in_order
from lungmtl.report.words import counted, recorded, render, shown, spanned
from lungmtl.words import task_label

# settings that are places and names, or that `methods.md.j2` says in its own way
NOT_METHODS = r"study|experiment|seed|results_dir|cache_dir|cohort|allow_outside|threads|tasks|weights|phantom_\w+"
OF_TASKS = ("tasks", "central", "order", "pflp_order", "shuffle_tasks")  # settings that name tasks


def methods(runs: pd.DataFrame) -> str:
    """The methods in Markdown, every number from the records; where runs differ, each value with its number of runs.

    `runs` is as `study.collect` returns it, one row per run; a field that an old record lacks is "not recorded".
    """
    tasks = dict.fromkeys(task for tasks in runs["tasks"] for task in tasks)
    counts = {split: f"^cohort_counts_{split}_{re.escape(runs['tasks'].iloc[0][0])}_(n|unknown)$" for split in SPLITS}
    sizes = {split: runs.filter(regex=counts[split]).sum(axis=1, min_count=2) for split in SPLITS}
    settings = _settings(runs)
    differing = [name for name in settings if len(set(settings[name]) - {""}) > 1]
    return render(
        "methods.md.j2",
        is_phantom=set(runs["config_cohort"]) == {""},
        splits=SPLITS,
        recorded=partial(recorded, runs.assign(**sizes, epoch=runs["selection_epoch"] + 1)),
        tasks={task: partial(spanned, runs[[task in tasks for tasks in runs["tasks"]]]) for task in tasks},
        blank=[
            f"{task_label(task)} in {split}" for task in tasks for split in SPLITS[1:] if _is_blank(runs, split, task)
        ],
        n_runs=len(runs),
        experiments=[_experiment(name, runs, settings[differing]) for name in in_order(runs["experiment"])],
        differing=differing,
        same={name: max(settings[name]) for name in settings if name not in (*differing, "tasks")},  # "" comes first
        hours=runs.filter(regex="^seconds_").sum(axis=None) / 3600,
    )


def policies(runs: pd.DataFrame) -> dict[str, str]:
    """Policy and weights of every experiment in words, and its labels and batches where experiments differ in them.

    In the paper's order; `runs` as in `methods`.
    """
    data = runs.drop_duplicates("experiment").set_index("experiment")
    data = _texts(data.filter(regex="^config_(labels|shuffle_tasks|sampler)$"))
    data = data[[name for name in data if len(set(data[name])) > 1]]
    blank = pd.DataFrame(index=runs.index)
    found = {name: _experiment(name, runs, blank) | {"data": data.loc[name].to_dict()} for name in data.index}
    return {name: render("policy.md.j2", experiment=found[name]) for name in in_order(found)}


def _is_blank(runs: pd.DataFrame, split: str, task: str) -> bool:
    """Whether some run knows only one class of a task in a split."""
    n, positives = (runs.get(f"cohort_counts_{split}_{task}_{what}") for what in ("n", "positives"))
    return n is not None and positives is not None and bool(((positives == 0) | (positives == n)).any())


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
        "settings": [counted(settings.loc[rows.index, one]) for one in settings],
    }


def _settings(runs: pd.DataFrame) -> pd.DataFrame:
    """Settings of every run as text; those of its policies as `ITW start`, empty where a run has no such policy."""
    n_tasks = max(map(len, runs["tasks"]))
    tasks = [_text("tasks", tasks) if len(tasks) < n_tasks else f"all {n_tasks}" for tasks in runs["tasks"]]
    own = _texts(runs.filter(regex=rf"^config_(?!({NOT_METHODS})$)")).assign(tasks=tasks)
    policies = [
        {
            f"{policy} {name}": _text(name, value)
            for policy in row
            for name, value in row[policy].items()
            if name != "weights"
        }
        for row in runs["policy_settings"]
    ]
    policies = pd.DataFrame(policies, index=runs.index).fillna("")
    return own.join(policies)


def _texts(configs: pd.DataFrame) -> pd.DataFrame:
    """Columns `config_<setting>` as texts, named by their settings."""
    configs = configs.rename(columns=lambda name: name.removeprefix("config_"))
    return configs.apply(lambda column: column.map(lambda value: _text(str(column.name), value)))


def _text(setting: str, value: Any) -> str:
    """A setting's value for readers, who read tasks by their labels."""
    if setting in OF_TASKS and isinstance(value, list | tuple):
        return shown([*map(task_label, value)])
    return shown(task_label(value) if setting in OF_TASKS and isinstance(value, str) else value)
