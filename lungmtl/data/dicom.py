"""DICOM series: the slices of one CT from a folder, placed by their own positions, to HU.

What no header tells stays unseen: slices missing at an end of the series, or a left that was stored as right.

Sources: DICOM PS3.3, sections C.7.6.1 (image type), C.7.6.2 (position, orientation, pixel spacing), C.8.2.1 (CT),
C.11.1 (rescaling).
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungmtl.data.frames import frames_of
from lungmtl.data.headers import Header, image_type, number, numbers, read_headers, term, text, value_of
from lungmtl.data.pixels import COMPRESSED, UNCOMPRESSED, Slice, read_pixels, rescaled
from lungmtl.data.technique import technique_of
from lungmtl.data.volume import DIRECTION_TOLERANCE, MAX_VOXELS, Stored, refused
from lungmtl.words import number_of

GAP_TOLERANCE = 0.05  # of the median slice gap
TILT_TOLERANCE_DEG = 0.5
SHIFT_TOLERANCE_MM = 0.5  # chosen by us: below a pixel, above what positions are rounded to
MAX_SIDE = 4096  # voxels; CT slices have 512 to 2048
UNDEFINED_LENGTH = 0xFFFFFFFF  # of compressed pixels, which come in pieces


def read_series(folder: Path) -> Stored:
    """Read the one CT series of a folder in HU, int16 of at least -1024, in the order and with the gap of its slices.

    Raises:
        ScanError: As of `place_slices`, or if pixels cannot be read.
    """
    slices, gap_mm = place_slices(folder)
    hu = np.empty((len(slices), *slices[0].shape), dtype=np.int16)
    for index, stored in read_pixels(slices):
        hu[index] = rescaled(stored, slices[index])
    direction = np.stack(_axes(slices[0]), axis=1)
    return Stored(hu, (gap_mm, *slices[0].pixel_mm), direction, technique_of(slices[0].header))


def place_slices(folder: Path) -> tuple[list[Slice], float]:
    """Slices of the one CT series of a folder, their pixels not read, along their normal, and their gap in mm.

    Hidden files and files of other kinds are passed over; so are folders, unless there is no DICOM file beside them.
    The frames of enhanced multi-frame CT are slices as any.

    Raises:
        ScanError: If the folder does not hold exactly one series of CT slices, or its geometry does not hold.
    """
    files = read_headers(folder)
    headers = [frame for header in files for frame in frames_of(header, is_alone=len(files) == 1)]
    _check_series(headers)
    slices = [_to_slice(header) for header in headers]
    _check_same(slices)
    return _ordered(slices)


def _check_series(headers: Sequence[Header]) -> None:
    """Check that all slices are of one CT, of one patient, and none is a localizer or made from others."""
    if any(text(h, "Modality") != "CT" for h in headers):
        raise refused("Every slice must be of modality CT", ", ".join(sorted({term(h, "Modality") for h in headers})))
    counts = Counter(text(h, "SeriesInstanceUID") for h in headers)
    if len(counts) > 1:
        found = f"{len(counts)}, of {', '.join(map(str, counts.values()))} slices: keep one of them there"
        raise refused("A DICOM folder must hold one series", found)
    for name, what in (("PatientID", "patient"), ("PatientName", "patient"), ("ConvolutionKernel", "kernel")):
        kinds = Counter(filter(None, (text(h, name).rstrip("^ ") for h in headers)))  # of a name's blank parts
        if len(kinds) > 1:
            found = f"{len(kinds)} values of {name}, in {', '.join(map(str, kinds.values()))} slices"
            raise refused(f"All slices must be of one {what}", found)
    _check_image_types(headers)
    if len(headers) < 2:
        raise refused("A series must have at least two slices", "a single slice")


def _check_image_types(headers: Sequence[Header]) -> None:
    """Check that no slice is a localizer or made from others: a projection, a reformation, a map that is not HU."""
    types = {h.name: image_type(h) for h in headers}
    for what, names in (
        ("localizer", [name for name, words in types.items() if "LOCALIZER" in words]),
        ("derived image", [name for name, words in types.items() if words[:2] == ["DERIVED", "SECONDARY"]]),
    ):
        if names:
            found = f"{number_of(len(names), what)} among {number_of(len(headers), 'slice')}, first {names[0]}"
            raise refused("A series must hold original axial slices", found)


def _to_slice(header: Header) -> Slice:
    """Take from a header what is needed to read it, checked."""
    _check_pixels(header)
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if not (0 < slope < 1000 and abs(intercept) < 1e6):
        raise refused("RescaleSlope must be positive", f"{slope}, intercept {intercept},", header.name)
    if text(header, "RescaleType") not in ("", "HU", "US"):
        raise refused("Values must be HU", f"RescaleType {term(header, 'RescaleType')}", header.name)
    return Slice(
        header=header,
        position_mm=numbers(header, "ImagePositionPatient", 3),
        orientation=_orientation(header),
        pixel_mm=tuple(numbers(header, "PixelSpacing", 2).tolist()),
        thickness_mm=number(header, "SliceThickness") if text(header, "SliceThickness") else math.nan,
        shape=(int(number(header, "Rows")), int(number(header, "Columns"))),
        n_bits=int(number(header, "BitsStored")),
        is_signed=number(header, "PixelRepresentation") == 1,
        slope=slope,
        intercept=intercept,
        padding=None if value_of(header, "PixelPaddingValue") is None else int(number(header, "PixelPaddingValue")),
    )


def _orientation(header: Header) -> np.ndarray:
    orientation = numbers(header, "ImageOrientationPatient", 6)
    row, column = orientation[:3], orientation[3:]
    if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 2 * DIRECTION_TOLERANCE:
        must = "ImageOrientationPatient must be two unit vectors at a right angle"
        raise refused(must, f"{orientation}", header.name)
    return orientation


def _check_pixels(header: Header) -> None:
    """Check that pixels are 16 bit grey values, in a known coding, and as many as the size says."""
    sides = [number(header, name) for name in ("Rows", "Columns")]
    if not all(side == int(side) and 1 < side <= MAX_SIDE for side in sides):
        raise refused(f"Rows and Columns must be 2 to {MAX_SIDE}", f"{sides}", header.name)
    if text(header, "PhotometricInterpretation") != "MONOCHROME2" or number(header, "SamplesPerPixel") != 1:
        found = term(header, "PhotometricInterpretation")
        raise refused("Pixels must be MONOCHROME2, one sample each", found, header.name)
    bits = [number(header, name) for name in ("BitsAllocated", "BitsStored", "HighBit")]
    if bits[0] != 16 or not (8 <= bits[1] <= 16 and bits[2] == bits[1] - 1):
        found = f"BitsAllocated, BitsStored, HighBit {bits}"
        raise refused("Pixels must have 16 bits, the used ones at the low end", found, header.name)
    if (sign := number(header, "PixelRepresentation")) not in (0, 1):
        raise refused("PixelRepresentation must be 0 or 1", f"{sign:g}", header.name)
    _check_length(header, wanted=int(sides[0] * sides[1]) * 2 * header.n_frames)


def _check_length(header: Header, *, wanted: int) -> None:
    syntax, left = header.syntax, header.file.stat().st_size - header.pixels_at
    if syntax not in UNCOMPRESSED + COMPRESSED:  # a known one has a name
        found = "an unknown one" if syntax.name == syntax else syntax.name
        raise refused("Pixels must be plain or of a known compression", found, header.name)
    if syntax in COMPRESSED and header.n_bytes != UNDEFINED_LENGTH:
        raise refused("Compressed pixels must come in pieces", f"{header.n_bytes} bytes", header.name)
    if syntax in UNCOMPRESSED and (header.n_bytes != wanted or left < wanted):
        found = f"{min(left, header.n_bytes)} of {wanted} bytes"
        raise refused("Pixels must be complete and as many as Rows x Columns", found, header.name)


def _check_same(slices: Sequence[Slice]) -> None:
    """Check what must be the same for all slices of one CT."""
    first = slices[0]
    if len({s.shape for s in slices}) > 1:
        raise refused("All slices must have one size", f"{sorted({s.shape for s in slices})}")
    if len(slices) * math.prod(first.shape) > MAX_VOXELS:
        raise refused(f"A scan must have at most {MAX_VOXELS} voxels", f"{len(slices)} x {first.shape}")
    if not all(np.allclose(s.pixel_mm, first.pixel_mm, rtol=1e-4, atol=0) for s in slices):
        raise refused("All slices must have one PixelSpacing", f"{sorted({s.pixel_mm for s in slices})[:2]}")
    if max(np.abs(s.orientation - first.orientation).max() for s in slices) > DIRECTION_TOLERANCE:
        raise refused("All slices must have one orientation", "several")


def _ordered(slices: Sequence[Slice]) -> tuple[list[Slice], float]:
    """Sort slices along their normal and return them with their common gap in mm.

    Raises:
        ScanError: If the positions have a duplicate, a missing or shifted slice, uneven gaps or a gantry tilt.
    """
    normal = _axes(slices[0])[2]
    slices = sorted(slices, key=lambda s: float(s.position_mm @ normal))
    gaps_mm = np.diff([s.position_mm @ normal for s in slices])
    gap_mm = float(np.median(gaps_mm))
    if (gaps_mm < max(0.01, GAP_TOLERANCE * gap_mm)).any():
        first = slices[int(np.argmin(gaps_mm))].header.name
        raise refused("Every slice must have its own position", f"duplicate slices, the first is {first}")
    _check_gaps(gaps_mm, gap_mm, slices)
    _check_stack(slices, normal)
    return slices, float(gaps_mm.mean())


def _check_gaps(gaps_mm: np.ndarray, gap_mm: float, slices: Sequence[Slice]) -> None:
    worst = int(np.argmax(np.abs(gaps_mm - gap_mm)))
    found = f"a gap of {gaps_mm[worst]:.2f} mm after {slices[worst].header.name}, median {gap_mm:.2f} mm"
    if gaps_mm[worst] > 1.5 * gap_mm:
        raise refused("A series must be complete", f"missing slices: {found}")
    if abs(gaps_mm[worst] - gap_mm) > GAP_TOLERANCE * gap_mm:
        raise refused("Slices must be evenly spaced", f"uneven spacing: {found}")
    thickness_mm = float(np.median([s.thickness_mm for s in slices]))
    if gap_mm > 1.5 * thickness_mm > 0:  # False where the thickness is not given
        found = f"missing slices: {gap_mm:.2f} mm from slice to slice, but {thickness_mm:.2f} mm thick"
        raise refused("A series must be complete", found)


def _check_stack(slices: Sequence[Slice], normal: np.ndarray) -> None:
    """Check that slices lie above each other along their normal."""
    ways = np.stack([s.position_mm - slices[0].position_mm for s in slices])  # (Z, 3)
    along = ways @ normal
    slope = (ways[-1] - along[-1] * normal) / along[-1]
    shifts_mm = np.linalg.norm(ways - np.outer(along, normal + slope), axis=1)
    worst = int(np.argmax(shifts_mm))
    if shifts_mm[worst] > SHIFT_TOLERANCE_MM:
        found = f"{slices[worst].header.name} {shifts_mm[worst]:.1f} mm aside"
        raise refused("Slices must be stacked straight", found)
    tilt_deg = math.degrees(math.atan(float(np.linalg.norm(slope))))
    if tilt_deg > TILT_TOLERANCE_DEG:
        raise refused("Slices must be stacked along their normal", f"a gantry tilt of {tilt_deg:.1f}°")


def _axes(one: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of x, y and the slice normal in patient space."""
    row, column = one.orientation[:3], one.orientation[3:]
    return row, column, np.cross(row, column)
