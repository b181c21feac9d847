"""Plausibility: what looks wrong says so, with its figure and the true cause; what is usual says nothing."""

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from chests import chest, finer, save

from lungmtl.data import plausibility
from lungmtl.data.checks import check_file
from lungmtl.data.lungs import lung_mask
from lungmtl.data.plausibility import air_hu, hu_scale, raw_values, remarks, tissue_off_hu
from lungmtl.data.reading import read_volume
from lungmtl.data.region import find_region
from lungmtl.data.volume import ScanError, Volume

REAL = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"


@pytest.fixture(scope="module")
def real():
    """The real CT and its lungs."""
    volume = read_volume(REAL)
    return volume, lung_mask(volume)


def checked(volume: Volume, folder: Path) -> dict:
    save(volume.hu, folder / "a.nii.gz", spacing_mm=volume.spacing_mm)
    return check_file(("a", str(folder / "a.nii.gz"), str(folder / "a.png"), ""))


def said(volume: Volume, folder: Path) -> str:
    row = checked(volume, folder)
    return row["reason"] or " ".join(remarks(SimpleNamespace(**row)))


def filled(volume: Volume, where: np.ndarray, hu: float) -> Volume:
    return Volume(np.where(where, hu, volume.hu).astype(np.int16), volume.spacing_mm)


def half(lung: np.ndarray, side: str) -> np.ndarray:
    middle = int(np.mean(np.nonzero(lung.any(axis=(0, 1)))[0]))
    columns = np.arange(lung.shape[2])
    return lung & (columns < middle if side == "right" else columns >= middle)


def test_a_usual_scan_says_nothing(real, tmp_path):
    assert said(real[0], tmp_path) == ""


@pytest.mark.parametrize("side", ["right", "left"])
def test_one_lung_only(real, side, tmp_path):
    volume, lung = real
    text = said(filled(volume, half(lung, side), 35), tmp_path)
    assert text.startswith("There is one lung only")
    assert f"0.00 L on the {side}" in text or f"0.00 L of air on the {side}" in text
    assert "mm high" not in text


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_lobe_without_air(real, side, tmp_path):
    volume, lung = real
    part = half(lung, side)
    lower = np.arange(len(lung))[:, None, None] < np.median(np.nonzero(part)[0])
    assert f"A part of the {side} lung" in said(filled(volume, part & lower, 35), tmp_path)


def test_a_middle_lobe_without_air(real, tmp_path):
    volume, lung = real
    part = half(lung, "right")
    z, y, x = (np.nonzero(part)[axis] for axis in range(3))
    low, high = np.percentile(z, [5, 60])
    columns, rows, planes = np.arange(lung.shape[2]), np.arange(lung.shape[1])[:, None], np.arange(len(lung))
    is_low = ((planes > low) & (planes < high))[:, None, None]
    lobe = part & is_low & (rows < np.percentile(y, 30)) & (columns > np.percentile(x, 10))
    assert 0.05 < lobe.sum() / lung.sum() < 0.12  # as a middle lobe
    text = said(filled(volume, lobe, 35), tmp_path)
    assert text.startswith("Of the air low in front, the right lung holds ")
    assert "The middle lobe may be white" in text
    assert "unequal" not in text


def test_two_white_lungs_are_no_usable_scan(real, tmp_path):
    assert ": not a chest, or one without air." in said(filled(*real, 35), tmp_path)


@pytest.mark.parametrize("off_hu", [-100, 55, 100, 200])
def test_hu_shifted_as_a_whole(real, off_hu, tmp_path):
    volume, lung = real
    shifted = Volume((volume.hu + np.int16(off_hu)).clip(-1024), volume.spacing_mm)
    row = checked(shifted, tmp_path)
    assert row["tissue_off_hu"] == pytest.approx(off_hu, abs=15)
    assert remarks(SimpleNamespace(**row))[0].startswith(f"HU are shifted by about {row['tissue_off_hu']:+.0f}: fat")
    assert row["lung_volume_l"] == pytest.approx(lung.sum() * 0.064e-3, rel=0.06)


def test_hu_so_low_that_lungs_are_lost_say_so(real, tmp_path):
    volume, _ = real
    low = Volume((volume.hu - np.int16(200)).clip(-1024), volume.spacing_mm)
    assert re.search(r"fat and muscle (19|20)\d HU too low: lungs are cut off at -1024", said(low, tmp_path))


def times(volume: Volume, scale: float) -> Volume:
    return Volume(np.rint(volume.hu * scale).clip(-1024).astype(np.int16), volume.spacing_mm)


