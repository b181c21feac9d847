"""DICOM headers: the files of a series, and single values of their headers, read by pydicom.

Headers are read without their pixels, and checked before a voxel is touched: ITK's reader takes a damaged header at
its word and asked 4 GB and half a minute of one slice. What a header says is compared, and said again only as a number
or by `term`: any text may name the patient.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pydicom
from pydicom import uid

from lungmtl.data.detached import first_bytes
from lungmtl.data.images import MAX_DEPTH
from lungmtl.data.volume import ScanError, refused

OTHER_FILES = ("DICOMDIR", "LICENSE", "README")
TAGS = (
    *("SOPClassUID", "Modality", "PatientID", "PatientName", "SeriesInstanceUID", "ImageType", "NumberOfFrames"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "RescaleType", "KVP", "ConvolutionKernel", "ContrastBolusAgent"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)
MAX_NUMBER = 1e6  # no position, size or count of a CT is larger
PIXEL_TAG = 0x7FE00010
TERMS = (
    *("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "RF", "OT", "SC", "SR", "PR", "KO", "SEG", "REG", "DOC"),
    *("RTSTRUCT", "RTDOSE", "RTPLAN", "RTIMAGE", "MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL"),
    *("HU", "HU_MOD", "OD", "PCT", "Z_EFF", "ED", "EDW", "MGML"),
)


class Header(NamedTuple):
    """What a slice's header says, without pixels, and where these lie; a frame of several is a slice of its own."""

    file: Path
    name: str  # the slice's number, by which messages call it
    values: Mapping[str, Any] | pydicom.Dataset
    syntax: uid.UID
    is_little: bool
    pixels_at: int | None  # byte in the file where those of the first frame begin, None where there are none
    n_bytes: int  # of the pixels of all frames
    frame: int = 0  # from 0
    n_frames: int = 1


def read_headers(folder: Path) -> list[Header]:
    """Headers of all files of the series that lies in a folder, or alone in the folders below it, in file order.

    Raises:
        ScanError: If there is no series or several, or a file that is named like a slice is not DICOM.
    """
    files = visible(series_folder(folder))
    slices = [file for file in files if is_dicom(file)]
    if not slices:
        raise refused(
            "A DICOM folder must hold the slices of one CT series",
            f"no DICOM file in it or up to {MAX_DEPTH} levels below",
        )
    suffixes = {_kind(file) for file in slices}
    named_so = [file for file in files if _kind(file) in suffixes]
    if len(named_so) > len(slices):
        first = next(place for place, file in enumerate(named_so, start=1) if file not in set(slices))
        found = f"slice {first} of {len(named_so)} in file order, which is not DICOM"
        raise refused("Every slice must be readable", found)
    return [read_header(file, f"slice {place} of {len(slices)} in file order") for place, file in enumerate(slices, 1)]


def series_folder(folder: Path) -> Path:
    """The folder itself if it has DICOM files, else the one folder below it that holds a CT series, localizers apart.

    Raises:
        ScanError: If several folders below it hold one: they are counted, and none is chosen.
    """
    if any(map(is_dicom, visible(folder))):
        return folder
    kinds = {below: _holds(below) for below in _folders(folder, MAX_DEPTH)}
    found = [below for below, kind in kinds.items() if kind == "CT"] or [*filter(kinds.get, kinds)]
    if len(found) > 1:
        counts = ", ".join(str(sum(map(is_dicom, visible(below)))) for below in found[:10])
        what = f"{len(found)} folders with CT below it, of {counts} files: name one of them"
        raise refused("A DICOM folder must hold one series", what)
    return found[0] if found else folder


def is_dicom(file: Path) -> bool:
    """Whether a file starts as DICOM does, with or without the preamble."""
    head = first_bytes(file, 132)
    return head[128:] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08")


