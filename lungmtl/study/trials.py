"""Tuning: a few trials per policy, values of one hyperparameter, to be selected on validation scans."""

import ast
import csv
import dataclasses
from typing import Any

from lungmtl.files import PROJECT
from lungmtl.policies import build, names, with_setting
from lungmtl.study.config import RunConfig

TRIALS = PROJECT / "params" / "trials.csv"  # policy, setting (the hyperparameter), values separated by blanks, why
ALL_TRIALS = ".*"  # suffix of an experiment in a study's list: the experiment and its trials


def trials(config: RunConfig) -> list[RunConfig]:
    """An experiment and one variant per other value of its outermost policy's hyperparameter, e.g. `ITW2.start0.5`.

    The hyperparameter `aux` is the weight of every auxiliary task. For a policy that the file does not list, and for
    balanced weights of a single task, only the experiment itself is returned.

    Raises:
        ValueError: If a value is invalid for the policy.
    """
    with TRIALS.open(encoding="utf-8", newline="") as stream:
        rows = {row["policy"]: row for row in csv.DictReader(stream)}
    row = rows.get(names(config.weighting.spelling)[0], {"setting": "", "values": ""})
    setting, values = row["setting"], [ast.literal_eval(word) for word in row["values"].split()]
    if setting == "aux" and len(config.tasks) == 1:
        return [config]
    own = config.weights[-1] if setting == "aux" else getattr(build(config.weighting), setting, None)
    return [config, *(_trial(config, setting, value) for value in values if value != own)]


def _trial(config: RunConfig, setting: str, value: Any) -> RunConfig:
    if setting == "aux":
        change = {"weights": [config.weights[0], *[float(value)] * (len(config.tasks) - 1)]}
    else:
        change = {"policy": with_setting(config.weighting.spelling, setting, value)}
    name = f"{config.experiment}.{setting}{value:g}"
    return RunConfig.from_mapping(dataclasses.replace(config, experiment=name, **change).to_dict())
