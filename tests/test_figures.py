"""Figures drawn from made-up frames: what they say, that nothing overlaps, and that their bytes are stable."""

import io
import itertools

import drawings
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from drawings import CAPTION, CHANGES, DRAWN, INTERVAL, LARGE, MANY, SELECTED
from matplotlib.text import Text

from lungmtl.figures import (
    auc_by_task,
    contour_maps,
    contrasts,
    cooccurrence,
    coverage,
    forest,
    histograms,
    learning_curves,
    power,
    prevalence,
    published_aucs,
    run_seconds,
    scan_slices,
    sensitivity,
    subgroups,
    variance_parts,
    weight_timeline,
)

each_figure = pytest.mark.parametrize("draw", DRAWN.values(), ids=DRAWN)


def shown_texts(figure):
    """Every text on the page but tick labels, which matplotlib keeps apart."""
    figure.draw_without_rendering()
    axes = [axis for axis in figure.axes if axis.get_visible()]
    ticks = {text for axis in figure.axes for text in (*axis.get_xticklabels(), *axis.get_yticklabels())}
    texts = figure.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_visible() and artist.get_text().strip()
    )
    return [text for text in texts if text not in ticks and (text.axes is None or text.axes in axes)]


def svg(figure):
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "test"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


@pytest.mark.parametrize("draw", LARGE.values(), ids=LARGE)
def test_no_text_covers_another_or_leaves_the_figure(draw):
    figure = draw()
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown_texts(figure)]  # without arrows
    covered = [
        (a, b) for (a, box), (b, other) in itertools.combinations(boxes, 2) if box.shrunk(0.98, 0.9).overlaps(other)
    ]
    cut = [a for a, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > figure.bbox.x1 or box.y1 > figure.bbox.y1]

    assert covered == []
    assert cut == []


@each_figure
def test_drawing_twice_gives_the_same_bytes(draw):
    assert svg(draw()) == svg(draw())


@each_figure
def test_figure_stays_outside_pyplot_and_leaves_the_style_alone(draw):
    before = dict(matplotlib.rcParams)
    draw()

    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["auc_by_task", "forest", "roc_curves", "published_aucs", "sensitivity"])
def test_caption_names_seeds_scans_and_interval(name):
    words = " ".join(text.get_text() for text in shown_texts(DRAWN[name]())).replace("\n", " ")

    assert "5 seeds" in words
    assert INTERVAL in words
    assert "600" in words


def test_caption_of_one_seed_is_singular():
    words = " ".join(text.get_text() for text in shown_texts(auc_by_task(drawings.aucs(n_seeds=1))))

    assert "over 1 seed with" in words


def test_frames_are_not_changed():
    frame = drawings.comparisons()
    forest(frame)

    pd.testing.assert_frame_equal(frame, drawings.comparisons())


def test_forest_shows_numbers_and_says_which_family():
    words = [text.get_text() for text in shown_texts(forest(drawings.comparisons()))]

    assert words.count("−0.012 [−0.112, +0.104]") == 17  # noqa: RUF001 (a minus sign, as drawn)
    assert words.count("< 0.001") == 17
    assert words.count("lower") == 17
    assert any("17 comparisons" in word.replace("\n", " ") for word in words)


def test_fixed_contrasts_name_their_question_and_leave_out_what_could_not_be_computed():
    frame = drawings.confirmed()
    frame.loc[0, "difference"] = np.nan
    frame.loc[1, ["difference", "low", "high", "p_holm"]] = [0.07, 0.05, 0.09, 0.0123]
    axis = contrasts(frame, margin=0.02).axes[0]
    words = [text.get_text() for text in axis.texts]

    assert axis.get_yticklabels()[0].get_text() == "focus:  MTL2 − MTL2-mean"  # noqa: RUF001 (a minus sign, as drawn)
    assert words[3:6] == ["+0.070 [+0.050, +0.090]", "0.012", "lower"]
    assert len(words) == 3 * 7


def test_forest_draws_both_intervals_and_the_band():
    axis = forest(drawings.comparisons(["STL", "ITW2"])).axes[0]
    ends = [tuple(line.get_xdata()) for line in axis.get_lines()]

    assert (-0.112, 0.104) in ends
    assert (-0.1, 0.09) in ends
    assert axis.patches[0].get_extents().transformed(axis.transData.inverted()).intervalx == pytest.approx(
        [-0.02, 0.02]
    )


