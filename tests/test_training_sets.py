"""Several training sets: dealt by patient, one per seed, the same test scans, and intervals over sets."""

import numpy as np
import pandas as pd
import pytest
from made_up import predictions

from lungmtl import data
from lungmtl.comparison.aucs import auc_table
from lungmtl.comparison.differences import comparison_table
from lungmtl.comparison.scans import bootstrapped, of_task
from lungmtl.comparison.screening import screen
from lungmtl.comparison.uncertainty import variance_table
from lungmtl.data.flow import patient_flow
from lungmtl.data.splits import in_training_set, judge_splits
from lungmtl.evidence import Areas, youden_threshold
from lungmtl.evidence.variance import variance_parts
from lungmtl.study.config import RunConfig
from lungmtl.study.run import gather, training_set

RULES = {"tasks": ["nodule"], "fractions": [0.5, 0.25, 0.25], "seed": 0, "batch_size": 2, "training_sets": 2}
DRAWS = {"replicates": 100, "seed": 0}
N_PATIENTS = 40


def cohort(n_positive: int = 20) -> pd.DataFrame:
    """Forty patients with two scans each."""
    patient = np.repeat([f"p{i:02d}" for i in range(N_PATIENTS)], 2)
    positive = np.repeat(np.arange(N_PATIENTS) < n_positive, 2).astype(float)
    frame = pd.DataFrame({"scan": [f"s{i:02d}" for i in range(2 * N_PATIENTS)], "patient": patient})
    return frame.assign(nodule=positive, split="", excluded="")


def test_sets_share_no_patient_have_the_same_size_and_classes_and_no_test_scan():
    frame, stops = judge_splits(cohort(), **RULES)
    first, second = (in_training_set(frame, number) for number in range(2))
    common = set(first["patient"]) & set(second["patient"])

    assert stops == []
    assert set(frame.loc[frame["patient"].isin(common), "split"]) == {"test"}
    assert frame.loc[frame["split"] == "test", "training_set"].isna().all()
    for split, n in (("train", 10), ("validation", 5)):
        parts = [part[part["split"] == split] for part in (first, second)]
        assert [part["patient"].nunique() for part in parts] == [n, n]
        assert abs(parts[0]["nodule"].sum() - parts[1]["nodule"].sum()) <= 2  # one patient


def test_sets_do_not_depend_on_the_order_of_the_rows():
    frame = cohort()
    one, other = (judge_splits(part, **RULES)[0] for part in (frame, frame.sample(frac=1, random_state=1)))
    pd.testing.assert_series_equal(one["training_set"], other["training_set"].sort_index())


def test_every_set_must_do_by_itself():
    rare = cohort(n_positive=4)  # one in each of validation and test: no two validation sets have both classes
    assert judge_splits(rare, **RULES | {"training_sets": 1})[1] == []
    _, stops = judge_splits(rare, **RULES)
    assert stops[0].startswith("Of training set 0: There must be positive and negative scans in every split")
    assert stops[0].endswith("Found of `nodule` 0 positive, 10 negative and 0 unknown in validation.")


def test_the_flow_counts_every_set():
    frame, _ = judge_splits(cohort(), **RULES)
    report = pd.DataFrame({"scan": frame["scan"], "status": "ok", "reason": ""})
    found = patient_flow(frame, report, task="nodule", n_sets=2).set_index("step")["patients"].to_dict()
    assert found == {
        **{"in the table": 40, "used": 40, "train": 20, "validation": 10, "test": 10},
        **{"train of set 0": 10, "validation of set 0": 5, "train of set 1": 10, "validation of set 1": 5},
    }


def test_a_seed_has_its_set_and_the_phantom_cohort_holds_all():
    config = RunConfig(training_sets=4, phantom_scans=[640, 160, 1920])
    settings = config.phantom
    assert (settings.n_train, settings.n_validation, settings.n_test) == (2560, 640, 1920)
    assert [training_set(config.with_seed(seed)) for seed in range(5)] == [0, 1, 2, 3, 0]
    assert "training_sets" not in RunConfig().splitting  # which is part of a key


