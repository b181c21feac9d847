"""DICOM pixels: stored values of checked slices to HU.

NumPy reads plain pixels, pydicom those in RLE. GDCM, which SimpleITK carries, decodes the rest in a process of its own,
which damaged JPEG can crash, from files that hold nothing but what was checked.

Sources: DICOM PS3.3, sections C.7.6.3 (pixels) and C.7.5.1 (padding); PS3.5, section 8.2 and annex A.4 (compression).
"""

import math
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

from lungmtl.data.headers import Header, unreadable
from lungmtl.data.volume import AIR_HU, refused, to_hu

DARK_HU = -500  # padding below this looks as air does
MAX_TISSUE_HU = 3071  # the end of the 12 bit scale; more is metal on an extended scale, or no HU at all
UNCOMPRESSED = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
COMPRESSED = (
    *(uid.RLELossless, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGLSNearLossless),
    *(uid.JPEG2000Lossless, uid.JPEG2000),
)
DECODE_BATCH = 200  # slices: starting the process takes as long as decoding some ten
DECODE_LIMIT_S = 600  # of a batch, which takes some 10 s
JPEG_FRAME_MARKERS = (0xC0, 0xC1, 0xC2, 0xC3, 0xF7)  # baseline, extended, progressive, lossless; JPEG-LS
_DECODE = """
import pathlib, sys
import SimpleITK
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
for index in range(int(sys.argv[2])):
    file = pathlib.Path(sys.argv[1], f"{index}.dcm")
    image = SimpleITK.ReadImage(str(file), imageIO="GDCMImageIO")
    SimpleITK.GetArrayViewFromImage(image).tofile(file.with_suffix(".raw"))
"""


class Slice(NamedTuple):
    """A slice with the place and the pixels that its header says, checked."""

    header: Header
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

    @property
    def dtype(self) -> np.dtype:
        """Type of a stored value, as this processor orders its bytes."""
        return np.dtype(np.int16 if self.is_signed else np.uint16)