@pytest.mark.parametrize("scale", [0.5, 0.8])
def test_hu_scaled_as_a_whole_are_blamed_on_nothing_else(real, scale, tmp_path):
    row = checked(times(real[0], scale), tmp_path)
    assert row["scale"] == pytest.approx(scale, rel=0.05)
    text = f"HU are scaled by about {row['scale']:.2g}: air, fat and muscle lie near"
    assert [found.split(" lie near")[0] for found in remarks(SimpleNamespace(**row))] == [text.split(" lie near")[0]]


def test_doubled_hu_are_refused_with_their_cause(real, tmp_path):
    text = said(times(real[0], 2), tmp_path)
    assert text.startswith("HU are scaled by about 2: air, fat and muscle lie near -1024, -21")
    assert "A chest CT must hold at least" in text


@pytest.mark.parametrize("off_hu", [-200, -100, 0, 100, 200])
def test_shifted_hu_and_usual_ones_are_not_scaled(real, off_hu):
    assert np.isnan(hu_scale((real[0].hu + np.int16(off_hu)).clip(-1024)))


def test_air_outside_the_body_is_not_padding_nor_lung():
    volume = chest()
    lungs = volume.hu == -850
    assert air_hu(volume.hu, lungs) == -1000
    assert air_hu(np.where(volume.hu == -1000, -900, volume.hu), lungs) == -900
    assert np.isnan(air_hu(np.where(volume.hu == -1000, -1024, volume.hu), lungs))
    assert np.isnan(tissue_off_hu(volume.hu))  # muscle alone
    text = plausibility.offset(SimpleNamespace(tissue_off_hu=np.nan, air_hu=-900))
    assert text.startswith("Air outside the body lies at -900 HU, not -1000")


def test_gas_in_the_bowel_is_not_counted_as_lung_and_said(tmp_path):
    volume = chest()
    volume.hu[1:5, 10:18, 8:28] = -995  # 0.64 L below both lungs, 10 mm of tissue between
    row = checked(volume, tmp_path)
    assert row["lung_volume_l"] == pytest.approx(2.4)
    assert "0.64 L of air in the body are not counted as lung" in " ".join(remarks(SimpleNamespace(**row)))


def test_gas_that_no_wall_parts_from_the_lungs_is_said(tmp_path):
    volume = chest()
    volume.hu[1:6, 9:17, 20:28] = -995  # 0.32 L, joined to the left lung
    assert "0.32 L counted as lung are as dark as gas" in said(volume, tmp_path)


def test_a_childs_lungs_are_lungs(tmp_path):
    volume = Volume(chest().hu, (7.2, 7.2, 7.2))  # 0.9 L
    assert "The lungs hold 0.90 L, below 1.5 L: a child's" in said(volume, tmp_path)


@pytest.mark.parametrize(("part", "text"), [(np.s_[9:], "lowest slice, with 200 cm2"), (np.s_[:15], "highest slice")])
def test_lungs_that_the_image_cuts(part, text, tmp_path):
    volume = chest()
    assert text in said(Volume(volume.hu[part], volume.spacing_mm), tmp_path)


@pytest.mark.parametrize(
    ("spacing_mm", "found"),
    [
        ((1.0, 0.1, 0.1), "Found 14 mm, 144 pixels of 0.1 mm: the voxel size is too small, as if in cm"),
        ((100.0, 100.0, 100.0), "Found 14400 mm, 144 pixels of 100 mm: the voxel size is too large"),
        ((0.5, 0.5, 0.5), "Found 72 mm, 144 pixels of 0.5 mm: a crop, or a voxel size that is too small"),
    ],
)
@pytest.mark.parametrize("find", [lung_mask, find_region])
def test_a_field_of_view_that_no_chest_has(spacing_mm, found, find):
    with pytest.raises(ScanError, match=found):
        find(Volume(finer(chest(), 4).hu, spacing_mm))


def test_slices_too_far_apart_or_too_close(tmp_path):
    volume = finer(chest(), 2)
    assert "600 mm high" in said(Volume(volume.hu, (25.0, 5.0, 5.0)), tmp_path)
    flat = said(Volume(volume.hu, (1.5, 5.0, 5.0)), tmp_path)
    assert "36 mm high and 240 mm wide: a thin part of a chest, or slices do not lie 1.5 mm apart" in flat


@pytest.mark.parametrize("added", [1000, 1024])
def test_values_that_are_not_hu_say_so(added, tmp_path, real):
    save(real[0].hu.astype(np.float32) + added, tmp_path / "raw.nii.gz", spacing_mm=(4.0, 4.0, 4.0))
    with pytest.raises(ScanError, match=r"must be in HU. Found \d\d% of the values at 900 to 1200.*intercept of 0"):
        read_volume(tmp_path / "raw.nii.gz")
    assert raw_values(real[0].hu) == ""


def test_an_own_mask_that_leaves_lung_out():
    row = SimpleNamespace(left_out=0.45)
    assert plausibility.own_mask(row) == "The mask leaves out 45% of the lungs' air."
