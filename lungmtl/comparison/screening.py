"""Screening: runs that cannot be compared are left out and named."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl.comparison.scans import MIN_PER_CLASS, PREDICTED
from lungmtl.experiments import in_order, run_name
from lungmtl.words import task_label

OWN_SETTINGS = ("study", "experiment", "seed", "results_dir", "cache_dir", "allow_outside", "cohort", "threads")
OF_EXPERIMENT = (
    *("tasks", "policy_name", "config_tasks", "config_weights", "config_network", "config_start_weights"),
    *("config_labels", "config_shuffle_tasks", "config_sampler"),
)


class Screened(NamedTuple):
    """The runs that can be compared; of the others `problems` has columns run ("" = no single run), problem."""

    runs: pd.DataFrame
    predictions: pd.DataFrame
    problems: pd.DataFrame


def screen(
    runs: pd.DataFrame, predictions: pd.DataFrame, *, experiments: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Screened:
    """Leave out what cannot be compared, and name it.

    A run is left out if it lacks predictions of a split or task, has an invalid probability, or differs from most
    runs in its cohort, a setting that must be shared, its scans, targets or patients. What makes an experiment what it
    is (`OF_EXPERIMENT` and every setting of its policy) is shared among its own runs only. Then every experiment
    keeps the seeds that all have, so that means over seeds are over the same ones. A task with too few scans of a class
    stays, with blank numbers, and is named.

    Args:
        runs: Complete runs, as `study.collect` returns them.
        predictions: Predictions of them.
        experiments: Expected experiments, others are ignored; empty = those found.
        seeds: Expected seeds; empty = those found.
    Raises:
        ValueError: If no value of a shared setting, or no set of scans, is that of more than half of the runs; or
            if no run is left.
    """
    expected = list(experiments) or in_order(runs["experiment"])
    wanted = sorted(seeds or runs["seed"].unique())
    runs = runs[runs["experiment"].isin(expected) & runs["seed"].isin(wanted)]
    predictions = predictions[predictions["run"].isin(runs["run"])]
    problems: list[tuple[str, str]] = []
    for check in (_run_without_predictions, _run_with_bad_values, _run_with_other_settings, _run_with_other_scans):
        found = check(runs, predictions)
        problems += found.items()
        runs = runs[~runs["run"].isin(found)]
        predictions = predictions[predictions["run"].isin(runs["run"])]
    kept, of_seeds = _common_seeds(runs, expected, wanted)
    problems += of_seeds
    runs = runs[runs["run"].isin(kept)]
    predictions = predictions[predictions["run"].isin(kept)]
    if runs.empty:
        listed = " ".join(f"{run or 'all'}: {problem}" for run, problem in problems)
        raise ValueError(f"A comparison must have a run that can be compared. Found none. {listed}")
    problems += _tasks_with_one_class(predictions)
    return Screened(runs, predictions, pd.DataFrame(problems, columns=["run", "problem"]))


def missing_runs(
    runs: pd.DataFrame,
    predictions: pd.DataFrame,
    incomplete: Sequence[str],
    *,
    experiments: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> pd.DataFrame:
    """Expected runs that are missing, and why: columns run, reason; arguments as in `screen`.

    Args:
        incomplete: Names of run directories without a record.
    """
    expected = product(experiments or in_order(runs["experiment"]), seeds or sorted(runs["seed"].unique()))
    reasons = {run_name(*place): "not there" for place in expected}
    reasons |= dict.fromkeys(incomplete, "not complete: no record.json")
    reasons |= dict.fromkeys(runs["run"], "no predictions.csv")
    predicted = set(predictions["run"])
    lacking = sorted((run, reason) for run, reason in reasons.items() if run not in predicted)
    return pd.DataFrame(lacking, columns=["run", "reason"])


def _run_without_predictions(runs: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs that lack predictions of a split, or of a task that the other runs of their experiment have."""
    found = {}
    kinds = predictions[["experiment", "run", "split", "task"]].drop_duplicates()
    rule = f"A run must predict {' and '.join(PREDICTED)} scans of every task."
    for run, experiment in zip(runs["run"], runs["experiment"], strict=True):
        own, others = kinds[kinds["run"] == run], kinds[kinds["experiment"] == experiment]
        lacking = [f"{split} scans" for split in PREDICTED if split not in set(own["split"])]
        lacking += sorted(set(others["task"]) - set(own["task"])) if len(own) else []
        if lacking:
            found[run] = f"{rule} Found none of {_listed(lacking)}."
    return found


