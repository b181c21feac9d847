"""What was learnt, whether curves were flat, and the ceiling."""

import numpy as np
import pandas as pd
import pytest
from made_up import predictions

from lungmtl.comparison.learning import FLAT_RISE, LEARNT_LOW, ceiling_table, early_table, learning_table, learnt_table
from lungmtl.evidence.areas import auc_interval
from lungmtl.sources.readings import read_truth

TASK = {"task": "lung_cancer"}


def test_a_run_learnt_where_its_lower_limit_is_above_the_bound():
    frame = predictions(("STL",), seeds=(0, 1))
    sure = frame["run"] == "STL-s1"
    frame["probability"] = frame["probability"].mask(sure, 0.3 * frame["probability"] + 0.6 * frame["target"])
    found = learnt_table(frame, **TASK).set_index("seed")
    test = frame[(frame["run"] == "STL-s0") & (frame["split"] == "test")]

    assert found.loc[0, "low"] == auc_interval(test["target"].to_numpy(), test["probability"].to_numpy()).low
    assert found.loc[0, "low"] < LEARNT_LOW < found.loc[1, "low"]
    assert found["learnt"].tolist() == ["no", "yes"]


def history(curve, *, seeds=(0,), experiment="STL"):
    """Validation AUC of every seed by epoch; training 0.02 above."""
    epochs = pd.DataFrame({"epoch": range(len(curve)), "auc": curve})
    splits = [epochs.assign(split="validation"), epochs.assign(split="train", auc=epochs["auc"] + 0.02)]
    return pd.concat([part.assign(experiment=experiment, seed=seed) for part in splits for seed in seeds])


LEARNT = pd.DataFrame(
    {"experiment": ["STL"] * 3, "seed": range(3), "auc": [0.8, 0.9, 0.7], "learnt": ["yes", "yes", "no"]}
)


@pytest.mark.parametrize(
    ("end", "rise", "is_flat"),
    [
        ([0.80, 0.81, 0.82, 0.83], 0.01, "no"),
        ([0.80, 0.80, 0.80, 0.80], 0.0, "yes"),
        ([0.80, 0.80 + 0.9 * FLAT_RISE, 0.80 + 1.8 * FLAT_RISE, 0.80 + 2.7 * FLAT_RISE], 0.9 * FLAT_RISE, "yes"),
        ([0.83, 0.82, 0.81, 0.80], -0.01, "yes"),
    ],
)
def test_curve_is_flat_by_its_slope_over_the_last_quarter(end, rise, is_flat):
    row = learning_table(LEARNT, history([0.5, 0.1, 0.9, 0.2, 0.3, 0.7, *end])).iloc[0]

    assert row["rise"] == pytest.approx(rise)
    assert (row["is_flat"], row["n_epochs"]) == (is_flat, 10)


def test_learning_table_counts_seeds_and_takes_the_median_curve():
    curves = pd.concat([history([0.5, 0.6], seeds=(0, 1)), history([0.5, 0.9], seeds=(2,))])
    row = learning_table(LEARNT, curves, ceiling=0.98).iloc[0]

    assert (row["n_seeds"], row["n_learnt"], row["ceiling"]) == (3, 2, 0.98)
    assert row["test_auc"] == pytest.approx(0.8)
    assert row["rise"] == pytest.approx(0.1)
    assert (row["validation_auc"], row["train_auc"]) == (pytest.approx(0.7), pytest.approx(0.72))


def test_without_curves_nothing_is_said_of_them():
    row = learning_table(LEARNT, history([]).astype({"auc": float})).iloc[0]

    assert row["is_flat"] == ""
    assert np.isnan(row["train_auc"])


def test_ceiling_is_the_auc_of_the_readings():
    frame = predictions(("MTL",))
    central = frame[(frame["task"] == "lung_cancer") & (frame["seed"] == 0)]
    readings = central[["scan", "target"]].rename(columns={"target": "lung_cancer"})
    found = ceiling_table(frame, readings)

    assert found[["task", "reader", "auc", "n"]].to_numpy().tolist() == [["lung_cancer", "one measurement", 1.0, 60]]
    more = readings.assign(**{"lung_cancer:blind": 0.0, "lung_cancer:absent": np.nan, "copd:ideal": 1.0})
    assert ceiling_table(frame, more)[["task", "reader", "auc"]].to_numpy().tolist() == [
        ["lung_cancer", "one measurement", 1.0],
        ["lung_cancer", "blind", 0.5],
        *[[task, "ideal", 0.5] for task in frame["task"].unique() if task == "copd"],
    ]
    assert ceiling_table(frame, pd.DataFrame({"scan": []})).empty


def test_readings_take_the_largest_nodule_and_turn_the_dome_around():
    truth = pd.DataFrame({"scan": ["a", "b"], "diameter_mm": [9.0, np.nan], "benign_diameter_mm": [12.0, np.nan]})
    found = read_truth(truth.assign(dome_mm=[40.0, 20.0]))

    assert found["lung_cancer"].tolist() == [12.0, 0.0]
    assert found["copd"].tolist() == [-40.0, -20.0]
    assert found["asthma"].isna().all()
    assert found.filter(like=":").isna().all(axis=None)  # of cohorts that are older than the ideal readers


def test_early_curves_are_held_against_the_final_order():
    ends = {"STL": 0.80, "MTL": 0.70, "ITW1": 0.85, "ITW2": 0.82}
    shapes = {name: [0.5 + end / 10, 0.6 - end / 10, 0.6 + end / 10, end] for name, end in ends.items()}
    curves = [history(shape, experiment=name) for name, shape in shapes.items()]
    finals = pd.DataFrame({"experiment": list(ends), "seed": 0, "auc": list(ends.values()), "learnt": "yes"})
    found = early_table(pd.concat(curves), finals, references=["STL", "RLW"]).set_index("share")

    assert found["epoch"].tolist() == [1, 2, 3, 4]
    assert found.loc[[0.5, 1.0], "correlation"].tolist() == [pytest.approx(-1), pytest.approx(1)]
    assert found["same_sign"].tolist() == [1, 0, 1, 1]
    assert early_table(pd.concat(curves).iloc[:0], finals, references=["STL"]).empty
