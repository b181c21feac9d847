"""NIfTI headers: checked for what ITK and its NIfTI library mend without a word.

They fill what is cut off with 0, turn NaN to 0, take a voxel size of 0 or NaN for 1, and choose between two
orientations that contradict each other.

Sources: nifti1.h and nifti2.h, https://nifti.nimh.nih.gov/nifti-1, of which the names and places of fields are taken.
"""

import gzip
import itertools
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from lungmtl.data.volume import DIRECTION_TOLERANCE, refused

MUST = "A scan must be NIfTI where its name says so"
HEADER_BYTES = 540  # of the longer, second version
READ_BYTES = 1 << 20
FLOATS = {16: "f4", 64: "f8"}  # datatype -> NumPy's name
FORM_TOLERANCE_MM = 0.5  # chosen by us: below a voxel, above what affines of three digits leave at a corner


class Nifti(NamedTuple):
    """Fields of the header."""

    order: str  # of bytes, as in `struct`
    shape: tuple[int, ...]  # x, y, z
    datatype: int
    n_bits: int
    start: int  # byte of the first voxel
    scaling: tuple[float, float]
    codes: tuple[int, int]  # of qform and sform; 0 = not to be used
    pixdim: np.ndarray  # (4,): handedness of the qform, then voxel size x, y, z
    quaternion: np.ndarray  # (6,): b, c, d, then the place x, y, z of the first voxel
    rows: np.ndarray  # (3, 4): the sform


def read_nifti(path: Path) -> Nifti:
    """Read a header, and check what it says of voxel size, rescaling and orientation.

    Raises:
        ScanError: With what is wrong.
    """
    header = read_fields(path)
    if not all(math.isfinite(size) and size != 0 for size in header.pixdim[1:]):
        raise refused("The voxel size must be positive", f"pixdim {header.pixdim[1:].tolist()}")
    if not np.isfinite(header.scaling).all():
        raise refused("Rescaling must be finite", "NaN or infinity in scl_slope or scl_inter")
    _check_forms(header)
    return header


def read_fields(path: Path) -> Nifti:
    """Read a header as it stands.

    Raises:
        ScanError: If it is none.
    """
    try:
        with _opened(path) as stream:
            return _parsed(stream.read(HEADER_BYTES))
    except (EOFError, OSError, zlib.error, struct.error) as error:
        raise refused(MUST, f"a damaged header ({type(error).__name__})") from None


def check_voxels(path: Path, header: Nifti) -> None:
    """Check that a file holds all its voxels, unpacked, and that each is a number.

    Raises:
        ScanError: If not.
    """
    wanted, found, is_finite = math.prod(header.shape) * header.n_bits // 8, 0, True
    try:
        with _opened(path) as stream:
            stream.seek(header.start)
            while (block := stream.read(READ_BYTES)) and found <= wanted:  # no end of zeros
                found += len(block)
                is_finite = is_finite and _is_finite(block, header)
    except (EOFError, OSError, zlib.error) as error:
        raise refused("A scan must be complete", f"a damaged file ({type(error).__name__})") from None
    if found != wanted:
        raise refused("A scan must hold the voxels of its header", f"{found} of {wanted} bytes")
    if not is_finite:
        raise refused("Every voxel must be a finite number", "NaN or infinity")


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _is_finite(block: bytes, header: Nifti) -> bool:
    if header.datatype not in FLOATS:
        return True
    kind = np.dtype(FLOATS[header.datatype]).newbyteorder(header.order)
    return bool(np.isfinite(np.frombuffer(block, kind, count=len(block) // kind.itemsize)).all())


def _parsed(head: bytes) -> Nifti:
    """Fields of either version, in either order of bytes."""
    order = next((order for order in "<>" if struct.unpack_from(f"{order}i", head)[0] in (348, 540)), None)
    if order is None:
        raise refused(MUST, "another header")

    def field(kind: str, place: int) -> tuple:
        """Values at a byte of the header, `kind` as `struct` spells it."""
        return struct.unpack_from(order + kind, head, place)

    if field("i", 0) == (348,):
        shape, (datatype, n_bits), codes = field("3h", 42), field("2h", 70), field("2h", 252)
        pixdim, (start, *scaling) = field("4f", 76), field("3f", 108)
        quaternion, rows = field("6f", 256), field("12f", 280)
    else:
        shape, (datatype, n_bits), codes = field("3q", 24), field("2h", 12), field("2i", 344)
        pixdim, (start, *scaling) = field("4d", 104), (*field("q", 168), *field("2d", 176))
        quaternion, rows = field("6d", 352), field("12d", 400)
    if not math.isfinite(start):
        raise refused("A scan must hold the voxels of its header", "no place where they begin")
    arrays = np.array(pixdim), np.array(quaternion), np.reshape(rows, (3, 4))
    return Nifti(order, shape, datatype, n_bits, int(start), tuple(scaling), codes, *arrays)


def _check_forms(header: Nifti) -> None:
    """Check that qform and sform put the voxels in the same place; one that is filled in counts even with code 0."""
    if max(header.codes) <= 0:
        raise refused("A scan must say its orientation", "neither qform nor sform")
    has_qform = header.codes[0] > 0 or header.quaternion.any()
    has_sform = header.codes[1] > 0 or header.rows[:, :3].any()
    if header.codes[1] > 0:
        _check_affine(header.rows[:, :3], header.pixdim)
    qform = _qform(header)
    if has_qform and not np.isfinite(qform).all():
        raise refused("The qform must be a rotation", "another quaternion")
    if has_qform and has_sform:
        corners = np.array([*itertools.product(*((0, n - 1) for n in header.shape))])  # (8, 3)
        ways_mm = corners @ (qform - header.rows)[:, :3].T + (qform - header.rows)[:, 3]
        apart_mm = float(np.linalg.norm(ways_mm, axis=1).max())
        if not apart_mm <= FORM_TOLERANCE_MM:
            hands = np.linalg.det(qform[:, :3]) * np.linalg.det(header.rows[:, :3])
            found = f"corners {apart_mm:.1f} mm apart" + (", and left for right" if hands < 0 else "")
            codes = "qform_code {} and sform_code {}".format(*header.codes)
            must = f"qform and sform must agree within {FORM_TOLERANCE_MM:g} mm"
            raise refused(must, f"{found}, with {codes}: keep the right one and clear the other")


def _qform(header: Nifti) -> np.ndarray:
    """Affine of the quaternion, (3, 4); NaN where it is none. Source: nifti1.h, METHOD 2."""
    b, c, d, *place = header.quaternion.tolist()
    rest = 1 - (b * b + c * c + d * d)
    if not rest > -1e-5:
        return np.full((3, 4), math.nan)
    a = math.sqrt(max(rest, 0.0))
    turn = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    handed = np.array([1, 1, -1 if header.pixdim[0] < 0 else 1])
    return np.column_stack([turn * np.abs(header.pixdim[1:]) * handed, place])


def _check_affine(axes: np.ndarray, pixdim: np.ndarray) -> None:
    """Check that an affine's axes, (3, 3), are a rotation and the voxel size: ITK leaves a shear out."""
    size = np.abs(pixdim[1:])
    unit = axes / size
    if not np.allclose(unit.T @ unit, np.eye(3), atol=5 * DIRECTION_TOLERANCE):
        must = "The affine must be a rotation and the voxel size, the same in sform and pixdim"
        raise refused(must, f"sform {axes.round(4).tolist()}, pixdim {size.round(4).tolist()} mm")
