import json
import os
import signal
import time

import pytest
from bs4 import BeautifulSoup
from standin import PROJECT, call, make_project, start

from lungmtl import cli
from lungmtl.experiments import TASKS
from lungmtl.study.collection import collect, read_scans
from lungmtl.study.config import RunConfig
from lungmtl.study.plan import FILES, name_of, plan_runs, run_dir
from lungmtl.study.record import read_record
from lungmtl.study.runner import EXECUTED_FILE, LOG_FILE

PATIENCE_S = 120


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def executed(project):
    """Names of the notebooks executed since the last call."""
    file = project / "notebooks/started.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    file.unlink(missing_ok=True)
    return sorted(line.split()[0] for line in lines)


def complete(project):
    return {path.parent.name for path in project.glob("results/standin/runs/*/record.json")}


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def test_failed_run_leaves_the_others_running_and_is_named_with_its_log(project):
    (project / "notebooks/fail-MTL-s0").touch()

    status, output = call(project, "study", "params/standin.yaml")

    assert status == 1
    assert complete(project) == {"STL-s0"}
    assert "MTL-s0 failed with ValueError: made to fail" in output
    assert f"MTL-s0 is not done; {project}/results/standin/runs/MTL-s0/run.log" in output
    assert "made to fail" in (project / "results/standin/runs/MTL-s0/run.log").read_text(encoding="utf-8")
    assert "STL-s0     epoch 2/2" in output
    assert "1/2 runs" in output


def test_report_compares_what_there_is(project):
    executed(project)

    status, output = call(project, "report", "params/standin.yaml")

    assert status == 0
    assert "Without MTL-s0: not complete." in output
    assert executed(project) == ["comparison"]


def test_next_call_completes_the_study_and_the_one_after_does_nothing(project):
    (project / "notebooks/fail-MTL-s0").unlink()
    executed(project)

    first = call(project, "study", "params/standin.yaml")
    done = executed(project)
    (project / "notebooks/02_experiment.ipynb").touch()
    second = call(project, "study", "params/standin.yaml")

    assert (first[0], second[0]) == (0, 0)
    assert done == ["MTL-s0", "comparison"]
    assert "Study standin is complete." in first[1]
    assert executed(project) == []
    assert "up to date: there was nothing to do" in second[1]
    assert f"STL-s0,STL,0,test,lung_cancer,{0.5 + RunConfig().learning_rate}" in second[1]


def test_edited_params_redo_what_depends_on_them_and_no_more(project):
    with (project / "params/table2/MTL.yaml").open("a") as file:
        file.write("learning_rate: 0.1\n")

    status, output = call(project, "study", "params/standin.yaml")

    assert status == 0
    assert executed(project) == ["MTL-s0", "comparison"]
    assert "MTL-s0,MTL,0,test,lung_cancer,0.6," in output


def test_code_that_no_run_executes_redoes_nothing_and_that_of_a_run_redoes_it(project):
    package = project / "lungmtl"
    (package / "new.py").write_text("X = 1\n", encoding="utf-8")
    for name in ("figures/aucs.py", "comparison/aucs.py", "study/record.py", "cli.py"):
        (package / name).write_text(
            (package / name).read_text(encoding="utf-8") + "\n# a comment\nUNUSED = 1\n", encoding="utf-8"
        )
    executed(project)

    unrelated = call(project, "study", "params/standin.yaml")
    text = (package / "study/record.py").read_text(encoding="utf-8")
    (package / "study/record.py").write_text(
        text.replace("NaN `None`", "NaN null").replace('"%.6f"', '"%.5f"'), encoding="utf-8"
    )
    related = call(project, "study", "params/standin.yaml")

    assert (unrelated[0], related[0]) == (0, 0)
    assert "up to date: there was nothing to do" in unrelated[1]
    assert executed(project) == ["MTL-s0", "STL-s0", "comparison"]


