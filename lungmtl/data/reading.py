"""Reading chest CT: a NIfTI, MHA or NRRD file or a DICOM series to HU, refused where its geometry does not hold.

SimpleITK counts x, y, z: that is reversed in `_read_file` and nowhere else. Spacing is rounded to float32, as NIfTI
keeps it: the same scan is the same volume in every format.
"""

import gzip
import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lungmtl.data.dicom import read_series
from lungmtl.data.headers import first_bytes, is_dicom
from lungmtl.data.plausibility import raw_values
from lungmtl.data.volume import DIRECTION_TOLERANCE, MAX_VOXELS, ScanError, Stored, Volume, last_line, refused, to_hu

TISSUE_HU = (-200, 300)  # fat, water and muscle: some of it is in every CT
METAL_HU = 20000  # only metal on an extended scale is brighter, and there is little of it
OBLIQUE_TOLERANCE_DEG = 5.0  # chosen by us: no patient lies straighter; resampling would blur what is tilted more
FORMATS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
SPACING_WORDS = {  # without the number ITK takes 1 mm
    **dict.fromkeys((".mha", ".mhd"), rb"ElementSpacing\s*=\s*[\d.]"),
    **dict.fromkeys((".nrrd", ".nhdr"), rb"space directions:\s*\("),
}
NIFTI_HEADER_BYTES = 540  # of the longer, second version
BLOCK_BYTES = 1 << 20


def read_volume(path: str | Path) -> Volume:
    """Read a CT from a NIfTI, MHA or NRRD file or from a folder with one DICOM series.

    Returns:
        HU clipped to at least -1024, (Z, Y, X), oriented LPS.
    Raises:
        ScanError: If the file cannot be read, is not a 3D CT in HU, or the series' geometry is broken.
        FileNotFoundError: If there is nothing at `path`.
    """
    path = _existing(path)
    with _quiet():
        stored = read_series(path) if path.is_dir() else _read_file(path, _to_hu)
        hu, spacing_mm = _oriented(stored, path)
    _check_hu(hu, path)
    return Volume(hu, spacing_mm)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label file, uint8 or where need be uint16, (Z, Y, X), oriented as `read_volume` does.

    Raises:
        ScanError: If the file cannot be read as a 3D image of labels 0 to 65535.
        FileNotFoundError: If there is nothing at `path`.
    """
    path = _existing(path)
    with _quiet():
        return _oriented(_read_file(path, _to_labels), path)[0]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"A scan must be an existing file or DICOM folder. Found nothing at {path}.")
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of ITK and pydicom off the terminal: what they warn of is checked here and raised."""
    itk, pydicom = sitk.ProcessObject, logging.getLogger("pydicom")
    shown, disabled = itk.GetGlobalWarningDisplay(), pydicom.disabled
    itk.SetGlobalWarningDisplay(False)
    pydicom.disabled = True
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        itk.SetGlobalWarningDisplay(shown)
        pydicom.disabled = disabled


