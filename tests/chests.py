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


def save(array: np.ndarray, path: Path, *, spacing_mm=(10.0, 10.0, 10.0), orientation: str = "LPS") -> Path:
    """Write an LPS array (Z, Y, X) to a file whose axes point where `orientation` says."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path))
    return path
