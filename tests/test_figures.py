"""Figures drawn from made-up frames: what they say, that nothing overlaps, and that their bytes are stable."""

import io
import itertools

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from lungmtl.experiments import base_of
from lungmtl.figures import style
from lungmtl.figures.aucs import auc_by_task, published_aucs, reliability, roc_curves
from lungmtl.figures.differences import forest, sensitivity, subgroups
from lungmtl.figures.style import COLORS, OTHER_COLORS
from lungmtl.figures.training import learning_curves, run_seconds
from lungmtl.figures.uncertainty import coverage, power, variance_parts

EXPERIMENTS = list(COLORS)
CHANGES = ("factor0", "factor0.1", "order-reversed", "period10", "restart", "start0.5", "start0.7", "start0.8")
VARIANTS = [f"ITW2.{change}" for change in CHANGES] + ["MTL.aux0.1", "MTL.aux0.3"]
MANY = [*EXPERIMENTS, *VARIANTS, "mine", "other"]  # 22
TASKS = ["lung_cancer", "asthma", "chronic_bronchitis", "copd", "emphysema"]
INTERVAL = "95 % seed and patient bootstrap"
# what a reader with a colour vision deficiency sees, on linear RGB (Machado et al. 2009, severity 1)
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def aucs(experiments=EXPERIMENTS, *, n_seeds=5):
    rows = [
        (name, task, 0.70 + 0.01 * i, 0.62 + 0.01 * i, 0.99, INTERVAL, n_seeds, 600, 180)
        for i, name in enumerate(experiments)
        for task in (TASKS[:1] if name == "STL" else TASKS)
    ]
    columns = ["experiment", "task", "auc", "low", "high", "interval", "n_seeds", "n", "positives"]
    return pd.DataFrame(rows, columns=columns)


def comparisons(experiments=EXPERIMENTS):
    pairs = [(name, "STL") for name in experiments if name != "STL"]
    pairs += [(name, "MTL") for name in experiments if name not in ("STL", "MTL")]
    frame = pd.DataFrame(pairs, columns=["experiment", "reference"])
    return frame.assign(
        difference=-0.012, low=-0.112, high=0.104, low_90=-0.1, high_90=0.09, p=0.0001, p_holm=0.0004,
        equivalence_p=0.3, equivalence_p_holm=0.9, margin=0.02, verdict="lower", interval=INTERVAL, n_family=len(frame), n_seeds=5,
        n=600, positives=180,
    )  # fmt: skip


def curves(experiments=EXPERIMENTS, *, n_seeds=5):
    rates = np.linspace(0, 1, 101)
    runs = itertools.product(experiments, range(n_seeds))
    return pd.concat(
        pd.DataFrame(
            {"experiment": name, "seed": seed, "false_positive_rate": rates, "sensitivity": rates ** (0.3 + seed / 20)}
        )
        for name, seed in runs
    )


def history(experiments=EXPERIMENTS, *, n_seeds=5):
    places = itertools.product(experiments, range(n_seeds), range(15), ("train", "validation"), TASKS[:2])
    frame = pd.DataFrame(places, columns=["experiment", "seed", "epoch", "split", "task"])
    frame["loss"] = 0.7 - 0.03 * frame["epoch"] + 0.01 * frame["seed"]
    return frame.assign(auc=(1 - frame["loss"]).where(frame["split"] == "validation"))


def seconds(experiments=EXPERIMENTS):
    frame = pd.DataFrame({"experiment": experiments, "n_seeds": 5, "prepare": 1.0, "train": 120.0, "evaluate": 6.0})
    return frame.assign(total=127.0, total_min=110.0, total_max=150.0)


def published():
    frame = pd.DataFrame({"experiment": ["STL", "MTL", "MTL2", "MTL3", "ITW3"], "paper_n": 592})
    frame["setting"] = [
        "single task",
        "multi-task, weights not adaptive",
        "with PFLP",
        "with PFLP",
        "with PFLP and ITW",
    ]
    frame["paper_auc"] = [0.808, 0.672, 0.8402, 0.8402, 0.8462]
    return frame.merge(aucs().query("task == 'lung_cancer'"), on="experiment")


def variance(experiments=EXPERIMENTS):
    places = [(name, reference) for reference in ("", "STL", "MTL") for name in experiments if name != reference]
    frame = pd.DataFrame(places, columns=["experiment", "reference"])
    return frame.assign(seed_variance=1e-4, patient_variance=3e-4, seed_share=0.25, n_seeds=5, n=600)


def bins(experiments=EXPERIMENTS):
    frame = pd.DataFrame(itertools.product(experiments, np.linspace(0.05, 0.95, 10)))
    frame.columns = ["experiment", "predicted"]
    low, high = (frame["predicted"] + 0.1 * sign for sign in (-1, 1))
    return frame.assign(observed=frame["predicted"], low=low, high=high, n=60)


