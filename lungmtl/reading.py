"""Reading chest CT: a NIfTI, MHA or NRRD file or a DICOM series to HU, refused where its geometry does not hold.

Arrays are (Z, Y, X) and oriented LPS: x grows to the patient's left, y to the back, z to the head; spacing and
shape tuples are in that order too. SimpleITK counts x, y, z: that is reversed in `_to_volume` and nowhere else.
"""

import dataclasses
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

AIR_HU = -1024  # lowest value kept: scanners pad the outside of the field of view with less
TISSUE_HU = (-200, 300)  # fat, water and muscle: some of it is in every CT
GAP_TOLERANCE = 0.05  # of the median slice gap
TILT_TOLERANCE_DEG = 0.5


class ScanError(ValueError):
    """A scan that cannot be used; the message names the scan and the reason."""


@dataclasses.dataclass(frozen=True)
class Volume:
    """A CT: `hu` int16 (Z, Y, X) of at least -1024, oriented LPS, and `spacing_mm` (z, y, x)."""

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]


def read_volume(path: str | Path) -> Volume:
    """Read a CT from a NIfTI, MHA or NRRD file or from a folder with one DICOM series.

    Args:
        path: The file or folder.
    Returns:
        HU clipped to at least -1024, (Z, Y, X), oriented LPS.
    Raises:
        ScanError: If the file cannot be read, is not a 3D CT in HU, or the series' geometry is broken.
        FileNotFoundError: If there is nothing at `path`.
    """
    path = _existing(path)
    with _quiet_itk():
        image = _read_series(path) if path.is_dir() else _read_file(path)
        array, spacing_mm = _to_volume(image, path)
    return Volume(_checked_hu(array, path), spacing_mm)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a label file, uint8 (Z, Y, X), oriented as `read_volume` does.

    Raises:
        ScanError: If the file cannot be read as a 3D image of labels 0 to 255.
        FileNotFoundError: If there is nothing at `path`.
    """
    path = _existing(path)
    with _quiet_itk():
        array, _ = _to_volume(_read_file(path), path)
    if array.min() < 0 or array.max() > 255 or not np.array_equal(array, np.round(array)):
        raise ScanError(f"A mask must hold whole labels from 0 to 255. Found {array.min()} to {array.max()} in {path}.")
    return array.astype(np.uint8)


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"A scan must be an existing file or DICOM folder. Found nothing at {path}.")
    return path


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings off the terminal: what they warn of is checked here and raised."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _read_file(path: Path) -> sitk.Image:
    try:
        image = sitk.ReadImage(str(path))
    except (RuntimeError, MemoryError) as error:
        raise ScanError(f"A scan must be an image that SimpleITK can read. Found {path}: {_last(error)}") from error
    if path.name.endswith((".nii", ".nii.gz")):
        _check_complete(image, path)
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        channels = image.GetNumberOfComponentsPerPixel()
        raise ScanError(f"A scan must be 3D with one channel. Found {image.GetSize()}, {channels} channels, in {path}.")
    return image


def _check_complete(image: sitk.Image, path: Path) -> None:
    """Check that a NIfTI file holds all its voxels: ITK fills what is cut off or damaged with 0 and says nothing."""
    opener = gzip.open if path.name.endswith(".gz") else open
    found = 0
    try:
        with opener(path, "rb") as stream:
            while block := stream.read(1 << 20):
                found += len(block)
    except (EOFError, OSError, zlib.error) as error:
        raise ScanError(f"A scan must be complete. Found {path}: {_last(error)}") from error
    voxel_bits = int(image.GetMetaData("bitpix"))  # of the file: what is in memory may be wider
    wanted = int(float(image.GetMetaData("vox_offset"))) + image.GetNumberOfPixels() * voxel_bits // 8
    if found < wanted:
        raise ScanError(f"A scan must be complete. Found {found} of {wanted} bytes in {path}.")


def _last(error: BaseException) -> str:
    """Return the last line of ITK's error text, which is the reason."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def _to_volume(image: sitk.Image, path: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Orient to LPS and reverse SimpleITK's x, y, z to (Z, Y, X): the one place where that happens."""
    if not np.allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-3):
        image = sitk.DICOMOrient(image, "LPS")
    spacing_mm = tuple(float(s) for s in reversed(image.GetSpacing()))
    if not all(math.isfinite(s) and 0 < s < 50 for s in spacing_mm):
        raise ScanError(f"The voxel size must be positive and below 50 mm. Found {spacing_mm} (z, y, x) in {path}.")
    return sitk.GetArrayFromImage(image), spacing_mm


def _checked_hu(array: np.ndarray, path: Path) -> np.ndarray:
    """Check that values are plausible HU: some air, some tissue; return them as int16 of at least -1024."""
    if not np.issubdtype(array.dtype, np.integer):
        if not np.isfinite(array).all():
            raise ScanError(f"Every voxel must be a finite number. Found NaN or infinity in {path}.")
        array = np.rint(array)
    hu = np.clip(array, AIR_HU, np.iinfo(np.int16).max).astype(np.int16)
    sample = hu[tuple(slice(None, None, max(1, n // 64)) for n in hu.shape)]  # enough to tell, and fast
    air = float((sample < -500).mean())
    tissue = float(((sample > TISSUE_HU[0]) & (sample < TISSUE_HU[1])).mean())
    if air < 0.01 or tissue < 0.01:
        raise ScanError(
            f"A CT must be in HU and hold air and soft tissue. Found {air:.1%} air and {tissue:.1%} tissue, "
            f"values {int(hu.min())} to {int(hu.max())}, in {path}."
        )
    return hu


# ---------------------------------------------------------------- DICOM series

TAG_MODALITY, TAG_SERIES, TAG_POSITION, TAG_ORIENTATION, TAG_THICKNESS = (
    "0008|0060",
    "0020|000e",
    "0020|0032",
    "0020|0037",
    "0018|0050",
)


@dataclasses.dataclass(frozen=True)
class _Slice:
    """What a slice's header says of its place."""

    file: Path
    series: str
    modality: str
    size: tuple[int, ...]
    position_mm: np.ndarray  # (3,) patient x, y, z of the first voxel
    orientation: np.ndarray  # (6,) direction cosines of a row, then of a column
    thickness_mm: float  # NaN if not given


