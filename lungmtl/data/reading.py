"""Reading chest CT: a NIfTI, MHA or NRRD file or a DICOM series to HU, refused where its geometry does not hold.

SimpleITK counts x, y, z: that is reversed in `_read_file` and nowhere else. Spacing is rounded to float32, as NIfTI
keeps it: the same scan is the same volume in every format.
"""

import logging
import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lungmtl.data.detached import first_bytes
from lungmtl.data.dicom import read_series
from lungmtl.data.headers import is_dicom
from lungmtl.data.nifti import check_voxels, read_nifti
from lungmtl.data.plausibility import raw_values
from lungmtl.data.volume import DIRECTION_TOLERANCE, MAX_VOXELS, ScanError, Stored, Volume, refused, to_hu

TISSUE_HU = (-200, 300)  # fat, water and muscle: some of it is in every CT
METAL_HU = 20000  # only metal on an extended scale is brighter, and there is little of it
OBLIQUE_TOLERANCE_DEG = 5.0  # chosen by us: no patient lies straighter; resampling would blur what is tilted more
FORMATS = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
SPACING_WORDS = {  # without the number ITK takes 1 mm
    **dict.fromkeys((".mha", ".mhd"), rb"ElementSpacing\s*=\s*[\d.]"),
    **dict.fromkeys((".nrrd", ".nhdr"), rb"space directions:\s*\("),
}


def read_volume(path: str | Path) -> Volume:
    """Read a CT from a NIfTI, MHA or NRRD file or from a folder with one DICOM series.

    Returns:
        HU clipped to at least -1024, (Z, Y, X), oriented LPS.
    Raises:
        ScanError: If the file cannot be read, is not a 3D CT in HU, or the series' geometry is broken. Its text names
            no path: `shown` does.
        FileNotFoundError: If there is nothing at `path`; said in the same way.
    """
    path = Path(path)
    with _quiet(), _placed(path):
        stored = read_series(path) if path.is_dir() else _read_file(path, _to_hu)
        hu, spacing_mm = _oriented(stored)
        _check_hu(hu)
    return Volume(hu, spacing_mm, stored.technique)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label file, uint8 or where need be uint16, (Z, Y, X), oriented as `read_volume` does.

    Raises:
        ScanError: If the file cannot be read as a 3D image of labels 0 to 65535.
        FileNotFoundError: If there is nothing at `path`.
    """
    path = Path(path)
    with _quiet(), _placed(path):
        return _oriented(_read_file(path, _to_labels))[0]


@contextmanager
def _placed(path: Path) -> Iterator[None]:
    """Give an error the place of its scan, to be shown and not written."""
    try:
        if not path.exists():
            raise FileNotFoundError("A scan must be an existing file or DICOM folder. Found none.")
        yield
    except (ScanError, FileNotFoundError) as error:
        error.shown = f"{error} In {path}."
        raise


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
    with _heard():
        reader.ReadImageInformation()
    return reader


@contextmanager
def _heard() -> Iterator[None]:
    """Keep off the terminal what MetaIO prints of a broken file, and raise RuntimeError where that is all it does.

    It goes on with voxels that it could not unpack.
    """
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
        said.seek(0)
        if re.search(rb"Meta(Image|Object)|[Uu]ncompress", said.read()):
            raise RuntimeError("MetaIO complains.")


def _read_file(path: Path, convert: Callable[[np.ndarray], np.ndarray]) -> Stored:
    """Read an image file whose header is checked first, and convert its voxels while they are in memory once."""
    suffix = _format(path)
    try:
        nifti = read_nifti(path) if suffix in (".nii", ".nii.gz") else None
        reader = open_image(path)
        _check_shape(reader)
        if nifti:
            check_voxels(path, nifti)
        elif not re.search(SPACING_WORDS[suffix], first_bytes(path, 1 << 12)):
            raise refused("A scan must say its voxel size", "none")
        with _heard():
            image = reader.Execute()
    except (RuntimeError, MemoryError) as error:  # what ITK says names the file
        found = f"another, damaged or too large ({type(error).__name__})"
        raise refused(f"A scan must be an image that SimpleITK can read, a {suffix} file", found) from None
    direction = np.reshape(image.GetDirection(), (3, 3))
    return Stored(convert(sitk.GetArrayViewFromImage(image)), image.GetSpacing()[::-1], direction)


def _format(path: Path) -> str:
    suffix = next((end for end in FORMATS if path.name.lower().endswith(end)), None)
    if suffix is None:
        found = "a single slice, or several, of DICOM: give its folder" if is_dicom(path) else "another kind of file"
        raise refused(f"A scan must be one of {', '.join(FORMATS)} or a DICOM folder", found)
    return suffix


def _check_shape(reader: sitk.ImageFileReader) -> None:
    """Check what the header promises before memory is taken for it."""
    size, channels = reader.GetSize(), reader.GetNumberOfComponents()
    if len(size) != 3 or channels != 1:
        raise refused("A scan must be 3D with one channel", f"{size}, {channels} channels")
    if min(size) < 2 or math.prod(size) > MAX_VOXELS:
        limits = f"at least two slices and at most {MAX_VOXELS} voxels"
        raise refused(f"A scan must have {limits}", f"{size}")


def _oriented(stored: Stored) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Turn voxels to LPS, by whole axes alone, and return them with their spacing (z, y, x) in mm."""
    axes = _patient_axes(stored.direction)
    order = [2 - axes.index(axis) for axis in (2, 1, 0)]  # array axis, z y x, that runs along patient z, y, x
    array = stored.array.transpose(order)
    turned = [place for place, axis in enumerate((2, 1, 0)) if stored.direction[axis, axes.index(axis)] < 0]
    array = np.ascontiguousarray(np.flip(array, turned))
    spacing_mm = tuple(float(np.float32(stored.spacing_mm[axis])) for axis in order)
    if not all(math.isfinite(s) and 0 < s < 50 for s in spacing_mm):
        raise refused("The voxel size must be positive and below 50 mm", f"{spacing_mm} (z, y, x)")
    return array, spacing_mm