def detectable(experiments=EXPERIMENTS):
    pairs = [(name, reference) for reference in ("STL", "MTL") for name in experiments if name != reference]
    rows = [
        (*pair, n, (1 + 0.02 * i) * np.sqrt(0.7 / n + 1e-5 / n_seeds), n_seeds)
        for i, pair in enumerate(pairs)
        for n in (100, 592, 600, 5000, 20_000)
        for n_seeds in (1, 5)
    ]
    return pd.DataFrame(rows, columns=["experiment", "reference", "n", "detectable", "n_seeds"])


def in_subgroups(experiments=EXPERIMENTS, *, reference="STL"):
    of_positives = ("at most 18.3, against all negatives", "above 18.3, against all negatives")
    groups = {"sex": ("female", "male"), "nodule_mm": of_positives, "chronic_bronchitis": ("no", "yes")}
    places = [(attribute, name) for attribute, names in groups.items() for name in names]
    rows = [(*place, name, reference) for name in experiments if name != reference for place in places]
    frame = pd.DataFrame(rows, columns=["attribute", "subgroup", "experiment", "reference"])
    return frame.assign(value=-0.02, low=-0.1, high=0.05, interval=INTERVAL, n_seeds=5, n=600, positives=180)


def simulated(*, n_settings=2):
    settings = [f"{i} scans, 8 positive" for i in range(n_settings)]
    places = itertools.product(["DeLong, logit scale", "patient bootstrap"], settings)
    frame = pd.DataFrame(places, columns=["interval", "setting"])
    return frame.assign(nominal=0.95, coverage=0.96, low=0.955, high=0.965, n_simulations=1000)


SELECTED = pd.DataFrame({"group": ["ITW2", "MTL"], "experiment": ["ITW2.start0.7", "MTL"]})
CAPTION = "600 test scans."


def drawn(experiments):
    central = aucs(experiments).query("task == 'lung_cancer'")
    return {
        "auc_by_task": lambda: auc_by_task(aucs(experiments)),
        "forest": lambda: forest(comparisons(experiments)),
        "roc_curves": lambda: roc_curves(curves(experiments), central),
        "learning_auc": lambda: learning_curves(history(experiments), task="lung_cancer", value="auc"),
        "learning_loss": lambda: learning_curves(history(experiments)),
        "run_seconds": lambda: run_seconds(seconds(experiments)),
        "variance_parts": lambda: variance_parts(variance(experiments)),
        "reliability": lambda: reliability(bins(experiments), caption=CAPTION),
        "power": lambda: power(detectable(experiments), n=600, published_n=592, caption=CAPTION),
        "subgroups": lambda: subgroups(in_subgroups(experiments)),
    }


OTHERS = {
    "published_aucs": lambda: published_aucs(published()),
    "sensitivity": lambda: sensitivity(comparisons(MANY), SELECTED),
    "coverage": lambda: coverage(simulated()),
    "coverage-90": lambda: coverage(simulated(n_settings=45)),
}
DRAWN = drawn(["STL", "MTL", "ITW2"]) | OTHERS
LARGE = drawn(EXPERIMENTS) | {f"{name}-22": draw for name, draw in drawn(MANY).items()} | OTHERS
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


def lab(color, vision):
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


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
    words = " ".join(text.get_text() for text in shown_texts(auc_by_task(aucs(n_seeds=1))))

    assert "over 1 seed with" in words


def test_frames_are_not_changed():
    frame = comparisons()
    forest(frame)

    pd.testing.assert_frame_equal(frame, comparisons())


def test_forest_shows_numbers_and_says_which_family():
    words = [text.get_text() for text in shown_texts(forest(comparisons()))]

    assert words.count("−0.012 [−0.112, +0.104]") == 17  # noqa: RUF001 (a minus sign, as drawn)
    assert words.count("< 0.001") == 17
    assert words.count("lower") == 17
    assert any("17 comparisons" in word.replace("\n", " ") for word in words)


def test_forest_draws_both_intervals_and_the_band():
    axis = forest(comparisons(["STL", "ITW2"])).axes[0]
    ends = [tuple(line.get_xdata()) for line in axis.get_lines()]

    assert (-0.112, 0.104) in ends
    assert (-0.1, 0.09) in ends
    assert axis.patches[0].get_extents().transformed(axis.transData.inverted()).intervalx == pytest.approx(
        [-0.02, 0.02]
    )


def test_sensitivity_puts_each_base_first_and_rings_what_validation_chose():
    figure = sensitivity(comparisons(MANY).assign(difference=lambda frame: np.linspace(-1, 1, len(frame))), SELECTED)
    axis = figure.axes[0]
    labels = [text.get_text() for text in axis.get_yticklabels()]
    rings = [line for line in axis.get_lines() if line.get_markersize() == 11]
    of_choices = [axis.get_yticks()[labels.index(label)] for label in ("MTL", "start0.7")]

    assert labels == ["MTL", "aux0.1", "aux0.3", "ITW2", *CHANGES]
    assert [ring.get_ydata()[0] for ring in rings] == of_choices