def test_a_damaged_run_is_named_and_done_again_and_a_damaged_record_heals(project):
    runs = project / "results/standin/runs"
    record = (runs / "STL-s0/record.json").read_bytes()
    (runs / "STL-s0/record.json").write_bytes(record[:100])
    (runs / "MTL-s0/predictions.csv").write_bytes((runs / "MTL-s0/predictions.csv").read_bytes()[:-3])
    executed(project)

    plan = call(project, "plan", "params/standin.yaml")
    status, output = call(project, "study", "params/standin.yaml")

    assert "MTL-s0  " in plan[1]
    assert "damaged: predictions.csv has been modified" in plan[1]
    assert status == 0
    assert "MTL-s0 is damaged: predictions.csv has been modified. The study will compute it again." in output
    assert "STL-s0: record.json was damaged and has been restored from its copy." in output
    assert (runs / "STL-s0/record.json").read_bytes() == record
    assert executed(project) == ["MTL-s0", "comparison"]
    assert "Provided cores" not in output  # Snakemake's own talk


def test_options_for_snakemake_reach_it(project):
    status, output = call(project, "study", "params/standin.yaml", "--", "--dry-run", "--quiet", "all")

    assert status == 0
    assert "up to date" in output


def test_a_dry_run_of_many_experiments_over_a_long_table_takes_seconds(tmp_path):
    names = [f"MTL.v{number}" for number in range(50)]
    (tmp_path / "many").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "many" / f"{name}.yaml").write_text(
            f"weights: [3.0, {number + 1}.0, 1.0, 1.0, 1.0]\n", encoding="utf-8"
        )
    rows = [f"s{n},p{n},i/{n}.nii.gz,{n % 2},,0,1,{n % 5 % 2}" for n in range(10_000)]
    (tmp_path / "cohort.csv").write_text(
        "\n".join(["scan,patient,image," + ",".join(TASKS), *rows]) + "\n", encoding="utf-8"
    )
    params = {"experiments": names, "seeds": list(range(10)), "cohort": str(tmp_path / "cohort.csv")}
    places = {"results_dir": str(tmp_path / "results"), "cache_dir": str(tmp_path / "cache")}
    (tmp_path / "many.yaml").write_text(json.dumps(params | places), encoding="utf-8")  # JSON is YAML
    start_s = time.monotonic()

    status, output = call(PROJECT, "study", str(tmp_path / "many.yaml"), "--", "--dry-run", "--quiet", "all")

    assert status == 0, output
    assert "0/500 runs  Study many is not complete." in output
    assert time.monotonic() - start_s < 10  # 3 to 4 s on two busy cores


@pytest.mark.parametrize("survivor", ["nobody", "the run", "all end by Ctrl-C"])
def test_killed_study_is_completed_without_redoing_finished_runs(tmp_path, survivor):
    project = make_project(tmp_path / "project")
    (project / "notebooks/wait-MTL-s0").touch()
    first = start(project, "study", "params/standin.yaml", "--cores", "2")
    wait_for(lambda: list(project.glob("results/standin/runs/STL-s0/complete.*.json")))
    wait_for(lambda: "epoch 2/2" in log_of(project, "MTL-s0"))

    if survivor == "all end by Ctrl-C":
        os.killpg(first.pid, signal.SIGINT)
        assert first.communicate(timeout=PATIENCE_S)[0].endswith(
            "\n\nInterrupted. Run the same command again to resume.\n"
        )
    kill(first, spare="lungmtl run" if survivor == "the run" else None)
    second = start(project, "study", "params/standin.yaml")
    time.sleep(3)
    (project / "notebooks/wait-MTL-s0").unlink()
    output, _ = second.communicate(timeout=PATIENCE_S)

    assert second.returncode == 0, output
    assert executed(project) == ["MTL-s0", "STL-s0", "comparison"]
    assert complete(project) == {"STL-s0", "MTL-s0"}