def read_pixels(slices: Sequence[Slice]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield every slice's index and its stored values (Y, X); plain slices first."""
    packed = []
    for index, one in enumerate(slices):
        if one.header.syntax in UNCOMPRESSED:
            yield index, _plain(one)
        elif one.header.syntax == uid.RLELossless:
            yield index, _unpacked(one)
        else:
            packed.append(index)
    for start in range(0, len(packed), DECODE_BATCH):
        batch = packed[start : start + DECODE_BATCH]
        yield from zip(batch, _decoded([slices[index] for index in batch]), strict=True)


def rescaled(stored: np.ndarray, one: Slice) -> np.ndarray:
    """Rescale a slice's stored values to HU: int16 (Y, X) of at least -1024."""
    stored = _used_bits(stored, one)
    if one.slope == 1 and one.intercept == int(one.intercept):
        hu = to_hu(stored.astype(np.int32) + int(one.intercept))
    else:
        hu = to_hu(stored * one.slope + one.intercept)
    return hu if one.padding is None else _without_padding(hu, stored, one)


def _plain(one: Slice) -> np.ndarray:
    dtype = one.dtype.newbyteorder("<" if one.header.is_little else ">")
    n_pixels = math.prod(one.shape)
    start = one.header.pixels_at + one.header.frame * n_pixels * dtype.itemsize
    return np.fromfile(one.header.file, dtype, count=n_pixels, offset=start).reshape(one.shape)


def _used_bits(stored: np.ndarray, one: Slice) -> np.ndarray:
    """Take the sign from the highest bit in use; what stands above it must be nothing or the sign."""
    if one.n_bits == 16:
        return stored
    above = 16 - one.n_bits
    used = np.right_shift(np.left_shift(stored, above), above)
    is_known = (used == stored) | (np.right_shift(stored, one.n_bits) == 0)
    if not is_known.all():
        raise refused(f"Values must fit into BitsStored, {one.n_bits} bits", "larger ones", one.header.name)
    return used


def _without_padding(hu: np.ndarray, stored: np.ndarray, one: Slice) -> np.ndarray:
    """Turn padding that is brighter than any tissue to air; padding darker than lung is left as it is."""
    padding = int(np.array(one.padding & 0xFFFF, dtype=np.uint16).astype(stored.dtype))
    padding_hu = padding * one.slope + one.intercept
    if padding_hu < DARK_HU:
        return hu
    if padding_hu > MAX_TISSUE_HU:
        return np.where(stored == padding, np.int16(AIR_HU), hu)
    if stored[0, 0] == padding:  # a scanner pads the corners; where it did not, the tag is idle
        raise refused("Padding must not look like tissue", f"padding of {padding_hu:.0f} HU", one.header.name)
    return hu


def _unpacked(one: Slice) -> np.ndarray:
    """Decode a slice in RLE."""
    try:
        with warnings.catch_warnings(action="error"):  # such as more values than the size says
            stored, _ = get_decoder(one.header.syntax).as_array(_bare(one), decoding_plugin="pydicom")
    except Exception as error:  # as in read_header
        raise unreadable(one.header.name, error) from None
    return stored


def _decoded(slices: Sequence[Slice]) -> Iterator[np.ndarray]:
    """Decode JPEG slices, all kinds, in a process of their own, which may crash without taking this one along."""
    with tempfile.TemporaryDirectory() as folder:
        for index, one in enumerate(slices):
            _bare(one).save_as(Path(folder) / f"{index}.dcm", enforce_file_format=True)
        command = [sys.executable, "-c", _DECODE, folder, str(len(slices))]
        try:
            done = subprocess.run(
                command, capture_output=True, encoding="utf-8", errors="replace", timeout=DECODE_LIMIT_S, check=False
            )
            is_whole = not done.returncode and not done.stderr.strip()  # it may say again what the file says
            complaint = "" if is_whole else f"the decoder complains, exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            complaint = f"no end after {DECODE_LIMIT_S} s"
        if complaint:  # a decoder that says anything has filled in what it could not read
            one = slices[min(len(list(Path(folder).glob("*.raw"))), len(slices) - 1)]
            raise refused("Every slice must be readable", f"{one.header.name} or one before, damaged: {complaint}")
        for index, one in enumerate(slices):
            stored = np.fromfile(Path(folder) / f"{index}.raw", dtype=one.dtype)
            if stored.size != math.prod(one.shape):
                raise refused(f"Pixels must be {one.shape} of 16 bits", f"{stored.nbytes} bytes", one.header.name)
            yield stored.reshape(one.shape)


def _bare(one: Slice) -> pydicom.Dataset:
    """Dataset of a compressed slice with what decoding needs and nothing else."""
    try:
        with one.header.file.open("rb") as stream:
            stream.seek(one.header.pixels_at)
            frame = get_frame(stream, one.header.frame, number_of_frames=one.header.n_frames)
    except Exception as error:  # as in read_header
        raise unreadable(one.header.name, error) from None
    _check_frame(frame, one)
    bare = pydicom.Dataset()
    bare.file_meta = pydicom.dataset.FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = one.header.syntax
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


def _check_frame(frame: bytes, one: Slice) -> None:
    """Check that compressed data say the size that the header says: a decoder would reserve whatever they say."""
    if one.header.syntax == uid.RLELossless:
        return  # has no size of its own; what is unpacked is counted
    is_jpeg_2000 = one.header.syntax in (uid.JPEG2000Lossless, uid.JPEG2000)
    size = _jpeg_2000_size(frame) if is_jpeg_2000 else _jpeg_size(frame)
    if size != one.shape:
        raise refused(f"Compressed pixels must be {one.shape}, as the header says", f"{size}", one.header.name)
    if is_jpeg_2000 and (frame[42] >= 128) != one.is_signed:
        raise refused("PixelRepresentation must be that of the compressed pixels", "the other", one.header.name)


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
