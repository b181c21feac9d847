import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save

from lungmtl import reading
from lungmtl.reading import ScanError


def small_ct() -> np.ndarray:
    """Three different sizes, air with some tissue and one bright voxel."""
    hu = np.full((5, 6, 7), -1000, dtype=np.int16)
    hu[1:3] = 40
    hu[3, 4, 1] = 1234
    return hu


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_axes_and_spacing_are_reversed_once_in_every_format(tmp_path, suffix):
    volume = reading.read_volume(save(small_ct(), tmp_path / f"scan{suffix}", spacing_mm=(2.5, 0.7, 0.9)))
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)  # NIfTI keeps float32
    assert volume.hu.dtype == np.int16


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LPI", "RPI", "PIR", "SAL", "ILA"])
def test_every_orientation_reads_as_the_same_volume(tmp_path, orientation):
    path = save(small_ct(), tmp_path / "scan.nii.gz", spacing_mm=(2.5, 0.7, 0.9), orientation=orientation)
    volume = reading.read_volume(path)
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(reading.read_mask(save((small_ct() > 0).astype(np.uint8), path)), small_ct() > 0)


def test_padding_below_air_is_clipped_and_fractions_are_rounded(tmp_path):
    hu = small_ct().astype(np.float32)
    hu[0] = -2048.0
    hu[4] = -800.6
    volume = reading.read_volume(save(hu, tmp_path / "scan.nii.gz"))
    assert volume.hu.min() == -1024
    assert (volume.hu[4] == -801).all()


def test_stored_values_are_rescaled_to_hu(tmp_path):
    path = save((small_ct() + 1024).astype(np.int16), tmp_path / "scan.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", 1.0, -1024.0)  # scl_slope and scl_inter of the NIfTI header
    path.write_bytes(content)
    np.testing.assert_array_equal(reading.read_volume(path).hu, small_ct())


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
        reading.read_volume(write(tmp_path))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(-1000, 300, (16, 16, 16)).astype(np.int16)
    path = save(noise, tmp_path / f"scan{suffix}")
    path.write_bytes(path.read_bytes()[:-100])  # of NIfTI files ITK would return the rest as 0
    with pytest.raises(ScanError, match=r"(must be complete|SimpleITK can read)\. Found .*scan"):
        reading.read_volume(path)


def test_a_file_with_a_damaged_byte_is_refused(tmp_path):
    path = save(small_ct(), tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"must be complete|SimpleITK can read"):
        reading.read_volume(path)


def test_a_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Found nothing at .*gone.nii.gz"):
        reading.read_volume(tmp_path / "gone.nii.gz")


def test_a_mask_must_hold_labels(tmp_path):
    with pytest.raises(ScanError, match=r"whole labels from 0 to 255. Found -1000"):
        reading.read_mask(save(small_ct(), tmp_path / "scan.nii.gz"))


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
    volume = reading.read_volume(write_series(tmp_path / "series"))
    np.testing.assert_array_equal(volume.hu, chest().hu[4 : 4 + N_SLICES])
    assert volume.spacing_mm == pytest.approx((3.0, 0.75, 0.5))


def test_files_that_are_not_dicom_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "series")
    (folder / "LICENSE.txt").write_text("text")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert reading.read_volume(folder).hu.shape[0] == N_SLICES


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
        reading.read_volume(folder)
