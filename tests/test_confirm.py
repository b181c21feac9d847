"""Confirmatory contrasts, failing seeds, the mixed model with known errors, and the signs that the map foretells."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import predictions
from scipy import stats

from lungmtl.comparison.confirm import confirm_table, failures_table, joint_table, mixed_table
from lungmtl.comparison.differences import comparison_table
from lungmtl.comparison.learning import LEARNT_LOW, learning_table, learnt_table
from lungmtl.evidence import Areas, allowing_difference, allowing_mean, fit_mixed, mean_difference
from lungmtl.report import alike, budget, contrasts, failing_seeds, protocol
from lungmtl.study.config import read_params
from lungmtl.when import foretold_table

ROOT = Path(__file__).parents[1]
DRAWS = {"task": "lung_cancer", "replicates": 100, "seed": 0}
TARGET = np.repeat([0.0, 1.0], 200)


def learnt(frame: pd.DataFrame, *failed: str) -> pd.DataFrame:
    """All runs learnt but those named."""
    runs = frame[["run", "experiment", "seed"]].drop_duplicates()
    return runs.assign(learnt=np.where(runs["run"].isin(failed), "no", "yes"))


def test_holm_runs_over_the_contrasts_alone_and_a_missing_side_is_blank():
    frame = predictions(("ITW3", "MTL", "STL"))
    asked = [["a", "MTL", "STL"], ["b", "ITW3", "MTL"], ["c", "ITW3", "STL-wave"]]
    found = confirm_table(frame, asked, learnt(frame), **DRAWS)
    same = comparison_table(frame, references=["STL", "MTL"], **DRAWS).set_index(["experiment", "reference"])

    assert found["p"][:2].tolist() == [same.loc[pair, "p"] for pair in (("MTL", "STL"), ("ITW3", "MTL"))]
    least, most = sorted(found["p"][:2])
    assert sorted(found["p_holm"][:2]) == [pytest.approx(min(2 * least, 1)), pytest.approx(max(2 * least, most))]
    assert found["n_family"].tolist() == [2, 2, 2]
    assert found.loc[2, ["difference", "p_holm"]].isna().all()
    assert found["verdict"].tolist()[2] == ""


def test_validation_scans_choose_among_a_list():
    frame = predictions(("ITW3", "MTL", "STL"))
    better = (frame["experiment"] == "MTL") & (frame["split"] == "validation")
    frame["probability"] = frame["probability"].mask(better, 0.5 * frame["probability"] + 0.5 * frame["target"])
    row = confirm_table(frame, [["a", ["ITW3", "MTL"], "STL"]], learnt(frame), **DRAWS).iloc[0]
    lacking = confirm_table(frame, [["a", ["ITW3", "ITW1"], "STL"]], learnt(frame), **DRAWS).iloc[0]

    assert (row["experiment"], row["n_candidates"]) == ("MTL", 2)
    assert lacking["experiment"] == "ITW3"


def test_a_star_stands_for_an_experiment_and_its_variants():
    frame = predictions(("MTL", "MTL.aux1", "MTL2", "STL"))
    better = frame["experiment"].isin(["MTL.aux1", "MTL2"]) & (frame["split"] == "validation")
    frame["probability"] = frame["probability"].mask(better, 0.5 * frame["probability"] + 0.5 * frame["target"])
    row = confirm_table(frame, [["tuned", "STL.*", "MTL.*"]], learnt(frame), **DRAWS).iloc[0]
    assert (row["experiment"], row["reference"], row["n_candidates"]) == ("STL", "MTL.aux1", 2)


def test_a_run_that_failed_gives_its_contrast_the_interval_that_allows_for_it():
    frame = predictions(("MTL", "STL"), (0, 1, 2, 3))
    asked = [["sharing", "MTL", "STL"]]
    plain, other = (confirm_table(frame, asked, learnt(frame, *names), **DRAWS).iloc[0] for names in ((), ("MTL-s1",)))

    assert (plain["n_failed"], other["n_failed"]) == (0, 1)
    assert other[["low", "high"]].tolist() == other[["any_low", "any_high"]].tolist()
    assert plain["any_low"] < plain["low"] < plain["high"] < plain["any_high"]


def areas(*values: float) -> Areas:
    """Runs that hardly differ between draws."""
    generator = np.random.default_rng(0)
    return Areas(np.array(values), np.array(values)[:, None] + 1e-5 * generator.normal(size=(len(values), 200)))


def test_with_no_failure_the_lower_limit_follows_from_what_so_few_seeds_leave_open():
    five = areas(0.90, 0.90, 0.90, 0.90, 0.90)
    found = allowing_mean(TARGET, five, np.ones(5, dtype=bool), bound=LEARNT_LOW)
    share = stats.beta(0.5, 5.5).ppf(0.975)  # of trainings that fail, at most

    assert found.low == pytest.approx(0.9 - share * (0.9 - 0.575), abs=0.03)  # a failed one lies from 0.5 to 0.65
    assert found.high == pytest.approx(0.9, abs=0.001)
    many = allowing_mean(TARGET, areas(*[0.9] * 400), np.ones(400, dtype=bool), bound=LEARNT_LOW)
    assert many.low == pytest.approx(0.9, abs=0.004)


def test_intervals_that_allow_for_failures_know_their_share_better_than_the_ordinary_ones_and_turn_with_the_sides():
    a, b = areas(0.9, 0.89, 0.55, 0.91), areas(0.8, 0.81, 0.8, 0.82)
    flags = np.array([True, True, False, True]), np.ones(4, dtype=bool)
    found, turned = (
        allowing_difference(*sides, bound=LEARNT_LOW) for sides in ((a, b, *flags), (b, a, *reversed(flags)))
    )
    plain = mean_difference(a, b)

    assert found.difference == plain.difference == pytest.approx(0.005)
    assert plain.low < found.low < found.difference < found.high < plain.high  # these take the failure for spread
    assert [-turned.high, -turned.low] == pytest.approx([found.low, found.high], abs=0.02)
    none = allowing_mean(TARGET, areas(0.5, 0.52, 0.55), np.zeros(3, dtype=bool), bound=LEARNT_LOW)
    assert none.high > 0.65  # a training that learns was not seen and may exist
    assert none.low == pytest.approx(0.52, abs=0.06)


def test_share_that_learns_stands_next_to_the_mean():
    frame = predictions(("STL",), (0, 1, 2, 3, 4))
    row = failures_table(frame, learnt(frame, "STL-s2"), **DRAWS).iloc[0]

    assert row[["n_seeds", "n_learnt", "share"]].tolist() == [5, 4, 0.8]
    assert row[["share_low", "share_high"]].tolist() == pytest.approx([0.3755, 0.9638], abs=1e-4)  # Wilson, 4 of 5
    assert row["any_low"] <= row["low"] < row["auc"]


def test_mixed_model_without_known_errors_is_the_analysis_of_variance():
    values = np.array([1.0, 3.0, 6.0, 8.0, 2.0, 4.0])  # sets of two: means 2, 7, 3
    fit = fit_mixed(values, np.ones((6, 1)), known=np.zeros((6, 6)), groups=[0, 0, 1, 1, 2, 2])

    assert fit.coefficients == pytest.approx([4.0])
    assert (fit.rest, fit.between) == (pytest.approx(2.0, rel=1e-3), pytest.approx(6.0, rel=1e-3))  # 14 / 2 less 2 / 2
    assert fit.covariance[0, 0] == pytest.approx(7 / 3, rel=1e-3)


def test_mixed_model_weighs_by_known_errors_where_nothing_else_differs():
    values, errors = np.array([0.1, 0.1004, 0.0998]), np.array([0.1, 0.2, 0.4])
    fit = fit_mixed(values, np.ones((3, 1)), known=np.diag(errors**2))

    assert fit.coefficients[0] == pytest.approx(np.average(values, weights=errors**-2.0), abs=1e-6)
    assert fit.covariance[0, 0] == pytest.approx(1 / np.sum(errors**-2.0), rel=1e-4)
    with pytest.raises(ValueError, match="more values than terms"):
        fit_mixed(values[:1], np.ones((1, 1)), known=np.eye(1))


def test_mixed_table_has_about_the_mean_logit_difference_of_every_contrast():
    frame = predictions(("ITW3", "MTL", "STL"), (0, 1, 2))
    confirmed = confirm_table(frame, [["a", "MTL", "STL"], ["b", "ITW3", "MTL"]], learnt(frame), **DRAWS)
    found = mixed_table(frame, confirmed, task="lung_cancer")
    auc = learnt_table(frame, task="lung_cancer").set_index(["experiment", "seed"])["auc"]
    logit = np.log(auc / (1 - auc)).groupby("experiment").mean()

    means = np.array([logit["MTL"] - logit["STL"], logit["ITW3"] - logit["MTL"]])

    assert found["difference"].to_numpy() == pytest.approx(means, abs=0.1)  # runs weigh by DeLong's error
    assert ((found["low"] < means) & (means < found["high"])).all()
    assert mixed_table(predictions(("MTL", "STL"), (0,)), confirmed[:1], task="lung_cancer").empty


def test_two_studies_in_one_model_have_the_mean_of_their_differences_and_what_relatedness_changes():
    asked = [["a", "MTL", "STL"], ["b", "ITW3", "MTL"]]
    frame = predictions(("ITW3", "MTL", "STL"), (0, 1, 2, 3))
    better = frame.assign(
        probability=frame["probability"].where(frame["experiment"] == "ITW3", frame["probability"] ** 2)
    )
    better["probability"] += 0.2 * better["target"].fillna(0) * (better["experiment"] == "MTL")
    better["probability"] = better["probability"].clip(0, 1)
    studies = [
        (one, confirm_table(one, asked, learnt(one), **DRAWS), level) for one, level in ((frame, 0.0), (better, 0.5))
    ]
    found = joint_table(studies, task="lung_cancer")
    each = [mixed_table(one, confirmed, task="lung_cancer")["difference"].to_numpy() for one, confirmed, _ in studies]

    assert found["question"].tolist() == ["a", "b"]
    assert found["difference"].to_numpy() == pytest.approx((each[0] + each[1]) / 2, abs=0.05)  # shared variances weigh
    assert found["change"].to_numpy() == pytest.approx((each[1] - each[0]) / 0.5, abs=0.2)
    assert found["n_sets"].tolist() == [8, 8]
    assert found["change"][0] > 0.5
    assert joint_table([studies[0], studies[0]], task="lung_cancer").empty  # relatedness does not vary


def map_of(difference) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of a map whose logit differences are a function of relatedness and the logarithm of steps."""
    cells = pd.MultiIndex.from_product([[0, 1 / 3, 1], [160, 640, 2560], [800, 2400, 7200]])
    cells = cells.to_frame(index=False, name=["relatedness", "n_scans", "n_steps"]).assign(arm="")
    logit = difference(cells["relatedness"], np.log(cells["n_steps"] / 2400))
    aucs = {"STL.focus": 1 / (1 + np.exp(-1.0)) + 0 * logit, "ITW2": 1 / (1 + np.exp(-1 - logit))}
    experiments = pd.concat([cells.assign(experiment=name, auc=auc) for name, auc in aucs.items()])
    middle = aucs["ITW2"] - aucs["STL.focus"]
    limits = {"difference": middle, "low": middle - 0.01, "high": middle + 0.01}
    return experiments, cells.assign(experiment="ITW2", reference="STL.focus", n_seeds=16, **limits)