def open_image(path: Path) -> sitk.ImageFileReader:
    """Read an image's header alone, of a file or of one DICOM slice; RuntimeError if it cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def _read_file(path: Path, convert: Callable[[np.ndarray, Path], np.ndarray]) -> Stored:
    """Read an image file whose header is checked first, and convert its voxels while they are in memory once."""
    suffix = _format(path)
    try:
        reader = open_image(path)
        _check_shape(reader, path)
        if suffix in (".nii", ".nii.gz"):
            _check_nifti(reader, path)
        elif not re.search(SPACING_WORDS[suffix], first_bytes(path, 1 << 12)):
            raise refused("A scan must say its voxel size", "none", path)
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        found = last_line(error, otherwise=type(error).__name__)
        raise ScanError(f"A scan must be an image that SimpleITK can read. Found {path}: {found}") from error
    direction = np.reshape(image.GetDirection(), (3, 3))
    return Stored(convert(sitk.GetArrayViewFromImage(image), path), image.GetSpacing()[::-1], direction)


def _format(path: Path) -> str:
    suffix = next((end for end in FORMATS if path.name.lower().endswith(end)), None)
    if suffix is None:
        what = "a single slice, or several, of DICOM: give its folder" if is_dicom(path) else f"{path.suffix!r}"
        raise ScanError(f"A scan must be one of {', '.join(FORMATS)} or a DICOM folder. Found {what}, {path}.")
    return suffix


def _check_shape(reader: sitk.ImageFileReader, path: Path) -> None:
    """Check what the header promises before memory is taken for it."""
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) != 3 or channels != 1:
        raise refused("A scan must be 3D with one channel", f"{size}, {channels} channels,", path)
    if min(size) < 2 or math.prod(size) > MAX_VOXELS:
        limits = f"at least two slices and at most {MAX_VOXELS} voxels"
        raise refused(f"A scan must have {limits}", f"{size}", path)


def _check_nifti(reader: sitk.ImageFileReader, path: Path) -> None:
    """Check a NIfTI file for what ITK makes up without a word: voxels that are cut off, spacing, orientation."""
    n_bits = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix"))  # of the file: memory may take more
    head = _check_complete(path, int(float(reader.GetMetaData("vox_offset"))) + n_bits // 8)
    spacing = _pixdim(head)
    if not all(math.isfinite(s) and s != 0 for s in spacing):
        raise refused("The voxel size must be positive", f"pixdim {spacing}", path)
    if int(reader.GetMetaData("sform_code")) > 0:
        _check_sform(reader, path)
    elif int(reader.GetMetaData("qform_code")) <= 0:
        raise refused("A scan must say its orientation", "neither qform nor sform", path)


def _check_complete(path: Path, wanted: int) -> bytes:
    """Check that a file holds all its bytes, unpacked: ITK fills what is cut off or damaged with 0. Return its head."""
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opener(path, "rb") as stream:
            head = stream.read(NIFTI_HEADER_BYTES)
            found = len(head)
            while (block := stream.read(BLOCK_BYTES)) and found <= wanted + BLOCK_BYTES:  # no end of zeros
                found += len(block)
    except (EOFError, OSError, zlib.error) as error:
        found = last_line(error, otherwise=type(error).__name__)
        raise ScanError(f"A scan must be complete. Found {path}: {found}") from error
    if found != wanted:
        raise refused("A scan must hold the voxels of its header", f"{found} of {wanted} bytes", path)
    return head


def _pixdim(head: bytes) -> tuple[float, ...]:
    """Voxel size x, y, z as the file has it: where it is 0 or NaN ITK says 1. Source: nifti1.h and nifti2.h, NIfTI."""
    for order in "<>":
        if struct.unpack_from(f"{order}i", head) == (348,):
            return struct.unpack_from(f"{order}3f", head, 80)
        if struct.unpack_from(f"{order}i", head) == (540,):
            return struct.unpack_from(f"{order}3d", head, 112)
    return (math.nan,) * 3


def _check_sform(reader: sitk.ImageFileReader, path: Path) -> None:
    """Check that the affine is what ITK made of it: it leaves a shear out, and another voxel size."""
    rows = [[float(n) for n in reader.GetMetaData(f"srow_{axis}").split()[:3]] for axis in "xyz"]
    affine = np.diag([-1.0, -1.0, 1.0]) @ np.array(rows)  # NIfTI's x and y grow the other way
    found = np.reshape(reader.GetDirection(), (3, 3)) * reader.GetSpacing()
    if not np.allclose(affine, found, atol=DIRECTION_TOLERANCE * max(reader.GetSpacing())):
        must = "The affine must be a rotation and the voxel size, the same in sform, qform and pixdim"
        raise refused(must, f"sform {rows}, voxels of {reader.GetSpacing()} mm", path)


def _oriented(stored: Stored, path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Turn voxels to LPS, by whole axes alone, and return them with their spacing (z, y, x) in mm."""
    axes = _patient_axes(stored.direction, path)
    order = [2 - axes.index(axis) for axis in (2, 1, 0)]  # array axis, z y x, that runs along patient z, y, x
    array = stored.array.transpose(order)
    turned = [place for place, axis in enumerate((2, 1, 0)) if stored.direction[axis, axes.index(axis)] < 0]
    array = np.ascontiguousarray(np.flip(array, turned))
    spacing_mm = tuple(float(np.float32(stored.spacing_mm[axis])) for axis in order)
    if not all(math.isfinite(s) and 0 < s < 50 for s in spacing_mm):
        raise refused("The voxel size must be positive and below 50 mm", f"{spacing_mm} (z, y, x)", path)
    return array, spacing_mm


def _patient_axes(direction: np.ndarray, path: Path) -> list[int]:
    """Patient axis (0 x, 1 y, 2 z) along which each of the image's x, y and z runs, to within a small angle."""
    if not np.allclose(direction.T @ direction, np.eye(3), atol=5 * DIRECTION_TOLERANCE):
        raise refused("A scan's axes must be at right angles", f"{direction.tolist()}", path)
    share = np.abs(direction)
    oblique_deg = math.degrees(math.acos(min(1.0, float(share.max(axis=0).min()))))
    if oblique_deg > OBLIQUE_TOLERANCE_DEG:
        must = f"A scan must lie along the patient's axes, within {OBLIQUE_TOLERANCE_DEG:.0f}°"
        raise ScanError(f"{must}. Found an oblique one, by {oblique_deg:.1f}°, in {path}: resample it.")
    return share.argmax(axis=0).tolist()


def _to_hu(array: np.ndarray, path: Path) -> np.ndarray:
    """Round and clip slice by slice, which keeps the memory to the result's."""
    hu = np.empty(array.shape, dtype=np.int16)
    for target, values in zip(hu, array, strict=True):
        if not np.isfinite(values).all():
            raise refused("Every voxel must be a finite number", "NaN or infinity", path)
        target[:] = to_hu(values)
    return hu


def _to_labels(array: np.ndarray, path: Path) -> np.ndarray:
    if not (array.min() >= 0 and array.max() <= 65535) or not np.array_equal(array, np.round(array)):
        raise refused("A mask must hold whole labels from 0 to 65535", f"{array.min()} to {array.max()}", path)
    return array.astype(np.uint8 if array.max() <= 255 else np.uint16)


def _check_hu(hu: np.ndarray, path: Path) -> None:
    """Check that values are plausible HU: some air, some tissue, and hardly anything brighter than metal."""
    sample = hu[tuple(slice(None, None, max(1, n // 64)) for n in hu.shape)]  # enough to tell, and fast
    if raw := raw_values(sample):
        raise refused("A CT must be in HU", raw, path)
    air = float((sample < -500).mean())
    tissue = float(((sample > TISSUE_HU[0]) & (sample < TISSUE_HU[1])).mean())
    if air < 0.01 or tissue < 0.01:
        found = f"{air:.1%} air and {tissue:.1%} tissue, values {int(hu.min())} to {int(hu.max())},"
        raise refused("A CT must be in HU and hold air and soft tissue", found, path)
    if (metal := float((sample > METAL_HU).mean())) > 0.01:
        found = f"{metal:.1%} above {METAL_HU} HU, as where signed values are read as unsigned or padding is bright,"
        raise refused("A CT must be in HU", found, path)
