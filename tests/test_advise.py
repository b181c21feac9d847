"""Advice: known places of the map give the known cells, others say so; labels counted by hand; a pilot by hand."""

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from standin import PROJECT

from benchmarks.pilot import pilot_on_phantoms
from lungmtl import cli
from lungmtl.data import known_together, odds_ratios
from lungmtl.experiments import TASKS
from lungmtl.policies import Step, Watching, agreement
from lungmtl.study import RunConfig, run_pilot
from lungmtl.when import Place, beyond, expected, relatedness_of

MAP = pd.read_csv(PROJECT / "results" / "when" / "tables" / "contrasts.csv").fillna({"arm": ""})
SHARES = dict.fromkeys(TASKS, 0.3)
PLACE = Place(n_scans=640, n_steps=2400, shares=SHARES, known=1.0, one_known=0.0)
APART = dataclasses.replace(PLACE, known=0.2, one_known=1.0)


def cell(n_scans: int, n_steps: int, arm: str = "") -> pd.DataFrame:
    """MTL minus STL in the map's cells of all degrees of relatedness."""
    at = {"arm": arm, "n_scans": n_scans, "n_steps": n_steps, "experiment": "MTL", "reference": "STL"}
    return MAP[(MAP[list(at)] == pd.Series(at)).all(axis=1)].sort_values("relatedness")


def sharing(place: Place, *relatedness: float) -> pd.Series:
    return expected(MAP, place, relatedness).set_index(["experiment", "reference"]).loc[("MTL", "STL")]


def test_at_a_cell_the_advice_is_the_cell_with_the_interval_of_one_more_world():
    known = cell(640, 2400).iloc[0]
    found = sharing(PLACE, 0.0, 0.0)
    assert found["difference_low"] == found["difference_high"] == pytest.approx(known["difference"])
    half = (known["high"] - known["difference"]) * np.sqrt(17)  # deviation * sqrt(1 + 1 / 16), not / sqrt(16)
    assert [found["low"], found["high"]] == pytest.approx([known["difference"] - half, known["difference"] + half])
    chance = stats.t(15).cdf(known["difference"] / half * stats.t(15).ppf(0.975))
    assert found["chance_low"] == found["chance_high"] == pytest.approx(chance)
    assert found["reading"] == "worse"


def test_where_relatedness_is_unknown_the_advice_spans_its_cells():
    values = cell(640, 2400)["difference"]
    found = sharing(PLACE, 0.0, 1.0)
    assert [found["difference_low"], found["difference_high"]] == pytest.approx([values.min(), values.max()])
    assert found["reading"] == "open"


def test_halfway_between_cells_on_a_log_scale_the_advice_is_their_mean():
    halfway = dataclasses.replace(PLACE, n_scans=1280)  # between 640 and 2,560
    values = [cell(n_scans, 2400)["difference"].iloc[-1] for n_scans in (640, 2560)]
    assert sharing(halfway, 1.0, 1.0)["difference_low"] == pytest.approx(np.mean(values))


def test_labels_apart_take_their_own_arm():
    assert sharing(APART, 0.0, 0.0)["difference_low"] == pytest.approx(
        cell(640, 2400, "one_label")["difference"].iloc[0]
    )


def test_what_the_map_has_at_one_number_of_scans_is_left_out_elsewhere():
    only = MAP[MAP["n_scans"] == 640].replace("GCS", "PCD")
    far = dataclasses.replace(PLACE, n_scans=2000)
    found = {scans: set(expected(only, at, (0, 1)).get("experiment", [])) for scans, at in ((640, PLACE), (2000, far))}
    assert "PCD" in found[640]
    assert not found[2000]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (dataclasses.replace(PLACE, n_scans=5000), "from 160 to 2,560 training scans. Found 5,000"),
        (dataclasses.replace(PLACE, n_steps=240), "from 800 to 7,200 optimiser steps. Found 240"),
        (dataclasses.replace(APART, n_scans=2000), "with labels apart reaches from 320 to 1,280 training scans"),
        (dataclasses.replace(PLACE, shares=SHARES | {"copd": 0.03}), "Found copd 3%"),
        (dataclasses.replace(PLACE, known=0.5, one_known=0.2), "50% of the training labels, and a single one in 20%"),
        (dataclasses.replace(PLACE, shares={"lung_cancer": 0.3}), "one task: there is nothing to share"),
    ],
)
def test_outside_the_map_one_sentence_says_why(place, words):
    (found,) = beyond(place, MAP)
    assert words in found


