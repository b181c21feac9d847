"""Methods of a study in words, every number from the records."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lungmtl.report.page import HEX_DIGITS

NOT_METHODS = ("study", "experiment", "seed", "results_dir", "cache_dir", "cohort", "threads")  # not a method
SAID = (  # settings that the sentences name
    *("phantom_scans", "phantom_seed", "phantom_label_noise", "window_hu", "spacing_mm", "shape", "width"),
    *("learning_rate", "warmup", "weight_decay", "batch_size", "epochs", "class_balance", "augment", "selection"),
)
SAID_SPLITS = ("train", "validation", "test")
NOT_RECORDED = "not recorded"
CROSS = " \u00d7 "


def methods(runs: pd.DataFrame) -> str:
    """The methods in Markdown, every number from the records; where runs differ, each value with its number of runs.

    Args:
        runs: As `records.collect` returns them, one row per run. A field that an old record lacks is "not recorded".
    """
    return "\n\n".join(
        part(runs) for part in (_cohort, _counts, _training, _experiments, _settings, _others, _computation)
    )


def _cohort(runs: pd.DataFrame) -> str:
    if values(runs, "config_cohort") == [""]:
        phantom = recorded(runs, "config_phantom_seed"), recorded(runs, "config_phantom_label_noise")
        kind = "synthetic chest CTs (phantom seed {}, chance of a wrong auxiliary answer {})".format(*phantom)
    else:
        kind = "chest CTs of a cohort table"
    sizes = ", ".join(f"{_n_scans(runs, split)} {split}" for split in SAID_SPLITS)
    sha256 = recorded(runs, "cohort_sha256", lambda value: f"`{value[:HEX_DIGITS]}`")
    window, spacing = recorded(runs, "config_window_hu", " to ".join), recorded(runs, "config_spacing_mm", CROSS.join)
    return (
        f"**Scans.** The scans are {kind}: {sizes}; the sha256 of their table begins with {sha256}. Intensities were"
        f" clipped to {window} HU and scans resampled to voxels of {spacing} mm on a grid of"
        f" {recorded(runs, 'config_shape', CROSS.join)} (z, y, x)."
    )


def _n_scans(runs: pd.DataFrame, split: str) -> str:
    task = runs["tasks"].iloc[0][0]
    parts = [f"cohort_counts_{split}_{task}_{kind}" for kind in ("n", "unknown")]
    if not set(parts) <= set(runs.columns):
        return NOT_RECORDED
    return recorded(runs.assign(scans=runs[parts].sum(axis=1, min_count=len(parts))), "scans")


def _counts(runs: pd.DataFrame) -> str:
    """Table of positive among known answers per task and split."""
    heads, said = ("task", *SAID_SPLITS), "Positive scans of those whose answer is known:"
    lines = [said, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for task in dict.fromkeys(task for tasks in runs["tasks"] for task in tasks):
        columns = [[f"cohort_counts_{split}_{task}_{kind}" for kind in ("positives", "n")] for split in SAID_SPLITS]
        cells = [" of ".join(recorded(runs, column, known_only=True) for column in pair) for pair in columns]
        lines.append(f"| {task.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _training(runs: pd.DataFrame) -> str:
    say = {name: recorded(runs, f"config_{name}") for name in SAID}
    kept = recorded(runs.assign(kept=runs["selection_epoch"] + 1), "kept")
    return (
        f"**Network and training.** One shared 3D encoder ({say['width']} channels in its first stage) and one"
        f" subnetwork per task. AdamW with peak learning rate {say['learning_rate']}, rising over the first fraction"
        f" {say['warmup']} of the steps, and weight decay {say['weight_decay']}; batches of {say['batch_size']} scans,"
        f" {say['epochs']} epochs; class balance: {say['class_balance']}; augmentation: {say['augment']}. Rule for the"
        f" epoch kept: {recorded(runs, 'selection_rule')}; epoch kept, counted from 1: {kept}."
    )


def _experiments(runs: pd.DataFrame) -> str:
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, group in runs.groupby("experiment", sort=False):
        groups.setdefault(tuple(sorted(group["seed"])), []).append(name)
    said = "; ".join(f"{shown(seeds)} of {shown(names)}" for seeds, names in groups.items())
    return f"**Runs.** {len(runs)} runs; seeds {said}. Settings in which experiments differ:"


def _settings(runs: pd.DataFrame) -> str:
    """Table of the settings that tell experiments apart; a rule's settings are blank where the rule is off."""
    firsts = runs.drop_duplicates("experiment")
    names = [name for name in _setting_names(runs) if len(values(firsts, f"config_{name}")) > 1]
    n_tasks = max(map(len, runs["tasks"]))
    lines = [f"| experiment | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for row in firsts.to_dict("records"):
        is_off = {name: "_" in name and row.get(f"config_{name.split('_')[0]}") is False for name in names}
        row["config_tasks"] = row["tasks"] if len(row["tasks"]) < n_tasks else f"all {n_tasks}"
        cells = ["" if is_off[name] else shown(row[f"config_{name}"]) for name in names]
        lines.append(f"| {row['experiment']} | {' | '.join(cells)} |")
    return "\n".join(lines) if names else "none."


def _others(runs: pd.DataFrame) -> str:
    """The settings that every run shares and that no sentence before named."""
    names = [name for name in _setting_names(runs) if len(values(runs, f"config_{name}")) == 1]
    said = [f"{name} {recorded(runs, f'config_{name}')}" for name in names if name not in (*SAID, "tasks")]
    return f"The same in every run: {'; '.join(said) or 'nothing else'}."


def _setting_names(runs: pd.DataFrame) -> list[str]:
    names = [name.removeprefix("config_") for name in runs.columns if name.startswith("config_")]
    return [name for name in names if name not in NOT_METHODS]


def _computation(runs: pd.DataFrame) -> str:
    names = ("dirty", "python", "torch", "numpy", "cpu", "gpu", "threads", "precision")
    say = {name: recorded(runs, f"environment_{name}") for name in names}
    commit = recorded(runs, "environment_commit", lambda value: f"`{value[:HEX_DIGITS]}`")
    hours = runs[[name for name in runs.columns if name.startswith("seconds_")]].sum(axis=None) / 3600
    return (
        f"**Computation.** Commit {commit}, uncommitted changes: {say['dirty']}; Python {say['python']}, torch"
        f" {say['torch']}, NumPy {say['numpy']}. Processor: {say['cpu']}; threads: {say['threads']}; GPU:"
        f" {say['gpu'] or 'none'}; precision: {say['precision']}. All runs together: {hours:.2f} hours."
    )


def recorded(
    runs: pd.DataFrame, column: str, show: Callable[[Any], str] | None = None, *, known_only: bool = False
) -> str:
    """The value of a column; where runs differ, each value with its number of runs."""
    if column not in runs:
        return NOT_RECORDED
    values = runs[column].map(lambda value: _text(value, show))
    counts = values[values != NOT_RECORDED] if known_only else values
    counts = counts.value_counts(sort=False)
    if len(counts) < 2:
        return counts.index[0] if len(counts) else NOT_RECORDED
    return ", ".join(f"{value or 'none'} ({n} runs)" for value, n in counts.items())


def _text(value: Any, show: Callable[[Any], str] | None) -> str:
    if not isinstance(value, list) and pd.isna(value):
        return NOT_RECORDED
    if show is None:
        return shown(value)
    return show([shown(item) for item in value] if isinstance(value, list) else value)


def shown(value: Any) -> str:
    """A value for readers: lists with commas, yes and no, numbers without trailing zeros, nothing for not known."""
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) if value else "none"
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else f"{value:.10g}"


def values(runs: pd.DataFrame, column: str) -> list[str]:
    """Different values of a column as text."""
    return list(dict.fromkeys(_text(value, None) for value in runs.get(column, [])))
