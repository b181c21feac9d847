"""What `check`, `prepare`, `verify` and `report` write, print and return."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from chests import chest, save

from lungmtl import cli
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import prepare_cohort
from lungmtl.experiments import TASKS
from lungmtl.study.plan import PROJECT, RunError

GRID = ["--spacing-mm", "20", "20", "20", "--shape", "16", "16", "20"]


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A folder with a table of three scans, one of which is torn; another working folder."""
    folder = tmp_path / "user"
    (folder / "ct").mkdir(parents=True)
    for scan, shift in (("one", 0), ("two", 1)):
        save(chest().hu + np.int16(shift), folder / "ct" / f"{scan}.nii.gz")
    (folder / "ct" / "torn.nii.gz").write_bytes((folder / "ct" / "one.nii.gz").read_bytes()[:500])
    write(folder, "one", "two", "torn")
    monkeypatch.chdir(folder)
    return folder


def write(folder, *scans, **columns):
    frame = pd.DataFrame({"scan": scans, "patient": [f"patient-{scan}" for scan in scans]})
    frame["image"] = [f"ct/{scan}.nii.gz" for scan in scans]
    frame = frame.assign(**dict.fromkeys(TASKS, "") | columns)
    frame.to_csv(folder / "cohort.csv", index=False)


def prepare(user, *options):
    return cli.main(["prepare", "cohort.csv", "--cache-dir", str(user / "cache"), "--workers", "1", *GRID, *options])


def prepared(user):
    return sorted(path.stem for path in (user / "cache" / "prepared").glob("*/*.npy"))


# ---------------------------------------------------------------- check


def test_check_writes_the_report_beside_the_table_and_says_what_failed(user, capsys):
    status = cli.main(["check", "cohort.csv", "--no-page", "--workers", "1"])
    output = capsys.readouterr().out
    assert status == 1
    assert "3 scans: 0 ok, 2 look, 1 failed" in output
    assert "failed  torn: " in output
    assert f"Report: {user / 'cohort-check' / 'scans.csv'}" in output
    scans = pd.read_csv(user / "cohort-check" / "scans.csv")
    assert scans["verdict"].tolist() == ["look", "look", "failed"]


