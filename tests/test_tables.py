"""Tables of the comparison from small made-up predictions."""

import numpy as np
import pandas as pd
import pytest

from lungmtl import metrics, tables

TASKS = ("lung_cancer", "copd")
SPLITS = ["validation"] * 30 + ["test"] * 60


def predictions(experiments=("ITW3", "MTL", "STL"), seeds=(0, 1), *, n_unknown=4):
    """Runs over 30 validation and 60 test scans; STL has the central task only."""
    generator = np.random.default_rng(0)
    target = (generator.random((90, 2)) < 0.4).astype(float)
    target[-n_unknown:, 1] = np.nan
    frames = []
    for experiment in experiments:
        for seed in seeds:
            for position, task in enumerate(TASKS[:1] if experiment == "STL" else TASKS):
                signal = np.nan_to_num(target[:, position]) * (1.5 if experiment == "ITW3" else 0.8)
                logit = signal + generator.normal(size=90)
                frames.append(
                    pd.DataFrame(
                        {
                            "run": f"{experiment}-s{seed}",
                            "experiment": experiment,
                            "seed": seed,
                            "scan": [f"s{i:02d}" for i in range(90)],
                            "patient": [f"p{i:02d}" for i in range(90)],
                            "split": SPLITS,
                            "task": task,
                            "target": target[:, position],
                            "probability": 1 / (1 + np.exp(-logit)),
                        }
                    )
                )
    return pd.concat(frames, ignore_index=True)


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
            "config_itw_start": [0.6, 0.6, 0.5, 0.5],
            "config_results_dir": ["a", "b", "c", "d"],
            "config_seed": [0, 1, 0, 1],
        }
    )
    for column, values in changes.items():
        frame[column] = [values.get(run, value) for run, value in zip(frame["run"], frame[column], strict=True)]
    return frame


def compared(frame, **options):
    settings = {"references": ["STL", "MTL"], "task": "lung_cancer", "replicates": 100, "seed": 0} | options
    return tables.comparison_table(frame, **settings)


def test_runs_may_differ_in_policy_seed_and_places():
    tables.check_comparable(runs())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("cohort_sha256", {"ITW3-s1": "b"}, r'cohort table \(its sha256\) must be the same.*"b" in ITW3-s1\.'),
        (
            "config_epochs",
            {"ITW3-s0": 3},
            r"`epochs` must be the same in every run of a study. .*12 in STL-s0.*3 in ITW3",
        ),
        ("config_shape", {"STL-s1": [32, 32, 32]}, r"`shape` must be the same.*\[32, 32, 32\] in STL-s1"),
        ("config_itw_start", {"ITW3-s1": 0.7}, r"`itw_start` must be the same in every run of ITW3.*0.7 in ITW3-s1"),
    ],
)
def test_runs_of_other_cohorts_or_settings_are_refused(column, values, message):
    with pytest.raises(ValueError, match=message):
        tables.check_comparable(runs(**{column: values}))


def test_predictions_must_be_of_the_same_scans():
    frame = predictions()
    tables.check_predictions(frame)
    with_gap = frame.drop(frame[(frame["run"] == "MTL-s1") & (frame["scan"] == "s40")].index)
    without_test = frame[(frame["run"] != "STL-s0") | (frame["split"] == "validation")]
    other_target = frame.assign(target=frame["target"].mask((frame["run"] == "STL-s0") & (frame["scan"] == "s33"), 0.5))

    with pytest.raises(ValueError, match=r"Found 2 that not every run has, first s40 of test, copd, not in MTL-s1"):
        tables.check_predictions(with_gap)
    with pytest.raises(ValueError, match=r"Every run must predict test scans. Found none in STL-s0"):
        tables.check_predictions(without_test)
    with pytest.raises(ValueError, match=r"same target in every run. Found 1 that have not, first s33 of test"):
        tables.check_predictions(other_target)


def test_missing_runs_are_named_with_their_reason():
    frame = predictions(("STL",), (0,))
    found = tables.missing_runs(runs()[:2], frame, ["ITW3-s0"], experiments=["STL", "ITW3"], seeds=[0, 1])

    assert found.to_dict("records") == [
        {"run": "ITW3-s0", "reason": "not complete: no record.json"},
        {"run": "ITW3-s1", "reason": "not there"},
        {"run": "STL-s1", "reason": "no predictions.csv"},
    ]


def test_auc_table_keeps_the_papers_order_and_counts():
    found = tables.auc_table(predictions(), replicates=100, seed=0)

    assert found["experiment"].tolist() == ["STL", "MTL", "MTL", "ITW3", "ITW3"]
    assert found["task"].tolist() == ["lung_cancer", *TASKS, *TASKS]
    assert found.loc[1:2, ["n", "unknown", "n_seeds"]].to_numpy().tolist() == [[60, 0, 2], [56, 4, 2]]
    assert set(found["interval"]) == {"95 % seed and patient bootstrap"}
    assert (found["low"] < found["auc"]).all()


