"""Figures follow their controls, and what notebook 06 shows of runs is what the runs did."""

from pathlib import Path

import ipywidgets as widgets
import nbformat
import numpy as np
import pandas as pd
import pytest
from drawings import comparisons, missed
from made_up import predictions

from lungmtl import comparison, figures
from lungmtl.evidence import youden_threshold
from lungmtl.figures import controls

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_explore.ipynb"


class Handle:
    """A place on a page, with all that it showed."""

    def __init__(self, first):
        self.shown = [first]

    def update(self, drawn):
        self.shown.append(drawn)


@pytest.fixture
def handles(monkeypatch):
    made = []
    monkeypatch.setattr(controls, "display", lambda drawn, display_id: made.append(Handle(drawn)) or made[-1])
    return made


def test_what_is_drawn_follows_every_control(handles):
    choice = {"a": widgets.IntSlider(1), "b": widgets.Dropdown(options=["x", "y"])}

    figures.live(lambda a, b: f"{a}{b}", choice)
    choice["a"].value = 3
    choice["b"].value = "y"

    assert handles[0].shown == ["1x", "3x", "3y"]


def test_refused_choice_is_answered_with_its_sentence_and_the_next_is_drawn(handles):
    def draw(seeds):
        return comparison.chosen(predictions(), ["MTL"], seeds)["seed"].unique().tolist()

    seeds = widgets.SelectMultiple(options=[0, 1], value=[0])
    figures.live(draw, {"seeds": seeds})
    seeds.value = []
    seeds.value = [1]

    assert handles[0].shown[::2] == [[0], [1]]
    assert "There must be runs of what is chosen" in handles[0].shown[1].data


def test_timeline_of_the_notebook_follows_its_controls(handles):
    cells = {cell.id: cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells}
    names: dict = {}
    for name in ("imports", "policy-controls", "policy"):
        exec(cells[name], names)

    names["settings"]["start"].value = 0.8
    names["settings"]["policy"].value = "BW"

    first, later, balanced = (figure.axes[0] for figure in handles[0].shown)
    assert [line.get_xdata()[0] for line in first.lines] == [150]  # ITW begins after 0.6 of 250 steps
    assert [line.get_xdata()[0] for line in later.lines] == [200]
    assert not balanced.lines


def test_share_of_wrong_calls_is_that_of_each_runs_own_threshold():
    rows = predictions(["MTL"])
    table = comparison.missed_table(rows, task="lung_cancer").set_index("scan")

    wrong = []
    for _, one in rows[rows["task"] == "lung_cancer"].groupby("seed"):
        validation, test = (one[one["split"] == split].set_index("scan") for split in ("validation", "test"))
        threshold = youden_threshold(validation["target"].to_numpy(), validation["probability"].to_numpy())
        wrong.append((test["probability"] >= threshold) != test["target"])
    assert table["wrong"].tolist() == np.mean(wrong, axis=0).tolist()


def test_missed_scans_stand_apart_by_class_most_often_wrong_first():
    figure = figures.missed_scans(missed(["STL", "MTL"]), task="lung_cancer")
    positives, negatives = figure.axes

    assert positives.get_title(loc="left") == "missed: 20 of 20"
    assert negatives.get_title(loc="left") == "false alarms: 13 of 20"
    assert positives.get_yticklabels()[0].get_text() == "s00005, 12 mm"
    assert [text.get_text() for text in positives.texts][:2] == ["1", "1"]


def test_verdicts_of_a_choice_are_those_of_the_whole_study():
    tested = pd.read_csv(NOTEBOOK.parents[1] / "results" / "phantom-full" / "tables" / "comparisons.csv")
    picked = comparisons(["STL", "MTL", "ITW2"]).assign(reference=["STL", "STL", "ITW1"])  # all "lower", of 3

    judged = comparison.judged_by(picked, tested)

    assert judged["verdict"].tolist() == ["lower", "not settled", "not tested"]
    assert judged["p_holm"].round(2).tolist()[:2] == [0.01, 0.16]
    assert set(judged["n_family"]) == {17}
    assert judged["difference"].tolist() == picked["difference"].tolist()
    words = [text.get_text() for axis in figures.forest(judged).axes for text in axis.texts]
    assert "nan" not in words
    assert words[-3:] == ["", "", "not tested"]
