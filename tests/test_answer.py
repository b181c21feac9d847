"""The answer follows from the tables: other tables, another sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import predictions

from lungmtl.comparison import comparison_table, gain_needed
from lungmtl.report import answer, box, conclusion, confirmed, decisions

TABLES = Path(__file__).parents[1] / "results"
HIGHER, LOWER, EQUAL, OPEN = "higher", "lower", "equivalent within 0.02", "not settled"
REFERENCE = "the single-task network (STL)"


def compared(*verdicts, reference="STL", n_seeds=5, **columns):
    """Comparisons of A, B, ... with a reference, one for each verdict."""
    names = [chr(ord("A") + i) for i in range(len(verdicts))]
    frame = pd.DataFrame({"experiment": names, "reference": reference, "verdict": verdicts})
    settings = {"difference": -0.05, "low": -0.1, "high": 0.01, "margin": 0.02, "n_seeds": n_seeds, "gain_needed": 0.1}
    right = {"experiment_only_right": 10, "reference_only_right": 30, "mcnemar_p_holm": 0.01}
    return frame.assign(**(settings | right | columns))


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (
            [LOWER, OPEN, LOWER],
            f"none detected lung cancer better than {REFERENCE}; two were worse; one is not settled.",
        ),
        ([HIGHER, OPEN, OPEN], f"one detected lung cancer better than {REFERENCE} (A); two are not settled."),
        ([HIGHER, LOWER, HIGHER], f"two detected lung cancer better than {REFERENCE} (A and C); one was worse."),
        ([HIGHER, HIGHER, HIGHER], f"three detected lung cancer better than {REFERENCE} (A, B and C)."),
        ([LOWER, LOWER, LOWER], f"none detected lung cancer better than {REFERENCE}; three were worse."),
        (
            [EQUAL, f"{LOWER}, {EQUAL}", OPEN],
            f"none detected lung cancer better than {REFERENCE}; one was worse; one was equivalent to within 0.02; "
            "one is not settled.",
        ),
    ],
)
def test_answer_counts_the_verdicts(verdicts, sentence):
    assert answer(compared(*verdicts), task="lung_cancer") == f"Of three settings {sentence}"


@pytest.mark.parametrize(("n", "settings"), [(2, "neither of two"), (3, "none of three")])
def test_answer_says_that_nothing_is_settled(n, settings):
    sentence = f"For {settings} settings is it settled whether it detects lung cancer better or worse than {REFERENCE}."
    assert answer(compared(*[OPEN] * n), task="lung_cancer") == sentence


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (HIGHER, f"A detected lung cancer better than {REFERENCE}."),
        (LOWER, f"A detected lung cancer worse than {REFERENCE}."),
        (EQUAL, f"A detected lung cancer as well as {REFERENCE}, to within an AUC of 0.02."),
        (OPEN, f"Whether A detects lung cancer better or worse than {REFERENCE} is not settled."),
    ],
)
def test_answer_of_one_experiment_names_it(verdict, sentence):
    assert answer(compared(verdict), task="lung_cancer") == sentence
    assert answer(compared(verdict, n_seeds=1), task="lung_cancer") == f"{sentence[:-1]}, with one seed of each."


def test_answer_of_one_seed_speaks_of_networks():
    found = answer(compared(LOWER, OPEN, n_seeds=1), task="copd")

    assert found.startswith("Of two networks, one seed of each setting, none detected COPD better")


def test_answer_is_about_the_first_reference_and_its_task():
    both = pd.concat([compared(OPEN, OPEN, reference="MTL"), compared(LOWER, LOWER, reference="STL")])

    sentence = answer(both, task="nodule")
    assert "neither of two" in sentence
    assert "worse than multi-task training with balanced weights (MTL)" in sentence


def test_many_settings_are_counted_in_digits():
    assert answer(compared(*[OPEN] * 19), task="x").startswith("For none of 19 settings")


def test_without_a_difference_the_answer_says_why():
    assert answer(compared(), task="x").startswith("No two experiments could be compared")
    assert answer(compared("", difference=np.nan), task="x").startswith("No difference could be computed")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({}, "At their own thresholds both called more scans wrongly than STL did"),
        (
            {"mcnemar_p_holm": 0.2},
            "At their own thresholds none was shown to call more or fewer scans wrongly than STL",
        ),
        ({"experiment_only_right": 90}, "At their own thresholds both called fewer scans wrongly than STL did"),
        ({"mcnemar_p_holm": [0.01, 0.2]}, "At their own thresholds one of two called more scans wrongly than STL did"),
        (
            {"experiment_only_right": [10, 90]},
            "At their own thresholds one of two called more scans wrongly than STL did, one fewer",
        ),
    ],
)
def test_decisions_count_the_tests(columns, sentence):
    assert decisions(compared(OPEN, OPEN, **columns)) == f"{sentence} (exact McNemar, Holm's p below 0.05)."


def test_decisions_say_nothing_without_a_test():
    assert decisions(compared(OPEN, mcnemar_p_holm=np.nan)) == ""


def tables(comparisons, **learning):
    """What the box is made from, for a reference and the compared experiments."""
    names = ["STL", *comparisons["experiment"].unique()]
    aucs = pd.DataFrame({"experiment": names, "task": "lung_cancer", "auc": 0.86, "low": 0.83, "high": 0.89})
    seeds = int(comparisons["n_seeds"].max()) if len(comparisons) else 5
    about = {"n_seeds": seeds, "n_learnt": seeds, "is_flat": "yes", "ceiling": np.nan, "n_epochs": 10.0}
    parts = pd.DataFrame({"part": ["transfer"], "experiment": "ITW2", "reference": "MTL2", "difference": 0.066})
    return {
        "auc": aucs.assign(n_seeds=seeds),
        "comparisons": comparisons,
        "learning": pd.DataFrame({"experiment": names}).assign(**(about | learning)),
        "parts": parts.assign(low=0.019, high=0.113, n_agree=5, n_seeds=5),
    }


def box_of(frames, scans="patients", **settings):
    return box(frames, task="lung_cancer", scans=scans, **settings)


def test_box_begins_with_the_answer_and_has_its_numbers():
    text = box_of(tables(compared(LOWER, OPEN, difference=[-0.24, -0.03])))

    assert text.startswith(f"**Of two settings none detected lung cancer better than {REFERENCE};")
    assert "STL reached a test AUC of 0.86 [0.83, 0.89]" in text
    assert "from \N{MINUS SIGN}0.240 [\N{MINUS SIGN}0.100, +0.010] (A) to \N{MINUS SIGN}0.030" in text
    assert "ITW2 \N{MINUS SIGN} MTL2 +0.066 [+0.019, +0.113] (5 of 5 seeds agree)" in text


@pytest.mark.parametrize(
    ("learning", "limit"),
    [
        ({"is_flat": ["no", "yes", "no"]}, "in two of three experiments the validation AUC still rose"),
        ({"is_flat": ""}, "*Not known to be trained to the end:*"),
        ({"n_learnt": [5, 4, 0]}, "*Seeds that did not learn:* six of 15 runs (A 1 of 5, B 5 of 5)."),
    ],
)
def test_box_has_the_limits_that_the_tables_show(learning, limit):
    verdicts = compared(LOWER, OPEN)

    assert limit in box_of(tables(verdicts, **learning))
    assert limit not in box_of(tables(verdicts))


def test_box_tells_phantoms_patients_one_seed_and_missing_runs_apart():
    many, one = compared(LOWER, OPEN), compared(LOWER, OPEN, n_seeds=1)

    assert "reach an AUC of 0.98" in box_of(tables(many, ceiling=0.984), scans="phantoms")
    assert "hantom" not in box_of(tables(many))
    assert "*A demonstration:*" in box_of(tables(one))
    assert "*One training set:* all five seeds share it" in box_of(tables(many))
    assert "*Four training sets:* intervals cover other training sets" in box_of(tables(many), n_sets=4)
    assert "three planned runs are missing" in box_of(tables(many), n_out=3)
    assert "Incomplete" not in box_of(tables(many))


def test_box_says_where_no_gain_could_be_shown():
    text = box_of(tables(compared(OPEN, OPEN, OPEN, gain_needed=[0.1, 0.2, 0.3])))

    assert "for two of three settings no gain could have passed the adjusted test: the AUC would have had" in text


def test_box_without_a_reference_is_there():
    assert box_of(tables(compared())).startswith("**No two experiments could be compared")


def test_needed_gain_is_where_the_adjusted_test_begins():
    frame = pd.DataFrame({"p_holm": [0.01, *[0.2] * 10], "freedom": np.inf, "error": 0.01})

    assert list(gain_needed(frame.iloc[:2])) == pytest.approx([0.0195996] * 2, rel=1e-5)  # one is not rejected
    assert list(gain_needed(frame)) == pytest.approx([0.0280703] * 11, rel=1e-5)  # ten


def test_a_study_of_one_experiment_needs_no_gain():
    settings = {"references": ["STL"], "task": "lung_cancer", "replicates": 100, "seed": 0}

    assert gain_needed(comparison_table(predictions(["STL"]), **settings)).empty


def fixed(*verdicts, **columns):
    """Contrasts fixed beforehand, one for each verdict; "" could not be computed."""
    frame = compared(*verdicts, n_seeds=4, **columns).assign(p_holm=[0.01 if one else np.nan for one in verdicts])
    return frame.assign(question="q", n_failed=[1] + [0] * (len(verdicts) - 1), n=1920)


def test_where_contrasts_were_fixed_the_answer_is_their_budget_and_holm_over_them_alone():
    said = confirmed(fixed(LOWER, OPEN, ""), budget="**Not flat**: so.")
    text = box_of(tables(compared(LOWER, OPEN)), fixed=said)

    assert said.startswith(
        "**Not flat**: so.\n\n**Of two contrasts fixed beforehand one is settled** (Holm's adjustment"
    )
    assert "q (A \N{MINUS SIGN} STL) " in said
    assert "(one of eight runs did not learn), lower, p 0.01. Not settled: q (B \N{MINUS SIGN} STL)" in said
    assert said.endswith("One could not be computed.")
    assert text.startswith("**Not flat**")
    assert "Of two settings" not in text
    assert "McNemar" not in text
    assert confirmed(fixed(OPEN), budget="").endswith(
        "none is settled** (Holm's adjustment over these alone): "
        "q (A \N{MINUS SIGN} STL) \N{MINUS SIGN}0.050 [\N{MINUS SIGN}0.100, +0.010] "
        "(one of eight runs did not learn)."
    )
    assert confirmed(fixed(""), budget="x") == ""


def test_the_conclusion_is_four_sentences_that_follow_from_its_tables():
    learning = pd.DataFrame({"experiment": list("ABC"), "is_flat": ["no", "yes", "yes"], "n_epochs": 40.0})
    studies = {1.0: {"confirm": fixed(LOWER, OPEN), "learning": learning},
               0.0: {"confirm": fixed(OPEN, OPEN), "learning": learning.assign(is_flat="yes")}}  # fmt: skip
    cells = pd.MultiIndex.from_product(
        [[0.0, 1.0], [160, 640], [800, 7200]], names=["relatedness", "n_scans", "n_steps"]
    )
    cells = cells.to_frame(index=False).assign(arm="", n_seeds=16)
    gain = np.where((cells["relatedness"] == 1) & (cells["n_steps"] == 7200), 0.02, -0.02)
    pairs = (("MTL2", "STL"), ("MTL2", "MTL.aux1"), ("ITW2", "STL"), ("ITW2", "tuned static"))
    grid = pd.concat([cells.assign(experiment=a, reference=b, low=gain - 0.01, high=gain + 0.01) for a, b in pairs])
    grid.loc[grid["reference"] == "tuned static", ["low", "high"]] = -0.01, 0.01
    lines = conclusion(studies, grid).splitlines()

    assert len(lines) == 4
    assert "tested on 1,920 others, once with auxiliary diagnoses of relatedness 0 to the nodule and once" in lines[0]
    assert "others, with auxiliary diagnoses of relatedness 1 to the nodule (at 0 " in conclusion(
        {1.0: studies[1.0]}, grid
    )
    assert "four training sets of phantoms" in lines[0]
    assert "40 epochs at relatedness 0, after which all validation curves were flat" in lines[1]
    assert "at relatedness 1, after which one of three validation curves still rose" in lines[1]
    assert lines[2].count("\N{MINUS SIGN} STL") == 4
    assert "; none is settled; at relatedness 1 q (A" in lines[2]
    assert ", lower; q (B" in lines[2]
    assert lines[2].endswith("; the others are not settled.")
    assert "(MTL2) lies above both" in lines[3]
    assert "equal ratio in two of eight cells (relatedness 1, 7,200 steps)" in lines[3]
    assert "tuned on validation in none of eight cells" in lines[3]
    assert lines[3].count("six of eight cells") == 2


@pytest.mark.parametrize("study", ["phantom-full", "sensitivity"])
def test_committed_report_holds_the_answer_of_its_tables(study):
    comparisons = pd.read_csv(TABLES / study / "tables" / "comparisons.csv")
    page = (TABLES / study / "report.html").read_text(encoding="utf-8")

    assert answer(comparisons, task="lung_cancer") in page
    assert decisions(comparisons) in page