def test_the_map_foretells_what_its_cells_say_under_the_names_of_the_study():
    tables = map_of(lambda related, steps: 0.4 * related + 0.1 * steps - 0.2)
    found = pd.DataFrame({"experiment": ["ITW2", "MTL"], "reference": ["STL-wave", "STL"], "difference": 0.05})
    found = found.assign(error=0.025, freedom=3.0, n_candidates=0)
    place = {"relatedness": 1.0, "n_scans": 640, "n_steps": 2400}
    row = foretold_table(found, place, *tables)
    below = foretold_table(found, place | {"relatedness": 0.0, "n_steps": 100}, *tables).iloc[0]

    assert row["reference"].tolist() == ["STL-wave"]  # the map has no MTL
    row = row.iloc[0]
    assert row["foretold"] == pytest.approx(0.2, abs=1e-3)
    assert (row["agree"], row["on_map"]) == ("yes", "yes")
    assert row["found_higher"] == pytest.approx(stats.t.cdf(2, 3))
    assert row["foretold_higher"] > 0.999
    assert (below["agree"], below["on_map"]) == ("no", "no")
    assert below["foretold_higher"] < 0.01


def test_the_committed_study_is_not_flat_and_warns_of_its_failing_seeds():
    tables = ROOT / "results" / "phantom-full" / "tables"
    learning, runs = (pd.read_csv(tables / f"{name}.csv") for name in ("learning", "learnt"))
    curves = pd.read_csv(tables / "learning_curves.csv")
    found = learning_table(runs, curves[curves["task"] == "lung_cancer"])
    share = runs.groupby("experiment")["learnt"].agg(n_seeds="size", n_learnt=lambda words: (words == "yes").sum())
    simulated = pd.read_csv(ROOT / "results" / "coverage" / "tables" / "coverage.csv")

    assert found["is_flat"].tolist() == learning["is_flat"].tolist()
    assert budget(found, flat_rise=0.002).startswith("**Not flat**: in all ten experiments")
    assert "most in ITW3 (0.047 per epoch)" in budget(found, flat_rise=0.002)
    said = failing_seeds(share.reset_index(), simulated)
    assert said.startswith("**Warning: 10 of 50 runs did not learn** (MTL2 1 of 5, MTL3 4 of 5, MTL4 5 of 5).")
    assert "In simulated studies of 5 seeds, some of which do not learn, 95 % intervals cover 71 to" in said
    assert "(**too narrow" in said
    assert "are too narrow there" in failing_seeds(share.reset_index(), None)


