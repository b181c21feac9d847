"""An own cohort from its table to where its network looks, by the README's commands alone."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from chests import chest, save
from test_privacy import write_series

from lungmtl import cli
from lungmtl.study import collect, execute_notebook, load_run
from lungmtl.study.plan import NOTEBOOKS, PROJECT

TINY = {  # what README says to change in params/own.yaml, and a grid that takes no time
    **{
        "study": "mine",
        "tasks": ["nodule", "emphysema"],
        "experiments": ["STL", "ITW2"],
        "seeds": [0],
        "precision": "fp32",
    },
    **{"split_fractions": [0.5, 0.25, 0.25], "split_seed": 1, "spacing_mm": [20.0, 20.0, 20.0], "shape": [16, 16, 20]},
    **{"width": 4, "epochs": 1, "batch_size": 4, "region": "tight", "pflp_period": 1},
}
N_SCANS = 18


@pytest.fixture(scope="module")
def user(tmp_path_factory):
    """A table of scans elsewhere: a nodule in every second, one scan torn, one excluded, one of DICOM, masks of two."""
    folder, scans = tmp_path_factory.mktemp("user"), [f"s{index:02d}" for index in range(N_SCANS)]
    (folder / "table").mkdir()
    for index, scan in enumerate(scans):
        save(chest().hu + np.int16(index + 1), folder / f"{scan}.nii.gz")
    (folder / "s02.nii.gz").write_bytes((folder / "s02.nii.gz").read_bytes()[:500])
    write_series(folder / "s13")
    table = pd.DataFrame({"scan": scans, "patient": [f"p{scan}" for scan in scans]})
    table["image"] = [f"../{scan}" if scan == "s13" else f"../{scan}.nii.gz" for scan in scans]
    table = table.assign(nodule=[index % 2 for index in range(N_SCANS)], excluded="", nodule_mask="")
    table["emphysema"] = [index // 2 % 2 for index in range(N_SCANS)]
    table["split"] = ["train"] * 8 + ["validation"] * 4 + ["test"] * 6
    table.loc[table["split"] == "validation", "emphysema"] = 1  # its figures stay blank there
    table.loc[8, "excluded"] = "motion"
    mask = np.zeros(chest().hu.shape, dtype=np.uint8)
    mask[10:13, 12:15, 8:11] = 1
    save(mask, folder / "table" / "mask.nii.gz")
    table.loc[table["scan"].isin(["s13", "s15"]), "nodule_mask"] = "mask.nii.gz"
    table.to_csv(folder / "table" / "cohort.csv", index=False)
    settings = yaml.safe_load((PROJECT / "params" / "own.yaml").read_text(encoding="utf-8")) | TINY
    places = {"cohort": "table/cohort.csv", "results_dir": "results", "cache_dir": "cache"}
    settings |= {name: str(folder / place) for name, place in places.items()}
    (folder / "own.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def studied(user):
    """The folder of the study, after check, prepare, verify and study; what they returned."""
    table, params = str(user / "table" / "cohort.csv"), str(user / "own.yaml")
    outside = ["--params", params, "--allow-outside"]
    status = [cli.main(["check", table, *outside, "--workers", "1"])]
    status += [cli.main([command, table, *outside]) for command in ("prepare", "verify")]
    status += [cli.main(["study", params, "--allow-outside", "--cores", "2"])]
    return user / "results" / "mine", status


def attention(places, folder):
    """What `05_attention` prints of a run."""
    executed, places = folder / "out.ipynb", {name: str(place) for name, place in places.items()}
    execute_notebook(NOTEBOOKS / "05_attention.ipynb", executed, places, log=folder / "log", name="attention")
    cells = json.loads(executed.read_text(encoding="utf-8"))["cells"]
    return "".join(text for cell in cells for out in cell.get("outputs", []) for text in out.get("text", []))


def text_of(page):
    return BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").get_text(" ")


def test_every_command_does_its_part(studied):
    study, status = studied
    assert status == [1, 0, 0, 0]  # check names the torn scan
    assert sorted(path.name for path in (study / "runs").iterdir()) == ["ITW2-s0", "STL-s0"]
    record = json.loads((study / "runs" / "ITW2-s0" / "record.json").read_text(encoding="utf-8"))
    assert record["metrics"]["validation"]["emphysema"]["auc"] is None
    assert record["metrics"]["validation"]["nodule"]["auc"] is not None


def test_tables_and_networks_have_the_tasks_of_the_params_file(studied, user):
    study, _ = studied
    found, (network, config, record) = collect(study), load_run(study / "runs" / "ITW2-s0")
    labels = pd.read_csv(user / "table" / "cohort-check" / "labels.csv")
    assert labels["task"].unique().tolist() == TINY["tasks"]
    assert found.runs["tasks"].tolist() == [TINY["tasks"], TINY["tasks"][:1]]
    assert found.configs["ITW2-s0"].weights == [3, 1]
    assert set(pd.read_csv(study / "tables" / "auc.csv")["task"]) == set(TINY["tasks"])
    assert pd.read_csv(study / "tables" / "comparisons.csv")["experiment"].tolist() == ["ITW2"]
    assert network.tasks == tuple(TINY["tasks"])
    assert not network.training
    assert (config.experiment, record["policy"]["name"]) == ("ITW2", "ITW(PFLP(BW))")


def test_the_flow_counts_scans_and_patients_to_the_splits(studied):
    flow = pd.read_csv(studied[0] / "flow.csv", keep_default_na=False)
    assert flow[["step", "scans", "positive"]].to_numpy().tolist() == [
        ["in the table", 18, 9],
        ["excluded", 1, 0],
        ["excluded", 1, 0],
        ["used", 16, 9],
        ["train", 7, 4],
        ["validation", 3, 2],
        ["test", 6, 3],
    ]


def test_the_report_has_the_flow_names_what_is_blank_and_speaks_of_no_phantom(studied, user):
    report, check = text_of(studied[0] / "report.html"), text_of(user / "table" / "cohort-check" / "report.html")
    assert "Scans and patients" in report
    assert "by the table: motion" in report
    assert "The figures of emphysema in validation are blank" in report
    for word in ("phantom", "synthetic", "generator"):
        assert word not in report.lower()
        assert word not in check.lower()


def test_where_it_looks_is_drawn_and_scored_where_a_nodule_is_marked(studied, user, tmp_path):
    places = {"run_dir": studied[0] / "runs" / "ITW2-s0", "cohort": user / "table" / "cohort.csv"}
    printed = attention(places | {"cache_dir": user / "cache"}, tmp_path)
    assert "the cohort is the run's own: True\n3 of 3 positive test scans" in printed
    assert "marked in these scans: nodule\n" in printed
    assert re.search(r"nodule: \d of 2 scans", printed)  # the third has no mask, and is drawn


@pytest.mark.slow
def test_one_task_without_a_mask_is_a_study_and_its_attention_is_drawn(user, tmp_path):
    table, params = user / "table" / "one.csv", user / "one.yaml"
    pd.read_csv(user / "table" / "cohort.csv").drop(columns="nodule_mask").to_csv(table, index=False)
    settings = yaml.safe_load((user / "own.yaml").read_text(encoding="utf-8"))
    settings |= {"study": "one", "cohort": str(table), "tasks": ["nodule"], "experiments": ["STL"]}
    params.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert cli.main(["study", str(params), "--allow-outside", "--cores", "1"]) == 0
    study = user / "results" / "one"
    assert pd.read_csv(study / "tables" / "auc.csv")["task"].tolist() == ["nodule"]
    assert "1 run of 1 experiment, " in text_of(study / "report.html")
    assert not re.search(r"\bnan\b", text_of(study / "report.html"))
    printed = attention({"run_dir": study / "runs" / "STL-s0", "cohort": table}, tmp_path)
    assert "marked in these scans: nothing, so maps are drawn and not scored" in printed
    assert "No nodule is marked, so no peak is scored." in printed
    assert "true lungs" not in printed


def test_the_readme_names_the_template_and_every_command_that_is_tried_here():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    for said in ("params/own.yaml", "lungmtl check ", "lungmtl prepare ", "lungmtl verify ", "05_attention.ipynb"):
        assert said in readme
