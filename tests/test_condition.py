"""What a run's folder says of it: complete, damaged, interrupted, changed; what the plan makes of it, and how long."""

import dataclasses
import json
import os
import sys
import time

import pytest
from standin import write_notebook

from lungmtl.files import sha256, write
from lungmtl.study import estimate, outlook, workflow
from lungmtl.study.condition import condition
from lungmtl.study.config import RunConfig
from lungmtl.study.plan import FILES, run_dir, run_key
from lungmtl.study.runner import execute_run, unfinished

RECORD = {
    "config": RunConfig(cohort="cohort.csv").to_dict(),
    "tasks": RunConfig().tasks,
    "seconds": {"prepare": 1.0, "train": 58.0, "evaluate": 1.0},
    "cohort": {"counts": {"train": {"lung_cancer": {"n": 30, "unknown": 2}}}},
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of one run whose notebook is a stand-in; counts its executions."""
    for module in ("execute", "plan"):
        monkeypatch.setattr(f"lungmtl.study.{module}.NOTEBOOKS", tmp_path)
    for name in ("02_experiment.ipynb", "03_comparison.ipynb"):
        write_notebook(tmp_path / name, "epochs = 1")
    (tmp_path / "cohort.csv").write_text("scan\na\n", encoding="utf-8")
    config = RunConfig(cohort="cohort.csv", results_dir="results", cache_dir="cache")
    folder, calls = run_dir(config), []

    def execute(notebook, out, parameters, **settings):
        folder = out.parent
        calls.append([path.name for path in folder.glob("checkpoint.*")])
        for name in FILES[:-1]:
            (folder / name).write_text(f"content of {name}", encoding="utf-8")
        hashes = {name: sha256(folder / name) for name in FILES[:-1]}
        for path in (folder / FILES[-1], settings["environment"]["LUNGMTL_RECORD_COPY"]):
            with open(path, "w", encoding="utf-8") as file:
                json.dump(RECORD | {"files": hashes}, file)

    monkeypatch.setattr("lungmtl.study.execute.execute_notebook", execute)
    return config, folder, calls


def found(config):
    return condition(config, cohort=run_dir(config).parents[3] / "cohort.csv")


def execute(config):
    return execute_run(config, cohort=run_dir(config).parents[3] / "cohort.csv")


def kept_of(folder):
    return next(folder.glob("complete.*"))


def _truncate(path):
    path.write_bytes(path.read_bytes()[:5])


def _flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def test_a_run_is_new_then_complete_then_changed(study):
    config, folder, _ = study
    assert found(config) == ("new", "")
    execute(config)
    assert found(config) == ("complete", "")
    assert found(dataclasses.replace(config, epochs=9)).kind == "changed"
    assert found(dataclasses.replace(config, checkpoint_minutes=9.0)).kind == "complete"
    (folder.parents[3] / "cohort.csv").unlink()
    assert found(config) == ("changed", "its cohort is missing")


@pytest.mark.parametrize("name", FILES[:-1])
@pytest.mark.parametrize("damage", [_truncate, _flip_a_bit])
def test_a_damaged_file_is_named_and_its_run_done_again(study, caplog, name, damage):
    config, folder, calls = study
    execute(config)
    damage(folder / name)
    assert found(config) == ("damaged", f"{name} has been modified")
    assert unfinished([config])[1:] == ["runs/ITW3-s0/record.json", "tables/auc.csv"]
    assert f"ITW3-s0 is damaged: {name} has been modified. The study will compute it again." in caplog.messages
    assert execute(config)
    assert len(calls) == 2
    assert found(config).kind == "complete"


def test_a_file_that_is_gone_is_named(study):
    config, folder, _ = study
    execute(config)
    (folder / "model.safetensors").unlink()
    assert found(config) == ("damaged", "model.safetensors is missing")


@pytest.mark.parametrize(
    "damage", [_truncate, lambda path: path.unlink(), lambda path: path.write_text("[]", encoding="utf-8")]
)
def test_a_damaged_record_heals_from_its_copy_and_the_copy_from_the_record(study, damage):
    config, folder, calls = study
    execute(config)
    for path in (folder / "record.json", kept_of(folder)):
        if path.name != "record.json" and not path.is_file():
            continue
        text = path.read_bytes()
        if path.name == "record.json":
            damage(path)
        else:
            _truncate(path)
        assert unfinished([config])[1:] == ["tables/auc.csv"]
        assert path.read_bytes() == text
    assert len(calls) == 1


def test_a_run_whose_record_and_copy_are_damaged_is_done_again(study):
    config, folder, calls = study
    execute(config)
    for path in (folder / "record.json", kept_of(folder)):
        _truncate(path)
    assert found(config) == ("damaged", "record.json and its copy are damaged")
    assert execute(config)
    assert len(calls) == 2


def test_records_without_hashes_keep_working(study):
    config, folder, _ = study
    execute(config)
    for path in (folder / "record.json", kept_of(folder)):
        path.write_text(json.dumps(RECORD), encoding="utf-8")
    _flip_a_bit(folder / "predictions.csv")
    assert found(config).kind == "complete"
    (folder / "predictions.csv").unlink()
    assert found(config).kind == "damaged"


def test_checkpoints_of_the_runs_own_key_are_kept_until_it_is_complete(study):
    config, folder, calls = study
    folder.mkdir(parents=True)
    code = run_key(config, cohort=folder.parents[3] / "cohort.csv")
    for name in (f"checkpoint.{code}.000000012.aa.safetensors", "checkpoint.other.000000099.bb.safetensors"):
        (folder / name).write_text("", encoding="utf-8")
    assert found(config) == ("interrupted", "resumes after step 12")
    execute(config)
    assert calls == [[f"checkpoint.{code}.000000012.aa.safetensors"]]
    assert list(folder.glob("checkpoint.*")) == []


def test_a_run_takes_what_past_runs_on_its_grid_took():
    records = [RECORD | {"seconds": {"train": seconds}} for seconds in (40.0, 60.0, 90.0)]
    other = RECORD | {"config": RECORD["config"] | {"shape": [64, 64, 64]}, "seconds": {"train": 999.0}}
    config = RunConfig(epochs=6, phantom_scans=[64, 16, 24])  # 4 times as many steps as the past ones'
    pace = estimate.pace(config, [*records, other])
    assert (pace.median_s, pace.n_past) == (240.0 + estimate.START_S, 3)
    assert 160 <= pace.low_s < 240 < pace.high_s <= 360 + estimate.START_S
    started = [record | {"start_s": start_s} for record, start_s in zip(records, (20.0, 25.0, 500.0), strict=True)]
    assert estimate.pace(config, [*started, other]).median_s == 240.0 + 25.0  # the start is that of any run
    assert estimate.pace(config, [other]) is None
    assert estimate.pace(RunConfig(cohort="mine.csv"), records) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (119, "2 min"), (5400, "90 min"), (11100, "3 h 05 min"), (99.9, "100 s")]
)
def test_durations_are_said_as_people_say_them(seconds, text):
    assert estimate.duration(seconds) == text


def test_the_plan_says_what_would_run_and_why_and_how_long(study):
    config, _, calls = study
    runs = [config, *(dataclasses.replace(config, experiment=name) for name in ("MTL", "STL"))]
    assert "The training time is unknown: there is no past run on this grid." in outlook.draw(runs, cores=2)
    execute(config)
    execute(runs[1])
    _truncate(run_dir(runs[1]) / "history.csv")
    lines = outlook.draw(runs, cores=2).splitlines()
    assert lines[0] == "study interactive: 2 of 3 runs to do, 2 at a time"
    assert lines[1].split() == ["cohort", "present"]
    assert [line.split(maxsplit=2)[1] for line in lines[4:7]] == ["ITW3-s0", "MTL-s0", "STL-s0"]
    assert lines[4].endswith(" complete")
    assert lines[5].endswith("####  damaged: history.csv has been modified")
    assert lines[6].endswith("####  new")
    spread = "(70 s to 70 s: fastest and slowest tenth of 2 past runs of this grid, "
    assert f"The runs take about 70 s with their start {spread}" in lines[-1]
    papermill = {"metadata": {"papermill": {"duration": 75.5}}}  # of which 60 s are the parts that the record holds
    (run_dir(config) / "notebook.ipynb").write_text(json.dumps(papermill), encoding="utf-8")
    assert "The runs take about 76 s with their start" in outlook.draw(runs, cores=2)
    assert len(calls) == 2


def test_the_bar_says_since_when_and_for_how_long(study, monkeypatch):
    config, folder, _ = study
    names = ("MTL", "STL", "MTL2", "ITW1")
    runs = [config, *(dataclasses.replace(config, experiment=name) for name in names)]
    assert workflow.progress_bar(runs) == "[....................] 0/5 runs"
    monkeypatch.setattr("lungmtl.study.workflow.time.time", lambda: 1e9 + 200)
    monkeypatch.setenv(workflow.STARTED, json.dumps([1e9, 2]))
    assert workflow.progress_bar(runs) == "[....................] 0/5 runs  3 min so far"
    prepared = write(folder.parents[1] / "preparation.csv", "")
    os.utime(prepared, (1e9 + 30, 1e9 + 30))
    for run, end in zip(runs, (110, 120, 200), strict=False):  # in two slots from 30 on: 80, 90 and 90 s by the clock
        execute(run)
        os.utime(run_dir(run) / "record.json", (1e9 + end, 1e9 + end))
    bar = "[############........] 3/5 runs  3 min so far, about 87 s to go, then the comparison"  # 260 / 3 * 2 / 2
    assert workflow.progress_bar(runs) == bar


def test_runs_on_a_cluster_show_in_the_terminal_as_they_are_completed(study, monkeypatch, caplog):
    config, *_ = study
    runs = [config, dataclasses.replace(config, experiment="MTL")]
    watch = workflow._watch(runs, json.dumps([time.time() - 200, 20]))
    monkeypatch.setattr(workflow, "WATCH_EVERY_S", 0.01)
    pauses = iter([lambda: None, lambda: execute(config), lambda: None])
    with caplog.at_level("INFO"), open(os.devnull) as lock:
        status = workflow._call(
            [sys.executable, "-c", "import time; time.sleep(0.5)"],
            lock.fileno(),
            watch=lambda: (next(pauses, lambda: None)(), watch()),
        )
    assert status == 0
    (line,) = caplog.messages
    assert line.startswith("[##########..........] 1/2 runs  3 min so far")
    assert line.endswith("  ITW3-s0 done")


def test_a_profile_says_how_many_jobs_run_elsewhere():
    assert workflow._n_elsewhere(workflow.PROFILES / "slurm") == 20
    assert workflow._n_elsewhere(workflow.PROFILES / "local") == 0
