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
from pydicom import uid

from lungmtl.data.headers import Header, number, numbers, read_header, slice_files, text, value_of
from lungmtl.data.pixels import COMPRESSED, PLAIN, Slice, read_pixels, rescaled
from lungmtl.data.volume import DIRECTION_TOLERANCE, MAX_VOXELS, ScanError, Stored, refused

GAP_TOLERANCE = 0.05  # of the median slice gap
TILT_TOLERANCE_DEG = 0.5
SHIFT_TOLERANCE_MM = 0.5  # chosen by us: below a pixel, above what positions are rounded to
MAX_SIDE = 4096  # voxels; CT slices have 512 to 2048
MULTI_FRAME = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
UNDEFINED_LENGTH = 0xFFFFFFFF  # of compressed pixels, which come in pieces


def read_series(folder: Path) -> Stored:
    """Read the one CT series of a folder in HU, int16 of at least -1024, in the order and with the gap of its slices.

    Hidden files, folders and files of other kinds are passed over.

    Raises:
        ScanError: If the folder does not hold exactly one series of plain CT slices, or its geometry does not hold.
    """
    headers = [read_header(file) for file in slice_files(folder)]
    _check_series(headers, folder)
    slices = [_to_slice(header) for header in headers]
    _check_same(slices, folder)
    slices, gap_mm = _ordered(slices, folder)
    hu = np.empty((len(slices), *slices[0].shape), dtype=np.int16)
    for index, stored in read_pixels(slices):
        hu[index] = rescaled(stored, slices[index])
    return Stored(hu, (gap_mm, *slices[0].pixel_mm), np.stack(_axes(slices[0]), axis=1))


def _check_series(headers: Sequence[Header], folder: Path) -> None:
    """Check that all files are slices of one CT, each in its own file."""
    modalities = {text(h, "Modality") or "none" for h in headers}
    if modalities != {"CT"}:
        raise refused("Every slice must be of modality CT", f"{', '.join(sorted(modalities))}", folder)
    if any(text(h, "SOPClassUID") in MULTI_FRAME or text(h, "NumberOfFrames") not in ("", "1") for h in headers):
        found = f"an enhanced multi-frame CT in {folder}: convert it to NIfTI, with dcm2niix for example"
        raise ScanError(f"A series must have a file per slice. Found {found}.")
    _check_one_series(headers, folder)
    _check_image_types(headers, folder)
    if len(headers) < 2:
        raise refused("A series must have at least two slices", "a single slice", folder)


def _check_one_series(headers: Sequence[Header], folder: Path) -> None:
    """Check that there is one series; several are counted with their descriptions, and none is chosen."""
    names = {}
    for header in headers:
        words = (text(header, "SeriesDescription")[:40] or "no description", text(header, "ImageType"))
        names.setdefault(text(header, "SeriesInstanceUID"), " ".join(filter(None, words)))
    if len(names) > 1:
        counts = Counter(text(h, "SeriesInstanceUID") for h in headers)
        found = "; ".join(f"{counts[series]} slices of {name}" for series, name in names.items())
        must = "A DICOM folder must hold one series"
        raise ScanError(f"{must}. Found {len(names)} in {folder}: {found}. Keep one of them there.")


def _check_image_types(headers: Sequence[Header], folder: Path) -> None:
    """Check that no slice is a localizer or made from others: a projection, a reformation, a map that is not HU."""
    types = {h.file.name: text(h, "ImageType").split("\\") for h in headers}
    for name, found in (
        ("localizers", [file for file, words in types.items() if "LOCALIZER" in words]),
        ("derived images", [file for file, words in types.items() if words[:2] == ["DERIVED", "SECONDARY"]]),
    ):
        if found:
            what = f"{len(found)} {name} among {len(headers)} slices, {found[0]} first,"
            raise refused("A series must hold original axial slices", what, folder)


def _to_slice(header: Header) -> Slice:
    """Take from a header what is needed to read it, checked."""
    _check_pixels(header)
    slope, intercept = number(header, "RescaleSlope"), number(header, "RescaleIntercept")
    if not (0 < slope < 1000 and abs(intercept) < 1e6):
        raise refused("RescaleSlope must be positive", f"{slope}, intercept {intercept},", header.file)
    if text(header, "RescaleType") not in ("", "HU", "US"):
        raise refused("Values must be HU", f"RescaleType {text(header, 'RescaleType')}", header.file)
    return Slice(
        file=header.file,
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
        syntax=_syntax(header),
        is_little=header.dataset.original_encoding[1],
        pixels_at=header.pixels_at,
    )


def _orientation(header: Header) -> np.ndarray:
    orientation = numbers(header, "ImageOrientationPatient", 6)
    row, column = orientation[:3], orientation[3:]
    if np.abs([row @ row - 1, column @ column - 1, row @ column]).max() > 2 * DIRECTION_TOLERANCE:
        must = "ImageOrientationPatient must be two unit vectors at a right angle"
        raise refused(must, f"{orientation}", header.file)
    return orientation


