"""A cohort with tasks of its own goes through check, prepare, study, report and attention by params alone."""

import os

import pandas as pd
import papermill
import pytest
from standin import PROJECT, call

from lungmtl.sources import PhantomSettings, phantom
from lungmtl.study import collect, load_run

PARAMS = """
experiments: [STL, ITW2]
seeds: [0]
cohort: {table}
tasks: [nodule, emphysema]
results_dir: {folder}/results
cache_dir: {folder}/cache
epochs: 1
pflp_period: 1
spacing_mm: [20.0, 20.0, 20.0]
shape: [16, 16, 20]
"""
SETTINGS = PhantomSettings(n_train=24, n_validation=16, n_test=24, seed=5, label_noise=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table with two diagnoses, one of them not the paper's, and a column that nobody asks for."""
    folder = tmp_path_factory.mktemp("own")
    table = phantom.make_cohort(folder / "data", SETTINGS, workers=2, progress=False)
    frame = pd.read_csv(table).rename(columns={"lung_cancer": "nodule"})
    frame["asthma"] = "not asked for"
    columns = ["scan", "patient", "image", "nodule", "emphysema", "asthma", "split"]
    frame[columns].to_csv(folder / "data" / "own.csv", index=False)
    for name in ("truth", "truth.csv"):
        os.rename(folder / "data" / name, folder / name)
    (folder / "own.yaml").write_text(PARAMS.format(table=folder / "data" / "own.csv", folder=folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def study(folder):
    status, output = call(PROJECT, "study", str(folder / "own.yaml"))
    assert status == 0, output
    return folder / "results" / "own"


def test_check_counts_the_tasks_of_the_params_file(folder):
    table = str(folder / "data" / "own.csv")
    status, output = call(PROJECT, "check", table, "--params", str(folder / "own.yaml"), "--out", str(folder / "check"))

    assert status == 0, output
    labels = pd.read_csv(folder / "check" / "labels.csv")
    assert labels["task"].unique().tolist() == ["nodule", "emphysema"]
    assert "nodule" in (folder / "check" / "report.html").read_text(encoding="utf-8")


def test_study_and_report_have_these_tasks(study):
    found = collect(study)

    assert found.runs["tasks"].tolist() == [["nodule", "emphysema"], ["nodule"]]
    assert found.configs["ITW2-s0"].weights == [3, 1]
    assert set(pd.read_csv(study / "tables" / "auc.csv")["task"]) == {"nodule", "emphysema"}
    assert pd.read_csv(study / "tables" / "comparisons.csv")["experiment"].tolist() == ["ITW2"]
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "nodule" in page
    assert "Table: Methods" in page or "Methods" in page


def test_a_finished_run_gives_back_its_network(study):
    network, config, record = load_run(study / "runs" / "ITW2-s0")

    assert network.tasks == ("nodule", "emphysema")
    assert not network.training
    assert (config.experiment, record["policy"]["name"]) == ("ITW2", "ITW(PFLP(BW))")


def test_attention_is_drawn_where_no_truth_is_known(study, folder, tmp_path):
    parameters = {"run_dir": str(study / "runs" / "ITW2-s0"), "cohort": str(folder / "data" / "own.csv"), "n_scans": 3}

    papermill.execute_notebook(
        str(PROJECT / "notebooks" / "05_attention.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters | {"cache_dir": str(folder / "cache")},
        cwd=str(PROJECT / "notebooks"),
        progress_bar=False,
    )

    text = (tmp_path / "out.ipynb").read_text(encoding="utf-8")
    assert "positive test scans" in text
    assert "malignant nodule: fewer than two scans have one" in text
