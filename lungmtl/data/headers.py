"""DICOM headers: the files of a series, and single values of their headers, read by pydicom.

Headers are read without their pixels, and checked before a voxel is touched: ITK's reader takes a damaged header at
its word and asked 4 GB and half a minute of one slice.
"""

from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom import uid

from lungmtl.data.volume import ScanError, refused

OTHER_FILES = ("DICOMDIR", "LICENSE", "README")
TAGS = (
    *("SOPClassUID", "Modality", "SeriesInstanceUID", "SeriesDescription", "ImageType", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
)
PIXEL_TAG = 0x7FE00010


class Header(NamedTuple):
    """A file's header without pixels, and where these lie."""

    file: Path
    dataset: pydicom.Dataset
    pixels_at: int | None  # byte in the file, None where there are none
    n_bytes: int


def slice_files(folder: Path) -> list[Path]:
    """Files of the series; one that is named like a slice and is not DICOM is a damaged slice."""
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name[0] != "." and f.name not in OTHER_FILES)
    slices = [f for f in files if is_dicom(f)]
    if not slices:
        raise refused("A DICOM folder must hold the slices of one CT series", "no DICOM file", folder)
    suffixes = {_kind(f) for f in slices}
    damaged = [f for f in files if _kind(f) in suffixes and f not in set(slices)]
    if damaged:
        raise ScanError(f"Every slice must be readable. Found {damaged[0]}, which is not DICOM.")
    return slices


def first_bytes(file: Path, count: int) -> bytes:
    """The first bytes of a file."""
    with file.open("rb") as stream:
        return stream.read(count)


def is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM does, with or without the preamble."""
    head = first_bytes(file, 132)
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def _kind(file: Path) -> str:
    """Suffix of a file; a number is none, it is the end of a UID."""
    return "" if file.suffix[1:].isdigit() else file.suffix.lower()


def read_header(file: Path) -> Header:
    """Read a file's header and find its pixels, which a file of a CT must have."""
    with file.open("rb") as stream:
        if uid.DeflatedExplicitVRLittleEndian.encode() in stream.read(1024):  # would swell before it can be checked
            raise ScanError(f"Every slice must be plain DICOM or have compressed pixels. Found a deflated {file}.")
        stream.seek(0)
        try:
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
        except Exception as error:  # pydicom lets through whatever a damaged file leads to
            raise ScanError(f"Every slice must be readable. Found {file}: {error or type(error).__name__}.") from error
        pixels_at, n_bytes = _find_pixels(stream, *dataset.original_encoding)
    header = Header(file, dataset, pixels_at, n_bytes)
    if pixels_at is None and text(header, "Modality") in ("", "CT"):
        raise ScanError(f"Every slice must be readable. Found {file}, which ends before its pixels.")
    return header


def _find_pixels(stream: BinaryIO, is_implicit: bool, is_little: bool) -> tuple[int | None, int]:
    """Where the pixels start, None if the next element is another or none, and their length in bytes."""
    head = stream.read(8 if is_implicit else 12)  # group, number, type of an explicit element, length
    order = "little" if is_little else "big"
    group, number, n_bytes = (int.from_bytes(part, order) for part in (head[:2], head[2:4], head[-4:]))
    is_pixels = len(head) >= 8 and group << 16 | number == PIXEL_TAG
    return (stream.tell(), n_bytes) if is_pixels else (None, 0)


def value_of(header: Header, name: str) -> Any:
    """Value of an element, None where there is none."""
    try:
        return header.dataset.get(name)
    except Exception as error:  # as above: values are converted when they are asked for
        raise refused(f"A slice must have a readable {name}", f"{error}", header.file) from error


def text(header: Header, name: str) -> str:
    """Value as text that can be printed, several joined by a backslash, blank where there is none."""
    value = value_of(header, name)
    parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    text = "\\".join(str(part).strip() for part in parts if part is not None).upper()
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:64]


def numbers(header: Header, name: str, count: int) -> np.ndarray:
    """Value of an element that must be so many finite numbers."""
    try:
        numbers = np.array(value_of(header, name), dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all():
        what = f"{count} numbers" if count > 1 else "a number"
        raise refused(f"A slice must have {name}, {what}", f"{text(header, name)!r}", header.file)
    return numbers


def number(header: Header, name: str) -> float:
    """Value of an element that must be one finite number."""
    return float(numbers(header, name, 1)[0])
