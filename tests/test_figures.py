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

from lungmtl import figures

EXPERIMENTS = list(figures.COLORS)
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


def comparisons():
    pairs = [(name, "STL") for name in EXPERIMENTS[1:]] + [(name, "MTL") for name in EXPERIMENTS[2:]]
    frame = pd.DataFrame(pairs, columns=["experiment", "reference"])
    return frame.assign(
        difference=-0.012, low=-0.112, high=0.104, p=0.0001, p_holm=0.0004, interval=INTERVAL, n_family=17, n_seeds=5,
        n=600, positives=180,
    )  # fmt: skip


def curves(*, n_seeds=5):
    rates = np.linspace(0, 1, 101)
    runs = itertools.product(EXPERIMENTS, range(n_seeds))
    return pd.concat(
        pd.DataFrame(
            {"experiment": name, "seed": seed, "false_positive_rate": rates, "sensitivity": rates ** (0.3 + seed / 20)}
        )
        for name, seed in runs
    )


def history(*, n_seeds=5):
    places = itertools.product(EXPERIMENTS, range(n_seeds), range(15), ("train", "validation"), TASKS[:2])
    frame = pd.DataFrame(places, columns=["experiment", "seed", "epoch", "split", "task"])
    frame["loss"] = 0.7 - 0.03 * frame["epoch"] + 0.01 * frame["seed"]
    return frame.assign(auc=(1 - frame["loss"]).where(frame["split"] == "validation"))


def seconds():
    frame = pd.DataFrame({"experiment": EXPERIMENTS, "n_seeds": 5, "prepare": 1.0, "train": 120.0, "evaluate": 6.0})
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


DRAWN = {
    "auc_by_task": lambda: figures.auc_by_task(aucs()),
    "forest": lambda: figures.forest(comparisons()),
    "roc_curves": lambda: figures.roc_curves(curves(), aucs().query("task == 'lung_cancer'")),
    "learning_auc": lambda: figures.learning_curves(history(), task="lung_cancer", value="auc"),
    "learning_loss": lambda: figures.learning_curves(history()),
    "run_seconds": lambda: figures.run_seconds(seconds()),
    "published_aucs": lambda: figures.published_aucs(published()),
}
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


@each_figure
def test_no_text_covers_another_or_leaves_the_figure(draw):
    figure = draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown_texts(figure)]
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


@pytest.mark.parametrize("name", ["auc_by_task", "forest", "roc_curves", "published_aucs"])
def test_caption_names_seeds_scans_and_interval(name):
    words = " ".join(text.get_text() for text in shown_texts(DRAWN[name]())).replace("\n", " ")

    assert "5 seeds" in words
    assert INTERVAL in words
    assert "600" in words


def test_caption_of_one_seed_is_singular():
    words = " ".join(text.get_text() for text in shown_texts(figures.auc_by_task(aucs(n_seeds=1))))

    assert "over 1 seed with" in words


def test_frames_are_not_changed():
    frame = comparisons()
    figures.forest(frame)

    pd.testing.assert_frame_equal(frame, comparisons())


def test_forest_shows_numbers_and_says_which_family():
    words = [text.get_text() for text in shown_texts(figures.forest(comparisons()))]

    assert words.count("−0.012 [−0.112, +0.104]") == 17  # noqa: RUF001 (a minus sign, as drawn)
    assert words.count("< 0.001") == 17
    assert any("17 comparisons" in word.replace("\n", " ") for word in words)


def test_panels_follow_the_papers_order_whatever_the_frame():
    figure = figures.learning_curves(history().sample(frac=1, random_state=0), task="lung_cancer", value="auc")

    assert [axis.get_title(loc="left") for axis in figure.axes] == EXPERIMENTS


def test_learning_curves_of_one_run_count_epochs_from_one():
    one = history(n_seeds=1).query("experiment == 'ITW3'")
    lines = figures.learning_curves(one).axes[0].get_lines()

    assert {tuple(line.get_xdata()[[0, -1]]) for line in (lines[0], lines[-1])} == {(1, 15)}


def test_blank_rows_are_left_out():
    frame = aucs()
    frame.loc[frame["task"] == "asthma", ["auc", "low", "high"]] = np.nan

    assert len(figures.auc_by_task(frame).axes) == 4


def test_experiment_looks_the_same_alone_and_among_others():
    assert figures.looks(["ITW2"])["ITW2"] == figures.looks(["mine", *EXPERIMENTS])["ITW2"]
    assert figures.looks(["mine"])["mine"].color in figures.OTHER_COLORS


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_every_reader(vision):
    seen = {name: lab(color, vision) for name, color in figures.COLORS.items()}
    gaps = [np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)]

    assert min(gaps) > 10  # CIE76; about 2 is just noticeable


def test_families_are_recognised_by_marker():
    looks = figures.looks(EXPERIMENTS)

    assert {looks[f"MTL{i}"].marker for i in range(5)} == {"o"}
    assert {looks[f"ITW{i}"].marker for i in (1, 2, 3)} == {"^"}
    assert len({looks[name].marker for name in ("STL", "MTL", "MTL0", "ITW1")}) == 4


def test_notebook_shows_the_figure_as_png():
    assert figures.run_seconds(seconds())._repr_png_().startswith(b"\x89PNG")