def test_inside_the_map_nothing_is_said():
    assert beyond(PLACE, MAP) == beyond(APART, MAP) == []


def test_odds_ratios_are_those_of_the_four_counts_where_both_labels_are_known():
    counts = {(1, 1): 10, (0, 0): 20, (1, 0): 5, (0, 1): 2, (1, np.nan): 7}
    rows = [pair for pair, n in counts.items() for _ in range(n)]
    frame = pd.DataFrame(rows, columns=["a", "b"], dtype=float).assign(excluded="")
    (row,) = odds_ratios(frame, tasks=["a", "b"]).to_dict("records")
    wanted, error = 10.5 * 20.5 / (5.5 * 2.5), math.sqrt(1 / 10.5 + 1 / 20.5 + 1 / 5.5 + 1 / 2.5)
    ends = [wanted * math.exp(sign * 1.959964 * error) for sign in (-1, 1)]
    assert [row["odds_ratio"], row["low"], row["high"]] == pytest.approx([wanted, *ends])
    assert row["n"] == 37
    assert known_together(frame, tasks=["a", "b"]).to_dict() == {"a + b": 37, "a": 7}


def test_watching_changes_no_weight_and_averages_cosines_without_their_sign_over_tasks():
    policy = Watching(["a", "b", "c"], [1.0, 2.0, 1.0])
    for step, cosine in enumerate((0.5, -0.1)):
        gramian = np.array([[4.0, 2 * cosine, -1.0], [2 * cosine, 1.0, 0.0], [-1.0, 0.0, 1.0]])
        at = Step(step, 2, epoch=0, n_epochs=1, losses=[1.0] * 3, known=[True] * 3, gramian=gramian)
        assert policy(at).weights == (1.0, 2.0, 1.0)
    assert agreement([policy]) == pytest.approx((0.2 + 0.5) / 2)


def test_a_ratio_names_the_worlds_in_which_it_is_common():
    logs = {0.0: [-0.5, 0.0, 0.5], 1.0: [1.5, 2.0, 2.5]}
    rows = [(level, math.exp(value), 1.0) for level, values in logs.items() for value in values]
    chances = relatedness_of(1.0, pd.DataFrame(rows, columns=["relatedness", "agreement", "shuffled"]))
    assert chances.sum() == pytest.approx(1)
    assert chances[0.0] == pytest.approx(1 / (1 + math.exp(-8)))  # four deviations from the other


def test_the_pilot_tells_related_worlds_from_unrelated_ones_with_shuffled_labels_as_its_measure():
    found = pilot_on_phantoms([0.0, 1.0], n_worlds=4, n_steps=60)
    ratios = (found["agreement"] / found["shuffled"]).groupby(found["relatedness"]).median()
    assert ratios[1.0] > 2 * ratios[0.0]


