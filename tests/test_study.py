import dataclasses
import fcntl
import json
import logging
import os

import pytest
import yaml
from standin import write_notebook

from lungmtl.files import locked
from lungmtl.study.config import RunConfig
from lungmtl.study.execute import execute_notebook
from lungmtl.study.machine import one_gpu
from lungmtl.study.plan import FILES, RunError, name_of, plan_runs, run_dir, run_key, shared_key
from lungmtl.study.runner import execute_run


@pytest.fixture
def params(tmp_path):
    """Writes a study's params file and returns its path."""

    def write(**settings):
        path = tmp_path / "trial.yaml"
        path.write_text(yaml.safe_dump({"experiments": ["STL", "ITW3"], "seeds": [0, 1]} | settings), encoding="utf-8")
        return path

    return write


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """A folder of stand-in notebooks instead of the project's."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for module in ("plan", "execute"):
        monkeypatch.setattr(f"lungmtl.study.{module}.NOTEBOOKS", folder)
    return folder


def test_plan_expands_experiments_and_seeds(params):
    runs = plan_runs(params())

    assert [name_of(config) for config in runs] == ["STL-s0", "ITW3-s0", "STL-s1", "ITW3-s1"]
    assert runs[0].study == "trial"
    assert runs[0].tasks == ["lung_cancer"]
    assert (runs[1].itw, runs[1].pflp) == (True, True)


def test_experiment_file_wins_over_the_study_and_both_over_the_defaults(params, tmp_path):
    (tmp_path / "table2").mkdir()
    (tmp_path / "table2/MINE.yaml").write_text("itw_start: 0.7\nepochs: 9\n", encoding="utf-8")

    (config,) = plan_runs(params(experiments=["MINE"], epochs=7, batch_size=4), seeds=[5])

    assert (config.experiment, config.seed) == ("MINE", 5)
    assert (config.epochs, config.batch_size, config.itw_start) == (9, 4, 0.7)
    assert config.learning_rate == RunConfig().learning_rate


def test_a_variant_takes_from_its_base_what_it_does_not_say(params, tmp_path):
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/ITW2.late.yaml").write_text("experiment: ITW2.late\nitw_start: 0.9\n", encoding="utf-8")

    variant, base = plan_runs(params(experiments=["ITW2.late", "ITW2"]), seeds=[0])

    assert (variant.experiment, variant.itw_start, base.itw_start) == ("ITW2.late", 0.9, 0.6)
    assert variant.weights == base.weights == [3, 1, 1, 1, 1]
    assert variant.pflp is variant.itw is True


def test_a_study_with_tasks_of_its_own_has_table_2s_weights_for_them(params):
    runs = plan_runs(params(tasks=["nodule", "emphysema"], experiments=["STL", "MTL2", "ITW1"]), seeds=[0])

    assert [config.tasks for config in runs] == [["nodule"], ["nodule", "emphysema"], ["nodule", "emphysema"]]
    assert [config.weights for config in runs] == [[3], [3, 1], [3, 3]]


def test_runs_must_share_their_central_task(params, tmp_path):
    (tmp_path / "table2").mkdir()
    (tmp_path / "table2/OTHER.yaml").write_text("tasks: [copd]\nweights: [1.0]\n", encoding="utf-8")

    with pytest.raises(ValueError, match=r"`tasks\[0\]` must be the same for every run of a study"):
        plan_runs(params(experiments=["STL", "OTHER"]))


def test_places_replace_the_files(params, tmp_path):
    config = plan_runs(params(), places={"results_dir": str(tmp_path / "elsewhere")})[0]

    assert run_dir(config) == tmp_path / "elsewhere" / "trial" / "runs" / "STL-s0"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch": 3}, "Found `epoch`. Did you mean `epochs`? In "),
        ({"itw_start": 1.0}, "`itw_start` must be inside [0, 1). Found 1.0. In "),
        ({"experiments": None}, "`experiments` must be a list of different str values. Found None in "),
        ({"experiments": ["STL", "STL"]}, "`experiments` must be a list of different str values."),
        ({"seeds": [0, True]}, "`seeds` must be a list of different int values."),
        ({"seeds": []}, "`seeds` must be a list of different int values. Found [] in "),
        ({"seed": 1}, "A study's file must list `seeds`. Found `seed` in "),
        ({"tasks": ["lung_cancer", "copd"], "weights": [3.0] * 3}, "one weight per task, 2 in all. Found [3.0, 3.0,"),
    ],
)
def test_wrong_params_are_refused_with_the_file(params, settings, message):
    with pytest.raises(ValueError, match=r"trial\.yaml") as caught:
        plan_runs(params(**settings))

    assert message in str(caught.value)


def test_missing_files_are_named(params, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"A study's params file must exist. Found none at {tmp_path}/none"):
        plan_runs(tmp_path / "none.yaml")
    with pytest.raises(FileNotFoundError, match=r"experiment MTL9 must exist\. Found none at .*MTL9"):
        plan_runs(params(experiments=["MTL9"]))


def test_runs_must_share_cohort_and_preparation(params, tmp_path):
    (tmp_path / "table2").mkdir()
    (tmp_path / "table2/COARSE.yaml").write_text("spacing_mm: [9.0, 9.0, 9.0]\n", encoding="utf-8")

    with pytest.raises(ValueError, match="`spacing_mm` must be the same for every run of a study"):
        plan_runs(params(experiments=["STL", "COARSE"]))


def test_key_changes_with_what_decides_a_run_and_with_nothing_else(notebooks, tmp_path, monkeypatch):
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("scan\na\n", encoding="utf-8")
    path = write_notebook(notebooks / "02_experiment.ipynb", "epochs = 3", "print(1)")
    config = RunConfig()
    key = run_key(config, cohort=cohort)

    moved = RunConfig(results_dir="/elsewhere", cache_dir="/elsewhere")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["cells"][1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert run_key(moved, cohort=cohort) == key

    assert run_key(RunConfig(seed=1), cohort=cohort) != key
    cohort.write_text("scan\nb\n", encoding="utf-8")
    assert run_key(config, cohort=cohort) != key
    cohort.write_text("scan\na\n", encoding="utf-8")
    write_notebook(path, "epochs = 3", "print(2)")
    assert run_key(config, cohort=cohort) != key


def test_notebook_runs_with_its_parameters_environment_and_folder(notebooks, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_notebook(
        notebooks / "a.ipynb",
        'lines = 1  # a comment = with a sign\nword = ""',
        "import os\nfor i in range(lines): print('epoch', i, word, os.environ['OMP_NUM_THREADS'])\nprint('other')",
        "open('here.txt', 'w').close()",
    )
    before = dict(os.environ)

    execute_notebook(
        notebooks / "a.ipynb",
        tmp_path / "out.ipynb",
        {"lines": 2, "word": "w"},
        log=tmp_path / "log",
        name="A-s0",
        environment={"OMP_NUM_THREADS": "3"},
    )

    assert [line for line in caplog.messages if "epoch" in line] == ["A-s0       epoch 0 w 3", "A-s0       epoch 1 w 3"]
    assert "other" in (tmp_path / "log").read_text(encoding="utf-8")
    assert (notebooks / "here.txt").is_file()
    assert "epoch 1 w 3" in (tmp_path / "out.ipynb").read_text(encoding="utf-8")
    assert dict(os.environ) == before


def test_unknown_notebook_parameter_is_refused(notebooks, tmp_path):
    write_notebook(notebooks / "a.ipynb", "epochs = 1")

    with pytest.raises(ValueError, match="Found epoch, itw_begin, unknown to a"):
        execute_notebook(
            notebooks / "a.ipynb",
            tmp_path / "out.ipynb",
            {"epochs": 2, "epoch": 2, "itw_begin": 1},
            log=tmp_path / "log",
            name="A",
        )


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("raise ValueError('too few scans')", "A failed with ValueError: too few scans\n  log: "),
        ("import os; os.kill(os.getpid(), 9)", "A failed: its kernel died, perhaps out of memory\n  log: "),
    ],
)
def test_notebook_that_fails_names_reason_and_log(notebooks, tmp_path, cell, message):
    write_notebook(notebooks / "a.ipynb", "epochs = 1", cell)

    with pytest.raises(RunError) as caught:
        execute_notebook(notebooks / "a.ipynb", tmp_path / "out.ipynb", {}, log=tmp_path / "log", name="A")

    assert str(caught.value) == f"{message}{tmp_path}/log"
    assert (tmp_path / "out.ipynb").is_file()
    assert (tmp_path / "log").read_text(encoding="utf-8").strip()


def test_run_is_executed_once_and_its_record_restored(notebooks, tmp_path, monkeypatch):
    config = RunConfig(results_dir=str(tmp_path / "results"))
    folder = run_dir(config)
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("scan\na\n", encoding="utf-8")
    write_notebook(notebooks / "02_experiment.ipynb", "epochs = 1")
    calls = []

    def execute(notebook, out, parameters, **settings):
        assert not (folder / "record.json").exists()
        calls.append(settings["environment"]["OMP_NUM_THREADS"])
        for name in FILES:
            (folder / name).write_text('{"a": 1}' if name == "record.json" else name, encoding="utf-8")

    monkeypatch.setattr("lungmtl.study.execute.execute_notebook", execute)

    assert execute_run(config, cohort=cohort)
    (folder / "record.json").unlink()
    assert not execute_run(config, cohort=cohort)
    assert (folder / "record.json").read_text(encoding="utf-8") == '{"a": 1}'
    (folder / "steps.csv").unlink()
    assert execute_run(config, cohort=cohort)
    cohort.write_text("scan\nb\n", encoding="utf-8")
    assert execute_run(config, cohort=cohort)

    assert calls == ["1", "1", "1"]
    assert len(list(folder.glob("complete.*.json"))) == 1


def test_notebook_without_record_is_an_error(notebooks, tmp_path, monkeypatch):
    (tmp_path / "cohort.csv").write_text("scan\na\n", encoding="utf-8")
    write_notebook(notebooks / "02_experiment.ipynb", "epochs = 1")
    monkeypatch.setattr("lungmtl.study.execute.execute_notebook", lambda *_, **__: None)

    with pytest.raises(RunError, match=r"A run must write a record\.json\. Found none of ITW3-s0"):
        execute_run(RunConfig(results_dir=str(tmp_path)), cohort=tmp_path / "cohort.csv")


def test_lock_is_exclusive(tmp_path):
    path = tmp_path / "a" / "lock"

    with locked(path, "busy"), open(path, encoding="utf-8") as second, pytest.raises(BlockingIOError):
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(path, encoding="utf-8") as second:
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_every_run_gets_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("lungmtl.study.machine.tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr("lungmtl.study.machine._gpus", lambda: ["GPU-a", "GPU-b"])

    with one_gpu() as first, one_gpu() as second:
        assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"GPU-a", "GPU-b"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with one_gpu() as given:
        assert given == {}


def test_runs_share_the_steps_before_itw_where_nothing_else_tells_them_apart(params, notebooks, tmp_path):
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("scan\na\n", encoding="utf-8")
    write_notebook(notebooks / "02_experiment.ipynb", "epochs = 3", "print(1)")
    names = ["STL", "MTL", "MTL2", "MTL3", "ITW1", "ITW2", "ITW3"]
    runs = {run.experiment: run for run in plan_runs(params(experiments=names), seeds=[0])}
    keys = {name: shared_key(run, cohort=cohort) for name, run in runs.items()}

    assert [keys["MTL"], keys["MTL2"], keys["MTL3"]] == [keys["ITW1"], keys["ITW2"], keys["ITW3"]]
    assert len({*keys.values()}) == 4
    assert keys["STL"] == ""
    for change in ({"seed": 1}, {"itw_start": 0.7}, {"epochs": 9}, {"policy": "ITW(PFLP)"}):
        assert shared_key(dataclasses.replace(runs["ITW1"], **change), cohort=cohort) != keys["MTL"]