def test_auc_table_is_the_mean_over_seeds():
    frame = predictions()
    single = frame[(frame["experiment"] == "STL") & (frame["split"] == "test")]
    areas = [metrics.auc(run["target"], run["probability"]) for _, run in single.groupby("seed")]
    first = tables.auc_table(frame, replicates=100, seed=0).iloc[0]

    assert first["auc"] == pytest.approx(np.mean(areas))
    assert first["seed_sd"] == pytest.approx(np.std(areas, ddof=1))


def test_order_of_rows_does_not_matter():
    frame = predictions()

    pd.testing.assert_frame_equal(compared(frame), compared(frame.sample(frac=1, random_state=0)))


def test_task_with_one_class_is_counted_and_blank():
    frame = predictions()
    frame.loc[(frame["task"] == "copd") & (frame["split"] == "test"), "target"] = 0.0
    found = tables.auc_table(frame, replicates=100, seed=0).set_index(["experiment", "task"])
    per_run = tables.run_table(frame)

    assert np.isnan(found.loc[("MTL", "copd"), "auc"])
    assert found.loc[("MTL", "copd"), "positives"] == 0
    assert found["auc"].notna().sum() == 3
    assert per_run["brier"].isna().sum() == 4
    assert "one class only" in tables.format_table(found.reset_index())


def test_family_holds_every_pair_once():
    found = compared(predictions())

    assert found[["experiment", "reference"]].to_numpy().tolist() == [["MTL", "STL"], ["ITW3", "STL"], ["ITW3", "MTL"]]
    assert set(found["n_family"]) == {3}
    assert found["p_holm"].tolist() == pytest.approx(metrics.holm(found["p"]))
    assert found["mcnemar_p_holm"].tolist() == pytest.approx(metrics.holm(found["mcnemar_p"]))


def test_comparison_uses_the_seeds_that_both_have():
    frame = predictions(seeds=(0, 1, 2))
    frame = frame[frame["run"] != "STL-s1"]
    found = compared(frame)

    assert found["n_seeds"].tolist() == [2, 2, 3]
    assert compared(frame[(frame["experiment"] != "STL") | (frame["seed"] > 8)])["reference"].tolist() == ["MTL"]


def test_mcnemar_threshold_comes_from_validation_alone():
    frame = predictions(seeds=(0,))
    before = tables.run_table(frame)
    frame.loc[frame["split"] == "test", "target"] = 1 - frame.loc[frame["split"] == "test", "target"]

    assert tables.run_table(frame)["threshold"].tolist() == before["threshold"].tolist()
    frame.loc[frame["split"] == "validation", "probability"] /= 2
    assert tables.run_table(frame)["threshold"].tolist() == pytest.approx(before["threshold"] / 2)


def test_mcnemar_of_one_seed_is_the_same_in_both_tables():
    frame = predictions(seeds=(0,))
    columns = ["experiment", "reference", "experiment_only_right", "reference_only_right", "mcnemar_p"]
    by_seed = tables.seed_comparison_table(frame, references=["STL", "MTL"], task="lung_cancer")

    pd.testing.assert_frame_equal(by_seed[columns], compared(frame)[columns])
    assert set(by_seed["interval"]) == {"95 % paired DeLong"}


def test_no_reference_gives_an_empty_table_with_its_columns():
    found = compared(predictions(("MTL0",)))

    assert found.empty
    assert list(found.columns) == list(tables.COMPARISON_COLUMNS)


def test_published_table_shows_every_candidate_beside_the_papers_value():
    aucs = tables.auc_table(predictions(), replicates=100, seed=0)
    found = tables.published_table(aucs, task="lung_cancer").set_index("experiment")

    assert found["paper_auc"].unique().tolist() == [0.8080, 0.6720, 0.8402, 0.8462]
    assert found.loc["ITW3", "auc"] == aucs.set_index(["experiment", "task"]).loc[("ITW3", "lung_cancer"), "auc"]
    assert np.isnan(found.loc["MTL4", "auc"])


def test_seconds_are_means_over_seeds():
    frame = runs().assign(seconds_prepare=1.0, seconds_train=[80, 100, 90, 90], seconds_evaluate=9.0)
    found = tables.seconds_table(frame).set_index("experiment")

    assert found.loc["STL", ["train", "total", "total_min", "total_max"]].tolist() == [90, 100, 90, 110]
    assert found["train_share"].tolist() == [0.9, 0.9]


def test_printed_table_reads_the_same_from_its_csv(tmp_path):
    aucs = tables.auc_table(predictions(), replicates=100, seed=0)
    aucs.to_csv(tmp_path / "auc.csv", index=False, float_format="%.6g")
    text = tables.format_table(aucs)

    assert text == tables.format_table(pd.read_csv(tmp_path / "auc.csv"))
    assert text.splitlines()[0].split() == ["experiment", "lung", "cancer", "copd"]
    assert "mean over 2 seed(s)" in text
