"""Volumes whose files lack voxel size, orientation or rescaling: numpy archives and bare NIfTI to complete MHA files.

A file says in its header from what it was made: one that is there and current is left as it is.
"""

import json
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lungmtl.data import ScanError, check_voxels, open_image, read_fields, reason, stamp, to_hu
from lungmtl.files import replacing
from lungmtl.words import number_of

AXES_HERE = "SPL"  # where axis 0, 1 and 2 of an array run: to the head, the back, the left, as arrays do here
OPPOSITE = {"S": "I", "P": "A", "L": "R"}
MADE_OF = "MadeOf"  # key in the header of a converted file
NUMPY_SUFFIX = ".npz"


class Geometry(NamedTuple):
    """What a volume's file does not say.

    Attributes:
        spacing_mm: Voxel size (z, y, x); None where the file says it, and its orientation.
        axes: Where the array's axes run, e.g. `IPL`: to the feet (S, I), the back (P, A), the left (L, R).
        rescale: Slope and intercept to HU.
        key: Array in a numpy archive.
    """

    spacing_mm: tuple[float, float, float] | None
    axes: str = AXES_HERE
    rescale: tuple[float, float] = (1.0, 0.0)
    key: str = "ct"


def check_axes(axes: str) -> None:
    """Check that `axes` names each of the body's axes once.

    Raises:
        ValueError: If it does not.
    """
    back = {other: letter for letter, other in OPPOSITE.items()}
    if sorted(back.get(letter, letter) for letter in axes) != sorted(AXES_HERE):
        must = "`--axes` must be three letters, one of S I (head, feet), one of A P (front, back), one of L R"
        raise ValueError(f"{must}. Found {axes}.")


def convert(job: tuple[str, Path, Path, Geometry]) -> dict[str, str]:
    """Write one volume (scan, its file, the file to make, what is not in it); say why where that cannot be done.

    Returns:
        `scan` and `reason`, which is blank if the file is made, or was.
    """
    scan, source, target, geometry = job
    made_of = json.dumps([*geometry, *stamp(source)])
    try:
        if not _is_made(target, made_of):
            image = _image(source, geometry)
            image.SetMetaData(MADE_OF, made_of)
            with replacing(target) as beside:
                sitk.WriteImage(image, str(beside), useCompression=True, compressionLevel=1)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return {"scan": scan, "reason": f"not converted: {reason(error)}"}
    return {"scan": scan, "reason": ""}


def _is_made(target: Path, made_of: str) -> bool:
    try:
        header = open_image(target)
    except RuntimeError:
        return False
    return header.HasMetaDataKey(MADE_OF) and header.GetMetaData(MADE_OF).strip() == made_of


def _image(source: Path, geometry: Geometry) -> sitk.Image:
    """The volume in HU, int16, with its geometry."""
    if source.suffix.lower() == NUMPY_SUFFIX:
        return _placed(_hu(_archived(source, geometry.key), geometry), geometry)
    reader = open_image(source)
    if reader.HasMetaDataKey("bitpix"):  # NIfTI
        check_voxels(source, read_fields(source))
    stored = reader.Execute()
    hu = _hu(sitk.GetArrayViewFromImage(stored), geometry)
    if geometry.spacing_mm is not None:
        return _placed(hu, geometry)
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(stored)
    return image


def _archived(source: Path, key: str) -> np.ndarray:
    try:
        with np.load(source, allow_pickle=False) as archive:
            if key in archive:
                return archive[key]
            found = f"{number_of(len(archive), 'array')} of another name" if len(archive) else "none"
    except (ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # TypeError: of a single array
        raise ScanError("An archive must be a whole file of numpy. Found a damaged or another one.") from error
    raise ScanError(f"An archive must hold the array that `--key` names, {key}. Found {found}.")


def _hu(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    slope, intercept = geometry.rescale
    if array.ndim != 3:
        raise ScanError(f"A volume must have three axes. Found {array.shape}.")
    if (slope, intercept) != (1.0, 0.0):
        array = array * np.float32(slope) + np.float32(intercept)
    if not np.isfinite(array).all():
        raise ScanError("Every voxel must be a finite number. Found NaN or infinity.")
    return to_hu(array)


def _placed(hu: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Turn an array to (Z, Y, X), LPS, and give it its voxel size."""
    order = [next(k for k, letter in enumerate(geometry.axes) if letter in (one, OPPOSITE[one])) for one in AXES_HERE]
    flipped = [axis for axis, one in enumerate(AXES_HERE) if geometry.axes[order[axis]] != one]
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.flip(hu.transpose(order), flipped)))
    image.SetSpacing([float(size) for size in reversed(geometry.spacing_mm)])
    return image
