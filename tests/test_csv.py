"""CSV: no text that a spreadsheet would compute, numbers as numbers, and everything back as it was."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungmtl.data.cohort import read_cohort
from lungmtl.experiments import TASKS
from lungmtl.study.collection import read_scans, write_scans
from lungmtl.tables import csv_text, unguarded, write_csv

PROJECT = Path(__file__).parents[1]
HARMLESS = ["a", "", "a=1", "'a", "''", "1", "-1", "+1.5e-3", "-.5", "a-b"]
FORMULAS = ["=1+1", "+SUM(A1)", "-2+3", "@x", "\tx", "\rx", "=", "-", "'=1", "''-a", "-inf"]


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines(keepends=True)))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_a_spreadsheet_would_compute_is_guarded(text):
    assert csv_text(pd.DataFrame({"a": [text, "b"]})).split("\n", 1)[1].lstrip('"').startswith("'" + text)


@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_text_and_a_number_are_left_as_they_are(text):
    assert cells(csv_text(pd.DataFrame({"a": [text], "b": ["x"]})))[1] == [text, "x"]


def test_numbers_stay_numbers():
    frame = pd.DataFrame(
        {"a": [-1.5, np.nan], "b": [-3, 4], "c": pd.array([-1, None], dtype="Int64"), "d": [True, False]}
    )
    assert csv_text(frame, float_format="%.6g") == "a,b,c,d\n-1.5,-3,-1,True\n,4,,False\n"


def test_names_of_columns_and_rows_are_texts_too():
    frame = pd.DataFrame({"=a": [1]}, index=["@b"])
    assert csv_text(frame, index_label="-of").splitlines()[1:] == ["'@b,1"]
    assert csv_text(frame).splitlines() == ["'=a", "1"]


def test_everything_is_read_back_as_it_was(tmp_path):
    frame = pd.DataFrame({"=a": [*FORMULAS, *HARMLESS]})
    path = write_csv(frame, tmp_path / "a.csv")
    found = unguarded(pd.read_csv(path, dtype=str, keep_default_na=False))
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)


def test_our_own_readers_take_the_guard_off(tmp_path):
    scans = pd.DataFrame({"scan": ["a", "b"], "manufacturer": ["=1+1", "-x"]})
    write_scans(tmp_path, scans)
    assert read_scans(tmp_path)["manufacturer"].tolist() == ["=1+1", "-x"]
    table = pd.DataFrame({"scan": ["a"], "patient": ["=1+1"], "image": ["a.nii"], **{task: [""] for task in TASKS}})
    read = read_cohort(write_csv(table, tmp_path / "cohort.csv"), allow_missing=True)
    assert read["patient"].tolist() == ["=1+1"]


def test_no_other_place_writes_csv():
    """`to_csv` is called in one place; another would not guard its texts."""
    files = [*PROJECT.glob("lungmtl/**/*.py"), *PROJECT.glob("notebooks/*.ipynb"), PROJECT / "benchmarks/coverage.py"]
    found = [
        path.name for path in files if re.search(r"to_csv\(|csv\.writer|DictWriter", path.read_text(encoding="utf-8"))
    ]
    assert found == ["tables.py"]