def test_sensitivity_puts_each_base_first_and_rings_what_validation_chose():
    figure = sensitivity(
        drawings.comparisons(MANY).assign(difference=lambda frame: np.linspace(-1, 1, len(frame))), SELECTED
    )
    axis = figure.axes[0]
    labels = [text.get_text() for text in axis.get_yticklabels()]
    rings = [line for line in axis.get_lines() if line.get_markersize() == 11]
    of_choices = [axis.get_yticks()[labels.index(label)] for label in ("MTL", "start0.7")]

    assert labels == ["MTL", "aux0.1", "aux0.3", "ITW2", *CHANGES]
    assert [ring.get_ydata()[0] for ring in rings] == of_choices


def test_variance_is_drawn_as_standard_errors_of_seeds_scans_and_both():
    axis = variance_parts(drawings.variance(["ITW2"])).axes[0]

    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.01, 0.0173205])
    assert axis.get_lines()[0].get_xdata() == pytest.approx([0.02])


def test_longest_variance_bar_is_inside_whichever_panel_it_is_in():
    frame = drawings.variance().assign(total_variance=lambda rows: 1e-4 + 9e-4 * (rows["reference"] == "MTL"))
    axis = variance_parts(frame).axes[0]

    assert axis.get_xlim()[1] > 0.0316  # the root of 0.001


def test_power_names_each_line_at_its_end_in_order_of_height():
    frame = drawings.detectable(["STL", "ITW2", "ITW3"])
    figure = power(frame, n=600, published_n=592, caption=CAPTION)
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent().y0 for text in figure.axes[0].texts}

    assert texts["ITW3"] > texts["ITW2"]  # the frame gives later pairs larger differences
    assert texts["this study, 600"] == texts["paper, 592"]


def dashed(axis):
    return [line.get_xdata()[0] for line in axis.get_lines() if line.get_linestyle() == "--"]


def test_weight_timeline_marks_the_first_step_of_every_later_phase():
    frame = drawings.weights(["STL", "mine"])
    frame.loc[(frame["experiment"] == "mine") & (frame["step"] >= 10), "phase"] = "a third one"
    axes = weight_timeline(frame).axes

    assert dashed(axes[0]) == []
    assert dashed(axes[1]) == [8, 10]


def test_weight_timeline_draws_each_weight_where_it_holds_and_leaves_the_others_blank():
    whole = drawings.weights(["STL", "mine"])
    changes = whole[whole["step"].isin([0, 8, 11])]  # the steps between are as the last one
    for frame in (whole, changes):
        strips = [axis.collections[0].get_array() for axis in weight_timeline(frame).axes[:2]]

        assert strips[0].filled(0).tolist() == [12 * [3.0], *4 * [12 * [0.0]]]
        assert strips[1].filled(0).tolist() == [12 * [3.0], *4 * [8 * [0.3] + 4 * [0.0]]]


def test_prevalence_draws_given_shares_and_intervals_without_an_estimate():
    frame = drawings.shares()
    axis = prevalence(frame).axes[0]
    ends = [segment[:, 1] for lines in axis.collections for segment in lines.get_segments()]

    assert [bar.get_height() for bars in axis.containers for bar in bars] == pytest.approx(list(frame["share"]))
    assert np.sort(ends, axis=None) == pytest.approx(np.sort(frame[["low", "high"]], axis=None))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["train", "validation", "test"]


def test_cooccurrence_writes_every_share():
    axis = cooccurrence(drawings.together(), caption=CAPTION).axes[0]

    assert [text.get_text() for text in axis.texts] == [f"{share:.2f}" for share in np.linspace(0, 1, 25)]
    assert [text.get_text() for text in axis.get_yticklabels()][3] == "COPD"


def test_histograms_count_known_values_and_mark_the_reference():
    axes = histograms(drawings.measured(), labels=drawings.QUANTITIES, reference=drawings.REFERENCE, caption="").axes

    assert [sum(bar.get_height() for bar in axis.patches) for axis in axes] == [3, 4]
    assert [len(axis.get_lines()) for axis in axes] == [0, 1]


def test_scan_slices_have_one_scale():
    axes = scan_slices([drawings.scan_view("a"), drawings.scan_view("b", (6, 8, 9))], **drawings.WINDOW).axes

    assert {axis.get_xlim() for axis in axes} == {(-6, 6)}
    assert [axis.get_ylim() for axis in axes] == [(-8, 8), (-8, 8), (5, -5), (5, -5)]