def log_of(project, run):
    path = project / f"results/standin/runs/{run}/run.log"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def kill(process, *, spare):
    """Kill -9 every process of the group, but those whose command line holds `spare`."""
    for folder in os.listdir("/proc"):
        if folder.isdigit() and _group(int(folder)) == process.pid:
            with open(f"/proc/{folder}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode()
            if spare is None or spare not in line:
                os.kill(int(folder), signal.SIGKILL)
    process.wait()


def _group(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["study", "none.yaml"], "error: A study's params file must exist. Found none at "),
        (
            ["study", "typo.yaml"],
            "error: A parameter must be a field of RunConfig. Found `epoch`. Did you mean `epochs`?",
        ),
        (["study", "good.yaml", "--seeds", "0 x"], "error: Seeds must be whole numbers"),
        (["run", "good.yaml", "--run", "MTL-s7"], "error: `--run` must be one of STL-s0. Found MTL-s7."),
        (
            ["run", "good.yaml", "--run", "STL-s0", "--cache-dir", "."],
            "error: The cohort table of a run must exist. Found ",
        ),
        (["study", "."], "error: A study's params file must exist. Found a folder at "),
        (["study", "twice.yaml"], "error: A params file must name each key once. Found `epochs` more than once in "),
        (["study", "broken.yaml"], "error: A params file must be YAML. Found while parsing a flow sequence "),
        (["study", "latin.yaml"], "error: A params file must be YAML. Found 'utf-8' codec can't decode byte "),
        (
            ["study", "good.yaml", "--profile", "pbs"],
            "error: `--profile` must be one of local, slurm, or a folder with ",
        ),
        (["study", "own.yaml"], "error: A cohort must be an existing csv file. Found nothing at "),
        (["study", "good.yaml", "--results-dir", "a{b}"], "error: A study's paths must have no braces, which "),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(tmp_path, monkeypatch, caplog, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text(
        f"experiments: [STL]\nseeds: [0]\nresults_dir: {tmp_path}/results\n", encoding="utf-8"
    )
    (tmp_path / "typo.yaml").write_text("experiments: [STL]\nseeds: [0]\nepoch: 3\n", encoding="utf-8")
    (tmp_path / "twice.yaml").write_text("epochs: 3\nexperiments: [STL]\nseeds: [0]\nepochs: 4\n", encoding="utf-8")
    (tmp_path / "broken.yaml").write_text("experiments: [STL\nseeds: [0]\n", encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes(b"study: \xe9t\xe9\n")
    (tmp_path / "own.yaml").write_text("experiments: [STL]\nseeds: [0]\ncohort: none.csv\n", encoding="utf-8")

    assert cli.main(arguments) == 2
    assert caplog.messages[-1].startswith(message)
    assert "\n" not in caplog.messages[-1]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["study", "good.yaml", "--cores", "0"], "--cores: a whole number of at least 1 is required. Found '0'"),
        (["plan", "good.yaml", "--cores", "-1"], "--cores: a whole number of at least 1 is required. Found '-1'"),
        (["study", "good.yaml", "--results-dir", "good.yaml"], "--results-dir: a folder is required. Found a file"),
    ],
)
def test_a_bad_option_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.yaml").write_text("experiments: [STL]\nseeds: [0]\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert found in line


def test_smoke_study_runs_from_the_cohort_to_the_figures(tmp_path):
    places = {"results_dir": str(tmp_path / "results"), "cache_dir": str(tmp_path / "cache")}
    options = [f"--{name.replace('_', '-')}={place}" for name, place in places.items()]
    names = {"results_dir": "results", "cache_dir": "cache"}  # a record keeps no absolute path
    planned = {name_of(config): config for config in plan_runs(PROJECT / "params/smoke.yaml", places=places)}

    status, output = call(PROJECT, "study", "params/smoke.yaml", *options)

    assert status == 0, output
    found = collect(tmp_path / "results/smoke")
    assert set(found.runs["run"]) == set(planned)
    assert found.incomplete == []
    assert list(read_scans(tmp_path / "results/smoke").columns) == ["scan", "nodule_mm", "noise_hu"]
    for name, config in planned.items():
        folder = run_dir(config)
        assert {*FILES, EXECUTED_FILE} <= {path.name for path in folder.iterdir()}
        assert read_record(folder)["config"] == config.to_dict() | names
        texts = [(folder / file).read_text(encoding="utf-8") for file in (LOG_FILE, EXECUTED_FILE)]
        assert not [text for text in texts if str(tmp_path / "results/smoke") in text]
        assert set(found.predictions.loc[found.predictions["run"] == name, "split"]) == {"validation", "test"}
    assert list((tmp_path / "results/smoke/figures").glob("*.png"))
    assert f"Report: {tmp_path / 'results/smoke/report.html'}" in output
    assert f"{len(planned)}/{len(planned)} runs" in output
    page = BeautifulSoup((tmp_path / "results/smoke/report.html").read_text(encoding="utf-8"), "html.parser").main
    words = " ".join(text for text in page.find_all(string=True) if not text.find_parent(["code", "pre"]))
    assert [name for name in ("lung_cancer", "chronic_bronchitis", "copd", "n_pairs") if name in words] == []
