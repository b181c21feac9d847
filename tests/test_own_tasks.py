"""A cohort with diagnoses of its own, `nodule` and `emphysema`: read, split, checked and prepared like the paper's."""

import numpy as np
import pandas as pd
import pytest
from chests import chest, save

from lungmtl.data.checks import check_cohort
from lungmtl.data.cohort import attributes, included, read_cohort
from lungmtl.data.dataset import ScanDataset
from lungmtl.data.labels import counts, examples, label_table
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import prepare_cohort
from lungmtl.data.splits import assign_splits, check_splits

TASKS = ("nodule", "emphysema")
FRACTIONS = (0.5, 0.25, 0.25)
GRID = Preparation(spacing_mm=(20.0, 20.0, 20.0), shape=(16, 16, 20), window_hu=(-1000.0, 400.0))
N_SCANS = 16


@pytest.fixture
def own(tmp_path):
    """Sixteen scans: a nodule in every second, emphysema in every second pair; no other column than the needed ones."""
    rows = range(N_SCANS)
    for index in rows:
        save(chest().hu + np.int16(index), tmp_path / f"s{index:02d}.nii.gz")
    frame = pd.DataFrame({"scan": [f"s{index:02d}" for index in rows], "patient": [f"p{index}" for index in rows]})
    frame = frame.assign(image=frame["scan"] + ".nii.gz", nodule=[index % 2 for index in rows])
    frame.assign(emphysema=[index // 2 % 2 for index in rows]).to_csv(tmp_path / "cohort.csv", index=False)
    return tmp_path


def test_a_cohort_with_two_tasks_of_its_own_is_read_split_checked_and_prepared(own):
    frame = read_cohort(own / "cohort.csv", tasks=TASKS)
    assert "lung_cancer" not in frame

    frame = check_splits(frame, tasks=TASKS[:1], fractions=FRACTIONS, seed=0, batch_size=8)
    checked = check_cohort(frame, own, out=own / "out", tasks=TASKS, progress=False)
    folder, report = prepare_cohort(frame, own, GRID, cache_dir=own / "cache", progress=False)
    scans = ScanDataset(frame[frame["split"] == "train"], folder, tasks=TASKS)

    assert [found["nodule"] for found in counts(frame, tasks=TASKS).values()] == [
        {"n": 8, "positives": 4, "unknown": 0},
        {"n": 4, "positives": 2, "unknown": 0},
        {"n": 4, "positives": 2, "unknown": 0},
    ]
    assert (checked.scans["verdict"] != "failed").all()
    assert checked.labels["task"].unique().tolist() == list(TASKS)
    assert checked.cooccurrence.loc["nodule", "emphysema"] == 0.5
    assert report["status"].eq("ok").all()
    assert len(scans) == 8
    assert scans[0][1].shape == (2,)
    assert examples(frame, pd.DataFrame({"scan": []}), tasks=TASKS) == {"nodule": "s01", "emphysema": "s02"}
    assert attributes(included(frame)).columns.tolist() == ["scan"]


def test_a_split_is_stratified_on_the_first_task(own):
    frame = read_cohort(own / "cohort.csv", tasks=TASKS[::-1])
    for task in TASKS:
        shares = assign_splits(frame, fractions=FRACTIONS, seed=0, stratify=task).groupby("split")[task].mean()
        assert shares.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("values", [["0", "1", ""], ["yes", "no", "NA"], ["", "", ""]])
def test_a_task_that_is_not_asked_for_rides_along_as_text(own, values):
    table = pd.read_csv(own / "cohort.csv", dtype=str)
    table = table.assign(lung_cancer=(values * N_SCANS)[:N_SCANS])
    table.to_csv(own / "cohort.csv", index=False)

    frame = read_cohort(own / "cohort.csv", tasks=TASKS)
    frame = assign_splits(frame, fractions=FRACTIONS, seed=0, stratify=TASKS[0])

    assert frame["lung_cancer"].tolist() == table["lung_cancer"].tolist()
    assert frame[list(TASKS)].dtypes.tolist() == [float, float]
    assert label_table(frame, tasks=TASKS)["task"].unique().tolist() == list(TASKS)
    assert frame["split"].isin(["train", "validation", "test"]).all()