def _check_pixels(header: Header) -> None:
    """Check that pixels are 16 bit grey values, in a known coding, and as many as the size says."""
    sides = [number(header, name) for name in ("Rows", "Columns")]
    if not all(side == int(side) and 1 < side <= MAX_SIDE for side in sides):
        raise refused(f"Rows and Columns must be 2 to {MAX_SIDE}", f"{sides}", header.file)
    if text(header, "PhotometricInterpretation") != "MONOCHROME2" or number(header, "SamplesPerPixel") != 1:
        found = text(header, "PhotometricInterpretation") or "none"
        raise refused("Pixels must be MONOCHROME2, one sample each", f"{found}", header.file)
    bits = [number(header, name) for name in ("BitsAllocated", "BitsStored", "HighBit")]
    if bits[0] != 16 or not (8 <= bits[1] <= 16 and bits[2] == bits[1] - 1):
        found = f"BitsAllocated, BitsStored, HighBit {bits}"
        raise refused("Pixels must have 16 bits, the used ones at the low end", found, header.file)
    if (sign := number(header, "PixelRepresentation")) not in (0, 1):
        raise refused("PixelRepresentation must be 0 or 1", f"{sign:g}", header.file)
    _check_length(header, wanted=int(sides[0] * sides[1]) * 2)


def _check_length(header: Header, *, wanted: int) -> None:
    syntax, left = _syntax(header), header.file.stat().st_size - header.pixels_at
    if syntax in COMPRESSED and header.n_bytes != UNDEFINED_LENGTH:
        raise refused("Compressed pixels must come in pieces", f"{header.n_bytes} bytes", header.file)
    if syntax in PLAIN and (header.n_bytes != wanted or left < wanted):
        found = f"{min(left, header.n_bytes)} of {wanted} bytes"
        raise refused("Pixels must be complete and as many as Rows x Columns", found, header.file)


def _check_same(slices: Sequence[Slice], folder: Path) -> None:
    """Check what must be the same for all slices of one CT."""
    first = slices[0]
    if len({s.shape for s in slices}) > 1:
        raise refused("All slices must have one size", f"{sorted({s.shape for s in slices})}", folder)
    if len(slices) * math.prod(first.shape) > MAX_VOXELS:
        raise ScanError(f"A scan must have at most {MAX_VOXELS} voxels. Found {len(slices)} x {first.shape}, {folder}.")
    if not all(np.allclose(s.pixel_mm, first.pixel_mm, rtol=1e-4, atol=0) for s in slices):
        raise refused("All slices must have one PixelSpacing", f"{sorted({s.pixel_mm for s in slices})[:2]}", folder)
    if max(np.abs(s.orientation - first.orientation).max() for s in slices) > DIRECTION_TOLERANCE:
        raise refused("All slices must have one orientation", "several", folder)


def _ordered(slices: Sequence[Slice], folder: Path) -> tuple[list[Slice], float]:
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
        raise refused("Every slice must have its own position", f"duplicate slices at {first}", folder)
    _check_gaps(gaps_mm, gap_mm, slices, folder)
    _check_stack(slices, normal, folder)
    return slices, float(gaps_mm.mean())


def _check_gaps(gaps_mm: np.ndarray, gap_mm: float, slices: Sequence[Slice], folder: Path) -> None:
    worst = int(np.argmax(np.abs(gaps_mm - gap_mm)))
    found = f"a gap of {gaps_mm[worst]:.2f} mm after {slices[worst].file.name}, median {gap_mm:.2f} mm,"
    if gaps_mm[worst] > 1.5 * gap_mm:
        raise refused("A series must be complete", f"missing slices: {found}", folder)
    if abs(gaps_mm[worst] - gap_mm) > GAP_TOLERANCE * gap_mm:
        raise refused("Slices must be evenly spaced", f"uneven spacing: {found}", folder)
    thickness_mm = float(np.median([s.thickness_mm for s in slices]))
    if gap_mm > 1.5 * thickness_mm > 0:  # False where the thickness is not given
        found = f"missing slices: {gap_mm:.2f} mm from slice to slice, but {thickness_mm:.2f} mm thick,"
        raise refused("A series must be complete", found, folder)


def _check_stack(slices: Sequence[Slice], normal: np.ndarray, folder: Path) -> None:
    """Check that slices lie above each other along their normal."""
    ways = np.stack([s.position_mm - slices[0].position_mm for s in slices])  # (Z, 3)
    along = ways @ normal
    slope = (ways[-1] - along[-1] * normal) / along[-1]
    shifts_mm = np.linalg.norm(ways - np.outer(along, normal + slope), axis=1)
    worst = int(np.argmax(shifts_mm))
    if shifts_mm[worst] > SHIFT_TOLERANCE_MM:
        found = f"{slices[worst].file.name} {shifts_mm[worst]:.1f} mm aside"
        raise refused("Slices must be stacked straight", found, folder)
    tilt_deg = math.degrees(math.atan(float(np.linalg.norm(slope))))
    if tilt_deg > TILT_TOLERANCE_DEG:
        raise refused("Slices must be stacked along their normal", f"a gantry tilt of {tilt_deg:.1f}°", folder)


def _axes(one: Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of x, y and the slice normal in patient space."""
    row, column = one.orientation[:3], one.orientation[3:]
    return row, column, np.cross(row, column)


def _syntax(header: Header) -> uid.UID:
    """Transfer syntax, a known one; that of files without any is implicit."""
    syntax = header.dataset.file_meta.get("TransferSyntaxUID") or uid.ImplicitVRLittleEndian
    if syntax not in PLAIN + COMPRESSED:
        name = getattr(syntax, "name", syntax)
        raise refused("Pixels must be plain or of a known compression", f"{name}", header.file)
    return syntax
