"""A prepared scan: windowed lungs on the grid asked for, whatever the position and orientation of the patient."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, fine_chest

from lungmtl.data import region
from lungmtl.data.lungs import find_lungs
from lungmtl.data.preparation import Preparation
from lungmtl.data.reading import read_volume
from lungmtl.data.tensor import prepare, prepare_scan, resample_lungs, seen_mask
from lungmtl.data.volume import Volume
from lungmtl.sources.phantom import make_volume

REAL_CT = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
SPEC = Preparation(spacing_mm=(20.0, 20.0, 20.0), shape=(16, 16, 16), window_hu=(-1000.0, 400.0))
TIGHT = dataclasses.replace(SPEC, region="tight")


def test_a_prepared_scan_is_windowed_lung_on_the_asked_grid():
    volume = chest()
    tensor = prepare(volume, dataclasses.replace(TIGHT, spacing_mm=(10, 10, 10), shape=(16, 14, 28)))
    assert tensor.dtype == np.float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 2:12], 150 / 1400, atol=1e-3)  # float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 16:26], 150 / 1400, atol=1e-3)
    assert np.count_nonzero(tensor) == 2 * 12 * 10 * 10


def test_the_wide_region_shows_tissue_with_a_fifth_of_its_contrast(monkeypatch):
    volume = read_volume(REAL_CT)
    shown = prepare(volume, SPEC).astype(np.float32)
    bounds = []
    for contrast in (0, 1):
        monkeypatch.setattr(region, "TISSUE_CONTRAST", contrast)
        bounds.append(prepare(volume, SPEC).astype(np.float32))
    air, whole = bounds
    np.testing.assert_allclose(shown, air + 0.2 * (whole - air), atol=1e-3)  # float16
    assert (whole - air).max() > 0.5


def test_the_wide_region_shows_the_lungs_air_as_the_tight_one_does():
    volume = read_volume(REAL_CT)
    wide, tight = region.find_region(volume), find_lungs(volume)
    full = [np.argwhere(wide.contrast(z) == 1) for z in range(len(wide.mask))]
    assert sum(map(len, full)) == np.count_nonzero(wide.lungs.mask)
    both = np.count_nonzero(wide.lungs.whole(volume) & tight.whole(volume))
    assert 2 * both > 0.97 * (np.count_nonzero(wide.lungs.mask) + np.count_nonzero(tight.mask))


def test_preparing_does_not_depend_on_where_the_patient_lies():
    volume = chest()
    moved = Volume(np.roll(volume.hu, (3, 2, -1), axis=(0, 1, 2)), volume.spacing_mm)
    np.testing.assert_array_equal(prepare(volume, SPEC), prepare(moved, SPEC))


def test_preparing_leaves_the_volume_as_it_was():
    volume = chest()
    prepare(volume, SPEC)
    np.testing.assert_array_equal(volume.hu, chest().hu)


def test_preparing_takes_less_memory_than_the_volume():
    volume = fine_chest()
    peak, lungs = peak_bytes(lambda: find_lungs(volume))
    assert peak < 1.5 * volume.hu.nbytes  # found 1.06, on blocks of 8 voxels
    peak, _ = peak_bytes(lambda: resample_lungs(volume, lungs, SPEC))
    assert peak < 0.1 * volume.hu.nbytes  # found 0.02; a float copy of the box around the lungs takes 0.4


def peak_bytes(call):
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result


def test_lungs_that_stick_out_of_the_grid_are_measured():
    whole = prepare_scan(chest(), TIGHT)
    assert whole.cropped_fraction == 0
    assert whole.lung_volume_l == pytest.approx(2.4)
    half = prepare_scan(chest(), dataclasses.replace(TIGHT, spacing_mm=(10, 10, 10), shape=(6, 28, 36)))
    assert half.cropped_fraction == pytest.approx(0.5)


def test_the_real_ct_prepares_to_the_same_lungs_at_every_orientation(tmp_path):
    image = sitk.ReadImage(str(REAL_CT))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(tmp_path / "ras.nii.gz"))
    spec = Preparation(spacing_mm=(8, 8, 8), shape=(40, 32, 40), window_hu=(-1000, 400))
    first, second = (prepare_scan(read_volume(p), spec) for p in (REAL_CT, tmp_path / "ras.nii.gz"))
    np.testing.assert_array_equal(first.tensor, second.tensor)
    assert first.cropped_fraction < 0.001


@pytest.mark.parametrize("region", ["tight", "wide"])
def test_a_mass_at_the_wall_is_seen_in_the_wide_region_alone(region):
    hu, labels, space, _ = make_volume(np.random.default_rng([3, 0]))
    volume = Volume(hu.copy(), tuple(float(s) for s in space.spacing_mm))
    z, y, x = np.argwhere(labels == 1).mean(axis=0).round().astype(int)
    edge = np.argwhere((labels[z, y] > 0) & (np.arange(labels.shape[2]) > x))[-1, 0]  # the left lung's side wall
    grids = np.meshgrid(*[np.arange(n) * s for n, s in zip(hu.shape, volume.spacing_mm, strict=True)], indexing="ij")
    center_mm = np.multiply((z, y, edge), volume.spacing_mm)
    ball = sum((grid - at) ** 2 for grid, at in zip(grids, center_mm, strict=True)) < 20**2  # 40 mm
    mass = ball & (labels > 0)
    volume.hu[mass] = 40

    seen = seen_mask(volume, dataclasses.replace(SPEC, region=region))

    share = seen[mass].mean()
    assert share > 0.95 if region == "wide" else share < 0.8
    litres = prepare_scan(volume, dataclasses.replace(SPEC, region=region)).lung_volume_l
    assert litres == pytest.approx((labels > 0).sum() * space.voxel_ml / 1000, rel=0.1)
