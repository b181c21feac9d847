"""Chest CT volumes: HU to lung mask, crop and the masked tensor the network sees, for one scan and for a cohort.

Arrays, spacing and shape tuples are (z, y, x), oriented LPS as `reading` returns them.
Intensities are HU until `prepare`; afterwards they lie in [0, 1] and everything outside the lungs is 0.

Sources: lung mask by thresholds, after Hu, Hoffman and Reinhardt 2001, IEEE TMI 20(6), section II.
"""

import dataclasses
import faulthandler
import hashlib
import json
import logging
import math
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from lungmtl import reading
from lungmtl.reading import ScanError, Volume, read_volume

BODY_HU = -320  # between lung and soft tissue
LUNG_GRID_MM = 3.3  # the mask is found on blocks of at most this size
CLOSING_MM = 10.0  # chosen by us: of nodules of 8 to 30 mm at the wall 5 mm takes in a third, 12 mm adds mediastinum
EDGE_HU = -400  # chosen by us: halfway between lung and soft tissue, where a block at the edge holds both
EDGE_MM = 8.0  # chosen by us: edges so close to what the closing took in stay, they may be a nodule's
AIRWAY_HU = -750  # darker than the thin walls between airways and lung, once these are blurred
AIRWAY_WALL_MM = 4.0  # what lies so close to an airway's lumen belongs to it
AIRWAY_AREA_CM2 = 8.0  # in a slice, trachea and main bronchi are smaller than this
AIRWAY_LENGTH_MM = 40.0  # and longer than this
AIRWAY_OFF_CENTER_MM = 35.0  # and this close to the body's middle
MIN_LUNG_L = 0.2  # smaller pieces of air are bowel gas
MIN_LUNG_SHARE = 0.1  # the second lung against the first; less is bowel gas
MIN_LUNGS_L = 1.0  # four chest CTs hold 2.9 to 4.1 L, an abdomen 0.27 L
BAND = 96  # grid voxels resampled at once: most weights of a longer axis are 0. Another value changes last bits
IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)

PARENT_POLL_S = 1.0
JOB_LIMIT_S = 600.0  # chosen by us: 400 times what a real scan takes

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A box of voxels in a volume: `center_mm` (index times spacing), `spacing_mm` and `shape`, all (z, y, x)."""

    center_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]


# ---------------------------------------------------------------- lungs


@dataclasses.dataclass(frozen=True)
class Lungs:
    """Lungs in a volume: `box`, three slices (z, y, x) around them, and `mask`, bool, the voxels of the box."""

    box: tuple[slice, slice, slice]
    mask: np.ndarray


def lung_mask(volume: Volume) -> np.ndarray:
    """Mark the lungs as `find_lungs` finds them: bool (Z, Y, X) on the volume's own grid."""
    lungs = find_lungs(volume)
    mask = np.zeros(volume.hu.shape, dtype=bool)
    mask[lungs.box] = lungs.mask
    return mask


def find_lungs(volume: Volume) -> Lungs:
    """Find the lungs by thresholds: air inside the body, without the large airways, closed by 10 mm.

    Nodules and vessels inside the lungs or at their wall count as lung; trachea and main bronchi do not. Fine volumes
    are searched on blocks of voxels; of the blocks at the lungs' edge only the voxels that are air are kept.

    Args:
        volume: The CT.
    Returns:
        The lungs and the box around the blocks that hold them.
    Raises:
        ScanError: If there is less than 1 L of lung: not a chest.
    """
    factors = tuple(max(1, int(LUNG_GRID_MM / s)) for s in volume.spacing_mm)
    spacing_mm = tuple(s * f for s, f in zip(volume.spacing_mm, factors, strict=True))
    hu = _block_means(volume.hu, factors)
    lungs = _block_lungs(hu, spacing_mm)
    blocks = _box(lungs)
    box = tuple(slice(b.start * f, b.stop * f) for b, f in zip(blocks, factors, strict=True))
    if factors == (1, 1, 1):
        return Lungs(box, lungs[blocks])
    return Lungs(box, _voxels(lungs[blocks], _edge(lungs, hu, spacing_mm)[blocks], volume.hu[box], factors))


