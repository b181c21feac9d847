import itertools
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813

from lungmtl import phantom, volumes
from lungmtl.volumes import Grid, ScanError, Volume

REAL_CT = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
REAL_NODULE = (56, 64, 55)  # tests/data/README.md
REAL_LUNGS_L = 3.69  # by an independent mask
SPEC = {"spacing_mm": (20.0, 20.0, 20.0), "shape": (16, 16, 16), "window_hu": (-1000.0, 400.0)}


def chest() -> Volume:
    """A body with two box lungs of 1.2 L each, (24, 28, 36) voxels of 10 mm."""
    hu = np.full((24, 28, 36), -1000, dtype=np.int16)
    hu[:, 4:24, 3:33] = 40
    hu[6:18, 9:19, 6:16] = -850
    hu[6:18, 9:19, 20:30] = -850
    return Volume(hu, (10.0, 10.0, 10.0))


def save(array: np.ndarray, path: Path, *, spacing_mm=(10.0, 10.0, 10.0), orientation: str = "LPS") -> Path:
    """Write an LPS array (Z, Y, X) to a file whose axes point where `orientation` says."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return path


def small_ct() -> np.ndarray:
    """Three different sizes, air with some tissue and one bright voxel."""
    hu = np.full((5, 6, 7), -1000, dtype=np.int16)
    hu[1:3] = 40
    hu[3, 4, 1] = 1234
    return hu


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_axes_and_spacing_are_reversed_once_in_every_format(tmp_path, suffix):
    volume = volumes.read_volume(save(small_ct(), tmp_path / f"scan{suffix}", spacing_mm=(2.5, 0.7, 0.9)))
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)  # NIfTI keeps float32
    assert volume.hu.dtype == np.int16


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LPI", "RPI", "PIR", "SAL", "ILA"])
def test_every_orientation_reads_as_the_same_volume(tmp_path, orientation):
    path = save(small_ct(), tmp_path / "scan.nii.gz", spacing_mm=(2.5, 0.7, 0.9), orientation=orientation)
    volume = volumes.read_volume(path)
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(volumes.read_mask(save((small_ct() > 0).astype(np.uint8), path)), small_ct() > 0)


def test_padding_below_air_is_clipped_and_fractions_are_rounded(tmp_path):
    hu = small_ct().astype(np.float32)
    hu[0] = -2048.0
    hu[4] = -800.6
    volume = volumes.read_volume(save(hu, tmp_path / "scan.nii.gz"))
    assert volume.hu.min() == -1024
    assert (volume.hu[4] == -801).all()


def test_stored_values_are_rescaled_to_hu(tmp_path):
    path = save((small_ct() + 1024).astype(np.int16), tmp_path / "scan.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", 1.0, -1024.0)  # scl_slope and scl_inter of the NIfTI header
    path.write_bytes(content)
    np.testing.assert_array_equal(volumes.read_volume(path).hu, small_ct())


def write_text(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("not an image")
    return folder / "scan.nii.gz"


def write_4d(folder: Path) -> Path:
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(small_ct())] * 2), str(folder / "scan.nii.gz"))
    return folder / "scan.nii.gz"


def write_colour(folder: Path) -> Path:
    image = sitk.GetImageFromArray(np.zeros((4, 4, 4, 3), dtype=np.uint8), isVector=True)
    sitk.WriteImage(image, str(folder / "scan.nrrd"))
    return folder / "scan.nrrd"


def write_nan(folder: Path) -> Path:
    return save(np.full((4, 4, 4), np.nan, dtype=np.float32), folder / "scan.mha")


def write_unsigned(folder: Path) -> Path:
    return save((small_ct() + 1024).astype(np.uint16), folder / "scan.nii.gz")


def write_wide(folder: Path) -> Path:
    return save(small_ct(), folder / "scan.nii.gz", spacing_mm=(80.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_text, "an image that SimpleITK can read. Found .*scan.nii.gz"),
        (write_4d, "3D with one channel"),
        (write_colour, "3D with one channel. Found .* 3 channels"),
        (write_nan, "Found NaN or infinity"),
        (write_unsigned, "in HU and hold air and soft tissue. Found 0.0% air"),
        (write_wide, "voxel size must be positive and below 50 mm. Found .*80"),
    ],
)
def test_a_bad_image_is_refused_with_its_reason(tmp_path, write, reason):
    with pytest.raises(ScanError, match=reason):
        volumes.read_volume(write(tmp_path))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(-1000, 300, (16, 16, 16)).astype(np.int16)
    path = save(noise, tmp_path / f"scan{suffix}")
    path.write_bytes(path.read_bytes()[:-100])  # of NIfTI files ITK would return the rest as 0
    with pytest.raises(ScanError, match=r"(must be complete|SimpleITK can read)\. Found .*scan"):
        volumes.read_volume(path)


def test_a_file_with_a_damaged_byte_is_refused(tmp_path):
    path = save(small_ct(), tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"must be complete|SimpleITK can read"):
        volumes.read_volume(path)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Found nothing at .*gone.nii.gz"):
        volumes.read_volume(tmp_path / "gone.nii.gz")


def test_a_mask_must_hold_labels(tmp_path):
    with pytest.raises(ScanError, match=r"whole labels from 0 to 255. Found -1000"):
        volumes.read_mask(save(small_ct(), tmp_path / "scan.nii.gz"))


# ---------------------------------------------------------------- DICOM

N_SLICES = 8


def write_series(folder: Path, **tags: str) -> Path:
    """Write the first slices of `chest` as a DICOM series, 3 mm apart, the last file the lowest slice."""
    folder.mkdir(exist_ok=True)
    for index in range(N_SLICES):
        write_slice(folder / f"{N_SLICES - index:03d}.dcm", index, **tags)
    return folder


def write_slice(file: Path, index: int, *, z_mm: float | None = None, y_mm: float = 0.0, **tags: str) -> None:
    image = sitk.GetImageFromArray(chest().hu[index + 4])
    image.SetSpacing((0.5, 0.75))
    header = {
        "0008|0060": "CT",
        "0020|000d": "1.2.3",
        "0020|000e": "1.2.3.4",
        "0008|0018": f"1.2.3.4.{file.stem.lstrip('0')}",
        "0020|0032": f"0\\{y_mm}\\{3.0 * index if z_mm is None else z_mm}",
        "0020|0037": "1\\0\\0\\0\\1\\0",
        "0018|0050": "3.0",
        "0028|1052": "0",
        "0028|1053": "1",
    }
    for key, value in (header | {name.replace("_", "|"): value for name, value in tags.items()}).items():
        image.SetMetaData(key.lstrip("t"), value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)


def test_a_series_is_read_in_the_order_of_its_positions(tmp_path):
    volume = volumes.read_volume(write_series(tmp_path / "series"))
    np.testing.assert_array_equal(volume.hu, chest().hu[4 : 4 + N_SLICES])
    assert volume.spacing_mm == pytest.approx((3.0, 0.75, 0.5))


def test_files_that_are_not_dicom_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "series")
    (folder / "LICENSE.txt").write_text("text")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert volumes.read_volume(folder).hu.shape[0] == N_SLICES


def drop_two(folder):
    (folder / "004.dcm").unlink()
    (folder / "005.dcm").unlink()


def drop_every_second(folder):
    for index in range(1, N_SLICES, 2):
        (folder / f"{index:03d}.dcm").unlink()


def keep_one(folder):
    for index in range(2, N_SLICES + 1):
        (folder / f"{index:03d}.dcm").unlink()


def keep_none(folder):
    for file in folder.iterdir():
        file.unlink()


def repeat_a_position(folder):
    write_slice(folder / "100.dcm", 3)


def shift_a_slice(folder):
    write_slice(folder / "004.dcm", 4, z_mm=12.9)


def add_a_series(folder):
    write_slice(folder / "100.dcm", N_SLICES, t0020_000e="1.2.3.5")


def tilt(folder):
    for index in range(N_SLICES):
        write_slice(folder / f"{N_SLICES - index:03d}.dcm", index, y_mm=0.5 * index)


def turn_a_slice(folder):
    write_slice(folder / "004.dcm", 4, t0020_0037="1\\0\\0\\0\\0.98\\0.199")


def make_mr(folder):
    write_series(folder, t0008_0060="MR")


def cut_a_file(folder):
    (folder / "004.dcm").write_bytes((folder / "004.dcm").read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (drop_two, "Found missing slices: a gap of 9.00 mm after 006.dcm, median 3.00 mm, in .*series"),
        (drop_every_second, "Found missing slices: 6.00 mm from slice to slice, but 3.00 mm thick"),
        (keep_one, "Found a single slice in .*series"),
        (keep_none, "Found no DICOM file in .*series"),
        (repeat_a_position, "Found duplicate slices at .* in .*series"),
        (shift_a_slice, "Found uneven spacing: a gap of"),
        (add_a_series, "must hold one series. Found 2 in .*series"),
        (tilt, "Found a gantry tilt of 9.5°"),
        (turn_a_slice, "one orientation"),
        (make_mr, "modality CT. Found MR"),
        (cut_a_file, "Every slice must be readable. Found .*004.dcm"),
    ],
)
def test_a_broken_series_is_refused_with_its_reason(tmp_path, damage, reason):
    folder = write_series(tmp_path / "series")
    damage(folder)
    with pytest.raises(ScanError, match=reason):
        volumes.read_volume(folder)


# ---------------------------------------------------------------- lungs


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_lungs_are_the_air_in_the_body():
    volume = chest()
    np.testing.assert_array_equal(volumes.lung_mask(volume), volume.hu == -850)


def finer(volume: Volume, times: int) -> Volume:
    hu = volume.hu.repeat(times, axis=0).repeat(times, axis=1).repeat(times, axis=2)
    return Volume(hu, tuple(s / times for s in volume.spacing_mm))


def test_vessels_and_nodules_inside_the_lungs_or_at_their_wall_are_lung():
    volume = finer(chest(), 4)
    lungs = volume.hu == -850
    volume.hu[40:44, 56:60, 48:52] = 50  # 10 mm, inside
    volume.hu[40:44, 56:60, 24:27] = 50  # at the wall, 7.5 mm deep
    found = volumes.lung_mask(volume)
    assert found[40:44, 56:60, 48:52].all()
    assert found[40:44, 56:60, 24:27].mean() > 0.6  # a ball does not reach the bottom of a box
    assert not (found & ~lungs).any()


def test_trachea_bowel_gas_and_a_hollow_table_are_not_lung():
    volume = chest()
    lungs = volume.hu == -850
    volume.hu[14:24, 12:14, 17:19] = -990  # trachea
    volume.hu[14, 12:14, 16:20] = -850  # which opens into both lungs
    volume.hu[1:5, 12:16, 24:28] = -990  # 64 mL of gas under the left lung
    volume.hu[:, 25:28, 2:34] = 300  # a table with 0.7 L of air inside
    volume.hu[:, 26, 3:33] = -1000
    found = volumes.lung_mask(volume)
    assert not found[15:24, 12:14, 17:19].any()
    assert dice(found, lungs) > 0.99  # the opening adds 8 of 2400 voxels


def test_a_hollow_table_that_the_body_lies_on_is_not_lung():
    volume = chest()
    volume.hu[:, 25, 2:34] = -1000
    volume = finer(volume, 4)
    lungs = volume.hu == -850
    volume.hu[:, 96:98, 8:136] = 300  # touches the back, 5 mm thick
    volume.hu[:, 104:106, 8:136] = 300
    volume.hu[:, 96:106, 8:10] = 300
    volume.hu[:, 96:106, 134:136] = 300
    np.testing.assert_array_equal(volumes.lung_mask(volume), lungs)


def test_one_lung_is_enough_but_less_than_a_litre_is_not_a_chest():
    volume = chest()
    volume.hu[6:18, 9:19, 6:16] = 40
    np.testing.assert_array_equal(volumes.lung_mask(volume), volume.hu == -850)
    volume.hu[6:10, 9:19, 20:30] = 40
    with pytest.raises(ScanError, match=r"at least 1 L of lung. Found 0.80 L: not a chest"):
        volumes.lung_mask(volume)


@pytest.mark.parametrize("value", [-1000, 40])
def test_nothing_but_air_or_tissue_is_not_a_chest(value):
    with pytest.raises(ScanError, match=r"at least 1 L of lung"):
        volumes.lung_mask(Volume(np.full((16, 16, 16), value, dtype=np.int16), (20.0, 20.0, 20.0)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_agrees_with_the_lungs_of_the_phantom(seed):
    hu, labels, space, _ = phantom.make_volume(np.random.default_rng(seed))
    found = volumes.lung_mask(Volume(hu, space.spacing_mm))
    assert dice(found, labels > 0) >= 0.97  # found 0.999 on 40 scans
    assert np.count_nonzero(found & (labels > 1)) >= 0.7 * np.count_nonzero(labels > 1)  # 0.8 of the worst at a wall


def test_the_mask_of_the_real_ct_agrees_with_an_independent_one():
    volume = volumes.read_volume(REAL_CT)
    assert volume.hu.shape == (83, 90, 90)
    assert volume.spacing_mm == (4.0, 4.0, 4.0)
    found = volumes.lung_mask(volume)
    assert np.count_nonzero(found) * 0.064e-3 == pytest.approx(REAL_LUNGS_L, rel=0.08)  # found 3.87
    assert found[REAL_NODULE]
    assert volume.hu[REAL_NODULE] > 0
    assert -880 < volume.hu[found].mean() < -760  # -835 without the rim that 4 mm voxels blur


# ---------------------------------------------------------------- the model's grid


def own_grid(shape, spacing_mm) -> Grid:
    return Grid(tuple((n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)), spacing_mm, shape)


@pytest.mark.parametrize("order", [0, 1])
def test_the_array_on_its_own_grid_is_unchanged(order):
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    grid = own_grid((5, 6, 7), (2.5, 0.7, 0.9))
    np.testing.assert_allclose(volumes.to_grid(array, (2.5, 0.7, 0.9), grid, fill=0, order=order), array, atol=1e-6)


def test_a_ramp_stays_a_ramp_when_enlarged_or_reduced():
    z = np.arange(16, dtype=np.float32).reshape(16, 1, 1) * 3.0  # value = position in mm
    ramp = np.broadcast_to(z, (16, 4, 4))
    for spacing_mm in (1.0, 2.0, 6.0):
        grid = Grid((22.5, 4.5, 4.5), (spacing_mm, 1.0, 1.0), (4, 2, 2))
        expected = 22.5 + (np.arange(4) - 1.5) * spacing_mm
        np.testing.assert_allclose(
            volumes.to_grid(ramp, (3.0, 3.0, 3.0), grid, fill=0, order=1)[:, 0, 0], expected, rtol=1e-5
        )


def test_reducing_averages_instead_of_picking():
    checker = np.indices((16, 16, 16)).sum(axis=0) % 2  # 0 and 1, mean 0.5
    grid = Grid((7.5, 7.5, 7.5), (4.0, 4.0, 4.0), (2, 2, 2))
    np.testing.assert_allclose(volumes.to_grid(checker, (1, 1, 1), grid, fill=0, order=1), 0.5, atol=1e-6)


def test_linear_weights_by_hand():
    array = np.array([0, 8, 0, 0], dtype=np.float32).reshape(4, 1, 1)
    half = volumes.to_grid(array, (2, 2, 2), Grid((2.5, 0, 0), (1, 1, 1), (4, 1, 1)), fill=0, order=1)
    np.testing.assert_allclose(half.ravel(), [4, 8, 4, 0])  # at 1, 2, 3, 4 mm; the voxel with 8 lies at 2 mm
    double = volumes.to_grid(array, (2, 2, 2), Grid((2, 0, 0), (4, 4, 4), (1, 1, 1)), fill=0, order=1)
    np.testing.assert_allclose(double.ravel(), [4 * 0.5 * 0.5])  # triangle 1/2, 1/4, 1/4; y and x half outside


def test_outside_the_array_is_the_fill_value():
    array = np.full((4, 4, 4), 7, dtype=np.int16)
    far = Grid((100.0, 100.0, 100.0), (1.0, 1.0, 1.0), (3, 3, 3))
    for order in (0, 1):
        assert (volumes.to_grid(array, (1, 1, 1), far, fill=-5, order=order) == -5).all()


def test_nearest_keeps_labels():
    labels = np.random.default_rng(0).integers(0, 4, (6, 6, 6)).astype(np.uint8)
    found = volumes.to_grid(labels, (1, 1, 1), Grid((2.5, 2.5, 2.5), (0.5, 1.0, 2.0), (8, 6, 3)), fill=0, order=0)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 1, 2, 3}


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match=r"`order` must be 0 \(nearest\) or 1 \(linear\). Found 3"):
        volumes.to_grid(np.zeros((2, 2, 2)), (1, 1, 1), own_grid((2, 2, 2), (1, 1, 1)), fill=0, order=3)


def test_the_grid_is_centred_on_the_lungs_box():
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[2:5, 1:9, 6] = True
    grid = volumes.lung_grid(mask, (3.0, 2.0, 1.0), spacing_mm=(4, 4, 4), shape=(8, 8, 8))
    assert volumes.middle_voxel(mask) == (3, 4, 6)
    assert grid == Grid((9.0, 9.0, 6.0), (4.0, 4.0, 4.0), (8, 8, 8))


# ---------------------------------------------------------------- preparation


def test_a_prepared_scan_is_windowed_lung_on_the_asked_grid():
    volume = chest()
    tensor = volumes.prepare(volume, spacing_mm=(10, 10, 10), shape=(16, 14, 28), window_hu=(-1000, 400))
    assert tensor.dtype == np.float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 2:12], 150 / 1400, atol=1e-3)  # float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 16:26], 150 / 1400, atol=1e-3)
    assert np.count_nonzero(tensor) == 2 * 12 * 10 * 10


def test_preparing_does_not_depend_on_where_the_patient_lies():
    volume = chest()
    moved = Volume(np.roll(volume.hu, (3, 2, -1), axis=(0, 1, 2)), volume.spacing_mm)
    np.testing.assert_array_equal(volumes.prepare(volume, **SPEC), volumes.prepare(moved, **SPEC))


def test_preparing_leaves_the_volume_as_it_was():
    volume = chest()
    volumes.prepare(volume, **SPEC)
    np.testing.assert_array_equal(volume.hu, chest().hu)


def test_lungs_that_stick_out_of_the_grid_are_measured():
    whole = volumes.prepare_scan(chest(), **SPEC)
    assert whole.cropped_fraction == 0
    assert whole.lung_volume_l == pytest.approx(2.4)
    half = volumes.prepare_scan(chest(), spacing_mm=(10, 10, 10), shape=(6, 28, 36), window_hu=(-1000, 400))
    assert half.cropped_fraction == pytest.approx(0.5)


def test_the_real_ct_prepares_to_the_same_lungs_at_every_orientation(tmp_path):
    image = sitk.ReadImage(str(REAL_CT))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(tmp_path / "ras.nii.gz"))
    spec = {"spacing_mm": (8, 8, 8), "shape": (32, 32, 40), "window_hu": (-1000, 400)}
    first, second = (volumes.prepare_scan(volumes.read_volume(p), **spec) for p in (REAL_CT, tmp_path / "ras.nii.gz"))
    np.testing.assert_array_equal(first.tensor, second.tensor)
    assert first.cropped_fraction < 0.001


@pytest.fixture
def cohort(tmp_path) -> pd.DataFrame:
    for name in ("a", "b", "c"):
        save(chest().hu, tmp_path / f"{name}.nii.gz")
    return pd.DataFrame({"scan": ["a", "b", "c"], "image": ["a.nii.gz", "b.nii.gz", "c.nii.gz"]})


def prepare(frame, root, **changes):
    return volumes.prepare_cohort(frame, root, **{"cache_dir": root / "cache", "progress": False} | SPEC | changes)


def test_every_scan_becomes_one_file_and_nothing_is_left_beside(cohort, tmp_path):
    folder, report = prepare(cohort, tmp_path)
    assert report["status"].tolist() == ["ok"] * 3
    assert report["lung_volume_l"].tolist() == pytest.approx([2.4] * 3)
    assert (report[["slice_mm", "pixel_mm"]] == 10).all(axis=None)
    assert sorted(os.listdir(folder)) == sorted(f"{s}.{e}" for s, e in itertools.product("abc", ("npy", "json")))
    np.testing.assert_array_equal(np.load(folder / "a.npy", allow_pickle=False), volumes.prepare(chest(), **SPEC))


def test_a_prepared_scan_is_kept_until_its_image_changes(cohort, tmp_path, monkeypatch):
    folder, first = prepare(cohort, tmp_path)
    os.utime(tmp_path / "b.nii.gz", (2e9, 2e9))
    prepared = []
    original = volumes._prepare_job
    monkeypatch.setattr(volumes, "_prepare_job", lambda job: prepared.append(job[0]) or original(job))
    again, second = prepare(cohort, tmp_path)
    assert again == folder
    assert prepared == ["b"]
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


def test_other_settings_go_to_another_folder(cohort, tmp_path):
    assert prepare(cohort, tmp_path)[0] != prepare(cohort, tmp_path, spacing_mm=(16, 20, 20))[0]


def test_a_bad_scan_is_reported_and_the_others_go_on(cohort, tmp_path, caplog):
    (tmp_path / "a.nii.gz").write_text("broken")
    save(np.where(chest().hu == -850, 40, chest().hu).astype(np.int16), tmp_path / "b.nii.gz")
    folder, report = prepare(cohort, tmp_path)
    assert report["scan"].tolist() == ["a", "b", "c"]
    assert report["status"].tolist() == ["failed", "failed", "ok"]
    assert "SimpleITK can read" in report["reason"][0]
    assert "not a chest" in report["reason"][1] or "no air in the body" in report["reason"][1]
    assert [file.name for file in folder.glob("*.npy")] == ["c.npy"]
    assert "2 of 3 scans cannot be used" in caplog.text


def test_an_image_that_breaks_later_does_not_leave_its_old_tensor(cohort, tmp_path):
    folder, _ = prepare(cohort, tmp_path)
    (tmp_path / "a.nii.gz").write_text("broken")
    os.utime(tmp_path / "a.nii.gz", (2e9, 2e9))
    _, report = prepare(cohort, tmp_path)
    assert report["status"].tolist() == ["failed", "ok", "ok"]
    assert not (folder / "a.npy").exists()


def test_excluded_scans_are_not_prepared(cohort, tmp_path):
    folder, report = prepare(cohort.assign(excluded=["", "motion", ""]), tmp_path)
    assert report["scan"].tolist() == ["a", "c"]
    assert not (folder / "b.npy").exists()


def test_two_processes_give_what_one_gives(cohort, tmp_path, monkeypatch):
    one = prepare(cohort, tmp_path)
    monkeypatch.setattr(volumes, "SCANS_PER_WORKER", 1)
    two = prepare(cohort, tmp_path, cache_dir=tmp_path / "other", workers=2)
    pd.testing.assert_frame_equal(one[1].drop(columns="seconds"), two[1].drop(columns="seconds"))
    assert (one[0] / "a.npy").read_bytes() == (two[0] / "a.npy").read_bytes()


def die(job):
    os._exit(1)


def test_a_killed_process_is_reported(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "SCANS_PER_WORKER", 1)
    monkeypatch.setattr(volumes, "_prepare_job", die)
    with pytest.raises(RuntimeError, match=r"Found one killed; call again to go on"):
        prepare(cohort, tmp_path, workers=2)


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from lungmtl import volumes\n"
        "def job(folder):\n"
        "    (pathlib.Path(folder) / str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(volumes.run_jobs(job, [sys.argv[1]] * 2, workers=2))\n"
    )
    started = tmp_path / "started"
    started.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(started)])
    _wait_until(lambda: len(list(started.iterdir())) == 2)
    parent.kill()
    parent.wait()
    _wait_until(lambda: not any(_is_running(int(file.name)) for file in started.iterdir()))


def _wait_until(holds, *, limit_s=60):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def _is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
