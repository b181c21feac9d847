"""DICOM series: the slices of one CT from a folder, placed by their own positions, to HU.

pydicom reads the headers, and they are checked before a voxel is touched: ITK's reader takes a damaged header at its
word and asked 4 GB and half a minute of one slice. NumPy reads plain pixels, pydicom those in RLE. GDCM, which
SimpleITK carries, decodes the rest in a process of its own, which damaged JPEG can crash, from files that hold nothing
but what was checked.

What no header tells stays unseen: slices missing at an end of the series, or a left that was stored as right.

Sources: DICOM PS3.3, sections C.7.6.1 (image type), C.7.6.2 (position, orientation, pixel spacing), C.7.6.3 (pixels),
C.7.5.1 (padding), C.8.2.1 (CT), C.11.1 (rescaling); PS3.5, section 8.2 and annex A.4 (compression).
"""

import logging
import math
import struct
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

AIR_HU = -1024  # lowest value kept: scanners pad the outside of the field of view with less
DARK_HU = -500  # padding below this looks as air does
MAX_TISSUE_HU = 3071  # the end of the 12 bit scale; more is metal on an extended scale, or no HU at all
GAP_TOLERANCE = 0.05  # of the median slice gap
TILT_TOLERANCE_DEG = 0.5
SHIFT_TOLERANCE_MM = 0.5  # chosen by us: below a pixel, above what positions are rounded to
UNIT_TOLERANCE = 1e-3  # of direction cosines, which are stored with three digits and more
MAX_SIDE = 4096  # voxels; CT slices have 512 to 2048
MAX_VOXELS = 2**30  # chosen by us: 2 GiB as int16, five times 800 slices of 512 x 512
OTHER_FILES = ("DICOMDIR", "LICENSE", "README")

PLAIN = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
COMPRESSED = (
    *(uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    *(uid.JPEG2000Lossless, uid.JPEG2000),
)
DECODE_BATCH = 200  # slices: starting the process takes as long as decoding some ten
DECODE_LIMIT_S = 600  # of a batch, which takes some 10 s
MULTI_FRAME = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
TAGS = (
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesDescription", "ImageType", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
)
PIXEL_TAG = 0x7FE00010
JPEG_FRAME_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)  # baseline, extended, progressive, lossless; JPEG-LS
UNDEFINED_LENGTH = 0xFFFFFFFF  # of compressed pixels, which come in pieces


class ScanError(ValueError):
    """A scan that cannot be used; the message names the scan and the reason."""


class Stored(NamedTuple):
    """Voxels in the order in which they are stored, and where they lie.

    `array` is (Z, Y, X), `spacing_mm` (z, y, x); the columns of `direction`, (3, 3), are the unit vectors along x, y
    and z of the array in the patient's space (LPS).
    """

    array: np.ndarray
    spacing_mm: tuple[float, float, float]
    direction: np.ndarray


def read_series(folder: Path) -> Stored:
    """Read the one CT series of a folder in HU, in the order and with the gap that its positions say.

    Args:
        folder: Holds the slices; hidden files, folders and files of other kinds are passed over.
    Returns:
        int16 of at least -1024.
    Raises:
        ScanError: If the folder does not hold exactly one series of plain CT slices, or its geometry does not hold.
    """
    with _quiet_pydicom():
        headers = [_read_header(file) for file in _slice_files(folder)]
        _check_series(headers, folder)
        slices = [_to_slice(header) for header in headers]
        _check_same(slices, folder)
        slices, gap_mm = _ordered(slices, folder)
        hu = np.empty((len(slices), *slices[0].shape), dtype=np.int16)
        for index, stored in _read_pixels(slices):
            hu[index] = _rescaled(stored, slices[index])
    return Stored(hu, (gap_mm, *slices[0].pixel_mm), np.stack(_axes(slices[0]), axis=1))


