"""What a CT is here: voxels in HU, their size, and the error of a scan that cannot be used.

Arrays are (Z, Y, X) and oriented LPS: x grows to the patient's left, y to the back, z to the head; spacing and
shape tuples are in that order too.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

AIR_HU = -1024  # lowest value kept: scanners pad the outside of the field of view with less
MAX_VOXELS = 2**30  # chosen by us: 2 GiB as int16, five times 800 slices of 512 x 512
DIRECTION_TOLERANCE = 1e-3  # of direction cosines, which are stored with three digits and more


class ScanError(ValueError):
    """A scan that cannot be used. The message is written down: numbers and terms of DICOM, never names or paths.

    `shown`, where a reader has set it, also says where the scan lies: for the user's own terminal alone.
    """


def refused(must: str, found: str, place: str = "") -> ScanError:
    """The error of a scan that is not what it must be: what was found, and in which slice, by its number."""
    return ScanError(f"{must}. Found {found}{f', {place}' if place else ''}.")


class Technique(NamedTuple):
    """How a scan was made, as far as its headers say: the only fields of them that are ever written down."""

    kvp_kv: float = math.nan
    kernel: str = ""
    thickness_mm: float = math.nan
    contrast: str = ""  # yes, no or blank = not said


UNKNOWN = Technique()  # of a file that has no such fields


class Stored(NamedTuple):
    """Voxels in the order in which they are stored, and where they lie.

    `array` is (Z, Y, X), `spacing_mm` (z, y, x); the columns of `direction`, (3, 3), are the unit vectors along x, y
    and z of the array in the patient's space (LPS).
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: np.ndarray
    technique: Technique = UNKNOWN


def last_line(text: object, otherwise: str = "") -> str:
    """Last line of what a library or a program said, which is the reason; `otherwise` where it said nothing."""
    return (str(text).strip().splitlines() or [otherwise])[-1]


def to_hu(values: np.ndarray) -> np.ndarray:
    """Round to whole HU and clip to what is kept: int16 of at least -1024."""
    whole = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
    return np.clip(whole, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)


@dataclasses.dataclass(frozen=True)
class Volume:
    """A CT: `hu` int16 (Z, Y, X) of at least -1024, oriented LPS, and `spacing_mm` (z, y, x)."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    technique: Technique = UNKNOWN