def test_thick_learning_curve_is_the_mean_over_seeds():
    frame = drawings.history(["ITW2"]).query("task == 'lung_cancer' and split == 'validation'")
    thick = [line for line in learning_curves(frame).axes[0].get_lines() if line.get_linewidth() == 1.9]

    assert thick[0].get_ydata() == pytest.approx(frame.groupby("epoch")["loss"].mean())


def test_subgroups_warn_that_they_are_exploratory_and_count_scans():
    figure = subgroups(drawings.in_subgroups())
    words = " ".join(text.get_text() for text in shown_texts(figure)).replace("\n", " ")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]

    assert "EXPLORATORY" in words
    assert labels[:3] == ["sex", "female  600 (180)", "male  600 (180)"]
    assert labels[3:5] == ["nodule (mm)", "at most 18.3 *  600 (180)"]


def test_coverage_has_a_row_per_interval_and_a_mark_per_setting():
    axis = coverage(drawings.simulated(n_settings=45)).axes[0]
    marks = [line for line in axis.get_lines() if line.get_marker() in ("o", "X")]

    assert len(axis.get_yticks()) == 2
    assert sum(len(line.get_xdata()) for line in marks) == 90


@pytest.mark.parametrize(("low", "high", "marker"), [(0.91, 0.935, "o"), (0.90, 0.92, "X"), (0.975, 0.99, "X")])
def test_coverage_crosses_what_lies_outside_the_band(low, high, marker):
    frame = drawings.simulated().iloc[:1].assign(coverage=(low + high) / 2, low=low, high=high)
    lines = coverage(frame).axes[0].get_lines()

    assert [line.get_marker() for line in lines if line.get_marker() in ("o", "X") and len(line.get_xdata())] == [
        marker
    ]


def test_families_share_a_panel_in_the_papers_order_whatever_the_frame():
    figure = learning_curves(drawings.history().sample(frac=1, random_state=0), task="lung_cancer", value="auc")

    names = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert names == [["STL", "MTL"], [f"MTL{i}" for i in range(5)], ["ITW1", "ITW2", "ITW3"]]


def test_learning_curves_of_one_run_count_epochs_from_one():
    one = drawings.history(n_seeds=1).query("experiment == 'ITW3'")
    lines = learning_curves(one).axes[0].get_lines()

    assert {tuple(line.get_xdata()[[0, -1]]) for line in (lines[0], lines[-1])} == {(1, 15)}


def test_blank_rows_are_left_out():
    frame = drawings.aucs()
    frame.loc[frame["task"] == "asthma", ["auc", "low", "high"]] = np.nan

    assert len(auc_by_task(frame).axes) == 4


def test_variants_share_a_panel_with_their_base_in_colours_of_their_own():
    figure = learning_curves(drawings.history(["ITW2.start0.7", "ITW2.start0.5", "ITW2", "STL"]), value="auc")
    lines = [line for line in figure.axes[1].get_lines() if not line.get_label().startswith("_")]

    assert [line.get_label() for line in lines] == ["ITW2", "ITW2.start0.5", "ITW2.start0.7"]
    assert len({line.get_color() for line in lines}) == 3


def test_one_spike_of_the_loss_is_cut_off_and_said():
    frame = drawings.history(["STL"], n_seeds=1)
    frame.loc[(frame["epoch"] == 3) & (frame["split"] == "validation"), "loss"] = 50.0
    figure = learning_curves(frame)

    assert figure.axes[0].get_ylim()[1] < 2
    assert "Curves are cut off above" in figure.get_supxlabel().replace("\n", " ")


def test_learning_curves_mark_where_the_last_stage_begins():
    axes = learning_curves(drawings.history(), value="auc", starts={"ITW1": 9.0, "ITW2": 9.0, "ITW3": 6.0}).axes
    starts = [[line.get_xdata()[0] for line in axis.get_lines() if line.get_linestyle() == ":"] for axis in axes]

    assert starts == [[], [], [6.0, 9.0]]


@pytest.mark.parametrize("draw", [forest, lambda frame: sensitivity(frame, SELECTED)], ids=["forest", "sensitivity"])
def test_interval_that_goes_on_ends_in_an_arrow(draw):
    frame = drawings.comparisons(MANY).assign(difference=-0.01, low=-0.03, high=0.02, low_90=-0.02, high_90=0.01)
    frame.loc[(frame["experiment"] == "ITW2") & (frame["reference"] == "STL"), "low"] = -0.9
    axis = draw(frame).axes[0]
    arrows = [
        line.get_marker() for line in axis.get_lines() if line.get_marker() in ("<", ">") and not line.get_clip_on()
    ]

    assert arrows == ["<"]
    assert -0.1 < axis.get_xlim()[0] < -0.03