def to_hu(values: np.ndarray) -> np.ndarray:
    """Round to whole HU and clip to what is kept: int16 of at least -1024."""
    whole = values if np.issubdtype(values.dtype, np.integer) else np.rint(values)
    return np.clip(whole, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Keep pydicom's warnings off the terminal: what they warn of is checked here and raised."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.disabled = before


# ---------------------------------------------------------------- files and headers


class _Header(NamedTuple):
    """A file's header without pixels, and where these lie."""

    file: Path
    dataset: pydicom.Dataset
    pixels_at: int | None  # byte in the file, None where there are none
    n_bytes: int


def _slice_files(folder: Path) -> list[Path]:
    """Files of the series; one that is named like a slice and is not DICOM is a damaged slice."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name[0] != "." and f.name not in OTHER_FILES)
    slices = [f for f in files if is_dicom(f)]
    if not slices:
        raise ScanError(f"A DICOM folder must hold the slices of one CT series. Found no DICOM file in {folder}.")
    suffixes = {_kind(f) for f in slices}
    damaged = [f for f in files if _kind(f) in suffixes and f not in set(slices)]
    if damaged:
        raise ScanError(f"Every slice must be readable. Found {damaged[0]}, which is not DICOM.")
    return slices


def is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM does, with or without the preamble."""
    with file.open("rb") as stream:
        head = stream.read(132)
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _kind(file: Path) -> str:
    """Suffix of a file; a number is none, it is the end of a UID."""
    return "" if file.suffix[1:].isdigit() else file.suffix.lower()


def _read_header(file: Path) -> _Header:
    with file.open("rb") as stream:
        if uid.DeflatedExplicitVRLittleEndian.encode() in stream.read(1024):  # would swell before it can be checked
            raise ScanError(f"Every slice must be plain DICOM or have compressed pixels. Found a deflated {file}.")
        stream.seek(0)
        try:
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
        except Exception as error:  # pydicom lets through whatever a damaged file leads to
            raise ScanError(f"Every slice must be readable. Found {file}: {error or type(error).__name__}.") from error
        pixels_at, n_bytes = _find_pixels(stream, *dataset.original_encoding)
    header = _Header(file, dataset, pixels_at, n_bytes)
    if pixels_at is None and _text(header, "Modality") in ("", "CT"):
        raise ScanError(f"Every slice must be readable. Found {file}, which ends before its pixels.")
    return header


def _find_pixels(stream: BinaryIO, is_implicit: bool, is_little: bool) -> tuple[int | None, int]:
    """Where the pixels start, None if the next element is another or none, and their length in bytes."""
    head = stream.read(8 if is_implicit else 12)  # group, number, type of an explicit element, length
    order = "little" if is_little else "big"
    group, number, n_bytes = (int.from_bytes(part, order) for part in (head[:2], head[2:4], head[-4:]))
    is_pixels = len(head) >= 8 and group << 16 | number == PIXEL_TAG
    return (stream.tell(), n_bytes) if is_pixels else (None, 0)


def _value(header: _Header, name: str) -> Any:
    try:
        return header.dataset.get(name)
    except Exception as error:  # as above: values are converted when they are asked for
        raise ScanError(f"A slice must have a readable {name}. Found {error} in {header.file}.") from error


def _text(header: _Header, name: str) -> str:
    """Value as text that can be printed, several joined by a backslash, blank where there is none."""
    value = _value(header, name)
    parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    text = "\\".join(str(part).strip() for part in parts if part is not None).upper()
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:64]


