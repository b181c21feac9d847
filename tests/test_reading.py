"""Image files: read with their axes and HU, or refused with the reason."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import save, small_ct

from lungmtl.data.reading import read_mask, read_volume
from lungmtl.data.volume import ScanError


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_axes_and_spacing_are_reversed_once_in_every_format(tmp_path, suffix):
    volume = read_volume(save(small_ct(), tmp_path / f"scan{suffix}", spacing_mm=(2.5, 0.7, 0.9)))
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)  # NIfTI keeps float32
    assert volume.hu.dtype == np.int16


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LPI", "RPI", "PIR", "SAL", "ILA"])
def test_every_orientation_reads_as_the_same_volume(tmp_path, orientation):
    path = save(small_ct(), tmp_path / "scan.nii.gz", spacing_mm=(2.5, 0.7, 0.9), orientation=orientation)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.7, 0.9), rtol=1e-6)
    np.testing.assert_array_equal(read_mask(save((small_ct() > 0).astype(np.uint8), path)), small_ct() > 0)


def test_padding_below_air_is_clipped_and_fractions_are_rounded(tmp_path):
    hu = small_ct().astype(np.float32)
    hu[0] = -2048.0
    hu[4] = -800.6
    volume = read_volume(save(hu, tmp_path / "scan.nii.gz"))
    assert volume.hu.min() == -1024
    assert (volume.hu[4] == -801).all()


def test_stored_values_are_rescaled_to_hu(tmp_path):
    path = save((small_ct() + 1024).astype(np.int16), tmp_path / "scan.nii")
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", 1.0, -1024.0)  # scl_slope and scl_inter of the NIfTI header
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path).hu, small_ct())


def write_text(folder: Path) -> Path:
    (folder / "scan.nii.gz").write_text("not an image", encoding="utf-8")
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


def write_one_slice(folder: Path) -> Path:
    return save(small_ct()[2:3], folder / "scan.mha")


def write_unknown_kind(folder: Path) -> Path:
    sitk.WriteImage(sitk.Cast(sitk.GetImageFromArray(small_ct()), sitk.sitkUInt16), str(folder / "scan.tif"))
    return folder / "scan.tif"


def write_without_spacing(folder: Path) -> Path:
    path = save(small_ct(), folder / "scan.mha")
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing", b"ElementComment"))
    return path


def write_bright_padding(folder: Path) -> Path:
    hu = small_ct()
    hu[4] = 32767
    return save(hu, folder / "scan.nii.gz")


def write_oblique(folder: Path) -> Path:
    return save_turned(folder / "scan.nii.gz", degrees=10)


def write_sheared(folder: Path) -> Path:
    image = sitk.GetImageFromArray(small_ct())
    image.SetDirection([1, 0, 0.1, 0, 1, 0, 0, 0, 1])
    sitk.WriteImage(image, str(folder / "scan.nrrd"))
    return folder / "scan.nrrd"


def save_turned(path: Path, *, degrees: float) -> Path:
    """Write `small_ct` as if the patient's head had nodded by an angle."""
    image = sitk.GetImageFromArray(small_ct())
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    image.SetDirection([1, 0, 0, 0, c, -s, 0, s, c])
    sitk.WriteImage(image, str(path))
    return path


def write_wide(folder: Path) -> Path:
    return save(small_ct(), folder / "scan.nii.gz", spacing_mm=(80.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (write_text, "NIfTI where its name says so. Found a damaged header .BadGzipFile"),
        (write_4d, "3D with one channel"),
        (write_colour, "3D with one channel. Found .* 3 channels"),
        (write_nan, "Found NaN or infinity"),
        (write_unsigned, "must be in HU. Found 40% of the values at 900 to 1200"),
        (write_wide, "voxel size must be positive and below 50 mm. Found .*80"),
        (write_one_slice, "at least two slices"),
        (write_unknown_kind, "one of .nii, .* or a DICOM folder. Found another kind of file"),
        (write_without_spacing, "must say its voxel size. Found none"),
        (write_bright_padding, "must be in HU. Found 20.0% above 20000 HU"),
        (write_oblique, "along the patient's axes, within 5°. Found an oblique one, by 10.0°"),
        (write_sheared, "axes must be at right angles"),
    ],
)
def test_a_bad_image_is_refused_with_its_reason(tmp_path, write, reason):
    with pytest.raises(ScanError, match=reason):
        read_volume(write(tmp_path))


