"""Runs that cannot be compared are left out and named; whatever a policy's settings are called, they leave none out."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from made_up import predictions

from lungmtl.comparison.aucs import auc_table
from lungmtl.comparison.screening import missing_runs, screen
from lungmtl.policies import Weighting, build, describe


def runs(**changes):
    """Four runs; a change is a dictionary of run -> value for one column."""
    frame = pd.DataFrame(
        {
            "run": ["STL-s0", "STL-s1", "ITW3-s0", "ITW3-s1"],
            "experiment": ["STL", "STL", "ITW3", "ITW3"],
            "seed": [0, 1, 0, 1],
            "cohort_sha256": "a" * 64,
            "config_epochs": 12,
            "config_shape": [[48, 48, 48]] * 4,
            "config_network": ["attention", "attention", "pooled", "pooled"],
            "policy_name": ["BW", "BW", "ITW(BW)", "ITW(BW)"],
            "policy_settings": [{"BW": {"weights": [3.0]}}] * 2
            + [{"ITW": {"start": 0.5}, "BW": {"weights": [3.0] * 5}}] * 2,
            "config_results_dir": ["a", "b", "c", "d"],
            "config_seed": [0, 1, 0, 1],
        }
    )
    for column, values in changes.items():
        frame[column] = [values.get(run, value) for run, value in zip(frame["run"], frame[column], strict=True)]
    return frame


def study(experiments=("STL", "MTL", "ITW3"), seeds=(0, 1)):
    """Runs and predictions that fit each other."""
    frame = pd.DataFrame(
        [(f"{e}-s{s}", e, s) for e in experiments for s in seeds], columns=["run", "experiment", "seed"]
    )
    frame = frame.assign(cohort_sha256="a", config_epochs=12, policy_name="ITW(BW)")
    return with_policies(frame, {"ITW": {"start": 0.6}, "BW": {"weights": [3.0]}}), predictions(experiments, seeds)


def with_policies(frame, settings, **of_runs):
    """Runs with these settings of their policies, some with others."""
    return frame.assign(policy_settings=[of_runs.get(run, settings) for run in frame["run"].str.replace("-", "_")])


def screened(runs_of_study, of_runs, **expected):
    """Runs that are left, and problem by run."""
    found = screen(runs_of_study, of_runs, **expected)
    assert set(found.predictions["run"]) == set(found.runs["run"])
    return list(found.runs["run"]), list(zip(found.problems["run"], found.problems["problem"], strict=True))


def test_runs_may_differ_in_policy_seed_and_places():
    found, problems = screened(runs(), predictions(("STL", "ITW3")))

    assert found == list(runs()["run"])
    assert problems == []


@pytest.mark.parametrize(
    "later",
    [
        {"config_class_balance": [np.nan, "none", "none", "none"]},
        {"config_start_weights": [np.nan, "a", "b", "b"]},
        {
            "policy_settings": [
                {"PFLP": {}},
                {"PFLP": {"keep_mean": True}},
                {"PFLP": {"keep_mean": False}},
                {"PFLP": {}},
            ]
        },
    ],
)
def test_a_record_from_before_a_setting_existed_is_not_held_against_its_run(later):
    assert screened(runs().assign(**later), predictions(("STL", "ITW3")))[1] == []


@pytest.mark.parametrize(
    "settings",
    [
        {"RLW": {"temperature": 0.3}},
        {"RLW": {"temperature": None, "seed": 3}, "PFLP": {"order": ["a", "b"], "by_task": {"a": 1.0}}},
        {"Equal": {}},
        {},
    ],
)
def test_settings_of_a_policy_leave_no_run_out(settings):
    frame, of_runs = study()
    is_own = frame["experiment"] == "MTL"
    changed = with_policies(frame, {"BW": {"weights": [3.0]}}, MTL_s0=settings, MTL_s1=settings)
    found, problems = screened(changed.assign(policy_name=np.where(is_own, "RLW", "BW")), of_runs)

    assert found == list(frame["run"])
    assert problems == []


def test_runs_of_an_experiment_draw_from_their_own_seed():
    frame, of_runs = study()
    weighting = Weighting(tasks=["lung_cancer", "copd"], weights=[3.0, 1.0], pflp=True, pflp_shuffle=True)
    built = [build(dataclasses.replace(weighting, seed=seed)) for seed in frame["seed"]]
    shuffled = frame.assign(policy_settings=[describe(policy)["settings"] for policy in built])

    assert len({policy.shuffle_seed for policy in built}) == 2
    assert screened(shuffled, of_runs) == (list(frame["run"]), [])


def test_a_run_that_draws_among_runs_that_do_not_is_left_out():
    frame, of_runs = study(seeds=(0, 1, 2))
    found, problems = screened(
        with_policies(frame, {"PFLP": {"shuffle_seed": False}}, MTL_s1={"PFLP": {"shuffle_seed": True}}), of_runs
    )

    assert "MTL-s1" not in found
    assert problems[0] == (
        "MTL-s1",
        "`PFLP.shuffle_seed` must be the same in every run of MTL. Found true here and false in most.",
    )


def test_a_sound_study_passes_the_screen_as_it_is():
    frame, of_runs = study()
    found = screen(frame, of_runs)

    pd.testing.assert_frame_equal(found.runs, frame)
    pd.testing.assert_frame_equal(found.predictions, of_runs)
    assert list(found.problems.columns) == ["run", "problem"]
    assert found.problems.empty


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "cohort_sha256",
            "b",
            r'The cohort table \(its sha256\) must be .* every run of a study. Found "b" here and "a"',
        ),
        ("config_epochs", 3, "`epochs` must be the same in every run of a study. Found 3 here and 12 in most"),
        (
            "policy_settings",
            {"ITW": {"start": 0.7}, "BW": {"weights": [3.0]}},
            "`ITW.start` must be the same in every run of MTL. Found 0.7 here and 0.6 in most",
        ),
        (
            "policy_name",
            "BW",
            r'`policy_name` must be the same in every run of MTL. Found "BW" here and "ITW\(BW\)" in',
        ),
    ],
)
def test_a_run_of_another_cohort_or_setting_is_left_out_and_named(column, value, message):
    frame, of_runs = study(seeds=(0, 1, 2))
    frame[column] = [
        value if run == "MTL-s1" else usual for run, usual in zip(frame["run"], frame[column], strict=True)
    ]
    found, problems = screened(frame, of_runs)

    assert found == ["STL-s0", "STL-s2", "MTL-s0", "MTL-s2", "ITW3-s0", "ITW3-s2"]
    assert problems[0][0] == "MTL-s1"
    assert re.search(message, problems[0][1])
    assert problems[1:] == [("MTL-s1", "MTL has no seed 1: seed 1 of STL, ITW3 is left out.")]


def test_a_setting_without_a_majority_is_refused():
    frame, of_runs = study(("STL", "MTL"))

    with pytest.raises(ValueError, match=r"`epochs` must be the same in most runs.*12 in STL-s0, STL-s1; 3 in MTL-s0"):
        screen(frame.assign(config_epochs=[12, 12, 3, 3]), of_runs)


def test_an_experiment_whose_own_setting_has_no_majority_is_left_out_alone():
    frame, of_runs = study()
    other = with_policies(frame, frame["policy_settings"].iloc[0], ITW3_s1={"ITW": {"start": 0.7}})
    found, problems = screened(other, of_runs)

    assert found == ["STL-s0", "STL-s1", "MTL-s0", "MTL-s1"]
    assert [run for run, _ in problems] == ["ITW3-s0", "ITW3-s1", ""]
    assert problems[-1][1] == "ITW3 is left out: it has no run to compare."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f[f["scan"] != "s40"], r"Found in lung_cancer 1 missing: s40 of test"),
        (lambda f: f.replace({"scan": {"s40": "new"}}), "1 missing: s40 of test; 1 unexpected: new of test"),
        (
            lambda f: f.assign(target=f["target"].mask(f["scan"] == "s33", 1 - f["target"])),
            "1 with another target: s33",
        ),
        (lambda f: f.assign(target=f["target"].mask(f["scan"] == "s33")), "1 with another target: s33 of test"),
        (lambda f: f.assign(patient=f["patient"].mask(f["scan"] < "s05", "p99")), "5 with another patient: s00 of val"),
        (
            lambda f: f[f["split"] == "test"],
            "must predict validation and test scans of every task. Found none of valid",
        ),
        (lambda f: f[f["task"] != "copd"], "Found none of copd"),
        (lambda f: f[f["task"] == "none"], "Found none of validation scans, test scans"),
        (
            lambda f: f.assign(probability=f["probability"].mask(f["scan"] == "s33")),
            r"`probability` must be inside \[0, 1\]. Found 2 others: nan in s33 \(lung_cancer\), nan in s33 \(copd\)",
        ),
        (lambda f: f.assign(probability=f["probability"].mask(f["scan"] < "s50", 1.5)), r"Found 100 .* and 97 more"),
        (
            lambda f: f.assign(target=f["target"].mask(f["scan"] == "s33", 0.5)),
            r"must be 0, 1 or blank. Found 2 others",
        ),
        (lambda f: pd.concat([f, f[f["scan"] == "s33"]]), "A scan must have one prediction per task. Found 2 others"),
    ],
)
def test_a_run_with_bad_predictions_is_left_out_and_named(change, message):
    frame, of_runs = study(seeds=(0, 1, 2))
    is_bad = of_runs["run"] == "MTL-s1"
    found, problems = screened(frame, pd.concat([of_runs[~is_bad], change(of_runs[is_bad])]))

    assert found == ["STL-s0", "STL-s2", "MTL-s0", "MTL-s2", "ITW3-s0", "ITW3-s2"]
    assert problems[0][0] == "MTL-s1"
    assert re.search(message, problems[0][1])


def test_scans_without_a_majority_are_refused():
    frame, of_runs = study(("STL", "MTL"), (0,))

    with pytest.raises(ValueError, match=r"Most runs must predict the same scans.*2 kinds of lung_cancer among"):
        screen(frame, of_runs[(of_runs["run"] != "MTL-s0") | (of_runs["scan"] != "s40")])


def test_tables_hold_the_seeds_that_every_experiment_has():
    frame, of_runs = study(seeds=(3, 4))
    frame, of_runs = (rows[rows["run"] != "ITW3-s4"] for rows in (frame, of_runs))
    found, problems = screened(frame, of_runs, experiments=["STL", "MTL", "MTL4", "ITW3"], seeds=[3, 4, 5])

    assert found == ["STL-s3", "MTL-s3", "ITW3-s3"]
    assert problems == [
        ("", "MTL4 is left out: it has no run to compare."),
        ("ITW3-s4", "ITW3 has no seed 4: seed 4 of STL, MTL is left out."),
        ("", "No experiment has seed 5."),
    ]


def test_an_experiment_that_shares_no_seed_is_left_out():
    frame, of_runs = study(seeds=(0, 1))
    other = [
        f.assign(run="ITW3-s7", experiment="ITW3", seed=7) for f in (frame[:1], of_runs[of_runs["run"] == "STL-s0"])
    ]
    frame = pd.concat([frame[frame["experiment"] != "ITW3"], other[0]])
    of_runs = pd.concat([of_runs[of_runs["experiment"] != "ITW3"], other[1]])
    found, problems = screened(frame, of_runs)

    assert found == ["STL-s0", "STL-s1", "MTL-s0", "MTL-s1"]
    assert problems[0] == ("", "ITW3 is left out: no seed is common to all, and it has only 7.")


def test_a_comparison_without_any_run_is_refused_with_the_reasons():
    frame, of_runs = study(("STL",), (0,))

    with pytest.raises(
        ValueError, match=r"must have a run that can be compared. Found none. STL-s0: .probability. must"
    ):
        screen(frame, of_runs.assign(probability=2.0))


def test_a_task_with_one_class_is_named_and_stays():
    frame, of_runs = study()
    of_runs.loc[(of_runs["task"] == "copd") & (of_runs["split"] == "test"), "target"] = 0.0
    found, problems = screened(frame, of_runs)

    assert len(found) == 6
    assert problems == [
        (
            "",
            "COPD needs 2 test patients with a positive scan and as many without. Found 0 and 60: "
            "numbers that need them are blank.",
        )
    ]
    assert auc_table(of_runs, replicates=100, seed=0)["auc"].isna().sum() == 2


def test_missing_runs_are_named_with_their_reason():
    frame = predictions(("STL",), (0,))
    found = missing_runs(runs()[:2], frame, ["ITW3-s0"], experiments=["STL", "ITW3"], seeds=[0, 1])

    assert found.to_dict("records") == [
        {"run": "ITW3-s0", "reason": "not complete: no record.json"},
        {"run": "ITW3-s1", "reason": "not there"},
        {"run": "STL-s1", "reason": "no predictions.csv"},
    ]
