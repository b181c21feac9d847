"""Run records: write and read one run's directory; collect the runs of a study into tidy frames.

`record.json` is written last, so its presence means that the run is complete; a run killed half-way has none.
Every file is written beside its place and renamed. A number that is not known (NaN) is `null` in JSON, blank in CSV.
"""

import json
import math
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

RECORD_FILE = "record.json"
SCANS_FILE = "scans.csv"  # in the study's folder
STEPS_FILE = "steps.csv"
HISTORY_FILE = "history.csv"
PREDICTIONS_FILE = "predictions.csv"
MODEL_FILE = "model.safetensors"
FILES = (STEPS_FILE, HISTORY_FILE, PREDICTIONS_FILE, MODEL_FILE, RECORD_FILE)  # in the order of writing

HISTORY_COLUMNS = ("epoch", "split", "task", "loss", "auc", "seconds")
PREDICTION_COLUMNS = ("scan", "patient", "split", "task", "target", "probability")
METRIC_KEYS = ("auc", "low", "high", "n", "positives")
PLACES = ("cohort", "results_dir", "cache_dir")  # settings that are paths
PHASES = ("balanced", "focus", "transfer")
SECTIONS = {  # sections of record.json that are mappings, and the keys each must have
    "cohort": ("sha256", "counts"),
    "environment": ("commit", "dirty", "python", "torch", "numpy", "cpu", "gpu", "threads", "precision"),
    "seconds": ("prepare", "train", "evaluate"),
    "selection": ("rule", "epoch"),
}
RECORD_KEYS = ("study", "experiment", "seed", "config", "tasks", *SECTIONS, "metrics")
PROJECT = Path(__file__).resolve().parents[1]
GIT_TIMEOUT_S = 20


class Collection(NamedTuple):
    """The complete runs of a study as tidy frames; every frame starts with `run`, `experiment`, `seed`."""

    runs: pd.DataFrame  # one row per run; nested record keys joined by "_", e.g. seconds_train, config_epochs
    metrics: pd.DataFrame  # split, task, auc, low, high, n, positives
    predictions: pd.DataFrame  # the columns of predictions.csv; target NaN = not known
    history: pd.DataFrame  # the columns of history.csv
    steps: pd.DataFrame  # the columns of steps.csv; NaN where a run has not that task
    incomplete: list[str]  # names of run directories without a record


def run_name(experiment: str, seed: int) -> str:
    """Name of a run's directory, e.g. `ITW3-s0`."""
    return f"{experiment}-s{seed}"


def step_columns(tasks: list[str]) -> list[str]:
    """Columns of steps.csv for these tasks, in order."""
    weights = [f"weight_{task}" for task in tasks]
    losses = [f"loss_{task}" for task in tasks]
    return ["step", "epoch", "phase", "focus", *weights, *losses, "loss"]


def write_run(
    run_dir: str | Path,
    *,
    study: str,
    experiment: str,
    seed: int,
    config: Mapping[str, Any],
    tasks: list[str],
    cohort: Mapping[str, Any],
    environment: Mapping[str, Any],
    seconds: Mapping[str, float],
    selection: Mapping[str, Any],
    metrics: Mapping[str, Any],
    steps: pd.DataFrame,
    history: pd.DataFrame,
    predictions: pd.DataFrame,
    model_state: Mapping[str, Any],
) -> Path:
    """Check and write every file of a run, `record.json` last.

    Args:
        run_dir: Made if missing; an older record in it is removed first.
        study: Name of the study.
        experiment: Name of the experiment.
        seed: Seed of the run.
        config: Every field of the run's config, defaults included; of an absolute path the name alone is written,
            since folders may name people.
        tasks: Names, central task first.
        cohort: `sha256` of the table and `counts` per split and label; no patient identifiers.
        environment: As `environment` returns it; the peak memory of this process is added as `peak_memory_mb`.
        seconds: At least `prepare`, `train` and `evaluate`.
        selection: `rule` and `epoch` of the checkpoint kept.
        metrics: split -> task -> `auc`, `low`, `high`, `n`, `positives`; NaN where a split has one class only.
        steps: One row per optimiser step, columns as `step_columns` says.
        history: Columns `HISTORY_COLUMNS`, one row per epoch, split and task.
        predictions: Columns `PREDICTION_COLUMNS` of validation and test; target NaN = not known.
        model_state: Name -> tensor of the checkpoint kept.
    Returns:
        Path of record.json.
    Raises:
        ValueError: If a column or key is missing, a step's weight or loss is infinite or a probability is outside
            [0, 1].
    """
    record = {
        "study": study,
        "experiment": experiment,
        "seed": seed,
        "config": _without_folders(config),
        "tasks": list(tasks),
        "cohort": dict(cohort),
        "environment": {**environment, "peak_memory_mb": peak_memory_mb()},
        "seconds": {part: round(value, 3) for part, value in seconds.items()},
        "selection": dict(selection),
        "metrics": metrics,
    }
    name = run_name(experiment, seed)
    _check_record(record, name)
    _check_steps(steps, list(tasks), name)
    _check_columns(history, HISTORY_COLUMNS, HISTORY_FILE, name)
    _check_predictions(predictions, name)
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD_FILE).unlink(missing_ok=True)
    _write_csv(steps[step_columns(list(tasks))], folder / STEPS_FILE, float_format="%.6g")
    _write_csv(history[list(HISTORY_COLUMNS)], folder / HISTORY_FILE, float_format="%.6g")
    _write_csv(_whole_targets(predictions), folder / PREDICTIONS_FILE, float_format="%.6f")
    _write_model(model_state, folder / MODEL_FILE)
    return _write_text(json.dumps(_plain(record), indent=2, allow_nan=False) + "\n", folder / RECORD_FILE)