def _read_series(folder: Path) -> sitk.Image:
    """Read the one CT series of a folder, in the order and with the gap that its positions say."""
    slices = [_read_header(file) for file in _dicom_files(folder)]
    _check_series(slices, folder)
    slices, gap_mm = _ordered(slices, folder)
    try:
        image = sitk.ReadImage([str(s.file) for s in slices])
    except RuntimeError as error:
        raise ScanError(f"Every slice must be readable. Found in {folder}: {_last(error)}") from error
    spacing = image.GetSpacing()
    image.SetSpacing((spacing[0], spacing[1], gap_mm))
    image.SetDirection(np.stack(_axes(slices[0]), axis=1).ravel().tolist())
    return image


def _dicom_files(folder: Path) -> list[Path]:
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name != "DICOMDIR" and _is_dicom(f))
    if not files:
        raise ScanError(f"A DICOM folder must hold the slices of one CT series. Found no DICOM file in {folder}.")
    return files


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _read_header(file: Path) -> _Slice:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ScanError(f"Every slice must be readable. Found {file}: {_last(error)}") from error
    text = {key: reader.GetMetaData(key).strip() if reader.HasMetaDataKey(key) else "" for key in _TAGS}
    return _Slice(
        file=file,
        series=text[TAG_SERIES],
        modality=text[TAG_MODALITY],
        size=reader.GetSize(),
        position_mm=_numbers(text[TAG_POSITION], 3, "ImagePositionPatient", file),
        orientation=_numbers(text[TAG_ORIENTATION], 6, "ImageOrientationPatient", file),
        thickness_mm=float(text[TAG_THICKNESS] or "nan"),
    )


_TAGS = (TAG_MODALITY, TAG_SERIES, TAG_POSITION, TAG_ORIENTATION, TAG_THICKNESS)


