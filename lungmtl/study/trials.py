"""Tuning: the same few trials for every policy, values of its own knob, chosen among on validation scans."""

import ast
import csv
import dataclasses
from typing import Any

from lungmtl.files import PROJECT
from lungmtl.policies import build, names, with_setting
from lungmtl.study.config import RunConfig

TRIALS = PROJECT / "params" / "trials.csv"  # policy, setting (its knob), values parted by blanks, why
ALL_TRIALS = ".*"  # after the name of an experiment in a study's list: it and its trials


def trials(config: RunConfig) -> list[RunConfig]:
    """An experiment and one variant for each other value of its outermost policy's knob, e.g. `ITW2.start0.5`.

    The knob `aux` is the weight of every auxiliary task. A policy that the file does not name, and balanced weights of
    a single task, have no trial but the experiment itself.

    Raises:
        ValueError: If a value does not suit the policy.
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
