"""What a study is stopped by before anything is computed, how it is mended, and the count of what it uses."""

import numpy as np
import pandas as pd
import pytest

from lungmtl.data.flow import patient_flow
from lungmtl.data.rows import read_rows
from lungmtl.data.splits import blank_figures, check_splits, judge_splits
from lungmtl.study.plan import plan_runs

RULES = {"tasks": ["nodule", "copd"], "fractions": [0.5, 0.25, 0.25], "seed": 0, "batch_size": 2}
SPLITS = ["train"] * 4 + ["validation"] * 2 + ["test"] * 2


def table(**columns) -> pd.DataFrame:
    """Eight patients with a scan each, both classes of both tasks in every split."""
    frame = pd.DataFrame({"scan": list("abcdefgh"), "patient": list("ABCDEFGH"), "split": SPLITS, "excluded": ""})
    return frame.assign(**{"nodule": [0.0, 1.0] * 4, "copd": [1.0, 0.0] * 4} | columns)


def test_a_cohort_that_can_be_studied_is_split_and_nothing_is_said():
    frame, stops = judge_splits(table(), **RULES)
    assert stops == []
    assert frame["split"].tolist() == SPLITS
    assert blank_figures(frame, tasks=RULES["tasks"]) == []


def test_the_central_task_needs_both_classes_everywhere():
    with pytest.raises(
        ValueError, match=r"Found of `nodule` 0 positive, 1 negative and 1 unknown in test. To mend it:"
    ):
        check_splits(table(nodule=[0, 1, 0, 1, 0, 1, 0, np.nan]), **RULES)


def test_another_task_needs_them_in_training_alone_and_is_named_where_it_stays_blank():
    frame, stops = judge_splits(table(copd=[0, 1, 0, 1, 1, 1, 0, np.nan]), **RULES)
    assert stops == []
    assert blank_figures(frame, tasks=RULES["tasks"]) == [
        "Figures stay blank in validation, for want of positive or negative scans: copd.",
        "Figures stay blank in test, for want of positive or negative scans: copd.",
    ]
    assert blank_figures(table(split=""), tasks=RULES["tasks"]) == []  # where no split is drawn, none is blank
    _, stops = judge_splits(table(copd=[0, 0, 0, np.nan, 1, 0, 1, 0]), **RULES)
    assert "in train for an auxiliary task. Found of `copd` 0 positive, 3 negative and 1 unknown in train." in stops[0]
    assert stops[1].endswith("or leave that auxiliary task out of `tasks`.")


def test_a_scan_that_failed_counts_no_more():
    failed = pd.DataFrame({"scan": ["h"], "status": ["failed"], "reason": ["torn"]})
    _, stops = judge_splits(table(), **RULES, failed=failed)
    assert "Found of `nodule` 0 positive, 1 negative and 0 unknown in test." in stops[0]


def test_too_few_training_scans_for_a_batch_are_said():
    _, stops = judge_splits(table(), **RULES | {"batch_size": 5})
    assert stops[0] == "Training must fill a batch (`batch_size: 5`). Found 4 scans."


def test_a_seed_or_fractions_that_would_do_are_named_and_do():
    rare = table(split="", copd=[1.0, 0.0, 0.0, np.nan, np.nan, np.nan, np.nan, np.nan])
    _, stops = judge_splits(rare, **RULES)
    seed = int(stops[-1].removeprefix("To mend it: set `split_seed: ").split("`")[0])
    assert judge_splits(rare, **RULES | {"seed": seed})[1] == []

    small = RULES | {"fractions": [0.9, 0.05, 0.05]}
    _, stops = judge_splits(table(split=""), **small)
    assert stops == [
        "There must be enough patients of both classes for three splits. Found 8 patients without a split, 4 of them "
        "positive, for the fractions [0.9, 0.05, 0.05].",
        "To mend it: set `split_fractions: [0.6, 0.2, 0.2]` in the params file.",
    ]
    assert judge_splits(table(split=""), **small | {"fractions": [0.6, 0.2, 0.2]})[1] == []


def test_the_flow_by_hand():
    frame = table(excluded=["motion", "", "", "", "", "", "", "download: 3 of 9 files"], patient=list("AABBCDEF"))
    reasons = ["A scan must be complete. Found scan c: 3 bytes", "A scan must be complete. Found scan d: 4 bytes"]
    report = pd.DataFrame({"scan": ["b", "c", "d"], "status": ["ok", "failed", "failed"], "reason": ["", *reasons]})
    found = patient_flow(frame, report, task="nodule")
    assert found.to_numpy().tolist() == [
        ["in the table", "", 8, 6, 4, 4, 0],
        ["excluded", "in preparation: A scan must be complete.", 2, 1, 1, 1, 0],
        ["excluded", "by the table: motion", 1, 1, 0, 1, 0],
        ["excluded", "by the table: download", 1, 1, 1, 0, 0],
        ["used", "", 4, 4, 2, 2, 0],
        ["train", "", 1, 1, 1, 0, 0],
        ["validation", "", 2, 2, 1, 1, 0],
        ["test", "", 1, 1, 0, 1, 0],
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"scan;patient\na;A\n", "Found semicolons in .*cohort.csv: save it as CSV UTF-8, separated by commas"),
        (b"scan\tpatient\na\tA\n", "Found tabs in"),
        ("scan,patient\n".encode("utf-16"), "Found UTF-16 in"),
        ("scan,patient\na,\u00e9\n".encode("latin-1"), "Found byte 0xe9 in row 2 of"),
        (b"PK\x03\x04 and more", "Found a workbook"),
        (b"\n \n", "Found an empty file"),
    ],
)
def test_what_is_no_csv_table_says_what_to_do(tmp_path, content, said):
    (tmp_path / "cohort.csv").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_rows(tmp_path / "cohort.csv")
    with pytest.raises(ValueError, match="Found a folder"):
        read_rows(tmp_path)


def test_a_byte_order_mark_and_rows_without_text_do_no_harm(tmp_path):
    (tmp_path / "cohort.csv").write_bytes(b'\xef\xbb\xbfscan,note\r\na," x\ny "\r\n,\r\n')
    assert read_rows(tmp_path / "cohort.csv") == [["scan", "note"], ["a", "x\ny"]]


def test_one_task_is_refused_for_experiments_that_weigh_several(tmp_path):
    params = tmp_path / "one.yaml"
    params.write_text("experiments: [STL]\nseeds: [0]\ntasks: [nodule]\n", encoding="utf-8")
    assert [run.tasks for run in plan_runs(params)] == [["nodule"]]
    params.write_text("experiments: [STL, ITW3]\nseeds: [0]\ntasks: [nodule]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"ITW3 weighs auxiliary tasks, so `tasks` must name at least two"):
        plan_runs(params)
