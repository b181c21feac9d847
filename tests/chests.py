"""Small chest CTs, and files of them, for the tests of reading and preparing."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from lungmtl.data.volume import Volume


def chest() -> Volume:
    """A body with two box lungs of 1.2 L each, (24, 28, 36) voxels of 10 mm."""
    hu = np.full((24, 28, 36), -1000, dtype=np.int16)
    hu[:, 4:24, 3:33] = 40
    hu[6:18, 9:19, 6:16] = -850
    hu[6:18, 9:19, 20:30] = -850
    return Volume(hu, (10.0, 10.0, 10.0))


def finer(volume: Volume, times: int) -> Volume:
    """The same volume on voxels that are so many times smaller."""
    hu = volume.hu.repeat(times, axis=0).repeat(times, axis=1).repeat(times, axis=2)
    return Volume(hu, tuple(s / times for s in volume.spacing_mm))


def fine_chest() -> Volume:
    """The chest on voxels of 1.43 mm, searched on blocks of two that half hold lung at the lungs' edges in y."""
    return finer(chest(), 7)


def small_ct() -> np.ndarray:
    """Three different sizes, air with some tissue and one bright voxel."""
    hu = np.full((5, 6, 7), -1000, dtype=np.int16)
    hu[1:3] = 40
    hu[3, 4, 1] = 1234
    return hu


def save(array: np.ndarray, path: Path, *, spacing_mm=(10.0, 10.0, 10.0), orientation: str = "LPS") -> Path:
    """Write an LPS array (Z, Y, X) to a file whose axes point where `orientation` says."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return path


def write_slice(
    file: Path,
    index: int,
    *,
    hu: np.ndarray | None = None,
    pixel: tuple[float, float] = (0.5, 0.75),
    z_mm: float | None = None,
    y_mm: float = 0.0,
    **tags: str,
) -> None:
    """Write a slice of `chest` or of `hu`; `pixel` is its spacing (x, y) in mm, tags are named t0008_0060."""
    image = sitk.GetImageFromArray(chest().hu[index + 4] if hu is None else hu)
    image.SetSpacing(pixel)
    header = {
        "0008|0060": "CT",
        "0010|0020": "P1",
        "0018|1210": "B30f",
        "0020|000d": "1.2.3",
        "0020|000e": "1.2.3.4",
        "0008|0018": f"1.2.3.4.1{file.stem}",
        "0020|0032": f"0\\{y_mm}\\{3.0 * index if z_mm is None else z_mm}",
        "0020|0037": "1\\0\\0\\0\\1\\0",
        "0018|0050": "3.0",
        "0028|1052": "0",
        "0028|1053": "1",
    }
    for key, value in (header | {name.replace("_", "|"): value for name, value in tags.items()}).items():
        image.SetMetaData(key.lstrip("t"), value)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetFileName(str(file))
    writer.Execute(image)
