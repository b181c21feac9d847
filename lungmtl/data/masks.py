"""Own masks: label images of any tool that a cohort's column `mask` names, laid on their CT in place of our region."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl.data.dicom import place_slices
from lungmtl.data.grid import box_around
from lungmtl.data.images import place_of, reason, stamp
from lungmtl.data.lungs import Lungs
from lungmtl.data.reading import open_image, read_mask
from lungmtl.data.volume import DIRECTION_TOLERANCE, ScanError
from lungmtl.keys import key

MASK = "mask"  # optional column: a label file that replaces our region
NODULE_MASK = "nodule_mask"  # optional column: a label file of the nodules, for attention maps alone
PLACE_TOLERANCE = 0.1  # chosen by us: of a voxel; what is rounded in a header is less, half a voxel is another grid


class _Grid(NamedTuple):
    """Where voxels lie: `shape` (x, y, z); `steps`, (3, 3), mm from voxel to voxel; `origin`, mm of the first."""

    shape: np.ndarray
    steps: np.ndarray
    origin: np.ndarray


def with_masks(frame: pd.DataFrame) -> pd.DataFrame:
    """`scan` and `image` of all images of a cohort, its masks among them: they keep the same rules."""
    images = [frame[["scan", "image"]]]
    for column in (name for name in (MASK, NODULE_MASK) if name in frame):
        rows = frame.loc[frame[column] != "", ["scan", column]]
        images.append(pd.DataFrame({"scan": rows["scan"] + f" ({column.replace('_', ' ')})", "image": rows[column]}))
    return pd.concat(images, ignore_index=True)


def masks_of(frame: pd.DataFrame, root: str | Path) -> list[str]:
    """Absolute path of the mask of every scan, "" where it has none; `root` is the folder they are relative to."""
    if MASK not in frame:
        return [""] * len(frame)
    return [str(place_of(root, mask)) if mask else "" for mask in frame[MASK].fillna("")]


def mask_state(mask: str) -> str:
    """Changes when a scan's mask is another file, or its file changes; "" without a mask."""
    return key(mask, json.dumps(stamp(Path(mask)))) if mask else ""


def own_lungs(mask: str, image: str | Path, scan: str) -> Lungs:
    """Read the mask of a scan as what the network sees of its CT: all that is not 0; as `labels_on` reads it."""
    labels = labels_on(mask, image, scan)
    box = box_around(labels)
    return Lungs(box, labels[box] != 0)


def labels_on(mask: str | Path, image: str | Path, scan: str) -> np.ndarray:
    """Read labels that lie on a CT, uint8 (Z, Y, X), oriented LPS.

    Args:
        mask: NIfTI, MHA or NRRD file of whole labels.
        image: The CT, a file or a DICOM folder.
        scan: Name, for errors.
    Raises:
        ScanError: If the file cannot be read, is empty, or does not lie voxel by voxel on the CT.
    """
    try:
        labels = read_mask(mask)
        ours, theirs = _grid(Path(mask)), _grid(Path(image))
    except (OSError, RuntimeError, ValueError) as error:
        raise ScanError(f"The mask of scan {scan} must be a label image. Found this: {reason(error)}") from error
    if differs := _difference(ours, theirs):
        raise ScanError(f"A mask must lie on the voxels of its CT. Found {differs}, in scan {scan}.")
    if not labels.any():
        raise ScanError(f"A mask must mark some voxels with another label than 0. Found none, in scan {scan}.")
    return labels


def _grid(path: Path) -> _Grid:
    """Where the voxels of an image file, or of the DICOM series in a folder, lie once they are turned to LPS."""
    shape, steps, origin = _series_grid(path) if path.is_dir() else _file_grid(path)
    axes = np.abs(steps / np.linalg.norm(steps, axis=0)).argmax(axis=0)
    turned = steps[axes, range(3)] < 0
    origin = origin + (steps[:, turned] * (shape[turned] - 1)).sum(axis=1)
    order = np.argsort(axes)
    return _Grid(shape[order], (steps * np.where(turned, -1, 1))[:, order], origin)


def _file_grid(path: Path) -> _Grid:
    """Voxels as a file has them, not turned."""
    image = open_image(path)
    steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    return _Grid(np.array(image.GetSize()), steps, np.array(image.GetOrigin()))


def _series_grid(folder: Path) -> _Grid:
    """Voxels as slices or frames have them, in the order of their positions."""
    slices, _ = place_slices(folder)
    first, (pixel_y_mm, pixel_x_mm) = slices[0], slices[0].pixel_mm
    gap = (slices[-1].position_mm - first.position_mm) / (len(slices) - 1)
    steps = np.column_stack([first.orientation[:3] * pixel_x_mm, first.orientation[3:] * pixel_y_mm, gap])
    return _Grid(np.array([*first.shape[::-1], len(slices)]), steps, first.position_mm)


def _difference(mask: _Grid, ct: _Grid) -> str:
    """In what two grids differ, with both values; "" if they are the same."""
    spacings = [np.linalg.norm(grid.steps, axis=0) for grid in (mask, ct)]
    directions = [grid.steps / spacing for grid, spacing in zip((mask, ct), spacings, strict=True)]
    tolerance_mm = PLACE_TOLERANCE * spacings[1]
    if (mask.shape != ct.shape).any():
        return f"a size of {_said(mask.shape)} voxels where the CT has {_said(ct.shape)}"
    if (np.abs(spacings[0] - spacings[1]) * (ct.shape - 1) > tolerance_mm).any():
        return f"voxels of {_said(spacings[0])} mm where the CT has {_said(spacings[1])}"
    if np.abs(directions[0] - directions[1]).max() > DIRECTION_TOLERANCE:
        return f"directions of {_said(directions[0].T.ravel())} where the CT has {_said(directions[1].T.ravel())}"
    if (np.abs(mask.origin - ct.origin) > tolerance_mm).any():
        return f"an origin of {_said(mask.origin)} mm where the CT has {_said(ct.origin)}"
    return ""


def _said(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value + 0.0:.5g}" for value in values) + ")"  # + 0.0: no -0