def read_record(run_dir: str | Path) -> dict[str, Any]:
    """Read and check the record of a complete run.

    Raises:
        FileNotFoundError: If the run is not complete.
        ValueError: If the file is not a record.
    """
    path = Path(run_dir) / RECORD_FILE
    if not path.is_file():
        raise FileNotFoundError(f"A complete run has a {RECORD_FILE}. Found none at {path}.")
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
    from safetensors.torch import load_file  # torch takes seconds to import, and most readers need no checkpoint

    path = Path(run_dir) / MODEL_FILE
    if not path.is_file():
        raise FileNotFoundError(f"A checkpoint is needed to use a run's network. Found none at {path}.")
    return load_file(path)


def collect(study_dir: str | Path) -> Collection:
    """Read every complete run of `<study_dir>/runs`; frames of files that are not there stay empty.

    Raises:
        FileNotFoundError: If there is not one complete run.
    """
    folders = sorted(path for path in (Path(study_dir) / "runs").glob("*") if path.is_dir())
    complete = [folder for folder in folders if (folder / RECORD_FILE).is_file()]
    if not complete:
        raise FileNotFoundError(f"A study must have at least one complete run. Found none in {study_dir}.")
    records = [read_record(folder) for folder in complete]
    pairs = list(zip(records, complete, strict=True))
    return Collection(
        runs=pd.concat([_run_row(record) for record in records], ignore_index=True),
        metrics=pd.concat([_metric_rows(record) for record in records], ignore_index=True),
        predictions=_concat(pairs, PREDICTIONS_FILE, PREDICTION_COLUMNS),
        history=_concat(pairs, HISTORY_FILE, HISTORY_COLUMNS),
        steps=_concat(pairs, STEPS_FILE, ("step", "epoch", "phase", "focus", "loss")),
        incomplete=[folder.name for folder in folders if folder not in complete],
    )


def write_scans(study_dir: str | Path, scans: pd.DataFrame) -> Path:
    """Write what is known of the scans beside their labels, for subgroups: `scan` and any further columns.

    Raises:
        ValueError: If there is no column `scan`, a scan stands there twice, or a column names patients or files.
    """
    _check_keys(dict.fromkeys(scans.columns), ("scan",), f"The columns of {SCANS_FILE}", str(study_dir))
    private = sorted({"patient", "image"} & set(scans.columns))
    if private or scans["scan"].duplicated().any():
        found = ", ".join(private) or scans.loc[scans["scan"].duplicated(), "scan"].iloc[0]
        raise ValueError(f"{SCANS_FILE} must name each scan once, and neither patients nor files. Found {found}.")
    Path(study_dir).mkdir(parents=True, exist_ok=True)
    return _write_csv(scans, Path(study_dir) / SCANS_FILE, float_format="%.6g")


def read_scans(study_dir: str | Path) -> pd.DataFrame:
    """What is known of the scans of a study, one row per scan; no row and the column `scan` alone without the file."""
    path = Path(study_dir) / SCANS_FILE
    return _read_csv(path) if path.is_file() else pd.DataFrame({"scan": pd.Series(dtype=str)})