NIFTI_DIM, NIFTI_PIXDIM, NIFTI_CODES, NIFTI_QFORM, NIFTI_SFORM = 42, 80, 252, 256, 280  # bytes of the header
NIFTI_SCALING = 112
NO_QFORM = {NIFTI_CODES: ("<2h", 0, 1), NIFTI_QFORM: ("<6f", *[0.0] * 6)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({NIFTI_PIXDIM + 8: ("<f", 0.0)}, "voxel size must be positive. Found pixdim .*0.0"),
        ({NIFTI_PIXDIM: ("<f", math.nan)}, "voxel size must be positive. Found pixdim .*nan"),
        ({NIFTI_CODES: ("<2h", 0, 0)}, "Found neither qform nor sform"),
        ({NIFTI_SFORM: ("<f", -20.0)}, "affine must be a rotation and the voxel size"),
        ({NIFTI_SFORM: ("<f", 10.0)}, "must agree within 0.5 mm. Found corners 120.0 mm apart, and left for right"),
        ({**NO_QFORM, NIFTI_SFORM: ("<f", -20.0)}, "affine must be a rotation and the voxel size"),
        ({**NO_QFORM, NIFTI_SFORM + 8: ("<f", 5.0)}, "affine must be a rotation and the voxel size"),
        ({NIFTI_PIXDIM - 4: ("<f", -1.0)}, "Found corners 80.0 mm apart, and left for right, with qform_code 1 and sf"),
        ({NIFTI_PIXDIM - 4: ("<f", -1.0), NIFTI_CODES: ("<2h", 0, 1)}, "left for right, with qform_code 0 and sform_c"),
        ({NIFTI_PIXDIM - 4: ("<f", -1.0), NIFTI_CODES: ("<2h", 1, 0)}, "left for right, with qform_code 1 and sform_c"),
        ({NIFTI_QFORM: ("<3f", 0.0, math.sin(0.05), math.cos(0.05))}, "Found corners [0-9.]+ mm apart, with qform_co"),
        ({NIFTI_QFORM + 12: ("<f", 1.0)}, "Found corners 1.0 mm apart, with qform_code 1"),
        ({NIFTI_QFORM: ("<f", math.nan)}, "qform must be a rotation"),
        ({NIFTI_QFORM: ("<f", 2.0), NIFTI_SFORM: ("<12f", *[0.0] * 12), NIFTI_CODES: ("<2h", 1, 0)}, "be a rotation"),
        ({NIFTI_SCALING: ("<f", math.nan)}, "Rescaling must be finite"),
        ({NIFTI_DIM + 2: ("<h", 3)}, "must hold the voxels of its header. Found 420 of 210 bytes"),
        ({NIFTI_DIM: ("<3h", 30000, 30000, 30000)}, "at most 1073741824 voxels. Found .*30000"),
    ],
)
def test_a_nifti_header_that_itk_would_mend_in_silence_is_refused(tmp_path, changes, reason):
    with pytest.raises(ScanError, match=reason):
        read_volume(changed(save(small_ct(), tmp_path / "scan.nii"), changes))


def changed(path: Path, changes: dict[int, tuple]) -> Path:
    """Write values into a header, each at its byte."""
    content = bytearray(path.read_bytes())
    for place, (kind, *values) in changes.items():
        content[place : place + struct.calcsize(kind)] = struct.pack(kind, *values)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("changes", [NO_QFORM, {NIFTI_CODES: ("<2h", 1, 0), NIFTI_SFORM: ("<12f", *[0.0] * 12)}])
def test_one_orientation_is_enough(tmp_path, changes):
    path = save(small_ct(), tmp_path / "scan.nii", orientation="RAS")
    np.testing.assert_array_equal(read_volume(changed(path, changes)).hu, small_ct())


def test_two_orientations_that_are_rounded_differently_are_one(tmp_path):
    path = save(small_ct(), tmp_path / "scan.nii", spacing_mm=(2.5, 0.7, 0.9))
    assert read_volume(changed(path, {NIFTI_QFORM + 12: ("<f", 0.4)})).hu.shape == (5, 6, 7)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize(("kind", "value"), [("float32", math.nan), ("float64", math.inf), ("float32", -math.inf)])
def test_one_voxel_that_is_no_number_is_refused(tmp_path, suffix, kind, value):
    hu = small_ct().astype(kind)
    hu[4, 5, 6] = value  # the last one; NIfTI's library reads it as 0, which is water
    with pytest.raises(ScanError, match=r"Every voxel must be a finite number\. Found NaN or infinity\.$"):
        read_volume(save(hu, tmp_path / f"scan{suffix}"))


def test_a_slight_tilt_is_read_as_it_is(tmp_path):
    volume = read_volume(save_turned(tmp_path / "scan.nii.gz", degrees=4))
    np.testing.assert_array_equal(volume.hu, small_ct())


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_was_cut_off_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(-1000, 300, (16, 16, 16)).astype(np.int16)
    path = save(noise, tmp_path / f"scan{suffix}")
    path.write_bytes(path.read_bytes()[:-100])  # of NIfTI files ITK would return the rest as 0
    with pytest.raises(
        ScanError, match=r"must be complete\. Found|must hold the voxels of its header\. Found|SimpleITK can read"
    ):
        read_volume(path)


def test_a_file_with_a_damaged_byte_is_refused(tmp_path):
    path = save(small_ct(), tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    content[-20] ^= 255
    path.write_bytes(content)
    with pytest.raises(ScanError, match=r"must be complete|SimpleITK can read"):
        read_volume(path)


def test_a_missing_image_is_named_to_the_user_alone(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"existing file or DICOM folder\. Found none\.$") as caught:
        read_volume(tmp_path / "gone.nii.gz")
    assert caught.value.shown.endswith(f"In {tmp_path / 'gone.nii.gz'}.")


def test_a_mask_must_hold_labels(tmp_path):
    with pytest.raises(ScanError, match=r"whole labels from 0 to 65535. Found -1000"):
        read_mask(save(small_ct(), tmp_path / "scan.nii.gz"))


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_broken_mha_is_refused_without_a_word_of_metaio_on_the_terminal(tmp_path, is_packed, capfd):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 300, (8, 8, 8), np.int16))
    sitk.WriteImage(image, str(tmp_path / "scan.mha"), is_packed)
    content = (tmp_path / "scan.mha").read_bytes()
    (tmp_path / "scan.mha").write_bytes(content[:-50])
    with pytest.raises(ScanError, match="Found another, damaged or too large"):
        read_volume(tmp_path / "scan.mha")
    assert capfd.readouterr() == ("", "")