def test_check_says_a_reason_once_and_what_the_table_excludes(user, capsys):
    write(user, "one", "two", "out", "gone", excluded=["", "", "motion", "download: 0 of 153 files"])
    cli.main(["check", "cohort.csv", "--no-page", "--workers", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "2 scans: 0 ok, 2 look, 0 failed; 2 scans excluded by the table, 1 of them still to be downloaded",
        "  look    one and 1 other: Slices lie 10.0 mm apart, over 5 mm.",
    ]
    assert not any("blank" in line for line in lines)  # no split can be drawn: nothing to say of one


@pytest.mark.parametrize("command", ["check", "prepare", "advise"])
def test_a_table_that_excludes_every_scan_is_refused(user, caplog, command):
    write(user, "one", "gone", excluded=["motion", "download: 0 of 153 files"])
    assert cli.main([command, "cohort.csv"]) == 2
    found = "Found 2 scans excluded by the table, 1 of them still to be downloaded, in "
    assert f"A cohort must have a scan that is not excluded. {found}" in caplog.text


@pytest.mark.parametrize("out", ["ct/one.nii.gz", "ct/one.nii.gz/report"])
def test_a_report_must_go_to_a_folder(user, capsys, out):
    with pytest.raises(SystemExit):
        cli.main(["check", "cohort.csv", "--out", out])
    assert "argument --out: a folder is required. Found a file, ct/one.nii.gz" in capsys.readouterr().err


def test_check_of_good_scans_returns_0(user, capsys):
    for index in range(8):
        save(chest().hu + np.int16(index), user / "ct" / f"s{index}.nii.gz")
    labels = dict.fromkeys(TASKS, [0, 1] * 4) | {"split": ["train"] * 4 + ["validation"] * 2 + ["test"] * 2}
    write(user, *(f"s{index}" for index in range(8)), **labels)
    (user / "own.yaml").write_text("experiments: [MTL]\nseeds: [0]\nbatch_size: 4\n", encoding="utf-8")
    assert cli.main(["check", "cohort.csv", "--params", "own.yaml", "--no-page", "--out", "elsewhere"]) == 0
    assert "Nothing was found that would stop a study." in capsys.readouterr().out
    assert (user / "elsewhere" / "scans.csv").is_file()
    assert not (user / "cohort-check").exists()


def test_the_log_of_a_page_that_failed_names_no_image_nor_folder(user, monkeypatch):
    def fail(notebook, executed, parameters, *, log, name):
        log.write_text(
            f"[Errno 13] Permission denied: '{user}/ct/one.nii.gz/DOE^JANE 1.dcm' in {user}", encoding="utf-8"
        )
        raise RunError("It failed.")

    monkeypatch.setattr("lungmtl.study.execute_notebook", fail)
    assert cli.main(["check", "cohort.csv", "--workers", "1"]) == 1
    text = (user / "cohort-check" / "report.log").read_text(encoding="utf-8")
    assert text == "[Errno 13] Permission denied: 'IMAGE' in TABLE"


def test_check_of_a_leak_returns_1(user, capsys):
    save(chest().hu, user / "ct" / "two.nii.gz")
    write(user, "one", "two", split=["train", "test"])
    assert cli.main(["check", "cohort.csv", "--no-page"]) == 1
    leak = "Leakage: identical voxels in 2 scans (one two), under 2 patient names, in test and train."
    assert leak in capsys.readouterr().out


def test_a_bad_table_is_told_with_all_its_problems(user, caplog):
    write(user, "one", "two", "torn", split=["train", "tset", ""], excluded="")
    text = (user / "cohort.csv").read_text(encoding="utf-8").replace("patient-one", "").replace("ct/torn", "../torn")
    (user / "cohort.csv").write_text(
        text.replace("patient-two,ct/two.nii.gz,", "patient-two,ct/two.nii.gz,yes"), encoding="utf-8"
    )
    assert cli.main(["check", "cohort.csv"]) == 2
    assert caplog.messages[-1].splitlines()[1:] == [
        "  - Every scan must have a patient. Found none in scan one.",
        "  - `lung_cancer` must be 0, 1 or blank. Found 'yes' in scan two.",
        "  - `split` must be train, validation, test or blank. Found 'tset' in scan two.",
        "  - An image must lie in the table's folder with all its files, unless `--allow-outside` is given. "
        f"Found another place in scan torn. It is ../torn.nii.gz, which leads to {user.parent / 'torn.nii.gz'}.",
    ]


def test_only_the_first_of_many_problems_are_told(user, caplog):
    write(user, *[f"s{i}" for i in range(100)], split="tset")
    assert cli.main(["check", "cohort.csv"]) == 2
    assert "has 100 problems:" in caplog.messages[-1]
    assert caplog.messages[-1].splitlines()[21:] == ["  - ... and 80 more"]


@pytest.mark.parametrize("command", ["check", "prepare", "verify"])
def test_a_table_cannot_reach_outside_its_folder_unless_told_to(user, caplog, command):
    save(chest().hu, user.parent / "outside.nii.gz")
    write(user, "one", image=["../outside.nii.gz"])
    options = {"check": ["--no-page"], "prepare": [*GRID, "--cache-dir", str(user / "cache")], "verify": []}[command]
    assert cli.main([command, "cohort.csv", *options]) == 2
    assert "Found another place in scan one. It is ../outside.nii.gz, which leads to " in caplog.text
    assert cli.main([command, "cohort.csv", "--allow-outside", *options]) == (command == "check")  # no labels: no study


def test_check_says_where_a_missing_image_should_be_and_the_files_do_not(user, capsys):
    write(user, "one", "gone")
    assert cli.main(["check", "cohort.csv", "--no-page", "--workers", "1"]) == 1
    assert f"Found none for scan gone. It should be {user / 'ct' / 'gone.nii.gz'}." in capsys.readouterr().out
    assert str(user) not in (user / "cohort-check" / "scans.csv").read_text(encoding="utf-8")


def test_check_of_a_study_leaves_the_studys_files_alone(user):
    write(user, "one")
    (user / "own.yaml").write_text(
        f"experiments: [STL]\nseeds: [0]\ncohort: {user}/cohort.csv\nresults_dir: {user}/results\n", encoding="utf-8"
    )
    assert cli.main(["check", "own.yaml", "--no-page", "--workers", "1"]) == 1
    assert [path.name for path in (user / "results" / "own").iterdir()] == ["check"]


def test_a_studys_check_goes_where_out_says_and_its_tables_do_not(user, caplog):
    write(user, "one")
    (user / "own.yaml").write_text(f"experiments: [STL]\nseeds: [0]\ncohort: {user}/cohort.csv\n", encoding="utf-8")
    assert cli.main(["check", "own.yaml", "--no-page", "--workers", "1", "--out", "elsewhere"]) == 1  # too few patients
    assert (user / "elsewhere" / "scans.csv").is_file()
    assert cli.main(["prepare", "own.yaml", "--out", "elsewhere"]) == 2
    assert "own folder. Found `--out elsewhere` with a params file" in caplog.text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.xlsx", b"PK\x03\x04"),
        ("a.ods", b"PK\x03\x04"),
        ("a.tsv", b"scan\tpatient"),
        ("own.yaml", b"tasks: [a\nb: : :"),
    ],
)
def test_what_is_no_table_or_params_file_is_told_in_one_sentence(user, caplog, name, content):
    (user / name).write_bytes(content)
    assert cli.main(["check", name]) == 2
    assert len(caplog.messages[-1].splitlines()) == 1
    assert name in caplog.messages[-1]


