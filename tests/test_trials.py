"""Tuning: every policy has the same number of trials, named and planned from their file."""

import csv

import pytest

from lungmtl.policies import POLICIES, build, with_setting
from lungmtl.study.plan import plan_runs
from lungmtl.study.trials import TRIALS, trials

N_TRIALS = 4


def planned(folder, *experiments, extra=""):
    path = folder / "tuned.yaml"
    path.write_text(f"experiments: [{', '.join(experiments)}]\nseeds: [0, 1]\n{extra}", encoding="utf-8")
    return plan_runs(path)


def test_a_star_stands_for_the_experiment_and_its_trials(tmp_path):
    runs = planned(tmp_path, "STL.*", "ITW2.*")
    names = [run.experiment for run in runs if run.seed == 0]
    assert names == ["STL", "ITW2", "ITW2.start0.5", "ITW2.start0.7", "ITW2.start0.8"]
    assert [build(run.weighting).start for run in runs[1:5]] == [0.6, 0.5, 0.7, 0.8]
    assert {build(run.weighting).before for run in runs[1:5]} == {build(runs[1].weighting).before}


def test_the_auxiliary_weight_is_tuned_for_as_many_tasks_as_there_are(tmp_path):
    runs = planned(tmp_path, "MTL.*", extra="tasks: [lung_cancer, copd]\n")
    assert [run.weights for run in runs[:4]] == [[3.0, 3.0], [3.0, 1.0], [3.0, 0.3], [3.0, 0.1]]
    assert [run.experiment for run in runs[:4]] == ["MTL", "MTL.aux1", "MTL.aux0.3", "MTL.aux0.1"]


def test_a_trial_that_is_listed_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`experiments` must be a list of different"):
        planned(tmp_path, "MTL2.*", "MTL2.*")


def rows():
    with TRIALS.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_policy_of_the_file_has_the_same_number_of_trials():
    assert {len(row["values"].split()) for row in rows()} == {N_TRIALS}
    assert {row["policy"] for row in rows()} <= set(POLICIES)
    assert all(row["why"] for row in rows())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["policy"])
def test_every_value_suits_its_policy_and_one_is_its_default(row, tmp_path):
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "X.yaml").write_text(f"experiment: X\npolicy: {row['policy']}\n", encoding="utf-8")
    (first, *_) = planned(tmp_path, "X")
    assert len(trials(first)) == N_TRIALS


def test_a_setting_is_changed_or_added_and_the_rest_stays():
    assert with_setting("ITW(PFLP(period=4), start=0.5)", "start", 0.7) == "ITW(PFLP(period=4), start=0.7)"
    assert with_setting("PFLP", "period", 40) == "PFLP(period=40)"