def _run_with_bad_values(_: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs with an invalid probability or target, or two predictions of one scan."""
    probability = pd.to_numeric(predictions["probability"], errors="coerce")
    rules = (
        (~probability.between(0, 1), "probability", "`probability` must be inside [0, 1]."),
        (~predictions["target"].isin([0, 1, np.nan]), "target", "`target` must be 0, 1 or blank."),
        (predictions.duplicated(["run", "task", "scan"]), "scan", "A scan must have one prediction per task."),
    )
    found: dict[str, str] = {}
    for wrong, column, rule in rules:
        for run, rows in predictions[wrong].groupby("run"):
            cases = [f"{row[column]} in {row['scan']} ({row['task']})" for _, row in rows.head(3).iterrows()]
            found.setdefault(str(run), f"{rule} Found {len(rows)} others: {_listed(cases, n_all=len(rows))}.")
    return found


def _run_with_other_settings(runs: pd.DataFrame, _: pd.DataFrame) -> dict[str, str]:
    """Runs whose cohort or shared setting is not that of the majority; all runs of an experiment without a majority.

    A record that is older than a setting has no value of it, which does not count as a difference.
    """
    found: dict[str, str] = {}
    for what, values, of_experiment in _shared(runs):
        known = runs.assign(value=values).dropna(subset="value")
        for name, group in known.groupby("experiment" if of_experiment else lambda _: "a study", sort=False):
            shares = group["value"].value_counts(normalize=True)
            usual = shares.index[0] if shares.iloc[0] > 0.5 else None
            if usual is None and not of_experiment:
                kinds = group.groupby("value", sort=False)["run"].agg(list)
                listed = "; ".join(f"{kind} in {_listed(names)}" for kind, names in kinds.items())
                raise ValueError(f"{what} must be the same in most runs of a study. Found {listed}.")
            rule = f"{what} must be the same in every run of {name}."
            others = "no value in most" if usual is None else f"{usual} in most"
            for run, value in group.loc[group["value"] != usual, ["run", "value"]].itertuples(index=False):
                found.setdefault(run, f"{rule} Found {value} here and {others}.")
    return found


def _shared(runs: pd.DataFrame) -> Iterator[tuple[str, pd.Series, bool]]:
    """What runs must share: its name, its values as text (NaN = unknown), and whether only within an experiment."""
    yield "The cohort table (its sha256)", runs["cohort_sha256"].map(_as_text, na_action="ignore"), False
    own = {f"config_{name}" for name in OWN_SETTINGS}
    for name in [name for name in runs if name in OF_EXPERIMENT or (name.startswith("config_") and name not in own)]:
        values = runs[name].map(_as_text, na_action="ignore")
        yield f"`{name.removeprefix('config_')}`", values, name in OF_EXPERIMENT
    texts = [
        {f"{policy}.{name}": _as_text(value) for policy, own in of_run.items() for name, value in own.items()}
        for of_run in runs["policy_settings"]  # e.g. `ITW.start` to `0.7`
    ]
    settings = pd.DataFrame(texts, index=runs.index)
    yield from ((f"`{name}`", settings[name], True) for name in settings)


def _as_text(value: object) -> str:
    return json.dumps(value, default=str)


def _run_with_other_scans(_: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, str]:
    """Runs whose scans, targets or patients differ from those of most runs with the task.

    Runs with different training sets share the test scans; only runs of one set share all scans.
    """
    if predictions.get("training_set", pd.Series(0)).nunique() < 2:
        return _other_scans(predictions)
    found = _other_scans(predictions[predictions["split"] == "test"])
    for _, rows in predictions.groupby("training_set"):
        found = _other_scans(rows) | found
    return found


def _other_scans(predictions: pd.DataFrame) -> dict[str, str]:
    place = ["split", "scan", "patient", "target"]
    rows = pd.Series(pd.util.hash_pandas_object(predictions[place], index=False), index=predictions.index)
    kinds = rows.groupby([predictions["task"], predictions["run"]], sort=False).sum()  # blind to the order of rows
    found: dict[str, str] = {}
    for task, of_task in kinds.groupby(level="task", sort=False):
        of_task = of_task.droplevel("task")
        usual = of_task.mode()[0]
        if (of_task == usual).mean() <= 0.5:
            raise ValueError(
                "Most runs must predict the same scans with the same targets and patients. "
                f"Found {of_task.nunique()} kinds of {task} among {_listed(list(of_task.index))}."
            )
        for run in of_task.index[of_task != usual]:
            runs = (run, of_task.index[of_task == usual][0])
            sides = (predictions[(predictions["task"] == task) & (predictions["run"] == name)] for name in runs)
            found.setdefault(run, _scan_problem(*sides, task))
    return found


def _scan_problem(rows: pd.DataFrame, usual: pd.DataFrame, task: str) -> str:
    """How a run's scans of a task differ from those of a usual run, in a sentence."""
    both = rows.merge(usual, on=["split", "scan"], how="outer", suffixes=("", "_usual"), indicator="side")
    is_common = both["side"] == "both"
    cases = {"missing": both["side"] == "right_only", "unexpected": both["side"] == "left_only"}
    for name in ("target", "patient"):
        theirs = both[f"{name}_usual"]
        cases[f"with another {name}"] = is_common & both[name].ne(theirs) & (both[name].notna() | theirs.notna())
    scans = both["scan"] + " of " + both["split"]
    found = {words: list(scans[case]) for words, case in cases.items() if any(case)}
    parts = [f"{len(names)} {words}: {_listed(names, limit=3)}" for words, names in found.items()]
    return f"A run must have the scans, targets and patients of most runs. Found in {task} {'; '.join(parts)}."


def _common_seeds(
    runs: pd.DataFrame, expected: Sequence[str], wanted: Sequence[int]
) -> tuple[set[str], list[tuple[str, str]]]:
    """Names of the runs to compare, of seeds that all experiments have; and the problems of the others."""
    found = {name: set(runs.loc[runs["experiment"] == name, "seed"]) for name in expected}
    problems = [("", f"{name} is left out: it has no run to compare.") for name in expected if not found[name]]
    seeds = {name: of_name for name, of_name in found.items() if of_name}
    while seeds and not set.intersection(*seeds.values()):
        fewest = min(reversed(seeds), key=lambda name: len(seeds[name]))
        words = ", ".join(map(str, sorted(seeds.pop(fewest))))
        problems.append(("", f"{fewest} is left out: no seed is common to all, and it has only {words}."))
    common = set.intersection(*seeds.values()) if seeds else set()
    for seed in [seed for seed in wanted if seed not in common and seeds]:
        having = ", ".join(name for name in seeds if seed in seeds[name])
        lacking = [name for name in seeds if seed not in seeds[name]] if having else []
        ending = f"has no seed {seed}: seed {seed} of {having} is left out."
        problems += [(run_name(name, seed), f"{name} {ending}") for name in lacking]
        problems += [] if having else [("", f"No experiment has seed {seed}.")]
    return set(runs["run"][runs["experiment"].isin(seeds) & runs["seed"].isin(common)]), problems


def _tasks_with_one_class(predictions: pd.DataFrame) -> list[tuple[str, str]]:
    known = predictions.dropna(subset="target")
    problems = []
    for split, task in product(PREDICTED, predictions["task"].unique()):
        scans = known[(known["split"] == split) & (known["task"] == task)]
        positive = scans.groupby("patient")["target"].max() == 1
        n_with, n_without = int(positive.sum()), int((~positive).sum())
        if min(n_with, n_without) < MIN_PER_CLASS:
            needed = f"needs {MIN_PER_CLASS} {split} patients with a positive scan and as many without"
            found = f"Found {n_with} and {n_without}: numbers that need them are blank."
            problems.append(("", f"{task_label(task)} {needed}. {found}"))
    return problems


def _listed(names: Sequence[str], *, limit: int = 6, n_all: int = 0) -> str:
    rest = max(len(names), n_all) - min(limit, len(names))
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
