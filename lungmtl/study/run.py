"""A run, from its settings to its record: cohort, preparation, policy, network, training, evaluation.

`notebooks/02_experiment.ipynb` calls these in turn, one step per cell. `load_run` loads a finished run with its trained
network.
"""

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from lungmtl import data
from lungmtl import network as networks
from lungmtl.evidence import scores
from lungmtl.experiments import SPLITS, run_name
from lungmtl.files import sha256
from lungmtl.policies import Policy, build, describe
from lungmtl.sources import phantom
from lungmtl.study import plan
from lungmtl.study.collection import config_of
from lungmtl.study.config import RunConfig, read_params
from lungmtl.study.machine import CHECKPOINTS, SHARED_START, environment
from lungmtl.study.parameters import check_injected
from lungmtl.study.record import read_model, read_rebuild, read_record, write_run


class Cohort(NamedTuple):
    """The scans of a run: the table with splits, and the folder of the prepared scans."""

    path: Path
    table: pd.DataFrame
    folder: Path
    counts: dict[str, dict[str, dict[str, int]]]  # split -> task -> n, positives, unknown
    seconds: float


class Trained(NamedTuple):
    """A trained network."""

    fitted: networks.Fitted
    precision: str  # in use, bf16 or fp32
    seconds: float
    passes: dict[str, int]  # through the network, as `network.counted` counts them


class Evaluated(NamedTuple):
    """Probabilities of validation and test scans, and their scores."""

    predictions: pd.DataFrame
    metrics: dict[str, dict[str, dict[str, float]]]
    seconds: float


class LoadedRun(NamedTuple):
    """A finished run: its network, ready to predict, its settings and its record."""

    network: nn.Module
    config: RunConfig
    record: dict[str, Any]


def configure(namespace: Mapping[str, Any]) -> RunConfig:
    """Read the settings from a notebook's namespace, seed torch and set its number of threads.

    Raises:
        ValueError: If a setting is invalid, an injected parameter does not exist, or the experiment has the name of one
            of Table 2 but not its tasks, weights and policy.
    """
    check_injected(namespace)
    config = RunConfig.from_mapping({name: namespace[name] for name in RunConfig.__dataclass_fields__})
    check_name(config)
    torch.set_num_threads(config.threads)
    networks.seed_everything(config.seed)
    return config


def check_name(config: RunConfig) -> None:
    """Refuse a run that has the name of an experiment of Table 2 but not its tasks, weights and policy."""
    file = plan.TABLE2_PARAMS / f"{config.experiment}.yaml"
    if not file.is_file():
        return
    named = read_params(file)
    weights = named["weights"]
    wanted = {"weights": [weights[0], *[weights[-1]] * (len(config.tasks) - 1)], "policy": ""}
    wanted |= {name: named[name] for name in ("pflp", "itw")}
    is_single = len(weights) == 1
    found = {name: getattr(config, name) for name, value in wanted.items() if getattr(config, name) != value}
    if found or is_single != (len(config.tasks) == 1):
        said = ", ".join(f"{name} {value}" for name, value in (found or {"tasks": config.tasks}).items())
        raise ValueError(
            f"A run named {config.experiment} must have the tasks, weights and policy of Table 2. Found {said}: run it "
            f"with -f ../params/table2/{file.name}, or give it another name."
        )


def training_set(config: RunConfig) -> int:
    """Number of a run's training set, from 0."""
    return config.seed % config.training_sets


def gather(config: RunConfig) -> Cohort:
    """Read or generate the cohort, split it, prepare scans that are not prepared yet, and select the run's labels.

    Raises:
        ValueError: If the table is invalid, or `data.judge_splits` finds a reason to stop.
    """
    start = time.perf_counter()
    path = Path(config.cohort)
    if not config.cohort:
        path = phantom.make_cohort(config.phantom.folder(config.cache_dir), config.phantom, progress=False)
    tasks = list(dict.fromkeys([*config.tasks, *config.labelling.tasks]))
    table = data.read_cohort(path, tasks=tasks, allow_outside=config.allow_outside)
    data.check_splits(table, **config.splitting)  # before anything is computed
    folder, report = data.prepare_cohort(
        table, path.parent, config.preparation, cache_dir=config.cache_dir, progress=False
    )
    table = data.included(data.check_splits(table, **config.splitting, failed=report))
    table = data.in_training_set(table, training_set(config)) if config.training_sets > 1 else table
    table = data.labelled(table, config.labelling, central=config.tasks[0])
    data.check_splits(table, **config.splitting | {"training_sets": 1})  # again, with the labels that are left
    return Cohort(path, table, folder, data.counts(table, tasks=config.tasks), time.perf_counter() - start)


def datasets(config: RunConfig, cohort: Cohort) -> dict[str, data.ScanDataset]:
    """Dataset of prepared scans for every split."""
    table = cohort.table
    return {
        split: data.ScanDataset(table[table["split"] == split], cohort.folder, tasks=config.tasks) for split in SPLITS
    }