@pytest.mark.parametrize("options", [["--out", "cohort.csv"], ["--cache-dir", "cohort.csv"], ["--workers", "0"]])
def test_a_file_as_folder_and_no_worker_are_refused(user, capsys, options):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["check", "cohort.csv", *options])
    assert stopped.value.code == 2
    assert re.search("a folder is required. Found a file|at least 1 is required. Found '0'", capsys.readouterr().err)


# ---------------------------------------------------------------- prepare


def test_prepare_of_a_table_goes_on_past_bad_scans_and_names_them(user, capsys):
    write(user, "one", "torn", "gone", "two")
    assert prepare(user) == 0
    assert prepared(user) == ["one", "two"]
    output = capsys.readouterr().out
    assert "2 of 4 scans prepared, 2 failed.\n  torn: A scan must be " in output
    assert f"Outcome of every scan: {user / 'cohort-check' / 'preparation.csv'}" in output
    report = pd.read_csv(user / "cohort-check" / "preparation.csv").set_index("scan")
    assert report["status"].to_dict() == {"one": "ok", "torn": "failed", "gone": "failed", "two": "ok"}
    assert report.loc["torn", "reason"] == "A scan must be complete. Found a damaged file (EOFError)."
    assert str(user) not in (user / "cohort-check" / "preparation.csv").read_text(encoding="utf-8")


def test_prepare_again_keeps_what_is_there(user):
    prepare(user)
    before = {path: path.stat().st_mtime_ns for path in user.glob("cache/prepared/*/*.npy")}
    prepare(user)
    assert before == {path: path.stat().st_mtime_ns for path in user.glob("cache/prepared/*/*.npy")}


def test_prepare_takes_the_grid_given(user):
    prepare(user)
    tensor = np.load(next(user.glob("cache/prepared/*/one.npy")))
    assert tensor.shape == (16, 16, 20)
    assert json.loads((user / "cohort-check" / "preparation.json").read_text(encoding="utf-8"))["spacing_mm"] == [
        20,
        20,
        20,
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shape", "1", "16", "16"], "`shape` must be three counts of at least 16"),
        (["--window-hu", "400", "-1000"], "`window_hu` must be two numbers, low before high"),
    ],
)
def test_a_bad_grid_is_refused(user, caplog, options, message):
    assert prepare(user, *options) == 2
    assert message in caplog.text


def test_prepare_with_a_studys_params_fills_the_cache_that_the_study_reads(user):
    (user / "own.yaml").write_text(
        f"experiments: [STL]\nseeds: [0]\ncohort: {user}/cohort.csv\ncache_dir: {user}/cache\n"
        "spacing_mm: [20, 20, 20]\nshape: [16, 16, 20]\n",
        encoding="utf-8",
    )
    assert cli.main(["prepare", "cohort.csv", "--params", "own.yaml"]) == 0
    frame = pd.read_csv(user / "cohort.csv").assign(excluded="")
    grid = Preparation(spacing_mm=[20, 20, 20], shape=[16, 16, 20], window_hu=[-1000, 400])
    _, report = prepare_cohort(frame, user, grid, cache_dir=user / "cache", progress=False)
    assert report.set_index("scan")["seconds"].isna().to_dict() == {
        "one": True,
        "two": True,
        "torn": False,
    }  # NaN: kept


