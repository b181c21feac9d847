"""The README's numbers are those of the committed tables, and what it names exists."""

import re
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import conclusion
from lungmtl import report
from lungmtl.study import collect
from lungmtl.words import shown_difference

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
TABLES = PROJECT / "results" / "phantom-full" / "tables"


def test_the_result_table_is_that_of_the_reference_study():
    policies = report.policies(collect(TABLES.parent).runs)
    aucs, comparisons = (pd.read_csv(TABLES / f"{name}.csv") for name in ("auc", "comparisons"))
    central = aucs[aucs["task"] == aucs["task"].iloc[0]].set_index("experiment")
    rows = {name: [name, policies[name], _cell(one, "auc", ".2f")] for name, one in central.iterrows()}
    for _, of_reference in comparisons.groupby("reference", sort=False):
        of_experiment = of_reference.set_index("experiment")
        for name, row in rows.items():
            one = of_experiment.loc[name] if name in of_experiment.index else None
            row.append("" if one is None else f"{_cell(one, 'difference', '+.3f')}, p {one['p_holm']:.2g}")
    assert "\n".join(f"| {' | '.join(row)} |" for row in rows.values()) in README


def _cell(row, value, form):
    return f"{row[value]:{form}} [{row['low']:{form}}, {row['high']:{form}}]"


def test_the_answer_is_that_of_the_reference_study():
    assert f"**{report.answer(pd.read_csv(TABLES / 'comparisons.csv'), task='lung_cancer')}**" in README


def test_the_gains_of_the_final_stage_and_the_limits_are_those_of_the_tables():
    parts = pd.read_csv(TABLES / "parts.csv").set_index(["experiment", "reference"])
    for pair in (("ITW2", "MTL2"), ("ITW3", "MTL3"), ("ITW1", "MTL")):
        row = parts.loc[pair]
        assert f"{row['difference']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" in README
    learning = pd.read_csv(TABLES / "learning.csv")
    assert (learning["is_flat"] == "no").all()
    assert "all ten after ten; longer trainings may answer otherwise" in README
    assert learning["n_seeds"].sum() - learning["n_learnt"].sum() == 10
    assert "ten of 50 did not learn" in README
    assert f"{learning['ceiling'].max():.3f}" in README


def test_the_first_screen_says_what_the_confirmatory_study_settled():
    tables = PROJECT / "results" / "confirm-related" / "tables"
    confirm, learning = (pd.read_csv(tables / f"{name}.csv") for name in ("confirm", "learning"))
    tuned = shown_difference(confirm.set_index("question").loc["tuned weights"])

    assert "**Of seven contrasts fixed beforehand none is settled**" in report.confirmed(confirm, budget="")
    assert "**of seven contrasts fixed beforehand none is settled**, every interval includes 0." in README
    assert ((confirm["low"] < 0) & (confirm["high"] > 0)).all()
    assert f"gains {tuned} of test AUC" in README
    assert (len(learning), (learning["is_flat"] == "no").sum()) == (11, 6)
    assert "six of eleven validation curves still rose after 40 epochs" in README
    assert (learning["n_seeds"].sum(), learning["n_seeds"].sum() - learning["n_learnt"].sum()) == (44, 5)
    assert "five of 44 runs" in README
    assert (pd.read_csv(tables / "foretold.csv")["agree"] == "yes").sum() == 5
    assert "foretold the sign of five of the seven contrasts above" in README


def test_what_is_said_of_the_map_follows_from_its_tables():
    contrasts = pd.read_csv(PROJECT / "results" / "when" / "tables" / "contrasts.csv").fillna({"arm": ""})
    grid = contrasts[contrasts["arm"] == ""].set_index(["experiment", "reference"])
    focus, tuned, sharing = (
        grid.loc[pair] for pair in (("MTL2", "MTL.aux1"), ("ITW2", "tuned static"), ("MTL", "STL"))
    )
    assert (len(focus), set(grid["n_seeds"])) == (36, {16})
    assert focus["difference"].max() < 0.01
    assert (tuned["low"] <= 0).all()
    assert f"below in {(tuned['high'] < 0).sum()}" in README
    assert f"+{sharing['difference'].max():.3f}, MTL - STL" in README
    assert f"costs up to {-sharing['difference'].min():.3f}" in README


def test_the_rule_that_stays_near_the_single_task_follows_from_the_map_of_rivals():
    contrasts = pd.read_csv(PROJECT / "results/when-rivals/tables/contrasts.csv")
    single = contrasts[contrasts["arm"].isna() & (contrasts["reference"] == "STL")].set_index("experiment")
    farthest = single["difference"].abs().groupby(level=0).agg(["max", "size"]).drop("MTL")
    near = single.loc["PCD"]

    assert set(farthest["size"]) == {36}
    assert farthest.index[farthest["max"] <= 0.006].tolist() == ["PCD"]
    assert (sum(near["low"] > 0), sum(near["high"] < 0)) == (10, 14)
    assert "only PCD stays within 0.006 of the single task in all 36 cells: above it in ten, below it in 14" in README
    assert "four rules" in README
    assert len(farthest) == 4


def test_the_pilot_that_was_run_later_trains():
    history = pd.read_csv(PROJECT / "results/policies/later/AutoLambda-s0/history.csv")
    last = history[(history["split"] == "train") & (history["task"] == "lung_cancer")].iloc[-1]

    assert f"training AUC {last['auc']:.2f}" in (PROJECT / "params" / "protocol.md").read_text(encoding="utf-8")
    assert last["auc"] >= 0.6
    assert history["loss"].notna().all()


@pytest.mark.skipif(
    not any(conclusion.has_tables(PROJECT / "results" / study) for study in conclusion.STUDIES), reason="not run yet"
)
def test_the_conclusion_is_that_of_the_confirmatory_studies():
    assert conclusion.written(PROJECT / "results") in README


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_a_linked_file_exists(link):
    assert (PROJECT / link).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z]+)", README))))
def test_a_named_make_target_exists(target):
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_how_far_gradients_at_both_places_agree_follows_from_its_tables():
    page = (PROJECT / "lungmtl" / "policies" / "ADDING.md").read_text(encoding="utf-8")
    tables = PROJECT / "results" / "agreement" / "tables"
    cosines = pd.read_csv(tables / "cosines.csv").set_index("steps").loc["all"].iloc[0]
    moved = pd.read_csv(tables / "weights.csv").set_index("policy")["moved"]
    assert f"correlate at {cosines['correlation']:.2f} and have the same sign in {cosines['same_sign']:.0%}" in (
        " ".join(page.replace(" %", "%").split())
    )
    assert (moved.idxmin(), moved.idxmax()) == ("PCGrad", "MGDA")
    assert f"{moved.min():.0%} (PCGrad) to {moved.max():.0%} (MGDA)" in page.replace(" %", "%")
