"""Tables of the comparison from small made-up predictions."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lungmtl.comparison.aucs import auc_table, ensemble_table, run_table
from lungmtl.comparison.curves import reliability_table, roc_table
from lungmtl.comparison.differences import (
    COMPARISON_COLUMNS,
    comparison_table,
    ensemble_comparison_table,
    seed_comparison_table,
)
from lungmtl.comparison.printed import format_table, published_table, seconds_table
from lungmtl.comparison.screening import missing_runs, screen
from lungmtl.comparison.subgroups import subgroup_table
from lungmtl.comparison.uncertainty import POWER_SIZES, power_table, variance_table
from lungmtl.comparison.variants import selected_table
from lungmtl.evidence.areas import auc, compare_auc, delong_covariance
from lungmtl.evidence.decisions import holm
from lungmtl.experiments import in_order

TASKS = ("lung_cancer", "copd")
DRAWS = {"replicates": 200, "seed": 0}
CENTRAL = {"references": ["STL", "MTL"], "task": "lung_cancer"}
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


def compared(frame, **options):
    settings = {"references": ["STL", "MTL"], "task": "lung_cancer", "replicates": 100, "seed": 0} | options
    return comparison_table(frame, **settings)


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
    shuffled = [{"PFLP": {"shuffle_seed": seed}, "RLW": {"seed": seed}} for seed in frame["seed"]]

    assert screened(frame.assign(policy_settings=shuffled), of_runs) == (list(frame["run"]), [])


def test_a_run_that_draws_among_runs_that_do_not_is_left_out():
    frame, of_runs = study(seeds=(0, 1, 2))
    found, problems = screened(
        with_policies(frame, {"PFLP": {"shuffle_seed": None}}, MTL_s1={"PFLP": {"shuffle_seed": 1}}), of_runs
    )

    assert "MTL-s1" not in found
    assert problems[0] == (
        "MTL-s1",
        "`PFLP.shuffle_seed` must be the same in every run of MTL. Found a seed here and null in most.",
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
        (lambda f: f.replace({"scan": {"s40": "new"}}), "1 missing: s40 of test; 1 not theirs: new of test"),
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
            "copd needs 2 test patients with a positive scan and as many without. Found 0 and 60: "
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


def test_auc_table_keeps_the_papers_order_and_counts():
    found = auc_table(predictions(), replicates=100, seed=0)

    assert found["experiment"].tolist() == ["STL", "MTL", "MTL", "ITW3", "ITW3"]
    assert found["task"].tolist() == ["lung_cancer", *TASKS, *TASKS]
    assert found.loc[1:2, ["n", "unknown", "n_seeds"]].to_numpy().tolist() == [[60, 0, 2], [56, 4, 2]]
    assert set(found["interval"]) == {"95 % patient bootstrap and seed variance"}
    assert (found["low"] < found["auc"]).all()


def test_auc_table_is_the_mean_over_seeds():
    frame = predictions()
    single = frame[(frame["experiment"] == "STL") & (frame["split"] == "test")]
    areas = [auc(run["target"], run["probability"]) for _, run in single.groupby("seed")]
    first = auc_table(frame, replicates=100, seed=0).iloc[0]

    assert first["auc"] == pytest.approx(np.mean(areas))
    assert first["seed_sd"] == pytest.approx(np.std(areas, ddof=1))


def test_order_of_rows_does_not_matter():
    frame = predictions()

    pd.testing.assert_frame_equal(compared(frame), compared(frame.sample(frac=1, random_state=0)))


def test_task_with_one_class_is_counted_and_blank():
    frame = predictions()
    frame.loc[(frame["task"] == "copd") & (frame["split"] == "test"), "target"] = 0.0
    found = auc_table(frame, replicates=100, seed=0).set_index(["experiment", "task"])
    per_run = run_table(frame, replicates=100, seed=0)

    assert np.isnan(found.loc[("MTL", "copd"), "auc"])
    assert found.loc[("MTL", "copd"), "positives"] == 0
    assert found["auc"].notna().sum() == 3
    assert per_run["brier"].isna().sum() == 4
    assert "one class only" in format_table(found.reset_index())


def test_family_holds_every_pair_once():
    found = compared(predictions())

    assert found[["experiment", "reference"]].to_numpy().tolist() == [["MTL", "STL"], ["ITW3", "STL"], ["ITW3", "MTL"]]
    assert set(found["n_family"]) == {3}
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]))
    assert found["mcnemar_p_holm"].tolist() == pytest.approx(holm(found["mcnemar_p"]))


def test_comparison_uses_the_seeds_that_both_have():
    frame = predictions(seeds=(0, 1, 2))
    frame = frame[frame["run"] != "STL-s1"]
    found = compared(frame)

    assert found["n_seeds"].tolist() == [2, 2, 3]
    assert compared(frame[(frame["experiment"] != "STL") | (frame["seed"] > 8)])["reference"].tolist() == ["MTL"]


def test_mcnemar_threshold_comes_from_validation_alone():
    frame = predictions(seeds=(0,))
    before = run_table(frame, replicates=100, seed=0)
    frame.loc[frame["split"] == "test", "target"] = 1 - frame.loc[frame["split"] == "test", "target"]

    draws = {"replicates": 100, "seed": 0}
    assert run_table(frame, **draws)["threshold"].tolist() == before["threshold"].tolist()
    frame.loc[frame["split"] == "validation", "probability"] /= 2
    assert run_table(frame, **draws)["threshold"].tolist() == pytest.approx(before["threshold"] / 2)


def test_mcnemar_of_one_seed_is_the_same_in_both_tables():
    frame = predictions(seeds=(0,))
    columns = ["experiment", "reference", "experiment_only_right", "reference_only_right", "mcnemar_p"]
    by_seed = seed_comparison_table(frame, references=["STL", "MTL"], task="lung_cancer")

    pd.testing.assert_frame_equal(by_seed[columns], compared(frame)[columns])
    assert set(by_seed["interval"]) == {"95 % paired DeLong"}


def test_no_reference_gives_an_empty_table_with_its_columns():
    found = compared(predictions(("MTL0",)))

    assert found.empty
    assert list(found.columns) == list(COMPARISON_COLUMNS)


def test_published_table_shows_every_candidate_beside_the_papers_value():
    aucs = auc_table(predictions(), replicates=100, seed=0)
    found = published_table(aucs, task="lung_cancer").set_index("experiment")

    assert found["paper_auc"].unique().tolist() == [0.8080, 0.6720, 0.8402, 0.8462]
    assert found.loc["ITW3", "auc"] == aucs.set_index(["experiment", "task"]).loc[("ITW3", "lung_cancer"), "auc"]
    assert np.isnan(found.loc["MTL4", "auc"])


def test_seconds_are_means_over_seeds():
    frame = runs().assign(seconds_prepare=1.0, seconds_train=[80, 100, 90, 90], seconds_evaluate=9.0)
    found = seconds_table(frame).set_index("experiment")

    assert found.loc["STL", ["train", "total", "total_min", "total_max"]].tolist() == [90, 100, 90, 110]
    assert found["train_share"].tolist() == [0.9, 0.9]


def test_printed_table_reads_the_same_from_its_csv(tmp_path):
    aucs = auc_table(predictions(), replicates=100, seed=0)
    aucs.to_csv(tmp_path / "auc.csv", index=False, float_format="%.6g")
    text = format_table(aucs)

    assert text == format_table(pd.read_csv(tmp_path / "auc.csv"))
    assert text.splitlines()[0].split() == ["experiment", "lung", "cancer", "copd"]
    assert "mean over 2 seed(s)" in text


def central(frame, experiment, split="test"):
    """Targets (N,) and probabilities (S, N) of the central task."""
    rows = frame[(frame["experiment"] == experiment) & (frame["task"] == "lung_cancer") & (frame["split"] == split)]
    wide = rows.pivot_table(index="scan", columns="seed", values="probability")
    return rows.drop_duplicates("scan").set_index("scan")["target"][wide.index].to_numpy(), wide.to_numpy().T


def test_variants_stand_right_behind_their_base():
    names = ["ITW2.start0.8", "own.b", "STL", "ITW3", "ITW2", "ITW2.start0.5", "own", "MTL.aux0.3"]

    assert in_order(names) == [
        *("STL", "MTL.aux0.3", "ITW2", "ITW2.start0.5", "ITW2.start0.8", "ITW3", "own", "own.b"),
    ]


def test_every_interval_of_a_run_holds_its_value():
    found = run_table(predictions(), **DRAWS)
    names = [
        column.removesuffix("_low") for column in found.columns if column.endswith("_low") and column != "bootstrap_low"
    ]

    assert names == [
        *("average_precision", "brier", "calibration_slope", "calibration_intercept", "sensitivity_at_90"),
        *("sensitivity_at_95", "sensitivity", "specificity"),
    ]
    for name in names:
        assert ((found[f"{name}_low"] <= found[name]) & (found[name] <= found[f"{name}_high"])).all()
        assert (found[f"{name}_low"] < found[f"{name}_high"]).all()
    assert (found["bootstrap_low"] < found["auc"]).all()
    assert found["bootstrap_high"].to_numpy() == pytest.approx(found["high"].to_numpy(), abs=0.03)  # DeLong's


def test_comparison_adds_equivalence_over_the_same_family():
    found = compared(predictions(), margin=0.3)
    wide = compared(predictions(), margin=0.01)

    assert found["margin"].unique() == [0.3]
    assert found["equivalence_p_holm"].tolist() == pytest.approx(holm(found["equivalence_p"]))
    assert (found["equivalence_p"] < wide["equivalence_p"]).all()
    assert ((found["low"] < found["low_90"]) & (found["high_90"] < found["high"])).all()
    inside = (found["low_90"] > -0.3) & (found["high_90"] < 0.3)
    assert (inside == (found["equivalence_p"] < 0.05)).all()
    assert found["p"].to_numpy() == pytest.approx(
        2 * stats.t.sf(abs(found["difference"] / found["error"]), found["freedom"])
    )


def test_ensemble_is_the_mean_probability_over_seeds():
    frame = predictions(seeds=(0, 1, 2))
    found = ensemble_table(frame, task="lung_cancer", **DRAWS).set_index("experiment").loc["STL"]
    target, probability = central(frame, "STL")

    assert found["auc"] == pytest.approx(auc(target, probability.mean(axis=0)))
    assert found["mean_auc"] == pytest.approx(np.mean([auc(target, row) for row in probability]))
    assert found["interval"] == "95 % patient bootstrap"
    assert found[["n_seeds", "n", "unknown"]].tolist() == [3, 60, 0]


def test_ensembles_are_compared_with_delong_and_holm():
    frame = predictions(seeds=(0, 1, 2))
    found = ensemble_comparison_table(frame, **CENTRAL)
    target, a = central(frame, "ITW3")
    expected = compare_auc(target, a.mean(axis=0), central(frame, "STL")[1].mean(axis=0))

    assert found[["experiment", "reference"]].to_numpy().tolist() == [["MTL", "STL"], ["ITW3", "STL"], ["ITW3", "MTL"]]
    assert found.loc[1, ["difference", "low", "high", "p"]].tolist() == pytest.approx(expected[:4])
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]))
    assert found["n_family"].tolist() == [3, 3, 3]


def simulated(*, n=400, n_seeds=4, seed_sd=0.0, own_sd=0.5, effects=(1.0, 1.4), seed=0):
    """Two experiments on the same test scans, binormal."""
    generator = np.random.default_rng(seed)
    target = (np.arange(n) < n // 3).astype(float)
    shared = generator.normal(size=n)
    scan = [f"s{i:05d}" for i in range(n)]
    frames = []
    for experiment, effect in zip(("STL", "MTL"), effects, strict=True):
        for run_seed in range(n_seeds):
            shift = effect + seed_sd * generator.normal()
            logit = shift * target + shared + own_sd * generator.normal(size=n)
            columns = {"scan": scan, "patient": scan, "target": target, "probability": 1 / (1 + np.exp(-logit))}
            place = {"run": f"{experiment}-s{run_seed}", "experiment": experiment, "seed": run_seed}
            for split in ("validation", "test"):
                frames.append(pd.DataFrame(place | {"split": split, "task": "lung_cancer"} | columns))
    return pd.concat(frames, ignore_index=True)


def test_variance_of_seeds_and_of_scans_are_told_apart():
    frame = simulated(n=1500, n_seeds=6, seed_sd=0.3)
    found = variance_table(frame, **CENTRAL, **DRAWS).set_index(["experiment", "reference"])
    target, probability = central(frame, "STL")
    areas = [auc(target, row) for row in probability]
    covariance = delong_covariance(target, probability)[1]
    row = found.loc["STL", ""]

    assert list(found.index) == [("STL", ""), ("MTL", ""), ("MTL", "STL")]
    assert row["seed_variance"] == pytest.approx(np.var(areas, ddof=1) / 6)
    assert row["seed_sd"] == pytest.approx(np.std(areas, ddof=1))
    assert row["patient_variance"] == pytest.approx(
        covariance[~np.eye(6, dtype=bool)].mean(), rel=0.3
    )  # 200 replicates
    assert row["total_variance"] == pytest.approx(row["seed_variance"] + row["patient_variance"])
    assert row["seed_share"] == pytest.approx(row["seed_variance"] / row["total_variance"])
    # the seeds' shifts vary by 0.3: the AUC by 0.3 times its slope
    slope = stats.norm.pdf(1 / np.sqrt(2.5)) / np.sqrt(2.5)
    assert row["seed_sd"] == pytest.approx(0.3 * slope, rel=0.8)  # six seeds leave 32 %


def test_variance_of_one_seed_has_no_seed_part():
    row = variance_table(simulated(n_seeds=1), **CENTRAL, **DRAWS).iloc[0]

    assert np.isnan(row["seed_variance"])
    assert row["patient_variance"] > 0


def test_detectable_difference_shrinks_with_the_root_of_the_scans_for_given_networks():
    found = power_table(simulated(seed_sd=0.3), **CENTRAL, sizes=[100, 400])
    one = found[(found["n_seeds"] == 1) & (found["source"] == "this study")].set_index("n")

    assert one.loc[100, "detectable"] == pytest.approx(2 * one.loc[400, "detectable"])
    assert one.loc[100, "detectable"] == pytest.approx(2.80159 * one.loc[100, "error"], rel=1e-4)
    assert one.loc[100, "positives"] == pytest.approx(33.25)
    assert 0.5 < one.loc[100, "correlation"] < 0.95


def test_detectable_difference_over_seeds_levels_off():
    found = power_table(simulated(seed_sd=0.3), **CENTRAL, sizes=[400, 10**7])
    over_seeds = found[(found["n_seeds"] == 4) & (found["source"] == "this study")].set_index("n")
    variance = variance_table(simulated(seed_sd=0.3), **CENTRAL, replicates=4000, seed=0).iloc[-1]
    alone = variance["seed_variance"] - variance["interaction_variance"]

    assert over_seeds.loc[10**7, "error"] == pytest.approx(np.sqrt(alone), rel=0.05)
    assert over_seeds.loc[400, "error"] == pytest.approx(np.sqrt(variance["total_variance"]), rel=0.05)


def test_power_names_the_papers_scans_and_this_studys():
    found = power_table(simulated(), **CENTRAL)

    assert set(found.loc[found["source"] == "paper's n", "n"]) == {592}
    assert set(POWER_SIZES) | {400} == set(found.loc[found["source"] == "this study", "n"])


def test_the_detectable_difference_is_found_in_four_of_five_studies():
    n, base = 200, 1.0
    planned = power_table(simulated(n=6000, n_seeds=1, effects=(base, 1.3)), **CENTRAL, sizes=[n])
    detectable = planned.loc[planned["n"] == n, "detectable"].item()
    other = np.sqrt(2.5) * stats.norm.ppf(stats.norm.cdf(base / np.sqrt(2.5)) + detectable)
    generator, found = np.random.default_rng(1), 0
    for _ in range(600):
        target = (np.arange(n) < n // 3).astype(float)
        logit = np.outer([base, other], target) + generator.normal(size=n) + 0.5 * generator.normal(size=(2, n))
        found += compare_auc(target, *1 / (1 + np.exp(-logit))).p < 0.05

    assert found / 600 == pytest.approx(0.8, abs=0.06)  # 600 studies leave 0.016, the variance of one study the rest


def attributes(frame, **columns):
    scans = sorted(frame["scan"].unique())
    return pd.DataFrame({"scan": scans} | {name: values(scans) for name, values in columns.items()})


def subgroups(frame, table):
    found = subgroup_table(frame, table, **CENTRAL, **DRAWS)
    return found.set_index(["attribute", "subgroup", "experiment", "reference"])


def test_subgroups_are_cut_at_the_median_of_the_test_scans():
    frame = predictions()
    table = attributes(frame, noise_hu=lambda scans: np.arange(len(scans), dtype=float))
    found = subgroups(frame, table)
    target, probability = central(frame, "ITW3")

    low = found.loc["noise_hu", "at most 59.5", "ITW3", ""]  # test scans are 30 to 89
    assert low["value"] == pytest.approx(np.mean([auc(target[:30], row[:30]) for row in probability]))
    assert low[["n", "positives", "n_seeds"]].tolist() == [30, target[:30].sum(), 2]
    high = found.loc["noise_hu", "above 59.5", "ITW3", "STL"]
    gap = [auc(target[30:], row[30:]) for row in np.vstack([probability, central(frame, "STL")[1]])]
    assert high["value"] == pytest.approx(np.mean(gap[:2]) - np.mean(gap[2:]))
    assert high["low"] < high["value"] < high["high"]


def test_what_only_positives_have_is_set_against_all_negatives():
    frame = predictions()
    target = pd.Series(frame.drop_duplicates("scan").set_index("scan")["target"])
    table = attributes(frame, diameter_mm=lambda scans: np.where(target[scans] == 1, np.arange(len(scans)), np.nan))
    found = subgroups(frame, table).loc["diameter_mm"]
    positives = int(central(frame, "STL")[0].sum())

    names = found.index.get_level_values("subgroup").unique()
    assert all(name.endswith("against all negatives") for name in names)
    assert set(found["n"] - found["positives"]) == {60 - positives}
    assert sum(found.loc[name]["positives"].iloc[0] for name in names) == positives


def test_auxiliary_diagnoses_and_labels_make_subgroups_too():
    frame = predictions()
    table = attributes(frame, scanner=lambda scans: ["a", "b", "c"] * 30, kernel=lambda scans: [1, 2] * 45)
    table["contrast"] = [True, None, False] * 30
    found = subgroups(frame, table)

    assert found.index.to_frame(index=False).drop_duplicates(["attribute", "subgroup"]).iloc[
        :, :2
    ].to_numpy().tolist() == [
        *(["scanner", name] for name in "abc"),
        *(["kernel", name] for name in "12"),
        *(["contrast", name] for name in ("no", "yes")),
        *(["copd", name] for name in ("yes", "no")),
    ]
    copd = frame[(frame["task"] == "copd") & (frame["run"] == "MTL-s0") & (frame["split"] == "test")]["target"]
    assert found.loc["copd", "yes", "STL", ""]["n"] == copd.sum()
    assert found.loc["copd", "no", "STL", ""]["n"] == (copd == 0).sum()


def test_a_subgroup_with_too_few_scans_is_blank_and_counted():
    frame = predictions()
    table = attributes(frame, rare=lambda scans: ["yes"] * 31 + ["no"] * 59)
    row = subgroups(frame, table).loc["rare", "yes", "ITW3", "STL"]

    assert np.isnan(row["value"])
    assert row["n"] == 1


def test_attributes_must_name_a_scan_once():
    table = pd.DataFrame({"scan": ["s33", "s33"], "noise_hu": [1.0, 2.0]})

    with pytest.raises(ValueError, match=r"one row per scan. Found two of s33"):
        subgroup_table(predictions(), table, **CENTRAL, **DRAWS)


def test_reliability_counts_every_scan_once_per_bin():
    found = reliability_table(predictions(), task="lung_cancer").groupby("experiment", sort=False)

    assert list(found.groups) == ["STL", "MTL", "ITW3"]
    assert found.size().tolist() == [10, 10, 10]
    for _, bins in found:
        assert bins["predicted"].is_monotonic_increasing
        assert (bins["n_effective"] <= bins["n"]).all()
        assert ((bins["low"] <= bins["observed"]) & (bins["observed"] <= bins["high"])).all()


def with_variants(frame, *names):
    """Copies of MTL under other names."""
    copies = [frame[frame["experiment"] == "MTL"].assign(experiment=name) for name in names]
    return pd.concat(
        [frame, *(copy.assign(run=copy["run"].str.replace("MTL", copy["experiment"].iloc[0])) for copy in copies)]
    )


def test_a_variant_is_chosen_on_validation_scans_alone():
    frame = with_variants(predictions(), "MTL.a", "MTL.b")
    validation = frame["split"] == "validation"
    better = (frame["experiment"] == "MTL.b") & validation & (frame["target"] == 1)
    frame["probability"] = frame["probability"].mask(better, 0.99)
    ruined = (frame["experiment"] == "MTL.b") & ~validation
    frame["probability"] = frame["probability"].mask(ruined, 1 - frame["probability"])
    found = selected_table(frame, references=["STL", "MTL"], task="lung_cancer", **DRAWS)

    assert found[["group", "experiment", "reference", "n_candidates"]].to_numpy().tolist() == [
        ["MTL", "MTL.b", "STL", 3],
        ["MTL", "MTL.b", "MTL", 3],
    ]
    target, probability = central(frame, "MTL.b")
    assert found.loc[0, "test_auc"] == pytest.approx(np.mean([auc(target, row) for row in probability]))
    assert found.loc[0, "validation_auc"] == 1
    pairs = compared(frame).set_index(["experiment", "reference"])
    assert found.loc[0, "difference"] == pytest.approx(pairs.loc[("MTL.b", "STL"), "difference"])
    assert found["p_holm"].tolist() == pytest.approx(holm(found["p"]))


def test_the_first_of_equal_variants_is_chosen_and_not_compared_with_itself():
    found = selected_table(with_variants(predictions(), "MTL.a"), references=["MTL"], task="lung_cancer", **DRAWS)

    assert found[["experiment", "reference"]].to_numpy().tolist() == [["MTL", ""]]
    assert np.isnan(found.loc[0, "difference"])


def test_without_variants_nothing_is_selected():
    assert selected_table(predictions(), **CENTRAL, **DRAWS).empty


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (lambda frame: run_table(frame[frame["task"] == "lung_cancer"], **DRAWS), "brier"),
        (lambda frame: ensemble_table(frame, task="lung_cancer", **DRAWS), "auc"),
        (lambda frame: ensemble_comparison_table(frame, **CENTRAL), "p_holm"),
        (lambda frame: compared(frame), "equivalence_p_holm"),
        (lambda frame: variance_table(frame, **CENTRAL, **DRAWS), "patient_variance"),
        (lambda frame: power_table(frame, **CENTRAL, sizes=[100]), "detectable"),
        (lambda frame: reliability_table(frame, task="lung_cancer"), "observed"),
        (lambda frame: roc_table(frame, task="lung_cancer"), "sensitivity"),
        (lambda frame: seed_comparison_table(frame, **CENTRAL), "p"),
        (lambda frame: selected_table(with_variants(frame, "MTL.a"), **CENTRAL, **DRAWS), "test_auc"),
        (lambda frame: subgroup_table(frame, attributes(frame), **CENTRAL, **DRAWS), "value"),
    ],
)
def test_a_table_of_a_task_with_one_class_is_blank_or_empty(table, column):
    frame = predictions()
    full = table(frame)
    frame.loc[(frame["task"] == "lung_cancer") & (frame["split"] == "test"), "target"] = 0.0
    blank = table(frame)

    assert full[column].notna().any()
    assert list(blank.columns) == list(full.columns)
    assert blank[column].isna().all()