def test_runs_train_on_their_set_and_test_on_the_same_scans(tmp_path, monkeypatch):
    (tmp_path / "images.mha").touch()
    frame = cohort().assign(image="images.mha").drop(columns="excluded")
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    report = pd.DataFrame({"scan": frame["scan"], "status": "ok", "reason": ""})
    monkeypatch.setattr(data, "prepare_cohort", lambda *_, **__: (tmp_path, report), raising=False)
    settings = {"cohort": str(tmp_path / "cohort.csv"), "split_fractions": [0.5, 0.25, 0.25], "training_sets": 2}
    config = RunConfig.from_mapping({**settings, "tasks": ["nodule"], "weights": [3]})
    scans = [gather(config.with_seed(seed)) for seed in range(3)]
    of_splits = [one.table.groupby("split")["patient"].agg(set) for one in scans]

    assert of_splits[0].equals(of_splits[2])
    for split, n in (("train", 10), ("validation", 5)):
        assert [len(of_seed[split]) for of_seed in of_splits] == [n] * 3
        assert not of_splits[0][split] & of_splits[1][split]
        assert scans[0].counts[split]["nodule"]["n"] == 2 * n
    assert of_splits[0]["test"] == of_splits[1]["test"]


def of_sets(seeds=(0, 1, 2, 3), n_sets=2) -> pd.DataFrame:
    """Predictions whose validation scans are those of the seed's set."""
    frame = predictions(("MTL", "STL"), seeds)
    frame["training_set"] = frame["seed"] % n_sets
    own = frame["scan"].str[1:].astype(int) % n_sets == frame["training_set"]
    return frame[own | (frame["split"] == "test")]


def test_the_error_of_a_mean_is_that_of_the_means_of_sets():
    draws = np.random.default_rng(0).normal(size=(4, 200)) / 100
    areas = Areas(np.array([0.8, 0.7, 0.9, 0.7]), draws, [0, 1, 0, 1])
    means = Areas(np.array([0.85, 0.7]), (draws[:2] + draws[2:]) / 2)

    assert areas.by_set().value.tolist() == [pytest.approx(0.85), pytest.approx(0.7)]
    assert areas.error() == pytest.approx(means.error())
    assert areas.of([0, 1]).error() == Areas(areas.value[:2], draws[:2]).error()  # a set each: as seeds


def test_intervals_are_over_sets_where_there_are_several():
    frame = of_sets()
    found = comparison_table(frame, references=["STL"], task="lung_cancer", **DRAWS).iloc[0]
    groups = bootstrapped(of_task(frame, "test", "lung_cancer"), *DRAWS.values())
    areas = groups["MTL"].areas - groups["STL"].areas
    means = areas.value.reshape(2, 2).mean(axis=0)

    assert found["difference"] == pytest.approx(means.mean())
    assert found["freedom"] == variance_parts(means, np.cov(areas.by_set().draws)).freedom
    assert found["mcnemar_p"] > 0
    assert set(auc_table(frame, **DRAWS)["interval"]) == {"95 % patient bootstrap and variance of training sets"}


def test_variance_of_sets_is_told_apart_where_a_set_has_several_seeds():
    found = variance_table(of_sets(), references=[], task="lung_cancer", **DRAWS).set_index("experiment").loc["STL"]
    areas = of_task(of_sets(), "test", "lung_cancer")["STL"]
    values = np.array(bootstrapped({"STL": areas}, 100, 0)["STL"].areas.value).reshape(2, 2)  # seed of set, set
    within, between = values.var(axis=0, ddof=1).mean() / 4, values.mean(axis=0).var(ddof=1) / 2

    assert (found["n_sets"], found["seed_variance"]) == (2, pytest.approx(between))
    assert found["set_variance"] == pytest.approx(max(between - within, 0))
    single = variance_table(of_sets((0, 1)), references=[], task="lung_cancer", **DRAWS)
    assert single["set_variance"].isna().all()
    plain = variance_table(predictions(("STL",)), references=[], task="lung_cancer", **DRAWS)
    assert "n_sets" not in plain


def test_thresholds_come_from_the_validation_scans_that_a_run_has_seen():
    frame = of_sets((0, 1))
    scans = of_task(frame, "validation", "lung_cancer")["STL"]
    own = frame[(frame["run"] == "STL-s1") & (frame["split"] == "validation")]

    assert scans.of([1]).threshold == youden_threshold(own["target"].to_numpy(), own["probability"].to_numpy())
    assert np.isfinite([scans.threshold, scans.mean_of_runs]).all()


def test_screening_lets_sets_differ_in_validation_and_nothing_else():
    frame = of_sets()
    runs = frame[["run", "experiment", "seed", "training_set"]].drop_duplicates()
    runs = runs.assign(cohort_sha256="a", policy_name="BW", policy_settings=[{}] * len(runs))
    assert screen(runs, frame).problems.empty

    lost = screen(runs, frame.drop(frame.index[(frame["run"] == "STL-s3") & (frame["split"] == "validation")][:1]))
    assert "STL-s3" in set(lost.problems["run"])
