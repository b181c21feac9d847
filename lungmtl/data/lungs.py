"""Lungs: where they are in a CT.

Sources: mask by thresholds, after Hu, Hoffman and Reinhardt 2001, IEEE TMI 20(6), section II.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from lungmtl.data.grid import box_around
from lungmtl.data.plausibility import check_field, tissue_off_hu
from lungmtl.data.volume import AIR_HU, ScanError, Volume

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
MIN_LUNGS_L = 0.2  # chosen by us: at rest an infant of a year holds as much, 20 to 25 mL per kg
WHOLE_LUNGS_L = 1.0  # chosen by us: four chest CTs hold 2.9 to 4.1 L, the lungs' bases in an abdomen 0.27 L
END_SHARE = 0.5  # of the lungs' largest cross-section: so wide at the first or last slice, small lungs are cut
SHIFT_HU, LOST_HU = 30, -150  # chosen by us: where fat and muscle are off by so much, all HU are; lung is below -1024
GAS_HU = -960  # chosen by us: a piece of air whose median is darker is bowel gas or a hollow table, not lung
IN_PLANE = np.array([[[0, 0, 0]] * 3, [[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[0, 0, 0]] * 3], dtype=bool)


@dataclasses.dataclass(frozen=True)
class Lungs:
    """Lungs in a volume: `box`, three slices (z, y, x) around them, and `mask`, bool, the voxels of the box."""

    box: tuple[slice, slice, slice]
    mask: np.ndarray

    def whole(self, volume: Volume) -> np.ndarray:
        """The mask on the volume's own grid: bool (Z, Y, X)."""
        mask = np.zeros(volume.hu.shape, dtype=bool)
        mask[self.box] = self.mask
        return mask

    def contrast(self, z: int) -> np.ndarray:
        """Share of its contrast with which each voxel of a slice of the box is shown, (Y, X); 0 outside the lungs."""
        return self.mask[z]


class Blocks(NamedTuple):
    """Blocks of a volume's voxels: their mean HU, (Z, Y, X), their sides in voxels and in mm, (z, y, x).

    Where all HU are shifted, by `off_hu`, those of the blocks are put right.
    """

    hu: np.ndarray
    factors: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    off_hu: float


def lung_mask(volume: Volume) -> np.ndarray:
    """Mark the lungs as `find_lungs` finds them: bool (Z, Y, X) on the volume's own grid."""
    return find_lungs(volume).whole(volume)


def find_lungs(volume: Volume) -> Lungs:
    """Find the lungs by thresholds: air inside the body, without the large airways, closed by 10 mm.

    Nodules and vessels inside the lungs or at their wall count as lung; trachea and main bronchi do not. Fine volumes
    are searched on blocks of voxels; of the blocks at the lungs' edge only the voxels that are air are kept.

    Raises:
        ScanError: If it is not a chest: see `check_chest`.
    """
    blocks = blocks_of(volume)
    return voxels_of(volume, _block_lungs(blocks.hu, blocks.spacing_mm), blocks)


def blocks_of(volume: Volume) -> Blocks:
    """Divide a volume into blocks of at most LUNG_GRID_MM.

    Raises:
        ScanError: If no chest has such a field of view, or HU are so low that lungs are lost.
    """
    check_field(volume.hu.shape, volume.spacing_mm)
    factors = tuple(max(1, int(LUNG_GRID_MM / s)) for s in volume.spacing_mm)
    spacing_mm = tuple(s * f for s, f in zip(volume.spacing_mm, factors, strict=True))
    hu = _block_means(volume.hu, factors)
    off_hu = tissue_off_hu(hu[::2, ::2, ::2])
    if off_hu < LOST_HU:
        found = f"fat and muscle {-off_hu:.0f} HU too low: lungs are cut off at {AIR_HU}"
        raise ScanError(f"A chest CT must hold the HU of lung. Found {found}.")
    if not abs(off_hu) > SHIFT_HU:  # also where it is not known
        return Blocks(hu, factors, spacing_mm, 0.0)
    return Blocks(np.where(hu > AIR_HU + 10, hu - np.float32(off_hu), hu), factors, spacing_mm, off_hu)  # air stays air


def voxels_of(volume: Volume, lungs: np.ndarray, blocks: Blocks) -> Lungs:
    """Lungs found on a volume's blocks, bool, on its voxels: of the blocks at the edge only what is air."""
    inner = box_around(lungs)
    box = tuple(slice(b.start * f, b.stop * f) for b, f in zip(inner, blocks.factors, strict=True))
    if blocks.factors == (1, 1, 1):
        return Lungs(box, lungs[inner])
    edge = _edge(lungs, blocks.hu, blocks.spacing_mm)[inner]
    return Lungs(box, _voxels(lungs[inner], edge, volume.hu[box] < EDGE_HU + blocks.off_hu, blocks.factors))