def visible(folder: Path) -> list[Path]:
    """Files of a folder that may be slices, by name: neither hidden nor of those that archives add."""
    return sorted(f for f in folder.iterdir() if f.name[0] != "." and f.name not in OTHER_FILES and f.is_file())


def _folders(folder: Path, depth: int) -> list[Path]:
    """Folders below a folder, so many levels."""
    found = sorted(f for f in folder.iterdir() if f.name[0] != "." and f.is_dir()) if depth else []
    return [one for below in found for one in (below, *_folders(below, depth - 1))]


def _holds(folder: Path) -> str:
    """What the first DICOM file of a folder is of: LOCALIZER, CT or what cannot be told from one; blank for others."""
    first = next(filter(is_dicom, visible(folder)), None)
    if first is None:
        return ""
    try:
        header = read_header(first, "")
        if text(header, "Modality") not in ("", "CT"):
            return ""
        return "LOCALIZER" if "LOCALIZER" in image_type(header) else "CT"
    except ScanError:
        return "CT"


def _kind(file: Path) -> str:
    """Suffix of a file; a number is none, it is the end of a UID."""
    return "" if file.suffix[1:].isdigit() else file.suffix.lower()


def read_header(file: Path, name: str) -> Header:
    """Read a file's header and find its pixels, which a file of a CT must have."""
    with file.open("rb") as stream:
        if uid.DeflatedExplicitVRLittleEndian.encode() in stream.read(1024):  # would swell before it can be checked
            raise refused("Every slice must be plain DICOM or have compressed pixels", f"a deflated {name}")
        stream.seek(0)
        try:
            dataset = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(TAGS), force=True)
        except Exception as error:  # pydicom lets through whatever a damaged file leads to
            raise unreadable(name, error) from None
        pixels_at, n_bytes = _find_pixels(stream, *dataset.original_encoding)
    syntax = uid.UID(str(dataset.file_meta.get("TransferSyntaxUID") or uid.ImplicitVRLittleEndian))
    header = Header(file, name, dataset, syntax, dataset.original_encoding[1], pixels_at, n_bytes)
    if pixels_at is None and text(header, "Modality") in ("", "CT"):
        raise refused("Every slice must be readable", f"{name}, which ends before its pixels")
    return header


def unreadable(name: str, error: Exception) -> ScanError:
    """The error of a slice that pydicom cannot read; what it says of it may hold the header's text."""
    return refused("Every slice must be readable", f"{name}, damaged ({type(error).__name__})")


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
        return header.values.get(name)
    except Exception:  # as above: values are converted when they are asked for
        raise refused(f"A slice must have a readable {name}", "another", header.name) from None


def text(header: Header, name: str) -> str:
    """Value as text to compare, never to be said, several joined by a backslash, blank where there is none."""
    value = value_of(header, name)
    parts = value if isinstance(value, pydicom.multival.MultiValue) else [value]
    return "\\".join(str(part).strip() for part in parts if part is not None).upper()


def image_type(header: Header) -> list[str]:
    """The words of ImageType: original or derived, primary or secondary, and what else the scanner says."""
    return text(header, "ImageType").split("\\")


def term(header: Header, name: str) -> str:
    """Value of an element as it may be said: one of the `TERMS`, which name nobody."""
    found = text(header, name)
    return found if found in TERMS else "another term" if found else "none"


def numbers(header: Header, name: str, count: int) -> np.ndarray:
    """Value of an element that must be so many finite numbers, below any that could be a date of birth or a name."""
    try:
        numbers = np.array(value_of(header, name), dtype=float).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if len(numbers) != count or not (np.abs(numbers) < MAX_NUMBER).all():
        what = f"{count} numbers" if count > 1 else "a number"
        found = "something else" if text(header, name) else "none"
        raise refused(f"A slice must have {name}, {what}", found, header.name)
    return numbers


def number(header: Header, name: str) -> float:
    """Value of an element that must be one finite number."""
    return float(numbers(header, name, 1)[0])