def environment(*, threads: int, precision: str) -> dict[str, Any]:
    """Where a run was computed, without any path.

    Args:
        threads: CPU threads of the run.
        precision: The precision in use, bf16 or fp32.
    Returns:
        Keys as `SECTIONS["environment"]`; commit is "unknown" without git, gpu "" without a CUDA device.
    """
    import torch  # seconds to import, and only a run asks for its environment

    commit = _git("rev-parse", "HEAD") if _git("rev-parse", "--show-toplevel") == str(PROJECT) else ""
    changes = _git("status", "--porcelain", "--", ".", ":!results") if commit else ""
    return {
        "commit": commit or "unknown",
        "dirty": bool(changes),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": _cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "threads": threads,
        "precision": precision,
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (of 10^6 bytes), one decimal."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6, 1)


def _check_record(record: Mapping[str, Any], where: str) -> None:
    _check_keys(record, RECORD_KEYS, "A record", where)
    for section, keys in SECTIONS.items():
        _check_keys(record[section], keys, f"`{section}` of a record", where)
    for split, tasks in record["metrics"].items():
        _check_keys(tasks, record["tasks"], f"`metrics` of {split}", where)
        for task in record["tasks"]:
            _check_keys(tasks[task], METRIC_KEYS, f"`metrics` of {split}, {task}", where)


def _check_keys(mapping: Mapping[str, Any], required: Any, what: str, where: str) -> None:
    missing = [key for key in required if key not in mapping]
    if missing:
        raise ValueError(f"{what} must have {', '.join(required)}. Found no {', '.join(missing)} in {where}.")


def _check_columns(frame: pd.DataFrame, required: Any, file: str, where: str) -> None:
    _check_keys(dict.fromkeys(frame.columns), required, f"The columns of {file}", where)
    if frame.empty:
        raise ValueError(f"{file} must have at least one row. Found none in {where}.")


def _check_steps(steps: pd.DataFrame, tasks: list[str], where: str) -> None:
    columns = step_columns(tasks)
    _check_columns(steps, columns, STEPS_FILE, where)
    if list(steps["step"]) != list(range(len(steps))):
        raise ValueError(f"`step` of {STEPS_FILE} must count from 0 without gaps. Found otherwise in {where}.")
    unknown = sorted(set(steps["phase"]) - set(PHASES))
    if unknown:
        raise ValueError(f"`phase` of {STEPS_FILE} must be one of {PHASES}. Found {unknown} in {where}.")
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
    places = {name: Path(config[name]) for name in PLACES if name in config}
    return {**config, **{name: place.name for name, place in places.items() if place.is_absolute()}}


def _whole_targets(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[list(PREDICTION_COLUMNS)].astype({"target": "Int64"})


def _write_csv(frame: pd.DataFrame, path: Path, *, float_format: str) -> Path:
    return _write_text(frame.to_csv(index=False, float_format=float_format, lineterminator="\n"), path)


def _write_text(text: str, path: Path) -> Path:
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
    return path


def _write_model(state: Mapping[str, Any], path: Path) -> None:
    from safetensors.torch import save  # torch takes seconds to import, and only a run writes a checkpoint

    beside = path.with_name(path.name + ".partial")
    beside.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))
    os.replace(beside, path)


def _plain(value: Any) -> Any:
    """JSON's own types: NumPy scalars become numbers, tuples lists, NaN `None`."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _run_row(record: dict[str, Any]) -> pd.DataFrame:
    row = pd.json_normalize({key: value for key, value in record.items() if key != "metrics"}, sep="_")
    row.insert(0, "run", run_name(record["experiment"], record["seed"]))
    return row


def _metric_rows(record: dict[str, Any]) -> pd.DataFrame:
    rows = [
        {"split": split, "task": task, **{key: tasks[task][key] for key in METRIC_KEYS}}
        for split, tasks in record["metrics"].items()
        for task in record["tasks"]
    ]
    floats = dict.fromkeys(("auc", "low", "high"), float)
    return _labelled(pd.DataFrame(rows, columns=["split", "task", *METRIC_KEYS]).astype(floats), record)


def _concat(pairs: list[tuple[dict[str, Any], Path]], file: str, columns: tuple[str, ...]) -> pd.DataFrame:
    frames = [_labelled(_read_csv(folder / file), record) for record, folder in pairs if (folder / file).is_file()]
    if frames:
        return pd.concat(frames, ignore_index=True)
    return pd.DataFrame(columns=["run", "experiment", "seed", *columns])


def _read_csv(path: Path) -> pd.DataFrame:
    text = {"scan": str, "patient": str, "focus": str}  # identifiers such as 007 stay what they are
    frame = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    return frame.fillna({"focus": ""}) if "focus" in frame else frame


def _labelled(frame: pd.DataFrame, record: dict[str, Any]) -> pd.DataFrame:
    experiment, seed = record["experiment"], record["seed"]
    return frame.assign(run=run_name(experiment, seed), experiment=experiment, seed=seed)[
        ["run", "experiment", "seed", *frame.columns]
    ]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):  # no git here, or one that hangs on a slow disk
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