def test_sensitivity_prints_every_difference():
    words = [text.get_text() for text in sensitivity(drawings.comparisons(MANY), SELECTED).axes[0].texts]

    assert words.count("−0.012 [−0.112, +0.104]") == 12  # noqa: RUF001 (a minus sign, as drawn)


def test_published_has_no_row_without_a_value():
    frame = drawings.published()
    frame.loc[0, "auc"] = np.nan
    figure = published_aucs(frame)

    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["MTL", "MTL2", "MTL3", "ITW3"]
    assert "without PFLP (ITW1)" in figure.get_supxlabel().replace("\n", " ")


def test_weights_are_named_in_titles_and_at_the_colour_bar():
    figure = weight_timeline(drawings.weights(["STL", "mine"]))
    figure.draw_without_rendering()

    assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["STL   3", "mine   3 : 0.3"]
    assert [text.get_text() for text in figure.axes[2].get_yticklabels()] == ["0.3", "3"]


@pytest.mark.parametrize("name", [*DRAWN])
def test_every_figure_says_in_words_what_it_shows(name):
    assert len(DRAWN[name]().alt) > 10


def test_words_of_the_forest_follow_its_numbers():
    frame = drawings.comparisons(["STL", "MTL", "ITW2"])
    frame.loc[frame["experiment"] == "ITW2", ["difference", "verdict"]] = [0.07, "higher"]

    assert forest(frame).alt == (
        "Against STL: 2 differences of test AUC from -0.012 (MTL) to +0.070 (ITW2); 1 lower, 1 higher. "
        "Against MTL: 1 difference of test AUC +0.070 (ITW2); 1 higher."
    )


def test_published_experiments_that_were_not_run_leave_the_counts_whole():
    frame = drawings.published()
    frame.loc[0, ["auc", "low", "high", "n", "n_seeds"]] = np.nan  # as a join leaves it, so the counts become floats
    words = " ".join(text.get_text() for text in shown_texts(published_aucs(frame))).replace("\n", " ")

    assert "this study, 600 test scans, mean over 5 seeds" in words


def test_notebook_shows_the_figure_as_png():
    png, metadata = run_seconds(drawings.seconds())._repr_png_()

    assert png.startswith(b"\x89PNG")
    assert metadata == {"alt": "Seconds per run from 127 (STL) to 127 (ITW3)."}


def test_no_label_of_a_contour_is_cut_by_the_border_of_its_panel():
    corner = np.full((4, 3), 0.005)
    corner[0, 0] = -0.0004  # a short line of 0 around one corner
    places = itertools.product([0, 1 / 3, 2 / 3, 1], [160, 640, 2560])
    frame = pd.DataFrame(places, columns=["relatedness", "n_scans"]).assign(difference=corner.ravel(), n_steps=800)
    frame = frame.assign(experiment="ITW2", reference="STL", low=-0.1, high=0.1, n_seeds=16)

    panel = contour_maps(frame, titles={("ITW2", "STL"): "ITW2 minus STL"}).axes[0]

    assert len(panel.texts) == 1
    assert not panel.texts[0].get_visible()


def test_a_rule_that_learns_its_weights_has_no_numbers_in_its_title_and_is_named_where_they_are_missing():
    frame = drawings.weights(["STL", "mine", "lost"])
    columns = frame.filter(like="weight_").columns
    is_mine = frame["experiment"] == "mine"
    frame.loc[is_mine, columns] = np.linspace(0.1, 3, is_mine.sum() * len(columns)).reshape(-1, len(columns))
    frame.loc[frame["experiment"] == "lost", columns] = np.nan
    figure = weight_timeline(frame)

    assert [axis.get_title(loc="left") for axis in figure.axes[:-1]] == ["STL   3", "mine"]
    assert "not recorded here: lost." in " ".join(figure.get_supxlabel().split())


def test_names_of_tasks_and_counts_stay_apart_however_tall_the_figure():
    figure = auc_by_task(drawings.aucs([f"P{number}" for number in range(40)]))
    figure.draw_without_rendering()
    axis = figure.axes[0]
    title, count = (text.get_window_extent() for text in (axis._left_title, axis.texts[0]))

    assert count.y1 < title.y0 + 1
