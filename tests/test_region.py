"""Region: what disease takes from the lungs stays in, in tight fields of view too; bowel and table stay out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chests import chest

from lungmtl.data.air import pool_l
from lungmtl.data.lungs import lung_mask
from lungmtl.data.plausibility import gas, sides, symmetry
from lungmtl.data.reading import read_volume
from lungmtl.data.region import Region, find_region
from lungmtl.data.volume import ScanError, Volume
from lungmtl.sources.phantom import make_volume

ROOT = Path(__file__).parents[1]
KEPT = 0.95  # of the part of a mass that lies in the lung; the rest is drawn into ribs and diaphragm
PLACES = ["lateral wall", "back wall", "mediastinum", "apex", "base", "recess", "fissure"]


def _program():
    """benchmarks/masses.py, which no package holds."""
    spec = importlib.util.spec_from_file_location("masses", ROOT / "benchmarks" / "masses.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["masses"] = module  # its dataclass looks itself up
    spec.loader.exec_module(module)
    return module


masses = _program()


@pytest.fixture(scope="module", params=["real", "phantom"])
def case(request):
    """A CT and its lungs: the real one at 4 mm, or a phantom."""
    if request.param == "real":
        volume = read_volume(ROOT / "tests" / "data" / "lidc_idri_0001_4mm.nii.gz")
    else:
        hu, _, space, _ = make_volume(np.random.default_rng([0, 1]))
        z_mm, y_mm, x_mm = space.spacing_mm
        volume = Volume(np.ascontiguousarray(hu[:, ::2, ::2]), (z_mm, 2 * y_mm, 2 * x_mm))  # as good, and faster
    return volume, lung_mask(volume)


@pytest.fixture(scope="module")
def whole(case):
    """Its region as it is."""
    return find_region(case[0])


def share(region: Region, where: np.ndarray) -> float:
    return np.count_nonzero(where[region.box] & region.mask) / np.count_nonzero(where)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("diameter_mm", "side", "seed"), [(12, "left", 0), (40, "right", 1), (70, "left", 2)])
def test_a_mass_stays_in(case, place, diameter_mm, side, seed):
    volume, lung = case
    ill = masses.with_mass(volume, lung, place, side, diameter_mm, seed=seed)
    assert share(find_region(ill.volume), ill.ill & lung) >= KEPT


@pytest.mark.parametrize(("at", "seed"), [((73, 42, 48), 56), ((70, 42, 64), 16)])
def test_a_small_mass_leaves_no_notch_in_the_region(at, seed):
    volume = read_volume(ROOT / "tests" / "data" / "lidc_idri_0001_4mm.nii.gz")
    lung, spacing_mm = lung_mask(volume), np.array(volume.spacing_mm)
    ill = masses._solid(lung.shape, spacing_mm, np.array(at) * spacing_mm, 8, seed) & lung
    ill_hu = np.where(ill, masses.MASS_HU, volume.hu).astype(np.int16)
    assert share(find_region(Volume(ill_hu, volume.spacing_mm)), ill) == 1  # 0.95 without closing


@pytest.mark.parametrize(("side", "upper"), [("right", False), ("left", False), ("right", True), ("left", True)])
def test_a_consolidated_lobe_stays_in(case, side, upper):
    volume, lung = case
    lobe = masses.lobe_like(lung, side, volume.spacing_mm, upper=upper)
    assert share(find_region(masses.with_lobe(volume, lung, lobe).volume), lobe) >= KEPT


@pytest.mark.parametrize("ill_sides", [("right",), ("right", "left")])
def test_lung_under_an_effusion_stays_in(case, ill_sides):
    volume, lung = case
    ill = masses.with_effusion(volume, lung, ill_sides, 25)
    region = find_region(ill.volume)
    assert share(region, lung) >= KEPT
    assert share(region, ill.ill) >= KEPT


def test_bowel_table_and_chest_wall_stay_out(case, whole):
    (volume, lung), region = case, whole
    assert share(region, lung) > 0.99
    assert np.count_nonzero(region.mask) < 2.15 * np.count_nonzero(lung)
    assert region.box[0].start * volume.spacing_mm[0] >= lung.any(axis=(1, 2)).argmax() * volume.spacing_mm[0] - 20
    body = volume.hu > -320
    body[region.box] &= ~region.mask
    assert np.count_nonzero(body) > 0.7 * np.count_nonzero(volume.hu > -320)
    assert [sides(region), symmetry(region), gas(region)] == ["", "", ""]


def test_the_air_in_the_region_is_the_tight_mask_of_a_healthy_chest(case, whole):
    volume, lung = case
    air, dark_l = whole.lungs, pool_l(volume, whole)
    found = air.whole(volume)
    assert 2 * np.count_nonzero(found & lung) / (np.count_nonzero(found) + np.count_nonzero(lung)) > 0.995
    assert dark_l < 0.1


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_white_lung_is_said_with_its_figures(case, side):
    volume, lung = case
    region = find_region(masses.with_white_lung(volume, lung, side).volume)
    assert {"right": region.right_l, "left": region.left_l}[side] < 0.1 * max(region.right_l, region.left_l)
    remark = symmetry(region)
    assert f"The {side} lung is white" in remark
    assert f"{region.left_l:.2f} L" in remark


def test_tight_fields_of_view_lose_no_lung(case):
    volume, lung = case
    for name, cut, seen in masses.fields(volume, lung):
        region = find_region(cut)
        assert share(region, seen) >= 0.97, name
        if "240 mm" in name or "cut" in name or "hole" in name:
            assert f"{region.cut_cm2:.0f} cm2" in sides(region), name


TABLE = ROOT / "results" / "region" / "tables" / "kept.csv"
COVERAGE = """
import pathlib, sys
from benchmarks import preparation
preparation.KEPT = pathlib.Path(sys.argv.pop())
preparation.main()
"""


def least_kept(column, *kinds):
    frame = pd.read_csv(TABLE)
    return frame.loc[frame["what"].isin(kinds), column].min()


def test_the_table_reaches_what_is_asked():
    assert least_kept("wide_in_chest", "round mass", "lobulated mass") >= 100 * KEPT
    assert least_kept("wide", "consolidation", "effusion, the lung") >= 100 * KEPT
    assert least_kept("wide", "lung") >= 97


@pytest.mark.slow
def test_the_table_is_what_the_regions_keep_at_full_size(tmp_path):
    command = [sys.executable, "-c", COVERAGE, "--coverage", "--folder", tmp_path, tmp_path / "kept.csv"]
    subprocess.run(command, cwd=ROOT, check=True)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "kept.csv"), pd.read_csv(TABLE), rtol=0, atol=0.11)


@pytest.mark.parametrize("off_hu", [-100, 55, 200])
def test_shifted_hu_do_not_open_the_body(case, off_hu):
    volume, lung = case
    region = find_region(Volume((volume.hu + np.int16(off_hu)).clip(-1024), volume.spacing_mm))
    assert share(region, lung) > 0.97
    assert np.count_nonzero(region.mask) < 2.05 * np.count_nonzero(lung)


def test_a_chest_without_bones_has_a_region():
    volume = chest()
    region = find_region(volume)
    assert share(region, volume.hu == -850) > 0.99
    assert region.left_l == pytest.approx(region.right_l, rel=0.01)


@pytest.mark.parametrize("value", [-1000, 40])
def test_nothing_but_air_or_tissue_is_not_a_chest(value):
    with pytest.raises(ScanError, match=r"at least 0.2 L of lung"):
        find_region(Volume(np.full((16, 16, 16), value, dtype=np.int16), (20.0, 20.0, 20.0)))
