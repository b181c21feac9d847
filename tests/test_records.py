import json

import numpy as np
import pandas as pd
import pytest
import torch

from lungmtl.study.collection import collect, config_of, read_scans, write_scans
from lungmtl.study.machine import PROJECT, environment
from lungmtl.study.plan import FILES
from lungmtl.study.record import HISTORY_COLUMNS, PREDICTION_COLUMNS, read_model, read_record, write_run

TASKS = ["lung_cancer", "copd"]
PATIENTS = ["patient-017", "patient-018"]


def run_values(*, tasks=TASKS, experiment="MTL", seed=0):
    steps = pd.DataFrame({"step": [0, 1], "epoch": [1, 1], "phase": ["balanced", "focus"], "focus": ["", tasks[0]]})
    for position, task in enumerate(tasks):
        steps[f"weight_{task}"] = [3.0, 0.1 * 3]
        steps[f"loss_{task}"] = [0.7, np.nan if position else 0.6]
    steps = steps.assign(loss=[2.1, 0.18], mean_weight=[3.0, 0.15], n_known=[2, 1])
    rows = [(scan, p, "test", t, 1.0, 1 / 3) for scan, p in zip("ab", PATIENTS, strict=True) for t in tasks]
    predictions = pd.DataFrame(rows, columns=list(PREDICTION_COLUMNS))
    predictions.loc[0, "target"] = np.nan
    auc = {"auc": np.float64(0.75), "low": np.nan, "high": np.nan, "n": np.int64(2), "positives": 1}
    return {
        "study": "trial",
        "experiment": experiment,
        "seed": seed,
        "config": {"epochs": 2, "shape": (16, 16, 16)},
        "tasks": tasks,
        "cohort": {"sha256": "0" * 64, "counts": {"test": {"lung_cancer": {"n": 2, "positives": 1, "unknown": 0}}}},
        "environment": environment(threads=1, precision="fp32"),
        "seconds": {"prepare": 0.1, "train": 1.0, "evaluate": 0.2},
        "selection": {"rule": "last", "epoch": 1},
        "metrics": {"test": dict.fromkeys(tasks, auc)},
        "steps": steps,
        "history": pd.DataFrame([[1, "train", tasks[0], 0.7, np.nan, 1.0]], columns=list(HISTORY_COLUMNS)),
        "predictions": predictions,
        "model_state": {"head.weight": torch.arange(6.0).reshape(2, 3).T},
    }


def write(folder, **values):
    files = {"steps": values["steps"], "history": values["history"], "predictions": values["predictions"]}
    record = {name: value for name, value in values.items() if name not in (*files, "model_state")}
    return write_run(folder, record, **files, model=values["model_state"])


def test_run_comes_back_as_written(tmp_path):
    values = run_values()
    path = write(tmp_path / "runs" / "MTL-s0", **values)

    record = read_record(path.parent)

    assert sorted(file.name for file in path.parent.iterdir()) == sorted(FILES)
    assert record["config"] == {"epochs": 2, "shape": [16, 16, 16]}
    assert record["metrics"]["test"]["copd"] == {"auc": 0.75, "low": None, "high": None, "n": 2, "positives": 1}
    assert record["environment"]["peak_memory_mb"] > 1
    assert torch.equal(read_model(path.parent)["head.weight"], values["model_state"]["head.weight"])


def test_files_have_the_stable_columns_and_six_digits(tmp_path):
    write(tmp_path, **run_values())

    lines = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()
    steps = (tmp_path / "steps.csv").read_text(encoding="utf-8").splitlines()

    assert lines[:3] == [
        "scan,patient,split,task,target,probability",
        "a,patient-017,test,lung_cancer,,0.333333",
        "a,patient-017,test,copd,1,0.333333",
    ]
    assert steps == [
        "step,epoch,phase,focus,weight_lung_cancer,weight_copd,loss_lung_cancer,loss_copd,loss,mean_weight,n_known",
        "0,1,balanced,,3,3,0.7,0.7,2.1,3,2",
        "1,1,focus,lung_cancer,0.3,0.3,0.6,,0.18,0.15,1",
    ]
    assert (
        (tmp_path / "history.csv").read_text(encoding="utf-8").startswith("epoch,split,task,loss,auc,seconds\n1,train,")
    )


def test_record_names_no_patient_and_no_path(tmp_path):
    write(tmp_path, **run_values())

    text = (tmp_path / "record.json").read_text(encoding="utf-8")

    assert not any(patient in text for patient in PATIENTS)
    assert str(PROJECT) not in text
    assert str(tmp_path) not in text
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_record_is_written_last(tmp_path, monkeypatch):
    write(tmp_path, **run_values())
    monkeypatch.setattr("lungmtl.study.record._write_model", lambda *_: (_ for _ in ()).throw(OSError("disk full")))

    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, **run_values())

    assert not (tmp_path / "record.json").exists()