def _numbers(text: str, count: int, name: str, file: Path) -> np.ndarray:
    try:
        numbers = np.array([float(part) for part in text.split("\\")])
    except ValueError:
        numbers = np.array([])
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ScanError(f"A slice must have {name}, {count} numbers. Found {text!r} in {file}.")
    return numbers


def _check_series(slices: Sequence[_Slice], folder: Path) -> None:
    """Check what must be the same for all slices of one CT."""
    modalities = sorted({s.modality for s in slices})
    if modalities != ["CT"]:
        raise ScanError(f"Every slice must be of modality CT. Found {', '.join(modalities) or 'none'} in {folder}.")
    if len({s.series for s in slices}) > 1:
        raise ScanError(f"A DICOM folder must hold one series. Found {len({s.series for s in slices})} in {folder}.")
    if len(slices) < 2:
        raise ScanError(f"A series must have at least two slices. Found a single slice in {folder}.")
    if len({s.size for s in slices}) > 1:
        raise ScanError(f"All slices must have one size. Found {sorted({s.size for s in slices})} in {folder}.")
    if max(np.abs(s.orientation - slices[0].orientation).max() for s in slices) > 1e-3:
        raise ScanError(f"All slices must have one orientation. Found several in {folder}.")


def _ordered(slices: Sequence[_Slice], folder: Path) -> tuple[list[_Slice], float]:
    """Sort slices along their normal and return them with their common gap in mm.

    Raises:
        ScanError: If the positions have a duplicate, a missing slice, uneven gaps or a gantry tilt.
    """
    normal = _axes(slices[0])[2]
    slices = sorted(slices, key=lambda s: float(s.position_mm @ normal))
    gaps_mm = np.diff([s.position_mm @ normal for s in slices])
    gap_mm = float(np.median(gaps_mm))
    if (gaps_mm < max(0.01, GAP_TOLERANCE * gap_mm)).any():
        first = slices[int(np.argmin(gaps_mm))].file.name
        raise ScanError(f"Every slice must have its own position. Found duplicate slices at {first} in {folder}.")
    _check_gaps(gaps_mm, gap_mm, slices, folder)
    _check_tilt(slices, normal, folder)
    return slices, float(gaps_mm.mean())


def _check_gaps(gaps_mm: np.ndarray, gap_mm: float, slices: Sequence[_Slice], folder: Path) -> None:
    worst = int(np.argmax(np.abs(gaps_mm - gap_mm)))
    found = f"a gap of {gaps_mm[worst]:.2f} mm after {slices[worst].file.name}, median {gap_mm:.2f} mm, in {folder}"
    if gaps_mm[worst] > 1.5 * gap_mm:
        raise ScanError(f"A series must be complete. Found missing slices: {found}.")
    if abs(gaps_mm[worst] - gap_mm) > GAP_TOLERANCE * gap_mm:
        raise ScanError(f"Slices must be evenly spaced. Found uneven spacing: {found}.")
    if gap_mm > 1.5 * slices[0].thickness_mm:  # False where the thickness is not given
        thickness_mm = slices[0].thickness_mm
        raise ScanError(
            f"A series must be complete. Found missing slices: {gap_mm:.2f} mm from slice to slice, "
            f"but {thickness_mm:.2f} mm thick, in {folder}."
        )


def _check_tilt(slices: Sequence[_Slice], normal: np.ndarray, folder: Path) -> None:
    way = slices[-1].position_mm - slices[0].position_mm
    tilt_deg = math.degrees(math.acos(min(1.0, float(way @ normal) / float(np.linalg.norm(way)))))
    if tilt_deg > TILT_TOLERANCE_DEG:
        raise ScanError(
            f"Slices must be stacked along their normal. Found a gantry tilt of {tilt_deg:.1f}° in {folder}."
        )


def _axes(one: _Slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of x, y and the slice normal in patient space."""
    row, column = one.orientation[:3], one.orientation[3:]
    return row, column, np.cross(row, column)