def _patient_axes(direction: np.ndarray) -> list[int]:
    """Patient axis (0 x, 1 y, 2 z) along which each of the image's x, y and z runs, to within a small angle."""
    if not np.allclose(direction.T @ direction, np.eye(3), atol=5 * DIRECTION_TOLERANCE):
        raise refused("A scan's axes must be at right angles", f"{direction.tolist()}")
    share = np.abs(direction)
    oblique_deg = math.degrees(math.acos(min(1.0, float(share.max(axis=0).min()))))
    if oblique_deg > OBLIQUE_TOLERANCE_DEG:
        must = f"A scan must lie along the patient's axes, within {OBLIQUE_TOLERANCE_DEG:.0f}°"
        raise refused(must, f"an oblique one, by {oblique_deg:.1f}°: resample it")
    return share.argmax(axis=0).tolist()


def _to_hu(array: np.ndarray) -> np.ndarray:
    """Round and clip slice by slice, which keeps the memory to the result's."""
    hu = np.empty(array.shape, dtype=np.int16)
    for target, values in zip(hu, array, strict=True):
        if not np.isfinite(values).all():
            raise refused("Every voxel must be a finite number", "NaN or infinity")
        target[:] = to_hu(values)
    return hu


def _to_labels(array: np.ndarray) -> np.ndarray:
    if not (array.min() >= 0 and array.max() <= 65535) or not np.array_equal(array, np.round(array)):
        raise refused("A mask must hold whole labels from 0 to 65535", f"{array.min()} to {array.max()}")
    return array.astype(np.uint8 if array.max() <= 255 else np.uint16)


def _check_hu(hu: np.ndarray) -> None:
    """Check that values are plausible HU: some air, some tissue, and hardly anything brighter than metal."""
    sample = hu[tuple(slice(None, None, max(1, n // 64)) for n in hu.shape)]  # enough to tell, and fast
    if raw := raw_values(sample):
        raise refused("A CT must be in HU", raw)
    air = float((sample < -500).mean())
    tissue = float(((sample > TISSUE_HU[0]) & (sample < TISSUE_HU[1])).mean())
    if air < 0.01 or tissue < 0.01:
        found = f"{air:.1%} air and {tissue:.1%} tissue, values {int(hu.min())} to {int(hu.max())}"
        raise refused("A CT must be in HU and hold air and soft tissue", found)
    if (metal := float((sample > METAL_HU).mean())) > 0.01:
        found = f"{metal:.1%} above {METAL_HU} HU, as where signed values are read as unsigned or padding is bright"
        raise refused("A CT must be in HU", found)
