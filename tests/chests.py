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
