"""Verification: images that are missing or incomplete, prepared scans that are damaged."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lungmtl.data.cohort import numbers_of
from lungmtl.data.frames import frame_count
from lungmtl.data.headers import is_dicom, series_folder, visible
from lungmtl.data.images import digest, is_current, place_of
from lungmtl.data.masks import mask_state, masks_of
from lungmtl.data.reading import open_image
from lungmtl.data.volume import ScanError
from lungmtl.files import sha256
from lungmtl.words import number_of


def verify_images(frame: pd.DataFrame, root: str | Path) -> list[str]:
    """List the images that are not there, empty, or have another number of slices than `n_slices` says.

    Every row of `frame` is looked at; `root` is the folder that `image` is relative to.
    """
    rows = zip(frame["scan"], frame["image"], numbers_of(frame, "n_slices"), strict=True)
    found = ((scan, _image_problem(place_of(root, image) if image else None, n)) for scan, image, n in rows)
    return [f"scan {scan}: {problem}" for scan, problem in found if problem]


def verify_prepared(
    frame: pd.DataFrame, root: str | Path, folder: str | Path, *, shape: Sequence[int], progress: bool = True
) -> list[str]:
    """List the prepared scans that are missing, of another shape or type, not finite in [0, 1], or changed by a byte.

    Every row of `frame` must be prepared, as `<scan>.npy` in `folder`, with `shape` (z, y, x), from the image and mask
    that are there now. What was prepared before hashes were written next to it is listed as that.
    """
    rows = list(zip(frame["scan"], frame["image"], masks_of(frame, root), strict=True))
    rows = tqdm(rows, "verifying", unit="scan", disable=not progress)
    places = ((scan, Path(folder) / f"{scan}.npy", place_of(root, image), mask) for scan, image, mask in rows)
    found = ((scan, _tensor_problem(file, image, mask, shape)) for scan, file, image, mask in places)
    return [f"scan {scan}: {problem}" for scan, problem in found if problem]


def _image_problem(image: Path | None, n_wanted: float) -> str:
    if image is None or not image.exists():
        return f"the image is not there, {image}" if image else "the image is not there"
    if image.is_dir():
        try:
            n_found = _n_slice_files(image, n_wanted)
        except ScanError as error:
            return str(error)
    elif image.stat().st_size == 0:
        return "the image is empty"
    else:
        n_found = n_wanted if math.isnan(n_wanted) else _n_slices(image)
    if n_found == 0:
        return "the image holds no slice that can be read"
    is_right = n_found == n_wanted or math.isnan(n_wanted)
    return "" if is_right else f"{n_found:g} of {number_of(n_wanted, 'slice')}"


def _n_slice_files(folder: Path, n_wanted: float) -> int:
    """Number of files that are not empty, in the folder of the series, or else of the frames of those of DICOM."""
    files = [file for file in visible(series_folder(folder)) if file.stat().st_size > 0]
    found = [file for file in files if file.suffix.lower() == ".dcm"] or [*filter(is_dicom, files)]
    if math.isnan(n_wanted) or len(found) == n_wanted:
        return len(found)
    return sum(map(frame_count, found))


def _n_slices(file: Path) -> int:
    """Number of slices in the header of an image file; 0 if it cannot be read."""
    try:
        return open_image(file).GetSize()[-1]
    except RuntimeError:
        return 0


def _tensor_problem(file: Path, image: Path, mask: str, shape: Sequence[int]) -> str:
    if not file.is_file():
        return "not prepared"
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return f"the prepared file cannot be read ({type(error).__name__})"
    if array.shape != tuple(shape) or array.dtype != np.float16:
        return f"prepared as {array.dtype} {array.shape}, not float16 {tuple(shape)}"
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        return "prepared values are not all finite and in [0, 1]"
    if image.exists() and not is_current(file, image):
        return "the image is newer than what was prepared"
    return _changed(file, image, mask)


def _changed(file: Path, image: Path, mask: str) -> str:
    """Compare prepared scan, image and mask with what was written of them when it was prepared."""
    try:
        said = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        wanted = said["tensor_sha256"], said["image_digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return "prepared without hashes: a changed byte cannot be found; remove it and prepare it again"
    if sha256(file) != wanted[0]:
        return "the prepared file has changed since it was written; remove it and prepare it again"
    if image.exists() and digest(image) != wanted[1]:
        return "the image has changed since it was prepared, though not its date"
    return "" if said.get("mask", "") == mask_state(mask) else "the mask has changed since the scan was prepared"