def _block_means(hu: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Mean HU of blocks of voxels; what does not fill a block at the far end is left out."""
    if tuple(factors) == (1, 1, 1):
        return hu
    (fz, fy, fx), (nz, ny, nx) = factors, (size // factor for size, factor in zip(hu.shape, factors, strict=True))
    means = np.empty((nz, ny, nx), dtype=np.float32)
    for z in range(nz):  # a slab at a time, which stays in the processor's cache
        slab = hu[z * fz : (z + 1) * fz, : ny * fy, : nx * fx].reshape(fz, ny, fy, nx * fx)
        rows = slab.sum(axis=(0, 2), dtype=np.int32)  # (y, X)
        means[z] = sum(rows[:, x::fx] for x in range(fx))  # (y, x)
    means /= math.prod(factors)
    return means


def _edge(lungs: np.ndarray, hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Blocks of lung that touch others and lie EDGE_MM from all tissue that the closing took in; bool, as `lungs`."""
    edge = lungs & (grown(~lungs) | thickened(~lungs, 1))
    box = box_around(lungs)
    edge[box] &= ~within((lungs & (hu >= BODY_HU))[box], EDGE_MM, spacing_mm)
    return edge


def _voxels(lungs: np.ndarray, edge: np.ndarray, dark: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """Voxels (Z, Y, X) of the blocks of lung; of those at the edge the dark ones."""
    mask = np.empty(dark.shape, dtype=bool)
    fz, fy, fx = factors
    for z in range(len(lungs)):
        slab = slice(z * fz, (z + 1) * fz)
        inside, doubtful = (part[z].repeat(fy, axis=0).repeat(fx, axis=1) for part in (lungs, edge))
        mask[slab] = inside & (dark[slab] | ~doubtful)
    return mask


def _block_lungs(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Lungs on blocks: bool, the shape of `hu`."""
    body = _body(hu, spacing_mm)
    air = body & (hu < BODY_HU)
    if not air.any():
        raise ScanError(f"A chest CT must hold at least {MIN_LUNGS_L:g} L of lung. Found no air in the body.")
    box = box_around(air, margin=[math.ceil(CLOSING_MM / s) + 1 for s in spacing_mm])
    middle = float(body.any(axis=(0, 1)).nonzero()[0].mean()) - box[2].start
    inner = air[box] & ~airways(air[box], hu[box], middle, spacing_mm)
    lungs = np.zeros_like(air)
    lungs[box] = closed(_two_largest(inner, hu[box], spacing_mm), spacing_mm) & body[box]
    return lungs


def _body(hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Body with everything it encloses in a slice; the table, which is thin, and what it encloses are left out."""
    core = hu >= BODY_HU
    if max(spacing_mm[1:]) <= LUNG_GRID_MM:  # on larger voxels a thin chest wall would go with the table
        core = grown(~grown(~core))
    labels, n = ndimage.label(core)
    if n == 0:
        return core
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return _filled(labels == int(np.argmax(sizes)), axes=(1, 2), structure=IN_PLANE)


def grown(mask: np.ndarray) -> np.ndarray:
    """Grow a mask (Z, Y, X) by a voxel to each side in its slices: ten times as fast as `ndimage.binary_dilation`."""
    larger = mask.copy()
    larger[:, 1:] |= mask[:, :-1]
    larger[:, :-1] |= mask[:, 1:]
    larger[:, :, 1:] |= mask[:, :, :-1]
    larger[:, :, :-1] |= mask[:, :, 1:]
    return larger


def thickened(mask: np.ndarray, n_slices: int) -> np.ndarray:
    """A mask (Z, Y, X), grown by so many slices up and down: 20 times as fast as a maximum filter."""
    thick = mask.copy()
    for step in range(1, n_slices + 1):
        thick[step:] |= mask[:-step]
        thick[:-step] |= mask[step:]
    return thick


def _filled(mask: np.ndarray, *, axes: Sequence[int], structure: np.ndarray | None = None) -> np.ndarray:
    """Fill the holes, all that is not connected to the array's edges along `axes`: faster than `binary_fill_holes`."""
    labels, n = ndimage.label(~mask, structure=structure)
    hole = np.ones(n + 1, dtype=bool)
    for axis in axes:
        hole[np.take(labels, (0, -1), axis=axis)] = False
    hole[0] = True
    return hole[labels]


def airways(air: np.ndarray, hu: np.ndarray, middle: float, spacing_mm: Sequence[float]) -> np.ndarray:
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
    return within(keep[chains], AIRWAY_WALL_MM, spacing_mm)


def is_gas(labels: np.ndarray, sizes: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Which of the labelled pieces of air, with `sizes` voxels each, are darker than lung by their median."""
    return np.bincount(labels[hu <= GAS_HU], minlength=len(sizes)) > sizes / 2


def check_chest(lungs: np.ndarray, spacing_mm: Sequence[float], *, gas_l: float) -> None:
    """Refuse what holds less lung than an infant, or less than 1 L that ends wide at the first or last slice.

    Args:
        lungs: Air of the lungs, bool (Z, Y, X), on voxels of `spacing_mm`.
        gas_l: Air that is not lung, in litres, to be named.
    Raises:
        ScanError: Saying what was found.
    """
    areas_cm2 = np.count_nonzero(lungs, axis=(1, 2)) * (spacing_mm[1] * spacing_mm[2] / 100)
    litres, end_cm2 = float(areas_cm2.sum()) * spacing_mm[0] / 1e4, float(max(areas_cm2[0], areas_cm2[-1]))
    must = f"A chest CT must hold at least {MIN_LUNGS_L:g} L of lung"
    if litres < MIN_LUNGS_L:
        also = f" and {gas_l:.2f} L of gas, as in bowel" if gas_l >= MIN_LUNGS_L else ""
        raise ScanError(f"{must}. Found {litres:.2f} L{also}: not a chest, or one without air.")
    if litres < WHOLE_LUNGS_L and end_cm2 >= END_SHARE * areas_cm2.max():
        must += f", and {WHOLE_LUNGS_L:g} L where it is cut off"
        found = f"{litres:.2f} L, with {end_cm2:.0f} cm2 in the first or last slice"
        raise ScanError(f"{must}. Found {found}: a slab of a chest, or not a chest.")


def _two_largest(air: np.ndarray, hu: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    labels, _ = ndimage.label(air)
    sizes = np.bincount(labels.ravel())
    litres = sizes * (math.prod(spacing_mm) * 1e-6)
    litres[0] = 0
    gas = is_gas(labels, sizes, hu)
    gas_l = float(litres[gas & (litres >= MIN_LUNG_L)].sum())
    litres[gas] = 0
    order = np.argsort(litres)[::-1][:2]
    keep = np.zeros(len(litres), dtype=bool)
    keep[order] = (litres[order] >= MIN_LUNG_L) & (litres[order] >= MIN_LUNG_SHARE * litres[order[0]])
    lungs = keep[labels]
    check_chest(lungs, spacing_mm, gas_l=gas_l)
    return lungs


def closed(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Close by a ball of CLOSING_MM and fill holes; the array's edges count as lung."""
    near = within(mask, CLOSING_MM, spacing_mm)
    shut = ~within(~near, CLOSING_MM, spacing_mm)
    return _filled(shut | mask, axes=(0, 1, 2))


def closed_air(air: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Close the lungs' air on blocks, bool (Z, Y, X); tissue beyond the blocks around it is left out."""
    box = box_around(air, margin=[math.ceil(CLOSING_MM / s) + 1 for s in spacing_mm])
    lungs = np.zeros_like(air)
    lungs[box] = closed(air[box], spacing_mm)
    return lungs


def within(mask: np.ndarray, radius_mm: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """Voxels at most `radius_mm` from the mask: squared distance, minimised axis by axis, no farther than needed.

    Three times as fast as a threshold on `ndimage.distance_transform_edt`, for the whole of `find_lungs`.
    """
    near = np.zeros_like(mask)
    if not mask.any():
        return near
    box = box_around(mask, margin=[int(radius_mm / s) for s in spacing_mm])
    distance = np.where(mask[box], np.float32(0), np.float32(2 * radius_mm**2))
    for axis, spacing in enumerate(spacing_mm):
        source = np.moveaxis(distance.copy(), axis, 0)
        target = np.moveaxis(distance, axis, 0)
        for step in range(1, int(radius_mm / spacing) + 1):
            cost = np.float32((step * spacing) ** 2)
            np.minimum(target[step:], source[:-step] + cost, out=target[step:])
            np.minimum(target[:-step], source[step:] + cost, out=target[:-step])
    near[box] = distance <= radius_mm**2
    return near