def _numbers(header: _Header, name: str, count: int) -> np.ndarray:
    try:
        numbers = np.array(_value(header, name), dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all():
        what = f"{count} numbers" if count > 1 else "a number"
        raise ScanError(f"A slice must have {name}, {what}. Found {_text(header, name)!r} in {header.file}.")
    return numbers


def _number(header: _Header, name: str) -> float:
    return float(_numbers(header, name, 1)[0])


# ---------------------------------------------------------------- one series of plain CT slices


def _check_series(headers: Sequence[_Header], folder: Path) -> None:
    """Check that all files are slices of one CT, each in its own file."""
    modalities = {_text(h, "Modality") or "none" for h in headers}
    if modalities != {"CT"}:
        raise ScanError(f"Every slice must be of modality CT. Found {', '.join(sorted(modalities))} in {folder}.")
    if any(_text(h, "SOPClassUID") in MULTI_FRAME or _text(h, "NumberOfFrames") not in ("", "1") for h in headers):
        raise ScanError(
            f"A series must have a file per slice. Found an enhanced multi-frame CT in {folder}: convert it to NIfTI, "
            "with dcm2niix for example."
        )
    _check_one_series(headers, folder)
    _check_image_types(headers, folder)
    if len(headers) < 2:
        raise ScanError(f"A series must have at least two slices. Found a single slice in {folder}.")


def _check_one_series(headers: Sequence[_Header], folder: Path) -> None:
    """Check that there is one series; several are counted with their descriptions, and none is chosen."""
    names = {}
    for header in headers:
        words = (_text(header, "SeriesDescription")[:40] or "no description", _text(header, "ImageType"))
        names.setdefault(_text(header, "SeriesInstanceUID"), " ".join(filter(None, words)))
    if len(names) > 1:
        counts = Counter(_text(h, "SeriesInstanceUID") for h in headers)
        found = "; ".join(f"{counts[series]} slices of {name}" for series, name in names.items())
        raise ScanError(
            f"A DICOM folder must hold one series. Found {len(names)} in {folder}: {found}. Keep one of them there."
        )


def _check_image_types(headers: Sequence[_Header], folder: Path) -> None:
    """Check that no slice is a localizer or made from others: a projection, a reformation, a map that is not HU."""
    types = {h.file.name: _text(h, "ImageType").split("\\") for h in headers}
    for name, found in (
        ("localizers", [file for file, words in types.items() if "LOCALIZER" in words]),
        ("derived images", [file for file, words in types.items() if words[:2] == ["DERIVED", "SECONDARY"]]),
    ):
        if found:
            raise ScanError(
                f"A series must hold original axial slices. Found {len(found)} {name} among {len(headers)} slices, "
                f"{found[0]} first, in {folder}."
            )


class _Slice(NamedTuple):
    """What a slice's header says of its place and its pixels."""

    file: Path
    position_mm: np.ndarray  # (3,) patient x, y, z of the first voxel
    orientation: np.ndarray  # (6,) direction cosines of a row, then of a column
    pixel_mm: tuple[float, float]  # (y, x)
    thickness_mm: float  # NaN if not given
    shape: tuple[int, int]  # (y, x)
    n_bits: int
    is_signed: bool
    slope: float
    intercept: float
    padding: int | None  # stored value
    syntax: uid.UID
    is_little: bool
    pixels_at: int


def _to_slice(header: _Header) -> _Slice:
    """Take from a header what is needed to read it, checked."""
    _check_pixels(header)
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if not (0 < slope < 1000 and abs(intercept) < 1e6):
        raise ScanError(f"RescaleSlope must be positive. Found {slope}, intercept {intercept}, in {header.file}.")
    if _text(header, "RescaleType") not in ("", "HU", "US"):
        raise ScanError(f"Values must be HU. Found RescaleType {_text(header, 'RescaleType')} in {header.file}.")
    return _Slice(
        file=header.file,
        position_mm=_numbers(header, "ImagePositionPatient", 3),
        orientation=_orientation(header),
        pixel_mm=tuple(_numbers(header, "PixelSpacing", 2).tolist()),
        thickness_mm=_thickness(header),
        shape=(int(_number(header, "Rows")), int(_number(header, "Columns"))),
        n_bits=int(_number(header, "BitsStored")),
        is_signed=_number(header, "PixelRepresentation") == 1,
        slope=slope,
        intercept=intercept,
        padding=None if _value(header, "PixelPaddingValue") is None else int(_number(header, "PixelPaddingValue")),
        syntax=_syntax(header),
        is_little=header.dataset.original_encoding[1],
        pixels_at=header.pixels_at,
    )


def _syntax(header: _Header) -> uid.UID:
    """Transfer syntax, a known one; that of files without any is implicit."""
    syntax = header.dataset.file_meta.get("TransferSyntaxUID") or uid.ImplicitVRLittleEndian
    if syntax not in PLAIN + COMPRESSED:
        name = getattr(syntax, "name", syntax)
        raise ScanError(f"Pixels must be plain or of a known compression. Found {name} in {header.file}.")
    return syntax


def _orientation(header: _Header) -> np.ndarray:
    orientation = _numbers(header, "ImageOrientationPatient", 6)
    row, column = orientation[:3], orientation[3:]
    if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 2 * UNIT_TOLERANCE:
        raise ScanError(
            f"ImageOrientationPatient must be two unit vectors at a right angle. Found {orientation} in {header.file}."
        )
    return orientation


def _thickness(header: _Header) -> float:
    return _number(header, "SliceThickness") if _text(header, "SliceThickness") else math.nan


def _check_pixels(header: _Header) -> None:
    """Check that pixels are 16 bit grey values, in a known coding, and as many as the size says."""
    sides = [_number(header, name) for name in ("Rows", "Columns")]
    if not all(side == int(side) and 1 < side <= MAX_SIDE for side in sides):
        raise ScanError(f"Rows and Columns must be 2 to {MAX_SIDE}. Found {sides} in {header.file}.")
    if _text(header, "PhotometricInterpretation") != "MONOCHROME2" or _number(header, "SamplesPerPixel") != 1:
        found = _text(header, "PhotometricInterpretation") or "none"
        raise ScanError(f"Pixels must be MONOCHROME2, one sample each. Found {found} in {header.file}.")
    bits = [_number(header, name) for name in ("BitsAllocated", "BitsStored", "HighBit")]
    if bits[0] != 16 or not (8 <= bits[1] <= 16 and bits[2] == bits[1] - 1):
        raise ScanError(
            f"Pixels must have 16 bits, the used ones at the low end. Found BitsAllocated, BitsStored, HighBit {bits} "
            f"in {header.file}."
        )
    if _number(header, "PixelRepresentation") not in (0, 1):
        found = _text(header, "PixelRepresentation")
        raise ScanError(f"PixelRepresentation must be 0 or 1. Found {found} in {header.file}.")
    _check_length(header, wanted=int(sides[0] * sides[1]) * 2)


def _check_length(header: _Header, *, wanted: int) -> None:
    syntax = _syntax(header)
    left = header.file.stat().st_size - header.pixels_at
    if syntax in COMPRESSED and header.n_bytes != UNDEFINED_LENGTH:
        raise ScanError(f"Compressed pixels must come in pieces. Found {header.n_bytes} bytes in {header.file}.")
    if syntax in PLAIN and (header.n_bytes != wanted or left < wanted):
        raise ScanError(
            f"Pixels must be complete and as many as Rows x Columns. Found {min(left, header.n_bytes)} of {wanted} "
            f"bytes in {header.file}."
        )


def _check_same(slices: Sequence[_Slice], folder: Path) -> None:
    """Check what must be the same for all slices of one CT."""
    first = slices[0]
    if len({s.shape for s in slices}) > 1:
        raise ScanError(f"All slices must have one size. Found {sorted({s.shape for s in slices})} in {folder}.")
    if len(slices) * math.prod(first.shape) > MAX_VOXELS:
        raise ScanError(f"A scan must have at most {MAX_VOXELS} voxels. Found {len(slices)} x {first.shape}, {folder}.")
    if not all(np.allclose(s.pixel_mm, first.pixel_mm, rtol=1e-4, atol=0) for s in slices):
        raise ScanError(
            f"All slices must have one PixelSpacing. Found {sorted({s.pixel_mm for s in slices})[:2]} in {folder}."
        )
    if max(np.abs(s.orientation - first.orientation).max() for s in slices) > UNIT_TOLERANCE:
        raise ScanError(f"All slices must have one orientation. Found several in {folder}.")


# ---------------------------------------------------------------- order and gap


def _ordered(slices: Sequence[_Slice], folder: Path) -> tuple[list[_Slice], float]:
    """Sort slices along their normal and return them with their common gap in mm.

    Raises:
        ScanError: If the positions have a duplicate, a missing or shifted slice, uneven gaps or a gantry tilt.
    """
    normal = _axes(slices[0])[2]
    slices = sorted(slices, key=lambda s: float(s.position_mm @ normal))
    gaps_mm = np.diff([s.position_mm @ normal for s in slices])
    gap_mm = float(np.median(gaps_mm))
    if (gaps_mm < max(0.01, GAP_TOLERANCE * gap_mm)).any():
        first = slices[int(np.argmin(gaps_mm))].file.name
        raise ScanError(f"Every slice must have its own position. Found duplicate slices at {first} in {folder}.")
    _check_gaps(gaps_mm, gap_mm, slices, folder)
    _check_stack(slices, normal, folder)
    return slices, float(gaps_mm.mean())


def _check_gaps(gaps_mm: np.ndarray, gap_mm: float, slices: Sequence[_Slice], folder: Path) -> None:
    worst = int(np.argmax(np.abs(gaps_mm - gap_mm)))
    found = f"a gap of {gaps_mm[worst]:.2f} mm after {slices[worst].file.name}, median {gap_mm:.2f} mm, in {folder}"
    if gaps_mm[worst] > 1.5 * gap_mm:
        raise ScanError(f"A series must be complete. Found missing slices: {found}.")
    if abs(gaps_mm[worst] - gap_mm) > GAP_TOLERANCE * gap_mm:
        raise ScanError(f"Slices must be evenly spaced. Found uneven spacing: {found}.")
    thickness_mm = float(np.median([s.thickness_mm for s in slices]))
    if gap_mm > 1.5 * thickness_mm > 0:  # False where the thickness is not given
        raise ScanError(
            f"A series must be complete. Found missing slices: {gap_mm:.2f} mm from slice to slice, "
            f"but {thickness_mm:.2f} mm thick, in {folder}."
        )


def _check_stack(slices: Sequence[_Slice], normal: np.ndarray, folder: Path) -> None:
    """Check that slices lie above each other along their normal."""
    ways = np.stack([s.position_mm - slices[0].position_mm for s in slices])  # (Z, 3)
    along = ways @ normal
    slope = (ways[-1] - along[-1] * normal) / along[-1]
    shifts_mm = np.linalg.norm(ways - np.outer(along, normal + slope), axis=1)
    worst = int(np.argmax(shifts_mm))
    if shifts_mm[worst] > SHIFT_TOLERANCE_MM:
        raise ScanError(
            f"Slices must be stacked straight. Found {slices[worst].file.name} {shifts_mm[worst]:.1f} mm aside in "
            f"{folder}."
        )
    tilt_deg = math.degrees(math.atan(float(np.linalg.norm(slope))))
    if tilt_deg > TILT_TOLERANCE_DEG:
        raise ScanError(
            f"Slices must be stacked along their normal. Found a gantry tilt of {tilt_deg:.1f}° in {folder}."
        )


def _axes(one: _Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of x, y and the slice normal in patient space."""
    row, column = one.orientation[:3], one.orientation[3:]
    return row, column, np.cross(row, column)


# ---------------------------------------------------------------- pixels


def _read_pixels(slices: Sequence[_Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every slice's index and its stored values (Y, X); plain slices first."""
    packed = []
    for index, one in enumerate(slices):
        if one.syntax in PLAIN:
            yield index, _plain(one)
        elif one.syntax == uid.RLELossless:
            yield index, _unpacked(one)
        else:
            packed.append(index)
    for start in range(0, len(packed), DECODE_BATCH):
        batch = packed[start : start + DECODE_BATCH]
        yield from zip(batch, _decoded([slices[index] for index in batch]), strict=True)


def _rescaled(stored: np.ndarray, one: _Slice) -> np.ndarray:
    """Rescale a slice's stored values to HU: int16 (Y, X) of at least -1024."""
    stored = _used_bits(stored, one)
    if one.slope == 1 and one.intercept == int(one.intercept):
        hu = to_hu(stored.astype(np.int32) + int(one.intercept))
    else:
        hu = to_hu(stored * one.slope + one.intercept)
    return hu if one.padding is None else _without_padding(hu, stored, one)


def _plain(one: _Slice) -> np.ndarray:
    kind = np.dtype(np.int16 if one.is_signed else np.uint16).newbyteorder("<" if one.is_little else ">")
    return np.fromfile(one.file, dtype=kind, count=math.prod(one.shape), offset=one.pixels_at).reshape(one.shape)


def _used_bits(stored: np.ndarray, one: _Slice) -> np.ndarray:
    """Take the sign from the highest bit in use; what stands above it must be nothing or the sign."""
    if one.n_bits == 16:
        return stored
    above = 16 - one.n_bits
    used = np.right_shift(np.left_shift(stored, above), above)
    is_known = (used == stored) | (np.right_shift(stored, one.n_bits) == 0)
    if not is_known.all():
        raise ScanError(f"Values must fit into BitsStored, {one.n_bits} bits. Found larger ones in {one.file}.")
    return used


def _without_padding(hu: np.ndarray, stored: np.ndarray, one: _Slice) -> np.ndarray:
    """Turn padding that is brighter than any tissue to air; padding darker than lung is left as it is."""
    padding = int(np.array(one.padding & 0xFFFF, dtype=np.uint16).astype(stored.dtype))
    padding_hu = padding * one.slope + one.intercept
    if padding_hu < DARK_HU:
        return hu
    if padding_hu > MAX_TISSUE_HU:
        return np.where(stored == padding, np.int16(AIR_HU), hu)
    if stored[0, 0] == padding:  # a scanner pads the corners; where it did not, the tag is idle
        raise ScanError(f"Padding must not look like tissue. Found padding of {padding_hu:.0f} HU in {one.file}.")
    return hu


def _unpacked(one: _Slice) -> np.ndarray:
    """Decode a slice in RLE."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as more values than the size says
            stored, _ = get_decoder(one.syntax).as_array(_bare(one), decoding_plugin="pydicom")
    except Exception as error:  # as in _read_header
        raise ScanError(f"Every slice must be readable. Found {one.file}: {error}.") from error
    return stored


def _decoded(slices: Sequence[_Slice]) -> Iterator[np.ndarray]:
    """Decode JPEG slices, all kinds, in a process of their own, which may crash without taking this one along."""
    with tempfile.TemporaryDirectory() as folder:
        for index, one in enumerate(slices):
            _bare(one).save_as(Path(folder) / f"{index}.dcm", enforce_file_format=True)
        command = [sys.executable, "-c", _DECODE, folder, str(len(slices))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=DECODE_LIMIT_S, check=False)
            complaint = _last(done.stderr) or (f"exit code {done.returncode}" if done.returncode else "")
        except subprocess.TimeoutExpired:
            complaint = f"no end after {DECODE_LIMIT_S} s"
        if complaint:  # a decoder that says anything has filled in what it could not read
            one = slices[min(len(list(Path(folder).glob("*.raw"))), len(slices) - 1)]
            raise ScanError(f"Every slice must be readable. Found {one.file} or one before, damaged: {complaint}.")
        for index, one in enumerate(slices):
            yield _raw(Path(folder) / f"{index}.raw", one)


_DECODE = """
import pathlib, sys
import SimpleITK
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
for index in range(int(sys.argv[2])):
    file = pathlib.Path(sys.argv[1], f"{index}.dcm")
    image = SimpleITK.ReadImage(str(file), imageIO="GDCMImageIO")
    SimpleITK.GetArrayViewFromImage(image).tofile(file.with_suffix(".raw"))
"""


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""


def _raw(file: Path, one: _Slice) -> np.ndarray:
    stored = np.fromfile(file, dtype=np.int16 if one.is_signed else np.uint16)
    if stored.size != math.prod(one.shape):
        raise ScanError(f"Pixels must be {one.shape} of 16 bits. Found {2 * stored.size} bytes in {one.file}.")
    return stored.reshape(one.shape)


def _bare(one: _Slice) -> pydicom.Dataset:
    """Dataset of a compressed slice with what decoding needs and nothing else."""
    try:
        frame = get_frame(one.file.read_bytes()[one.pixels_at :], 0, number_of_frames=1)
    except Exception as error:  # as in _read_header
        raise ScanError(f"Every slice must be readable. Found {one.file}: {error}.") from error
    _check_frame(frame, one)
    bare = pydicom.Dataset()
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = one.syntax
    bare.set_original_encoding(False, True)
    bare.SOPClassUID, bare.SOPInstanceUID = uid.CTImageStorage, "1.2"
    bare.Modality, bare.SamplesPerPixel, bare.PhotometricInterpretation = "CT", 1, "MONOCHROME2"
    bare.Rows, bare.Columns = one.shape
    bare.BitsAllocated, bare.BitsStored, bare.HighBit = 16, one.n_bits, one.n_bits - 1
    bare.PixelRepresentation = int(one.is_signed)
    bare.PixelData = encapsulate([frame])
    bare["PixelData"].VR = "OB"
    bare["PixelData"].is_undefined_length = True
    return bare


def _check_frame(frame: bytes, one: _Slice) -> None:
    """Check that compressed data say the size that the header says: a decoder would reserve whatever they say."""
    if one.syntax == uid.RLELossless:
        return  # has no size of its own; what is unpacked is counted
    is_jpeg_2000 = one.syntax in (uid.JPEG2000Lossless, uid.JPEG2000)
    size = _jpeg_2000_size(frame) if is_jpeg_2000 else _jpeg_size(frame)
    if size != one.shape:
        raise ScanError(f"Compressed pixels must be {one.shape}, as the header says. Found {size} in {one.file}.")
    if is_jpeg_2000 and (frame[42] >= 128) != one.is_signed:
        raise ScanError(f"PixelRepresentation must be that of the compressed pixels. Found the other in {one.file}.")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int] | None:
    """(y, x) of a JPEG 2000 image with one component. Source: ISO/IEC 15444-1, A.5.1."""
    if len(frame) < 43 or frame[:4] != b"\xff\x4f\xff\x51" or frame[40:42] != b"\0\1":
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
    return bottom - top, right - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """(y, x) of a JPEG or JPEG-LS image with one component, from its frame header. Source: ISO/IEC 10918-1, B.2.2."""
    at = 2  # after the start marker
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, length = struct.unpack_from(">xBH", frame, at)
        if marker in JPEG_FRAME_MARKERS:
            return struct.unpack_from(">HH", frame, at + 5) if frame[at + 9] == 1 else None
        at += 2 + length
    return None
