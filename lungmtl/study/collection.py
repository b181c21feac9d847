"""All runs of a study as tidy frames."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lungmtl.experiments import run_name
from lungmtl.policies import Weighting, build, describe
from lungmtl.study.config import RunConfig
from lungmtl.study.plan import HISTORY_FILE, PREDICTIONS_FILE, RECORD_FILE, STEPS_FILE
from lungmtl.study.record import HISTORY_COLUMNS, METRIC_KEYS, PREDICTION_COLUMNS, check_keys, read_record
from lungmtl.tables import unguarded, write_csv

SCANS_FILE, FLOW_FILE = "scans.csv", "flow.csv"  # in the study's folder
READINGS_FILE = "readings.csv"  # next to them, for phantoms: an error-free measurement per task
EARLIER = {"region": "tight"}  # behaviour of runs that are older than the field


class Collection(NamedTuple):
    """The complete runs of a study as tidy frames; every frame starts with `run`, `experiment`, `seed`."""

    runs: pd.DataFrame  # one row per run; nested record keys joined by "_", e.g. seconds_train, config_epochs
    metrics: pd.DataFrame  # split, task, auc, low, high, n, positives
    predictions: pd.DataFrame  # the columns of predictions.csv, and training_set; target NaN = unknown
    history: pd.DataFrame  # the columns of history.csv
    steps: pd.DataFrame  # the columns of steps.csv; NaN if a run does not have that task
    incomplete: list[str]  # names of run directories without a record
    configs: dict[str, RunConfig]  # by run, as `config_of` reads them


def collect(study_dir: str | Path) -> Collection:
    """Read every complete run of `<study_dir>/runs`; frames of missing files are empty.

    Raises:
        FileNotFoundError: If no run is complete.
    """
    folders = sorted(path for path in (Path(study_dir) / "runs").glob("*") if path.is_dir())
    complete = [folder for folder in folders if (folder / RECORD_FILE).is_file()]
    if not complete:
        raise FileNotFoundError(f"A study must have at least one complete run. Found none in {study_dir}.")
    records = [read_record(folder) for folder in complete]
    configs = [config_of(record) for record in records]
    pairs = list(zip(records, complete, strict=True))
    sets = {run_name(r["experiment"], r["seed"]): r["cohort"].get("training_set", 0) for r in records}
    predictions = _concat(pairs, PREDICTIONS_FILE, PREDICTION_COLUMNS)
    return Collection(
        runs=pd.concat(list(map(_run_row, records, configs)), ignore_index=True),
        metrics=pd.concat([_metric_rows(record) for record in records], ignore_index=True),
        predictions=predictions.assign(training_set=predictions["run"].map(sets)),
        history=_concat(pairs, HISTORY_FILE, HISTORY_COLUMNS),
        steps=_concat(pairs, STEPS_FILE, ("step", "epoch", "phase", "focus", "loss")),
        incomplete=[folder.name for folder in folders if folder not in complete],
        configs={folder.name: config for folder, config in zip(complete, configs, strict=True)},
    )


def write_scans(study_dir: str | Path, scans: pd.DataFrame) -> Path:
    """Write attributes of the scans, for subgroups: `scan` and any further columns, but no labels.

    Raises:
        ValueError: If there is no column `scan`, a scan occurs twice, or a column names patients or files.
    """
    check_keys(dict.fromkeys(scans.columns), ("scan",), f"The columns of {SCANS_FILE}", str(study_dir))
    private = sorted({"patient", "image"} & set(scans.columns))
    if private or scans["scan"].duplicated().any():
        found = ", ".join(private) or scans.loc[scans["scan"].duplicated(), "scan"].iloc[0]
        raise ValueError(f"{SCANS_FILE} must name each scan once, and neither patients nor files. Found {found}.")
    return write_csv(scans, Path(study_dir) / SCANS_FILE, float_format="%.6g")


def read_scans(study_dir: str | Path, file: str = SCANS_FILE) -> pd.DataFrame:
    """Read the attributes of a study's scans, or another of its tables; without the file, no rows and only `scan`."""
    path = Path(study_dir) / file
    return _read_csv(path) if path.is_file() else pd.DataFrame({"scan": pd.Series(dtype=str)})


def config_of(record: Mapping[str, Any]) -> RunConfig:
    """Settings of a run; missing fields are taken from `EARLIER` or the defaults, obsolete ones are dropped."""
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    said = EARLIER | record["config"]
    return RunConfig.from_mapping({name: value for name, value in said.items() if name in fields})


def _run_row(record: dict[str, Any], config: RunConfig) -> pd.DataFrame:
    """A record as one row, with the policy's name and its settings as one value in place of the flat settings."""
    policy = record.get("policy") or describe(build(config.weighting))
    flat = {field.name for field in dataclasses.fields(Weighting)} - {"tasks", "weights", "seed"}
    settings = {name: value for name, value in record["config"].items() if name not in flat}
    kept = {name: value for name, value in record.items() if name not in ("metrics", "policy")}
    row = pd.json_normalize({**kept, "config": settings}, sep="_")
    row = row.assign(policy_name=policy["name"], policy_settings=[policy["settings"]])
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
    text = {"scan": str, "patient": str, "focus": str}  # identifiers such as 007 stay text
    frame = unguarded(pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""]))
    return frame.assign(focus=frame["focus"].astype(object).fillna("")) if "focus" in frame else frame


def _labelled(frame: pd.DataFrame, record: dict[str, Any]) -> pd.DataFrame:
    experiment, seed = record["experiment"], record["seed"]
    named = frame.assign(run=run_name(experiment, seed), experiment=experiment, seed=seed)
    return named[["run", "experiment", "seed", *frame.columns]]
