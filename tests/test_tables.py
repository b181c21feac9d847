"""Tables of the comparison from small made-up predictions."""

import numpy as np
import pandas as pd
import pytest
from made_up import TASKS, predictions
from scipy import stats

from lungmtl.comparison.aucs import auc_table, ensemble_table, reliability_table, roc_table, run_table
from lungmtl.comparison.differences import (
    COMPARISON_COLUMNS,
    comparison_table,
    ensemble_comparison_table,
    seed_comparison_table,
    verdicts,
)
from lungmtl.comparison.printed import format_result, format_table, published_table, result_table, seconds_table
from lungmtl.comparison.scans import bootstrapped, of_task
from lungmtl.comparison.subgroups import subgroup_table
from lungmtl.comparison.uncertainty import POWER_SIZES, power_table, variance_table
from lungmtl.comparison.variants import selected_table
from lungmtl.evidence.areas import auc, compare_auc, delong_covariance
from lungmtl.evidence.decisions import holm
from lungmtl.experiments import in_order

DRAWS = {"replicates": 200, "seed": 0}
CENTRAL = {"references": ["STL", "MTL"], "task": "lung_cancer"}


def compared(frame, **options):
    settings = {"references": ["STL", "MTL"], "task": "lung_cancer", "replicates": 100, "seed": 0} | options
    return comparison_table(frame, **settings)


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
    frame = pd.DataFrame({"experiment": ["STL", "STL", "ITW3", "ITW3"], "seconds_train": [80, 100, 90, 90]})
    frame = frame.assign(seconds_prepare=1.0, seconds_evaluate=9.0)
    found = seconds_table(frame).set_index("experiment")

    assert found.loc["STL", ["train", "total", "total_min", "total_max"]].tolist() == [90, 100, 90, 110]
    assert found["train_share"].tolist() == [0.9, 0.9]


def test_printed_table_reads_the_same_from_its_csv(tmp_path):
    aucs = auc_table(predictions(), replicates=100, seed=0)
    aucs.to_csv(tmp_path / "auc.csv", index=False, float_format="%.6g")
    text = format_table(aucs)

    assert text == format_table(pd.read_csv(tmp_path / "auc.csv"))
    assert text.splitlines()[0].split() == ["experiment", "lung", "cancer", "COPD"]
    assert "mean over 2 seeds." in text


def test_result_table_has_the_verdict_next_to_each_difference():
    frame = predictions()
    comparisons = compared(frame)
    comparisons["verdict"] = verdicts(comparisons)
    found = result_table(auc_table(frame, **DRAWS), comparisons).set_index("experiment")

    assert list(found.columns) == ["test AUC", "minus STL", "against STL", "minus MTL", "against MTL"]
    assert found.loc["STL"].tolist()[1:] == ["", "", "", ""]
    row = comparisons.set_index(["experiment", "reference"]).loc[("ITW3", "MTL")]
    assert found.loc["ITW3", "minus MTL"] == f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    assert found.loc["ITW3", "against MTL"] == row["verdict"]


def test_printed_result_holds_the_first_reference_alone():
    frame = predictions(seeds=(0,))
    comparisons = compared(frame).assign(verdict="lower")
    text = format_result(auc_table(frame, **DRAWS), comparisons)

    assert "minus STL" in text
    assert "minus MTL" not in text
    assert "mean over 1 seed." in text


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


@pytest.mark.parametrize(
    ("difference", "p_holm", "equivalence_p_holm", "verdict"),
    [
        (0.03, 0.049, 0.9, "higher"),
        (-0.03, 0.049, 0.9, "lower"),
        (0.001, 0.6, 0.049, "equivalent within 0.02"),
        (-0.01, 0.001, 0.001, "lower, equivalent within 0.02"),
        (0.03, 0.051, 0.9, "not settled"),
        (0.001, 0.6, 0.051, "not settled"),
        (np.nan, np.nan, np.nan, ""),
    ],
)
def test_verdict_comes_from_the_adjusted_p_values(difference, p_holm, equivalence_p_holm, verdict):
    row = {"difference": [difference], "p_holm": p_holm, "equivalence_p_holm": equivalence_p_holm, "margin": 0.02}

    assert list(verdicts(pd.DataFrame(row))) == [verdict]


def test_no_comparison_has_no_verdict():
    assert verdicts(compared(predictions()).iloc[:0]).empty


def test_scans_of_some_seeds_keep_their_draws():
    scans = bootstrapped(of_task(predictions(seeds=(3, 5)), "test", "lung_cancer"), 100, 0)["STL"]
    one = scans.of([5])

    assert (one.seeds, one.areas.value) == ([5], scans.areas.value[1])
    assert (one.areas.draws == scans.areas.draws[1]).all()


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