def weighting_policy(config: RunConfig) -> Policy:
    """The policy of a run."""
    return build(config.weighting)


def new_network(config: RunConfig) -> nn.Module:
    """The network of a run before training, initialised at random or from `start_weights`."""
    network = networks.build_network(config.network, config.tasks, width=config.width)
    if config.start_weights:
        networks.start_from(network, config.start_weights)
    return network


def train(
    config: RunConfig, network: nn.Module, scans: Mapping[str, data.ScanDataset], policy: Policy | None = None
) -> Trained:
    """Train a network with the run's policy, or with another one."""
    focus = build(dataclasses.replace(config.weighting, policy="PFLP")) if config.sampler == "focus" else None
    precision = networks.resolve_precision(config.precision, shape=config.shape)
    training = scans["train"]
    is_balanced = config.class_balance == "positives"
    with networks.counted(network) as passes:
        fitted = networks.fit(
            network,
            training,
            scans["validation"],
            policy=policy or weighting_policy(config),
            training=config.training,
            positive_weight=networks.positive_weights(training.target, training.known) if is_balanced else None,
            precision=precision,
            seed=config.seed,
            sampler=networks.sampler(config.sampler, focus),
            checkpoints=_checkpoints(config, passes),
        )
    parts = fitted.history.drop_duplicates(["epoch", "split"])  # including epochs before an interruption
    return Trained(fitted, precision, float(parts["seconds"].sum()), passes)


def _checkpoints(config: RunConfig, passes: dict[str, int]) -> networks.Checkpoints:
    """The checkpoints that the run resumes from: its own, or the one of the steps that it shares with other runs."""
    prefix, shared = (os.environ.get(name, "") for name in (CHECKPOINTS, SHARED_START))
    share_at = build(dataclasses.replace(config.weighting, itw=True)).first_step if shared else None
    minutes = config.checkpoint_minutes
    return networks.Checkpoints(prefix, minutes=minutes, carried=passes, shared=shared, share_at=share_at)


def evaluate(config: RunConfig, trained: Trained, scans: Mapping[str, data.ScanDataset]) -> Evaluated:
    """Predict validation and test scans and score them; the only place that reads test labels."""
    start = time.perf_counter()
    options = {"batch_size": config.batch_size, "precision": trained.precision}
    parts = [
        scans[split].predictions(networks.predict(trained.fitted.model, scans[split], **options))
        for split in SPLITS[1:]
    ]
    predictions = pd.concat(parts)
    return Evaluated(predictions, scores(predictions), time.perf_counter() - start)


def write_record(config: RunConfig, cohort: Cohort, trained: Trained, evaluated: Evaluated) -> Path:
    """Write the run's files, the record last; returns its path."""
    fitted = trained.fitted
    values = {
        **{"study": config.study, "experiment": config.experiment, "seed": config.seed, "config": config.to_dict()},
        "policy": describe(weighting_policy(config)),
        "tasks": config.tasks,
        "cohort": {"sha256": sha256(cohort.path), "counts": cohort.counts, "training_set": training_set(config)},
        "environment": environment(threads=config.threads, precision=trained.precision),
        "seconds": {"prepare": cohort.seconds, "train": trained.seconds, "evaluate": evaluated.seconds},
        "cost": {
            **{"steps": len(fitted.steps), **trained.passes},
            "seconds_per_step": networks.seconds_per_step(fitted.history, len(fitted.steps)),
        },
        "selection": {"rule": config.selection, "epoch": fitted.best_epoch},
        "metrics": evaluated.metrics,
    }
    folder = Path(config.results_dir) / config.study / "runs" / run_name(config.experiment, config.seed)
    return write_run(
        folder,
        values,
        steps=fitted.steps,
        history=fitted.history,
        predictions=evaluated.predictions,
        model=fitted.model.state_dict(),
    )


def load_run(folder: str | Path) -> LoadedRun:
    """Rebuild the network of a finished run.

    Args:
        folder: The run's folder, with `record.json` and `model.safetensors`.
    Returns:
        The network in evaluation mode on the CPU, its settings and its record.
    Raises:
        FileNotFoundError: If the run is not complete or has no checkpoint.
    """
    found = read_record(folder)
    config = config_of(found)
    network = _rebuilt(folder, config.to_dict() | {"tasks": found["tasks"]})
    return LoadedRun(network, config, found)


def _rebuilt(folder: str | Path, said: Mapping[str, Any]) -> nn.Module:
    """Network of a checkpoint, rebuilt from its metadata; older checkpoints have none, so the record is used."""
    rebuild = read_rebuild(folder)
    config, tasks = {**said, **rebuild.get("config", {})}, rebuild.get("tasks", said["tasks"])
    network = networks.build_network(config["network"], tasks, width=config["width"])
    network.load_state_dict(read_model(folder))
    return network.eval()