class Scans(torch.utils.data.Dataset):
    """Twelve random volumes whose two diagnoses are the same."""

    def __init__(self, config):
        generator = torch.Generator().manual_seed(0)
        self.volume = torch.rand(12, 1, 16, 16, 16, generator=generator)
        self.target = (torch.arange(12) % 2).float()[:, None].repeat(1, 2)
        self.known = torch.ones(12, 2, dtype=torch.bool)
        if config.shuffle_tasks:
            self.target[:, 1] = (torch.arange(12) // 6).float()

    def __len__(self):
        return 12

    def __getitem__(self, i):
        return self.volume[i], self.target[i], self.known[i]


def test_the_pilot_of_scans_trains_on_them_twice_and_finds_that_equal_diagnoses_agree(monkeypatch):
    monkeypatch.setattr("lungmtl.study.pilot.gather", lambda config: None)
    monkeypatch.setattr(
        "lungmtl.study.pilot.datasets", lambda config, _: dict.fromkeys(["train", "validation"], Scans(config))
    )
    config = RunConfig(tasks=["a", "b"], weights=[1.0, 1.0], width=4, batch_size=4, shape=[16, 16, 16])
    found = run_pilot(config, n_steps=4, n_seeds=2)
    assert 0 <= found["shuffled"] < found["agreement"] <= 1


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A cohort whose place is a cell of the map, and its params file; nothing but the table is there."""
    n = 960
    frame = pd.DataFrame({"scan": [f"s{i}" for i in range(n)], "patient": [f"p{i}" for i in range(n)]})
    frame = frame.assign(image="ct/" + frame["scan"] + ".nii.gz", split=["train"] * 640 + ["validation", "test"] * 160)
    rng = np.random.default_rng(0)
    frame = frame.assign(**{task: (rng.random(n) < 0.35).astype(int) for task in TASKS})
    frame.to_csv(tmp_path / "cohort.csv", index=False)
    (tmp_path / "mine.yaml").write_text("experiments: [MTL]\nseeds: [0]\nepochs: 30\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return frame


def test_the_command_prints_the_cell_and_writes_it(user, capsys):
    assert cli.main(["advise", "cohort.csv", "--params", "mine.yaml", "--relatedness", "0", "--out", "out"]) == 0
    text = capsys.readouterr().out
    assert "reaches 640 training scans and 2,400 steps" in text
    assert f"{cell(640, 2400)['difference'].iloc[0]:+.3f}" in text
    advice = pd.read_csv("out/advice.csv").set_index(["experiment", "reference"])
    assert advice.loc[("MTL", "STL"), "difference_low"] == pytest.approx(cell(640, 2400)["difference"].iloc[0])
    with open("out/advice.json", encoding="utf-8") as file:
        assert json.load(file)["counts"]["train"]["copd"]["n"] == 640


@pytest.mark.parametrize(("together", "range_"), [(False, "0.33 to 1"), (True, "0 to 1")])
def test_a_pilot_is_believed_upwards_only_where_labels_do_not_go_together(user, together, range_, monkeypatch, capsys):
    monkeypatch.setattr("lungmtl.commands.advise.run_pilot", lambda *_, **__: {"agreement": 4.5, "shuffled": 1.0})
    others = {task: user["lung_cancer"] if together else (user.index // 2**k) % 2 for k, task in enumerate(TASKS) if k}
    user.assign(**others).to_csv("cohort.csv", index=False)
    assert cli.main(["advise", "cohort.csv", "--params", "mine.yaml", "--pilot", "200"]) == 0
    assert f"at relatedness {range_}," in capsys.readouterr().out


def test_the_command_says_that_the_map_does_not_reach_short_trainings(user, capsys):
    assert cli.main(["advise", "cohort.csv"]) == 0
    assert "Found 240." in capsys.readouterr().out  # three epochs of 80 steps are the default


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"copd": None}, "copd"),
        ({"lung_cancer": 0}, "There must be"),
        ({"copd": 2}, "0, 1 or blank"),
    ],
)
def test_a_bad_table_is_refused_in_a_sentence(user, change, words, caplog):
    ((name, value),) = change.items()
    frame = user.drop(columns=name) if value is None else user.assign(**change)
    frame.to_csv("cohort.csv", index=False)
    assert cli.main(["advise", "cohort.csv"]) == 2
    assert words in caplog.text