def test_a_grid_beside_a_params_file_is_refused(user, caplog):
    (user / "own.yaml").write_text(f"experiments: [STL]\nseeds: [0]\ncohort: {user}/cohort.csv\n", encoding="utf-8")
    assert cli.main(["prepare", "own.yaml", *GRID]) == 2
    assert "The grid must come from the params file. Found spacing_mm, shape next to it." in caplog.text


# ---------------------------------------------------------------- verify


def test_verify_before_and_after_preparing(user, capsys):
    write(user, "one", "two", n_slices=["24", "24"])
    assert cli.main(["verify", "cohort.csv"]) == 0
    assert "verified 2 images, 0 excluded by the table: 0 problems" in capsys.readouterr().out
    prepare(user)
    assert cli.main(["verify", "cohort.csv", "--cache-dir", str(user / "cache")]) == 0
    assert "2 prepared scans, 0 that could not be prepared: 0 problems" in capsys.readouterr().out


def test_verify_looks_where_out_says(user, capsys):
    write(user, "one")
    places = f"cohort: {user}/cohort.csv\nresults_dir: {user}\ncache_dir: {user}/cache\n"
    (user / "own.yaml").write_text(f"experiments: [STL]\nseeds: [0]\n{places}", encoding="utf-8")
    assert cli.main(["prepare", "cohort.csv", "--params", "own.yaml", "--out", "elsewhere"]) == 0
    assert "1 of 1 scan prepared, 0 failed." in capsys.readouterr().out
    assert cli.main(["verify", "own.yaml", "--out", "elsewhere"]) == 0
    said = "verified 1 image, 0 excluded by the table; 1 prepared scan, 0 that could not be prepared: 0 problems"
    assert said in capsys.readouterr().out
    assert cli.main(["verify", "own.yaml", "--out", "nowhere"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("`--out` must be a folder that `prepare` wrote to. Found no preparation.json in ")
    assert lines[1] == "verified 1 image, 0 excluded by the table: 1 problem"


def test_verify_lists_every_problem_and_returns_1(user, capsys):
    write(user, "one", "two", "torn", n_slices=["24", "25", ""])
    prepare(user)
    next(user.glob("cache/prepared/*/one.npy")).write_bytes(b"")
    next(user.glob("cache/prepared/*/two.npy")).unlink()
    capsys.readouterr()
    assert cli.main(["verify", "cohort.csv", "--cache-dir", str(user / "cache")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "scan two: 24 of 25 slices"
    assert lines[1].startswith("scan one: the prepared file cannot be read")
    assert lines[2] == "scan two: not prepared"
    assert lines[3].endswith("2 prepared scans, 1 that could not be prepared: 3 problems")


def test_verify_names_what_is_still_to_be_downloaded(user, capsys):
    write(user, "one", "gone", excluded=["", "download: 0 of 153 files"], n_slices=["24", "153"])
    assert cli.main(["verify", "cohort.csv"]) == 1
    assert f"scan gone: the image is not there, {user / 'ct' / 'gone.nii.gz'}" in capsys.readouterr().out


# ---------------------------------------------------------------- report


def test_a_run_that_cannot_be_compared_is_named_and_the_rest_reported(tmp_path, caplog):
    study_dir = shutil.copytree(PROJECT / "results" / "phantom-full", tmp_path / "phantom-full")
    for run in (study_dir / "runs").iterdir():
        if run.name not in ("STL-s0", "MTL-s0", "ITW1-s0"):
            shutil.rmtree(run)
    (study_dir / "runs" / "ITW1-s0" / "predictions.csv").unlink()
    (tmp_path / "three.yaml").write_text(
        "study: phantom-full\nexperiments: [STL, MTL, ITW1]\nseeds: [0]\n", encoding="utf-8"
    )

    status = cli.main(["report", str(tmp_path / "three.yaml"), "--results-dir", str(tmp_path)])

    assert status == 1
    assert "ITW1-s0: A run must predict validation and test scans" in caplog.text
    assert set(pd.read_csv(study_dir / "tables" / "auc.csv")["experiment"]) == {"STL", "MTL"}
