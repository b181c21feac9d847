"""Grids: boxes of voxels in a volume, and resampling to them."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

BAND = 96  # grid voxels resampled at once: most weights of a longer axis are 0. Another value changes last bits


@dataclasses.dataclass(frozen=True)
class Grid:
    """A box of voxels in a volume: `center_mm` (index times spacing), `spacing_mm` and `shape`, all (z, y, x)."""

    center_mm: tuple[float, float, float]
    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]


def middle_voxel(mask: np.ndarray) -> tuple[int, int, int]:
    """Middle (z, y, x) of the box around a mask's voxels, of which there is at least one."""
    return tuple((b.start + b.stop - 1) // 2 for b in box_around(mask))


def box_around(mask: np.ndarray, margin: Sequence[int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """Slices of the smallest box around True voxels, grown by a margin in voxels and kept inside."""
    box = []
    for axis in range(3):
        hit = mask.any(axis=tuple(a for a in range(3) if a != axis)).nonzero()[0]
        box.append(slice(max(0, hit[0] - margin[axis]), min(mask.shape[axis], hit[-1] + 1 + margin[axis])))
    return tuple(box)


def lung_grid(
    mask: np.ndarray, volume_spacing_mm: Sequence[float], *, spacing_mm: Sequence[float], shape: Sequence[int]
) -> Grid:
    """Centre a grid of fixed voxel size on the box around the lungs, so that sizes in mm stay comparable.

    `mask` marks the lungs, bool (Z, Y, X), on voxels of `volume_spacing_mm`; `spacing_mm` and `shape` are the grid's.
    """
    box = box_around(mask)
    center_mm = tuple((b.start + b.stop - 1) / 2 * s for b, s in zip(box, volume_spacing_mm, strict=True))
    return Grid(center_mm, tuple(float(s) for s in spacing_mm), tuple(int(n) for n in shape))


def box_of(shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid) -> tuple[slice, ...]:
    """Slices (z, y, x) of the grid outside which `linear_planes` of an array of `shape` are 0."""
    sizes = zip(shape, spacing_mm, strict=True)
    return tuple(_used(_axis_weights(n, s, grid, axis).T) for axis, (n, s) in enumerate(sizes))


def to_grid(
    array: np.ndarray, volume_spacing_mm: Sequence[float], grid: Grid, *, fill: float, order: int
) -> np.ndarray:
    """Resample an array to a grid.

    Args:
        array: (Z, Y, X), with voxels of `volume_spacing_mm`.
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
    planes = linear_planes(lambda z: array[z].astype(np.float32) - fill, array.shape, volume_spacing_mm, grid)
    out = np.empty(grid.shape, dtype=np.float32)
    for target, plane in zip(out, planes, strict=True):
        np.add(plane, fill, out=target)
    return out


def linear_planes(
    plane: Callable[[int], np.ndarray], shape: Sequence[int], spacing_mm: Sequence[float], grid: Grid
) -> Iterator[np.ndarray]:
    """Resample an array of which `plane(z)` gives slice z, float32 (Y, X): the grid's planes (y, x), 0 outside.

    A plane is to be used before the next ones are taken: their memory is used again.
    """
    sizes = zip(shape, spacing_mm, strict=True)
    z_bands, y_bands, x_bands = (_bands(n, s, grid, axis) for axis, (n, s) in enumerate(sizes))
    most = max(weights.shape[1] for *_, weights in z_bands)
    many, band = (np.empty((n, *grid.shape[1:]), dtype=np.float32) for n in (most, min(BAND, grid.shape[0])))
    for _, used, weights in z_bands:
        (n, n_used), planes = weights.shape, many[: weights.shape[1]]
        for index in range(n_used):
            _resample_plane(plane(used.start + index), y_bands, x_bands, planes[index])
        np.dot(weights, planes.reshape(n_used, -1), out=band[:n].reshape(n, -1))
        yield from band[:n]  # (z, y, x)


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