def test_variance_bars_end_at_the_total():
    bars = variance_parts(variance(["ITW2"])).axes[0].patches

    assert [bar.get_x() + bar.get_width() for bar in bars] == pytest.approx([1, 4])  # in units of 0.01 squared


def test_longest_variance_bar_is_inside_whichever_panel_it_is_in():
    frame = variance().assign(seed_variance=lambda rows: 1e-4 + 9e-4 * (rows["reference"] == "MTL"))
    axis = variance_parts(frame).axes[0]

    assert axis.get_xlim()[1] > 13  # of 10 and 3


def test_power_names_each_line_at_its_end_in_order_of_height():
    frame = detectable(["STL", "ITW2", "ITW3"])
    figure = power(frame, n=600, published_n=592, caption=CAPTION)
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent().y0 for text in figure.axes[0].texts}

    assert texts["ITW3"] > texts["ITW2"]  # the frame gives later pairs larger differences
    assert texts["this study, 600"] == texts["paper, 592"]


def test_subgroups_warn_that_they_are_exploratory_and_count_scans():
    figure = subgroups(in_subgroups())
    words = " ".join(text.get_text() for text in shown_texts(figure)).replace("\n", " ")
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]

    assert "EXPLORATORY" in words
    assert labels[:3] == ["sex", "female  600 (180)", "male  600 (180)"]
    assert labels[3:5] == ["nodule (mm)", "at most 18.3 *  600 (180)"]


def test_coverage_of_many_rows_has_two_columns_and_loses_none():
    table = simulated(n_settings=45)
    axes = coverage(table).axes

    assert len(axes) == 2
    assert sum(len(axis.texts) for axis in axes) == len(table)


@pytest.mark.parametrize(("low", "high", "marker"), [(0.91, 0.935, "o"), (0.90, 0.92, "X"), (0.975, 0.99, "X")])
def test_coverage_crosses_what_lies_outside_the_band(low, high, marker):
    frame = simulated().iloc[:1].assign(coverage=(low + high) / 2, low=low, high=high)
    lines = coverage(frame).axes[0].get_lines()

    assert lines[-1].get_marker() == marker


def test_panels_follow_the_papers_order_whatever_the_frame():
    figure = learning_curves(history().sample(frac=1, random_state=0), task="lung_cancer", value="auc")

    assert [axis.get_title(loc="left") for axis in figure.axes] == EXPERIMENTS


def test_learning_curves_of_one_run_count_epochs_from_one():
    one = history(n_seeds=1).query("experiment == 'ITW3'")
    lines = learning_curves(one).axes[0].get_lines()

    assert {tuple(line.get_xdata()[[0, -1]]) for line in (lines[0], lines[-1])} == {(1, 15)}


def test_blank_rows_are_left_out():
    frame = aucs()
    frame.loc[frame["task"] == "asthma", ["auc", "low", "high"]] = np.nan

    assert len(auc_by_task(frame).axes) == 4


def test_experiment_looks_the_same_alone_and_among_others():
    assert style.looks(["ITW2"])["ITW2"] == style.looks(["mine", *EXPERIMENTS])["ITW2"]
    assert style.looks(["ITW2"])["ITW2"].color == COLORS["ITW2"]
    assert style.looks(["mine"])["mine"].color in OTHER_COLORS


def test_variant_has_its_bases_colour_and_a_marker_of_its_own():
    looks = style.looks(MANY)
    drawn = [(look.marker, look.is_filled) for name, look in looks.items() if base_of(name) == "ITW2"]

    assert {looks[f"ITW2.{change}"].color for change in CHANGES} == {looks["ITW2"].color}
    assert len(set(drawn)) == 1 + len(CHANGES)


def test_variants_stand_below_their_base_and_not_at_the_end():
    figure = learning_curves(history(["ITW3", "ITW2.start0.5", "ITW2", "STL"]))

    assert [axis.get_title(loc="left") for axis in figure.axes] == ["STL", "ITW2", "ITW2.start0.5", "ITW3"]


def test_published_experiments_that_were_not_run_leave_the_counts_whole():
    frame = published()
    frame.loc[0, ["auc", "low", "high", "n", "n_seeds"]] = np.nan  # as a join leaves it, so the counts become floats
    words = " ".join(text.get_text() for text in shown_texts(published_aucs(frame))).replace("\n", " ")

    assert "this study, 600 test scans, mean over 5 seeds" in words


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_every_reader(vision):
    seen = {name: lab(color, vision) for name, color in COLORS.items()}
    gaps = [np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)]

    assert min(gaps) > 10  # CIE76; about 2 is just noticeable


def test_families_are_recognised_by_marker():
    looks = style.looks(EXPERIMENTS)

    assert {looks[f"MTL{i}"].marker for i in range(5)} == {"o"}
    assert {looks[f"ITW{i}"].marker for i in (1, 2, 3)} == {"^"}
    assert len({looks[name].marker for name in ("STL", "MTL", "MTL0", "ITW1")}) == 4


def test_notebook_shows_the_figure_as_png():
    assert run_seconds(seconds())._repr_png_().startswith(b"\x89PNG")