def _set(frame, column, value):
    return frame.astype({column: object}).assign(**{column: [value, *frame[column][1:]]}).infer_objects()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("steps", lambda f: f.drop(columns="loss_copd"), "Found no loss_copd in MTL-s0"),
        ("steps", lambda f: _set(f, "weight_copd", np.nan), "`weight_copd` of steps.csv must be finite"),
        ("steps", lambda f: _set(f, "loss_copd", np.inf), "`loss_copd` of steps.csv must be finite"),
        ("steps", lambda f: _set(f, "step", 1), "must count from 0 without gaps"),
        ("steps", lambda f: _set(f, "phase", ""), "must name the policy's phase. Found a blank in MTL-s0"),
        ("steps", lambda f: f[:0], "at least one row"),
        ("history", lambda f: f.drop(columns="auc"), "Found no auc in MTL-s0"),
        ("predictions", lambda f: _set(f, "probability", 1.01), "inside \\[0, 1\\]"),
        ("predictions", lambda f: _set(f, "probability", np.nan), "inside \\[0, 1\\]"),
        ("predictions", lambda f: _set(f, "target", 2), "0, 1 or blank"),
        ("predictions", lambda f: pd.concat([f, f]), "one prediction per task"),
        ("seconds", lambda m: {"train": 1.0}, "Found no prepare, evaluate in MTL-s0"),
        ("selection", lambda m: {}, "`selection` of a record must have rule, epoch"),
        ("metrics", lambda m: {"test": {}}, "`metrics` of test must have lung_cancer, copd"),
    ],
)
def test_incomplete_values_are_refused_and_write_nothing(tmp_path, name, change, message):
    values = run_values()

    with pytest.raises(ValueError, match=message):
        write(tmp_path / "run", **{**values, name: change(values[name])})

    assert not (tmp_path / "run").exists()


def test_reading_a_run_without_record_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The record of a complete run must exist\. Found none at"):
        read_record(tmp_path)
    with pytest.raises(FileNotFoundError, match="The checkpoint of a run"):
        read_model(tmp_path)
    (tmp_path / "record.json").write_text('{"study": ', encoding="utf-8")
    with pytest.raises(ValueError, match="A record must be JSON"):
        read_record(tmp_path)


def test_collect_joins_runs_with_different_tasks_and_names_the_incomplete(tmp_path):
    write(tmp_path / "runs/MTL-s1", **run_values(seed=1))
    write(tmp_path / "runs/STL-s0", **run_values(experiment="STL", tasks=TASKS[:1]))
    (tmp_path / "runs/ITW3-s0").mkdir()

    found = collect(tmp_path)

    assert found.incomplete == ["ITW3-s0"]
    assert list(found.runs["run"]) == ["MTL-s1", "STL-s0"]
    assert list(found.runs["seconds_train"]) == [1.0, 1.0]
    assert list(found.metrics["task"]) == ["lung_cancer", "copd", "lung_cancer"]
    assert found.metrics["low"].isna().all()
    assert found.predictions["target"].isna().sum() == 2
    assert found.steps.groupby("run")["weight_copd"].count().to_dict() == {"MTL-s1": 2, "STL-s0": 0}
    assert set(found.steps["focus"]) == {"", "lung_cancer"}
    for frame in found[:5]:
        assert list(frame.columns[:1]) == ["run"]
        assert {"experiment", "seed"} <= set(frame.columns)


def test_collect_works_from_what_git_keeps(tmp_path):
    write(tmp_path / "runs/MTL-s0", **run_values())
    for name in ("steps.csv", "history.csv", "model.safetensors"):
        (tmp_path / "runs/MTL-s0" / name).unlink()

    found = collect(tmp_path)

    assert len(found.predictions) == 4
    assert found.steps.empty
    assert "loss" in found.history.columns


def test_collect_of_nothing_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"at least one complete run. Found none in {tmp_path}"):
        collect(tmp_path)


def test_environment_survives_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")

    assert environment(threads=2, precision="bf16")["commit"] == "unknown"


def test_scans_are_read_as_they_were_written(tmp_path):
    scans = pd.DataFrame({"scan": ["007", "008"], "noise_hu": [20.5, np.nan], "kernel": ["STANDARD", "B30f"]})

    write_scans(tmp_path, scans)

    pd.testing.assert_frame_equal(read_scans(tmp_path), scans)


def test_without_a_file_nothing_is_known_of_the_scans(tmp_path):
    assert read_scans(tmp_path).columns.tolist() == ["scan"]
    assert read_scans(tmp_path).empty


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (pd.DataFrame({"scan": ["a", "a"]}), "must name each scan once, and neither patients nor files. Found a"),
        (pd.DataFrame({"scan": ["a"], "patient": ["p"]}), "neither patients nor files. Found patient"),
        (pd.DataFrame({"noise_hu": [1]}), "must have scan"),
    ],
)
def test_scans_without_names_or_with_patients_are_refused(tmp_path, scans, message):
    with pytest.raises(ValueError, match=message):
        write_scans(tmp_path, scans)


def test_a_record_holds_no_absolute_path(tmp_path):
    config = {"cohort": str(tmp_path / "cohort.csv"), "results_dir": "../results", "cache_dir": str(tmp_path)}

    write(tmp_path / "MTL-s0", **run_values() | {"config": config})

    kept = read_record(tmp_path / "MTL-s0")["config"]
    assert kept == {"cohort": "cohort.csv", "results_dir": "../results", "cache_dir": tmp_path.name}


@pytest.mark.parametrize(("said", "region"), [({}, "tight"), ({"region": "wide"}, "wide")])
def test_records_older_than_the_region_saw_the_tight_mask(said, region):
    assert config_of({"config": {"epochs": 2, **said}}).region == region