def middle_voxel(mask: np.ndarray) -> tuple[int, int, int]:
    """Middle (z, y, x) of the box around a mask's voxels, of which there is at least one."""
    return tuple((b.start + b.stop - 1) // 2 for b in _box(mask))


def _block_means(hu: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Mean HU of blocks of voxels; what does not fill a block at the far end is left out."""
    if tuple(factors) == (1, 1, 1):
        return hu
    (fz, fy, fx), (nz, ny, nx) = factors, (size // factor for size, factor in zip(hu.shape, factors, strict=True))
    means = np.empty((nz, ny, nx), dtype=np.float32)
    for z in range(nz):  # a slab at a time, which stays in the processor's cache
        rows = hu[z * fz : (z + 1) * fz, : ny * fy, : nx * fx].sum(axis=0, dtype=np.int32)  # (Y, X)
        rows = rows.reshape(ny, fy, nx * fx).sum(axis=1, dtype=np.int32)  # (y, X)
        means[z] = sum(rows[:, x::fx] for x in range(fx))  # (y, x)
    means /= math.prod(factors)
    return means


def _edge(lungs: np.ndarray, hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Blocks of lung that touch others and lie EDGE_MM from all tissue that the closing took in; bool, as `lungs`."""
    edge = lungs & ~_with_neighbours(lungs, np.logical_and, axes=(0, 1, 2))
    box = _box(lungs)
    edge[box] &= ~_within((lungs & (hu >= BODY_HU))[box], EDGE_MM, spacing_mm)
    return edge


def _voxels(lungs: np.ndarray, edge: np.ndarray, hu: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Voxels (Z, Y, X) of the blocks of lung; of those at the edge, the voxels darker than EDGE_HU."""
    mask = np.empty(hu.shape, dtype=bool)
    fz, fy, fx = factors
    for z in range(len(lungs)):
        slab = slice(z * fz, (z + 1) * fz)
        inside, doubtful = (part[z].repeat(fy, axis=0).repeat(fx, axis=1) for part in (lungs, edge))
        mask[slab] = inside & ~(doubtful & (hu[slab] >= EDGE_HU))
    return mask


def _block_lungs(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Lungs on blocks: bool, the shape of `hu`."""
    body = _body(hu, spacing_mm)
    air = body & (hu < BODY_HU)
    if not air.any():
        raise ScanError(f"A chest CT must hold at least {MIN_LUNGS_L:.0f} L of lung. Found no air in the body.")
    box = _box(air, margin=[math.ceil(CLOSING_MM / s) + 1 for s in spacing_mm])
    middle = float(body.any(axis=(0, 1)).nonzero()[0].mean()) - box[2].start
    inner = air[box] & ~_airways(air[box], hu[box], middle, spacing_mm)
    lungs = np.zeros_like(air)
    lungs[box] = _closed(_two_largest(inner, math.prod(spacing_mm) * 1e-6), spacing_mm) & body[box]
    return lungs


def _body(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Body with everything it encloses in a slice; the table, which is thin, and what it encloses are left out."""
    core = hu >= BODY_HU
    if max(spacing_mm[1:]) <= LUNG_GRID_MM:  # on larger voxels a thin chest wall would go with the table
        core = _with_neighbours(_with_neighbours(core, np.logical_and), np.logical_or)
    labels, n = ndimage.label(core)
    if n == 0:
        return core
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return _filled(labels == int(np.argmax(sizes)), axes=(1, 2), structure=IN_PLANE)


def _with_neighbours(mask: np.ndarray, combine: np.ufunc, axes: Sequence[int] = (1, 2)) -> np.ndarray:
    """Combine every voxel with its neighbours, of the slice or along other `axes`: `logical_and` erodes."""
    out = mask.copy()
    for axis in axes:
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(out, axis, 0)
        combine(target[1:], source[:-1], out=target[1:])
        combine(target[:-1], source[1:], out=target[:-1])
    return out


def _filled(mask: np.ndarray, *, axes: Sequence[int], structure: np.ndarray | None = None) -> np.ndarray:
    """Fill the holes: all that is not connected to the array's edges along `axes`."""
    labels, n = ndimage.label(~mask, structure=structure)
    hole = np.ones(n + 1, dtype=bool)
    for axis in axes:
        hole[np.take(labels, (0, -1), axis=axis)] = False
    hole[0] = True
    return hole[labels]


def _airways(air: np.ndarray, hu: np.ndarray, middle: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Trachea and main bronchi: small in every slice, long from slice to slice, near the body's middle in x."""
    labels, _ = ndimage.label(air & (hu < AIRWAY_HU), structure=IN_PLANE)
    small = np.bincount(labels.ravel()) * (spacing_mm[1] * spacing_mm[2] / 100) < AIRWAY_AREA_CM2
    small[0] = False
    chains, n = ndimage.label(small[labels])
    keep = np.zeros(n + 1, dtype=bool)
    for index, box in enumerate(ndimage.find_objects(chains), start=1):
        length_mm = (box[0].stop - box[0].start) * spacing_mm[0]
        off_mm = abs((box[2].start + box[2].stop - 1) / 2 - middle) * spacing_mm[2]
        keep[index] = length_mm >= AIRWAY_LENGTH_MM and off_mm <= AIRWAY_OFF_CENTER_MM
    return _within(keep[chains], AIRWAY_WALL_MM, spacing_mm)


def _two_largest(air: np.ndarray, voxel_l: float) -> np.ndarray:
    labels, _ = ndimage.label(air)
    litres = np.bincount(labels.ravel()) * voxel_l
    litres[0] = 0
    order = np.argsort(litres)[::-1][:2]
    keep = np.zeros(len(litres), dtype=bool)
    keep[order] = (litres[order] >= MIN_LUNG_L) & (litres[order] >= MIN_LUNG_SHARE * litres[order[0]])
    if litres[keep].sum() < MIN_LUNGS_L:
        found = f"{litres[keep].sum():.2f} L: not a chest"
        raise ScanError(f"A chest CT must hold at least {MIN_LUNGS_L:.0f} L of lung. Found {found}.")
    return keep[labels]


def _closed(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Close by a ball of CLOSING_MM and fill holes; the array's edges count as lung."""
    near = _within(mask, CLOSING_MM, spacing_mm)
    closed = ~_within(~near, CLOSING_MM, spacing_mm)
    return _filled(closed | mask, axes=(0, 1, 2))


def _within(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Voxels at most `radius_mm` from the mask: squared distance, minimised axis by axis, no farther than needed."""
    distance = np.where(mask, np.float32(0), np.float32(2 * radius_mm**2))
    for axis, spacing in enumerate(spacing_mm):
        source = np.moveaxis(distance.copy(), axis, 0)
        target = np.moveaxis(distance, axis, 0)
        for step in range(1, int(radius_mm / spacing) + 1):
            cost = np.float32((step * spacing) ** 2)
            np.minimum(target[step:], source[:-step] + cost, out=target[step:])
            np.minimum(target[:-step], source[step:] + cost, out=target[:-step])
    return distance <= radius_mm**2


def _box(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """Slices of the smallest box around True voxels, grown by a margin in voxels and kept inside."""
    box = []
    for axis in range(3):
        hit = mask.any(axis=tuple(a for a in range(3) if a != axis)).nonzero()[0]
        box.append(slice(max(0, hit[0] - margin[axis]), min(mask.shape[axis], hit[-1] + 1 + margin[axis])))
    return tuple(box)


# ---------------------------------------------------------------- the model's grid


def lung_grid(
    mask: np.ndarray, volume_spacing_mm: Sequence[float], *, spacing_mm: Sequence[float], shape: Sequence[int]
) -> Grid:
    """Centre a grid of fixed voxel size on the box around the lungs, so that sizes in mm stay comparable.

    Args:
        mask: Lungs, bool (Z, Y, X), at least one voxel.
        volume_spacing_mm: Voxel size of `mask` in mm, (z, y, x).
        spacing_mm: Voxel size of the grid in mm, (z, y, x).
        shape: Voxels of the grid, (z, y, x).
    """
    box = _box(mask)
    center_mm = tuple((b.start + b.stop - 1) / 2 * s for b, s in zip(box, volume_spacing_mm, strict=True))
    return Grid(center_mm, tuple(float(s) for s in spacing_mm), tuple(int(n) for n in shape))


def to_grid(
    array: np.ndarray, volume_spacing_mm: Sequence[float], grid: Grid, *, fill: float, order: int
) -> np.ndarray:
    """Resample an array to a grid.

    Args:
        array: (Z, Y, X), not changed.
        volume_spacing_mm: Voxel size of `array` in mm, (z, y, x).
        grid: Where to sample, in mm from the centre of the array's first voxel.
        fill: Value outside the array.
        order: 1 = linear, widened to the grid's voxel size where that is coarser (no aliasing); 0 = nearest.
    Returns:
        float32 for order 1, the array's own type for order 0; the grid's shape.
    Raises:
        ValueError: If `order` is neither 0 nor 1.
    """
    if order not in (0, 1):
        raise ValueError(f"`order` must be 0 (nearest) or 1 (linear). Found {order!r}.")
    if order == 0:
        return _nearest(array, volume_spacing_mm, grid, fill)
    fill = np.float32(fill)
    planes = _linear(lambda z: array[z].astype(np.float32) - fill, array.shape, volume_spacing_mm, grid)
    return np.stack(list(planes)) + fill


def _linear(
    plane: Callable[[int], np.ndarray], shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid
) -> Iterator[np.ndarray]:
    """Resample an array of which `plane(z)` gives slice z, float32 (Y, X): the grid's planes (y, x), 0 outside."""
    sizes = zip(shape, spacing_mm, strict=True)
    z_bands, y_bands, x_bands = (_bands(n, s, grid, axis) for axis, (n, s) in enumerate(sizes))
    for _, used, weights in z_bands:
        planes = np.empty((weights.shape[1], *grid.shape[1:]), dtype=np.float32)
        for index in range(len(planes)):
            _resample_plane(plane(used.start + index), y_bands, x_bands, planes[index])
        yield from np.tensordot(weights, planes, axes=1)  # (z, y, x)


def _resample_plane(plane: np.ndarray, y_bands: list, x_bands: list, out: np.ndarray) -> None:
    rows = np.empty((len(plane), out.shape[1]), dtype=np.float32)
    for to, used, weights in x_bands:
        rows[:, to] = plane[:, used] @ weights.T  # (Y, x)
    for to, used, weights in y_bands:
        out[to] = weights @ rows[used]  # (y, x)


def _bands(n: int, spacing_mm: float, grid: Grid, axis: int) -> list[tuple[slice, slice, np.ndarray]]:
    """Weights along one axis, BAND grid voxels at a time: which these are, which input voxels they need, weights."""
    weights = _axis_weights(n, spacing_mm, grid, axis)
    parts = [(slice(k, k + BAND), weights[k : k + BAND]) for k in range(0, len(weights), BAND)]
    return [(to, _used(part), part[:, _used(part)]) for to, part in parts]


def _axis_weights(n: int, spacing_mm: float, grid: Grid, axis: int) -> np.ndarray:
    """Share of each input voxel in each grid voxel along one axis: float32 (n grid, n input), rows sum to 1 inside."""
    width_mm = max(spacing_mm, grid.spacing_mm[axis])
    centers_mm = _centers_mm(grid, axis)[:, None]
    triangle = np.clip(1 - np.abs(centers_mm - np.arange(n) * spacing_mm) / width_mm, 0, None)
    reach = math.ceil(width_mm / spacing_mm) + 1
    endless_mm = (np.rint(centers_mm / spacing_mm) + np.arange(-reach, reach + 1)) * spacing_mm
    total = np.clip(1 - np.abs(centers_mm - endless_mm) / width_mm, 0, None).sum(axis=1, keepdims=True)
    return (triangle / total).astype(np.float32)  # (n grid, n input)


def _centers_mm(grid: Grid, axis: int) -> np.ndarray:
    n = grid.shape[axis]
    return grid.center_mm[axis] + (np.arange(n) - (n - 1) / 2) * grid.spacing_mm[axis]


def _used(weights: np.ndarray) -> slice:
    hit = weights.any(axis=0).nonzero()[0]
    return slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 1)


def _nearest(array: np.ndarray, spacing_mm: Sequence[float], grid: Grid, fill: float) -> np.ndarray:
    index = [np.rint(_centers_mm(grid, axis) / spacing_mm[axis]).astype(int) for axis in range(3)]
    inside = [(i >= 0) & (i < n) for i, n in zip(index, array.shape, strict=True)]
    out = np.full(grid.shape, fill, dtype=array.dtype)
    out[np.ix_(*inside)] = array[np.ix_(*(i[ok] for i, ok in zip(index, inside, strict=True)))]
    return out


# ---------------------------------------------------------------- preparation


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared scan and what its report says: `tensor` float16 (Z, Y, X), the lungs' volume in litres, and the
    share of the lungs that lies outside the grid.
    """

    tensor: np.ndarray
    lung_volume_l: float
    cropped_fraction: float


def prepare(
    volume: Volume, *, spacing_mm: Sequence[float], shape: Sequence[int], window_hu: Sequence[float]
) -> np.ndarray:
    """Turn a CT into what the network sees: lungs only, on a grid of fixed voxel size centred on them.

    The mask is closed by 10 mm, which takes in nodules at the wall; it is not dilated, so that the bright chest wall
    stays out. HU are windowed and masked before resampling: a voxel at the lung's edge fades out.

    Args:
        volume: The CT.
        spacing_mm: Voxel size of the result in mm, (z, y, x).
        shape: Voxels of the result, (z, y, x).
        window_hu: HU mapped to 0 and to 1.
    Returns:
        float16 (Z, Y, X) in [0, 1]; 0 outside the lungs.
    Raises:
        ScanError: If the volume is not a chest.
    """
    return prepare_scan(volume, spacing_mm=spacing_mm, shape=shape, window_hu=window_hu).tensor


def prepare_scan(
    volume: Volume, *, spacing_mm: Sequence[float], shape: Sequence[int], window_hu: Sequence[float]
) -> Prepared:
    """Prepare a CT as `prepare` does, and measure its lungs."""
    return resample_lungs(volume, find_lungs(volume), spacing_mm=spacing_mm, shape=shape, window_hu=window_hu)


def resample_lungs(
    volume: Volume, lungs: Lungs, *, spacing_mm: Sequence[float], shape: Sequence[int], window_hu: Sequence[float]
) -> Prepared:
    """Prepare a CT as `prepare` does, with the lungs found before."""
    hu, mask = volume.hu[lungs.box], lungs.mask
    low_hu, high_hu = window_hu
    grid = lung_grid(mask, volume.spacing_mm, spacing_mm=spacing_mm, shape=shape)
    seen = _linear(
        lambda z: (hu[z].astype(np.float32).clip(low_hu, high_hu) - low_hu) * mask[z],
        mask.shape,
        volume.spacing_mm,
        grid,
    )
    tensor = np.empty(grid.shape, dtype=np.float16)
    for target, plane in zip(tensor, seen, strict=True):  # each in the processor's cache
        np.clip(plane / np.float32(high_hu - low_hu), 0, 1, out=target, casting="same_kind")
    lung_volume_l = float(np.count_nonzero(mask)) * math.prod(volume.spacing_mm) * 1e-6
    return Prepared(tensor, lung_volume_l, _outside(mask, volume.spacing_mm, grid))


def _outside(mask: np.ndarray, spacing_mm: Sequence[float], grid: Grid) -> float:
    """Share of the mask whose voxel centres lie outside the grid's box."""
    box = []
    for axis in range(3):
        half_mm = grid.shape[axis] * grid.spacing_mm[axis] / 2
        off_mm = np.abs(np.arange(mask.shape[axis]) * spacing_mm[axis] - grid.center_mm[axis])
        seen = (off_mm <= half_mm).nonzero()[0]
        box.append(slice(seen[0], seen[-1] + 1) if len(seen) else slice(0))
    inside = int(np.count_nonzero(mask[tuple(box)]))
    return 1 - inside / max(1, int(np.count_nonzero(mask)))


SCANS_PER_WORKER = 32  # a process takes as long to start as some 30 phantom scans take to prepare
MEASURES = ("slice_mm", "pixel_mm", "lung_volume_l", "cropped_fraction")
REPORT_COLUMNS = ("scan", "status", "reason", *MEASURES, "seconds")


def prepare_cohort(
    frame: pd.DataFrame,
    root: str | Path,
    *,
    cache_dir: str | Path,
    spacing_mm: Sequence[float],
    shape: Sequence[int],
    window_hu: Sequence[float],
    workers: int = 1,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Prepare every scan of a cohort that is not prepared yet; one file per scan, and a report.

    Files are written beside and renamed, so a killed call loses only the scans under way. A file is kept while it is
    newer than its image; the folder's name holds the settings, the code of reading and preparing, and `root`. A
    scan that cannot be used is reported with its reason and never stops the others, even if it ends its worker; it
    is then reported so by later calls, too, until its image changes or the file that the reason names is removed.

    Args:
        frame: Columns `scan` and `image`; rows with a reason in `excluded` are left out.
        root: Folder that `image` is relative to.
        cache_dir: Folder for prepared scans of all cohorts.
        spacing_mm: Voxel size in mm, (z, y, x).
        shape: Voxels, (z, y, x).
        window_hu: HU mapped to 0 and to 1.
        workers: Processes.
        progress: Whether to show a bar.
    Returns:
        The folder with `<scan>.npy`, and the report: `scan`, `status` (ok or failed), `reason`, `slice_mm` (from
        slice to slice), `pixel_mm` (the larger of y and x), `lung_volume_l`, `cropped_fraction` (share of the lungs
        outside the grid) and `seconds` (NaN where kept from an earlier call).
    Raises:
        RuntimeError: If workers cannot be started.
    """
    spec = {
        "spacing_mm": [float(s) for s in spacing_mm],
        "shape": [int(n) for n in shape],
        "window_hu": [float(h) for h in window_hu],
    }
    root = Path(root).resolve()
    folder = Path(cache_dir) / "prepared" / _spec_hash(spec, root)
    folder.mkdir(parents=True, exist_ok=True)
    used = frame[frame["excluded"].fillna("") == ""] if "excluded" in frame else frame
    jobs = [
        (scan, str(root / image), str(folder), spec) for scan, image in zip(used["scan"], used["image"], strict=True)
    ]
    rows = {}
    with tqdm(total=len(jobs), desc="preparing", unit="scan", disable=not progress) as bar:
        for row in _run_jobs(jobs, workers):
            rows[row["scan"]] = row
            bar.update()
    report = pd.DataFrame([rows[job[0]] for job in jobs], columns=list(REPORT_COLUMNS))
    _warn_of(report)
    return folder, report


def _spec_hash(spec: dict, root: Path) -> str:
    code = b"".join(Path(file).read_bytes() for file in (reading.dicom.__file__, reading.__file__, __file__))
    text = json.dumps([spec, str(root)], sort_keys=True).encode() + code
    return hashlib.sha256(text).hexdigest()[:12]


def _run_jobs(jobs: Sequence[tuple], workers: int) -> Iterator[dict]:
    """Yield a report row per job, in the order in which they finish."""
    present = {entry.name for folder in {job[2] for job in jobs} for entry in os.scandir(folder)}
    todo = []
    for job in jobs:
        kept = _kept(*job[:3], present)
        if kept is None:
            todo.append(job)
        else:
            yield kept
    workers = min(workers, len(todo) // SCANS_PER_WORKER)
    if workers < 2 and not any(_marker(job[0], job[2]).name in present for job in todo):
        yield from map(_prepare_job, todo)
    else:  # also a single one where a scan may have ended the process that prepared it
        yield from run_apart(_prepare_job, todo, workers=max(1, workers), lost=_lost)


def run_jobs(function: Callable[[tuple], dict], jobs: Sequence[tuple], *, workers: int) -> Iterator[dict]:
    """Yield the result of every job in the order in which they finish.

    Args:
        function: A function of a module, which a new process can import.
        jobs: One argument per call.
        workers: Processes as `run_apart` starts them; below two everything runs in this one.
    Raises:
        RuntimeError: If a job ended its worker twice, or took over JOB_LIMIT_S.
    """
    if workers < 2:
        yield from map(function, jobs)
    else:
        yield from run_apart(function, jobs, workers=workers, lost=_stop)


def _stop(job: tuple, reason: str) -> dict:
    raise RuntimeError(f"Every job must come to its end; call again to go on. Found {reason}, job {job}.")


def run_apart(
    function: Callable[[tuple], dict],
    jobs: Sequence[tuple],
    *,
    workers: int,
    lost: Callable[[tuple, str], dict],
    limit_s: float = JOB_LIMIT_S,
) -> Iterator[dict]:
    """Yield the result of every job from processes of which each may die alone, in the order in which they finish.

    A worker that dies is replaced, and its job done once more after all others. Workers are started afresh (a fork
    would copy the threads of torch), compute with one thread each, and end when the process that started them ends,
    even if it was killed.

    Args:
        function: A function of a module, which a new process can import.
        jobs: One argument per call.
        workers: Processes, at least one.
        lost: Gives the result of a job that ended its worker twice or took too long, from the job and what was found.
        limit_s: Seconds after which a job's worker ends itself.
    Raises:
        RuntimeError: If a worker cannot be started.
    """
    waiting = deque((job, False) for job in jobs)
    running: dict[Future, tuple] = {}
    idle: list[ProcessPoolExecutor] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                worker = idle.pop() if idle else _worker()
                with suppress(BrokenProcessPool):  # killed while it was idle
                    future = worker.submit(_limited, function, waiting[0][0], limit_s)
                    running[future] = (worker, *waiting.popleft(), time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, job, is_second, start = running.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    idle.append(worker)
                    yield future.result()
                    continue
                idle.append(_checked_worker())
                if time.monotonic() - start >= limit_s:
                    yield lost(job, f"no end after {limit_s:.0f} s")
                elif is_second:
                    yield lost(job, "its process dead, twice")
                else:
                    waiting.append((job, True))
    finally:
        for worker in [*idle, *(entry[0] for entry in running.values())]:
            worker.shutdown(cancel_futures=True)


def _worker() -> ProcessPoolExecutor:
    """A pool of one process: if it dies, it is known which job it had."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _checked_worker() -> ProcessPoolExecutor:
    worker = _worker()
    try:
        worker.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise RuntimeError("A worker must start. Found it dead before its first job.") from error
    return worker


def _limited(function: Callable[[tuple], dict], job: tuple, limit_s: float) -> dict:
    """Do a job in a worker; print where it is and end the process, even inside a C library, after `limit_s`."""
    faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        return function(job)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _start_worker() -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # for libraries still to be loaded, such as torch
    threadpool_limits(1)  # for those that are; two workers that each spin on all cores are twice as slow
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def _kept(scan: str, image: str, folder: str, present: set[str]) -> dict | None:
    """Report row of a scan that was prepared or given up since its image changed, else None.

    Args:
        scan, image, folder: Of the job.
        present: Names of the files in `folder`.
    """
    tensor, marker = Path(folder) / f"{scan}.npy", _marker(scan, folder)
    try:
        if tensor.name in present and tensor.stat().st_mtime > _changed(Path(image)):
            measured = json.loads(tensor.with_suffix(".json").read_text(encoding="utf-8"))
            return {"scan": scan, "status": "ok", "reason": "", **measured, "seconds": float("nan")}
        if marker.name in present and marker.stat().st_mtime > _changed(Path(image)):
            reason = marker.read_text(encoding="utf-8")
            return _failed(scan, reason, float("nan")) if reason else None
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return None


def _marker(scan: str, folder: str) -> Path:
    """File that is there while a scan is prepared; one left behind tells that the process was ended, or the reason."""
    return Path(folder) / f".{scan}.begun"


def _lost(job: tuple, found: str) -> dict:
    """Give up a scan for this call and later ones, so that all runs of a study use the same scans."""
    scan, _, folder, _ = job
    marker = _marker(scan, folder)
    (Path(folder) / f"{scan}.npy").unlink(missing_ok=True)
    again = f"Remove {marker.name}, beside the prepared scans, to try again."
    reason = f"A scan must let itself be prepared. Found {found}, in scan {scan}. {again}"
    _write(marker, reason.encode())
    return _failed(scan, reason, float("nan"))


def _failed(scan: str, reason: str, seconds: float) -> dict:
    return {"scan": scan, "status": "failed", "reason": reason, "seconds": seconds}


def _changed(image: Path) -> float:
    """Time of the last change of a file, or of the latest in a DICOM folder."""
    if image.is_dir():
        return max([image.stat().st_mtime, *(entry.stat().st_mtime for entry in os.scandir(image))])
    return image.stat().st_mtime


def _prepare_job(job: tuple) -> dict:
    """Prepare one scan and write it; a scan that cannot be used becomes a row with its reason."""
    scan, image, folder, _ = job
    marker = _marker(scan, folder)
    marker.write_bytes(b"")  # not `touch`: it may hold an old reason
    start = time.perf_counter()
    try:
        measured = _prepare_file(*job)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        (Path(folder) / f"{scan}.npy").unlink(missing_ok=True)
        return _failed(scan, str(error).replace(image, f"scan {scan}"), time.perf_counter() - start)
    finally:
        marker.unlink(missing_ok=True)
    return {"scan": scan, "status": "ok", "reason": "", **measured, "seconds": time.perf_counter() - start}


def _prepare_file(scan: str, image: str, folder: str, spec: dict) -> dict[str, float]:
    """Read, prepare and write one scan; return what the report says of it."""
    volume = read_volume(image)
    prepared = prepare_scan(volume, **spec)
    sizes_mm = (volume.spacing_mm[0], max(volume.spacing_mm[1:]))
    measured = dict(zip(MEASURES, (*sizes_mm, prepared.lung_volume_l, prepared.cropped_fraction), strict=True))
    _write(Path(folder) / f"{scan}.json", json.dumps(measured).encode())
    _write_array(Path(folder) / f"{scan}.npy", prepared.tensor)
    return measured


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)


def _write_array(path: Path, array: np.ndarray) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)
    beside.replace(path)


def _warn_of(report: pd.DataFrame) -> None:
    failed = report[report["status"] == "failed"]
    if len(failed):
        logger.warning("%d of %d scans cannot be used, first: %s", len(failed), len(report), failed.iloc[0]["reason"])
    cut = report[report["cropped_fraction"] > 0.01]
    if len(cut):
        logger.warning("%d of %d scans have over 1 %% of their lungs outside the grid", len(cut), len(report))