def test_a_flat_budget_and_seeds_that_all_learnt_are_said_so():
    flat = pd.DataFrame({"experiment": ["STL"], "is_flat": "yes", "rise": 0.001, "n_epochs": 40})
    assert budget(flat, flat_rise=0.002).startswith("**Flat**: in the one experiment the median")
    assert budget(flat.assign(is_flat=""), flat_rise=0.002).startswith("**Not known")
    share = pd.DataFrame({"experiment": ["STL"], "n_seeds": 5, "n_learnt": 5, "share_low": 0.5655})
    assert failing_seeds(share, None).startswith("All 5 runs learnt; with so few seeds, up to 43 %")
    one = share.head(1).assign(n_seeds=1, n_learnt=1)
    assert failing_seeds(one, None).startswith("The one run learnt;")
    assert failing_seeds(one.assign(n_learnt=0), None).startswith("**Warning: 1 of 1 run did not learn** (")


def test_the_protocol_sets_every_tuned_policy_against_the_tuned_static_weight():
    asked = contrasts((ROOT / "params" / "protocol.md").read_text(encoding="utf-8"), "tuned")
    experiments = read_params(ROOT / "params" / "tuned.yaml")["experiments"]
    assert asked == [["tuned", name, "MTL.*"] for name in experiments if name != "MTL.*"]


@pytest.mark.parametrize("study", ["confirm-unrelated", "confirm-related"])
def test_the_protocol_fixes_contrasts_between_experiments_of_the_study(study):
    text = (ROOT / "params" / "protocol.md").read_text(encoding="utf-8")
    params = read_params(ROOT / "params" / f"{study}.yaml")
    asked = contrasts(text, study)
    names = {name for _, *sides in asked for side in sides for name in ([side] if isinstance(side, str) else side)}

    assert len(asked) == 7
    assert names == set(params["experiments"])
    assert len(set(params["seeds"])) == params["training_sets"] == 4
    assert "contrasts: sharing, MTL, STL; focus, MTL2, MTL2-mean" in protocol(text, study)
    assert alike(text, study) == [{"confirm-related", "confirm-unrelated"}.difference({study}).pop()]
    assert alike(text, "phantom-full") == []
    assert contrasts(text, "phantom-full") == contrasts(text, "unknown") == []
    with pytest.raises(ValueError, match=r"must be \[question"):
        contrasts("---\nstudies: {a: {contrasts: [[MTL, STL]]}}\n---\n", "a")
