"""Run records: write and read one run's directory.

`record.json` is written last, so its presence means that the run is complete; a run killed half-way has none.
An unknown number (NaN) is `null` in JSON and blank in CSV.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungmtl.experiments import run_name
from lungmtl.files import existing, sha256, write
from lungmtl.study.machine import RECORD_COPY
from lungmtl.study.plan import FILES, HISTORY_FILE, MODEL_FILE, PREDICTIONS_FILE, RECORD_FILE, STEPS_FILE
from lungmtl.tables import write_csv

HISTORY_COLUMNS = ("epoch", "split", "task", "loss", "auc", "seconds")
PREDICTION_COLUMNS = ("scan", "patient", "split", "task", "target", "probability")
METRIC_KEYS = ("auc", "low", "high", "n", "positives")
PATHS = ("cohort", "results_dir", "cache_dir")  # settings that are paths
SECTIONS = {  # sections of record.json that are mappings, and the keys each must have
    "cohort": ("sha256", "counts"),
    "environment": ("commit", "dirty", "python", "torch", "numpy", "cpu", "gpu", "threads", "precision"),
    "seconds": ("prepare", "train", "evaluate"),
    "selection": ("rule", "epoch"),
}
RECORD_KEYS = ("study", "experiment", "seed", "config", "tasks", *SECTIONS, "metrics")


def step_columns(tasks: list[str]) -> list[str]:
    """Columns of steps.csv for these tasks, in order; `mean_weight` counts tasks without a label in the batch as 0."""
    weights = [f"weight_{task}" for task in tasks]
    losses = [f"loss_{task}" for task in tasks]
    return ["step", "epoch", "phase", "focus", *weights, *losses, "loss", "mean_weight", "n_known"]


def write_run(
    run_dir: str | Path,
    record: Mapping[str, Any],
    *,
    steps: pd.DataFrame,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    model: Mapping[str, Any],
) -> Path:
    """Check and write every file of a run, `record.json` last.

    Args:
        run_dir: Created if missing; an older record in it is removed first.
        record: `study`, `experiment`, `seed`; `config`, all fields, absolute paths reduced to their last part, since
            folders may name people; `policy`, its name and settings; `tasks`, the central one first; `cohort`, the
            table's `sha256` and the `counts` per split and label, without patients; `environment`; `seconds` of at
            least `prepare`, `train` and `evaluate`; `selection`, `rule` and `epoch` of the checkpoint kept; `metrics`,
            split -> task -> `auc`, `low`, `high`, `n`, `positives`, NaN if a split has one class or none; in newer
            records `cost`: steps, passes through the network and seconds per step.
        steps: One row per optimiser step, columns `step_columns`.
        history: Columns `HISTORY_COLUMNS`, one row per epoch, split and task.
        predictions: Columns `PREDICTION_COLUMNS` of validation and test; target NaN = unknown.
        model: Name -> tensor of the checkpoint kept; its metadata hold `config` and `tasks`, to rebuild it.
    Returns:
        Path of record.json.
    Raises:
        ValueError: If a column or key is missing, a step's weight or loss is infinite or a probability is outside
            [0, 1].
    """
    name = run_name(record["experiment"], record["seed"])
    seconds = {part: round(value, 3) for part, value in record["seconds"].items()}
    record = {**record, "config": _without_folders(record["config"]), "seconds": seconds}
    tasks = list(record["tasks"])
    _check_record(record, name)
    _check_steps(steps, tasks, name)
    _check_columns(history, HISTORY_COLUMNS, HISTORY_FILE, name)
    _check_predictions(predictions, name)
    folder = Path(run_dir)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    write_csv(steps[step_columns(tasks)], folder / STEPS_FILE, float_format="%.6g")
    write_csv(history[list(HISTORY_COLUMNS)], folder / HISTORY_FILE, float_format="%.6g")
    predictions = predictions[list(PREDICTION_COLUMNS)].astype({"target": "Int64"})
    write_csv(predictions, folder / PREDICTIONS_FILE, float_format="%.6f")
    _write_model(model, {"config": record["config"], "tasks": tasks}, folder / MODEL_FILE)
    record["files"] = {name: sha256(folder / name) for name in FILES[:-1]}
    text = json.dumps(_plain(record), indent=2, allow_nan=False) + "\n"
    if RECORD_COPY in os.environ:
        write(Path(os.environ[RECORD_COPY]), text)
    return write(folder / RECORD_FILE, text)


def read_record(run_dir: str | Path) -> dict[str, Any]:
    """Read and check the record of a complete run.

    Raises:
        FileNotFoundError: If the run is not complete.
        ValueError: If the file is not a record.
    """
    path = existing(Path(run_dir) / RECORD_FILE, "The record of a complete run")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"A record must be JSON. Found {error} in {path}.") from error
    _check_record(record, str(path))
    return record


def read_model(run_dir: str | Path) -> dict[str, Any]:
    """Read the checkpoint of a run: name -> tensor on the CPU.

    Raises:
        FileNotFoundError: If the run directory has no checkpoint, as in a fresh clone.
    """
    from safetensors.torch import load_file  # torch takes seconds to import, and most callers need no checkpoint

    return load_file(_checkpoint(run_dir))


def read_rebuild(run_dir: str | Path) -> dict[str, Any]:
    """Metadata to rebuild the network of a checkpoint: `config` and `tasks`; empty for older checkpoints."""
    from safetensors import safe_open

    with safe_open(_checkpoint(run_dir), framework="numpy") as file:
        return json.loads((file.metadata() or {}).get("lungmtl", "{}"))


def _checkpoint(run_dir: str | Path) -> Path:
    return existing(Path(run_dir) / MODEL_FILE, "The checkpoint of a run whose network is used")


def _check_record(record: Mapping[str, Any], where: str) -> None:
    check_keys(record, RECORD_KEYS, "A record", where)
    for section, keys in SECTIONS.items():
        check_keys(record[section], keys, f"`{section}` of a record", where)
    for split, tasks in record["metrics"].items():
        check_keys(tasks, record["tasks"], f"`metrics` of {split}", where)
        for task in record["tasks"]:
            check_keys(tasks[task], METRIC_KEYS, f"`metrics` of {split}, {task}", where)


def check_keys(mapping: Mapping[str, Any], required: Any, what: str, where: str) -> None:
    """Raise a ValueError that names the required keys which `mapping` lacks."""
    missing = [key for key in required if key not in mapping]
    if missing:
        raise ValueError(f"{what} must have {', '.join(required)}. Found no {', '.join(missing)} in {where}.")


def _check_columns(frame: pd.DataFrame, required: Any, file: str, where: str) -> None:
    check_keys(dict.fromkeys(frame.columns), required, f"The columns of {file}", where)
    if frame.empty:
        raise ValueError(f"{file} must have at least one row. Found none in {where}.")


def _check_steps(steps: pd.DataFrame, tasks: list[str], where: str) -> None:
    columns = step_columns(tasks)
    _check_columns(steps, columns, STEPS_FILE, where)
    if list(steps["step"]) != list(range(len(steps))):
        raise ValueError(f"`step` of {STEPS_FILE} must count from 0 without gaps. Found otherwise in {where}.")
    if (steps["phase"] == "").any() or steps["phase"].isna().any():
        raise ValueError(f"`phase` of {STEPS_FILE} must name the policy's phase. Found a blank in {where}.")
    for column in columns[4:]:
        blank_allowed = column.startswith("loss_")  # a batch may hold no label of a task
        values = steps[column].to_numpy(dtype=float, na_value=np.nan)
        if np.isinf(values).any() or (np.isnan(values).any() and not blank_allowed):
            raise ValueError(f"`{column}` of {STEPS_FILE} must be finite. Found inf or NaN in {where}.")


def _check_predictions(predictions: pd.DataFrame, where: str) -> None:
    _check_columns(predictions, PREDICTION_COLUMNS, PREDICTIONS_FILE, where)
    probability = predictions["probability"].to_numpy(dtype=float, na_value=np.nan)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(f"`probability` must be inside [0, 1]. Found a value outside, or NaN, in {where}.")
    if not predictions["target"].dropna().isin([0, 1]).all():
        raise ValueError(f"`target` must be 0, 1 or blank. Found another value in {where}.")
    if predictions.duplicated(["scan", "task"]).any():
        raise ValueError(f"A scan must have one prediction per task. Found a second one in {where}.")


def _without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    places = {name: Path(config[name]) for name in PATHS if name in config}
    return {**config, **{name: place.name for name, place in places.items() if place.is_absolute()}}


def _write_model(state: Mapping[str, Any], rebuild: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save  # torch takes seconds to import, and only a run writes a checkpoint

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    write(path, save(tensors, metadata={"lungmtl": json.dumps(_plain(rebuild))}))


def _plain(value: Any) -> Any:
    """Convert to JSON types: NumPy scalars to numbers, tuples to lists, NaN to `None`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
