"""Colours and markers of experiments: the same in every figure, and apart for every reader."""

import itertools

import numpy as np
import pytest
from drawings import CHANGES, EXPERIMENTS, MANY
from matplotlib.colors import to_rgb

from lungmtl.experiments import base_of
from lungmtl.figures.style import BLUE, COLORS, OTHER_COLORS, RED, SPLIT_COLORS, VARIANT_COLORS, groups_of, line_colors
from lungmtl.figures.style import looks as looks_of

# what a reader with a colour vision deficiency sees, on linear RGB (Machado et al. 2009, severity 1)
VISION = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def lab(color, vision):
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISION[vision]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(to_xyz @ seen / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_experiment_looks_the_same_alone_and_among_others():
    assert looks_of(["ITW2"])["ITW2"] == looks_of(["mine", *EXPERIMENTS])["ITW2"]
    assert looks_of(["ITW2"])["ITW2"].color == COLORS["ITW2"]
    assert looks_of(["mine"])["mine"].color in OTHER_COLORS
    assert looks_of(["other", "mine"]) == looks_of(["mine", "other"])


def test_variant_has_its_bases_colour_and_a_marker_of_its_own():
    looks = looks_of(MANY)
    drawn = [(look.marker, look.is_filled) for name, look in looks.items() if base_of(name) == "ITW2"]

    assert {looks[f"ITW2.{change}"].color for change in CHANGES} == {looks["ITW2"].color}
    assert len(set(drawn)) == 1 + len(CHANGES)


@pytest.mark.parametrize("vision", VISION)
def test_colours_stay_apart_for_every_reader(vision):
    seen = {name: lab(color, vision) for name, color in COLORS.items()}
    gaps = [np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)]

    assert min(gaps) > 10  # CIE76; about 2 is just noticeable


@pytest.mark.parametrize("color", sorted({*COLORS.values(), *OTHER_COLORS, *VARIANT_COLORS, *SPLIT_COLORS, BLUE, RED}))
def test_every_colour_has_a_contrast_of_three_with_white(color):
    encoded = np.array(to_rgb(color))
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)

    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3  # WCAG 2.2, 1.4.11


def test_variants_share_a_panel_with_their_base_and_families_of_table_2_one_each():
    assert list(groups_of(MANY).values())[1:3] == [["MTL", "MTL.aux0.1", "MTL.aux0.3"], [f"MTL{i}" for i in range(5)]]
    assert list(map(len, groups_of(EXPERIMENTS).values())) == [2, 5, 3]
    assert len(set(line_colors(["ITW2", *(f"ITW2.{change}" for change in CHANGES)]).values())) == 1 + len(CHANGES)


def test_experiments_outside_table_2_share_panels_instead_of_one_each():
    others = [f"P{number:02}" for number in range(12)]
    groups = groups_of(["STL", "MTL", "GCS", "GCS-parameters", *others])

    assert list(map(len, groups.values())) == [2, 2, 4, 4, 4]
    assert list(groups)[2:] == ["P00 to P03", "P04 to P07", "P08 to P11"]
    assert list(groups_of(["STL", "UW"])) == ["STL", "UW"]


def test_families_are_recognised_by_marker():
    looks = looks_of(EXPERIMENTS)

    assert {looks[f"MTL{i}"].marker for i in range(5)} == {"o"}
    assert {looks[f"ITW{i}"].marker for i in (1, 2, 3)} == {"^"}
    assert len({looks[name].marker for name in ("STL", "MTL", "MTL0", "ITW1")}) == 4
