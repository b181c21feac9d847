"""Region: the chest cavity, what of a CT the network should see so that no disease is cut away.

The tight mask of `lungs.py` is air; a tumour at the wall, a consolidated lobe or an effusion is not in it. Here the air
only tells where the cavity is: in every slice it reaches from the middle of each lung to the ribs, and down to a base
that the other lung, mirrored, and the neighbourhood correct. Found on blocks of voxels; arrays are (Z, Y, X), LPS.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from lungmtl.data.grid import box_around
from lungmtl.data.lungs import (
    BODY_HU,
    Lungs,
    airways,
    blocks_of,
    check_chest,
    closed_air,
    grown,
    is_gas,
    thickened,
    voxels_of,
    within,
)
from lungmtl.data.rays import BEYOND_MM, RIB_GAP_MM, RIM_MM, chest_half
from lungmtl.data.volume import Volume

TISSUE_CONTRAST = 0.2  # chosen by us: muscle is then as bright as lung of -790 HU
OUTSIDE_HU = -950  # chosen by us: between air and the darkest blocks of lung, at the border of a slice
BONES = (2, 98)  # percentiles of the rows with bone: a piece of air whose median lies beyond them is in the table
MIN_PIECE_L = 0.02  # chosen by us: smaller pieces of air say nothing about the cavity
AROUND_MM = 15.0  # chosen by us: air with less tissue on a side is not in the body
OVERLAP = 0.4  # chosen by us: so much of a piece of lung lies where the other lung's mirror image lies, of gas less
BONE_HU = 150  # of blocks: ribs, vertebrae, and contrast in vessels
TILTS = np.arange(-10, 11, 2.0)  # degrees by which a patient may lie turned
BASE_MM = 30.0  # chosen by us: radius of a mass on the diaphragm that its surroundings correct; cuts 5 mm off a dome
DOWN_MM = 15.0  # chosen by us: the right dome stands about so much higher than the left
MASS_MM = 60.0  # chosen by us: a mass of that size on the recess is taken in; for 90 mm so are kidneys and stomach
RECESS_MM = 15.0  # chosen by us: so far below, near the ribs, a full recess may lie
LOW, FRONT = (0.15, 0.5), 0.25  # of the lungs' height, and of their air from the front: there the middle lobe lies
NOTCH_MM = 6.0  # chosen by us: half the width of a notch that a small mass leaves at the wall
UP_MM = 25.0  # chosen by us: one apex may stand so much higher


@dataclasses.dataclass(frozen=True)
class Region(Lungs):
    """The chest cavity as `Lungs`, and the air in it.

    Attributes:
        lungs: The part of the cavity that the tight mask of `find_lungs` is: the lungs' air, closed.
        air: Air of the lungs, bool, on the volume's blocks.
        left_l: Of that on the patient's left, in litres.
        right_l: And on the right.
        gas_l: Air in the body that is not the lungs'.
        cut_cm2: Surface of the lungs at which the image ends.
        front_right: Share of the right lung in the air low in front; NaN where there is none.
    """

    lungs: Lungs
    air: np.ndarray
    left_l: float
    right_l: float
    gas_l: float
    cut_cm2: float
    front_right: float

    def contrast(self, z: int) -> np.ndarray:
        """Full in the lungs' air, closed, and TISSUE_CONTRAST in the rest of the cavity."""
        shares = self.mask[z] * np.float32(TISSUE_CONTRAST)
        first, *plane = (
            slice(inner.start - box.start, inner.stop - box.start)
            for inner, box in zip(self.lungs.box, self.box, strict=True)
        )
        if first.start <= z < first.stop:
            shares[tuple(plane)][self.lungs.mask[z - first.start]] = 1
        return shares


class _Mirror(NamedTuple):
    y: np.ndarray  # (Y, X), row of each block's mirror image
    x: np.ndarray
    left: np.ndarray  # bool (Y, X), the patient's left half
    depth: np.ndarray  # (Y, X), blocks along the plane, from front to back
    inside: np.ndarray  # bool (Y, X), where the mirror image lies in the slice


def find_region(volume: Volume) -> Region:
    """Find the chest cavity: both lungs with what disease took of them, and the mediastinum between them.

    Raises:
        ScanError: If it is not a chest: see `check_chest`.
    """
    blocks = blocks_of(volume)
    hu, factors, spacing_mm, _ = blocks
    outside, mirror = _outside(hu), _mirror_plane(hu)
    air, other = _lung_air(hu, outside, mirror, spacing_mm)
    block_l = math.prod(spacing_mm) * 1e-6
    left_l, right_l = (float(np.count_nonzero(air[:, half])) * block_l for half in (mirror.left, ~mirror.left))
    gas_l = _in_body(other, hu, spacing_mm) * block_l
    check_chest(air, spacing_mm, gas_l=gas_l)
    cavity = _cavity(air, hu, mirror, spacing_mm)
    around = box_around(cavity)
    mask = cavity[around].repeat(factors[0], axis=0).repeat(factors[1], axis=1).repeat(factors[2], axis=2)
    box = tuple(slice(int(b.start) * f, int(b.stop) * f) for b, f in zip(around, factors, strict=True))
    lungs = voxels_of(volume, closed_air(air, spacing_mm) & cavity, blocks)
    cut_cm2 = _cut_cm2(air, outside, spacing_mm)
    return Region(box, mask, lungs, air, left_l, right_l, gas_l, cut_cm2, _front_right(air, mirror))


def _outside(hu: np.ndarray) -> np.ndarray:
    """Air and padding around the body: dark, connected to the border of a slice, and the blurred rim of it."""
    frame = np.ones(hu.shape[1:], dtype=bool)
    frame[1:-1, 1:-1] = False
    dark = hu < OUTSIDE_HU
    dark = ~grown(~dark)  # emphysema hangs by threads
    labels, n = ndimage.label(dark)
    touching = np.zeros(n + 1, dtype=bool)
    touching[labels[:, frame]] = True
    touching[0] = False
    return grown(grown(touching[labels]))


def _mirror_plane(hu: np.ndarray) -> _Mirror:
    """The upright plane about which the bones, seen from above, are most symmetric."""
    dense = hu > BONE_HU
    seen = (dense if dense.any() else hu >= BODY_HU).sum(axis=0).astype(np.float32)  # (Y, X)
    n = seen.shape[1]
    best = (-1.0, 0.0, 0.0)
    for degrees in TILTS:
        turned = ndimage.gaussian_filter(ndimage.rotate(seen, degrees, reshape=False, order=1), 1)
        symmetry = np.fft.irfft((np.fft.rfft(turned, 2 * n, axis=1) ** 2).sum(axis=0), 2 * n)
        best = max(best, (float(symmetry.max()), float(degrees), symmetry.argmax() / 2))
    angle, middle = math.radians(best[1]), best[2] - (n - 1) / 2
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    center = (np.array(seen.shape)[:, None, None] - 1) / 2
    y, x = np.tensordot(turn.T, np.indices(seen.shape) - center, axes=1)
    index = np.rint(np.tensordot(turn, np.stack([y, 2 * middle - x]), axes=1) + center).astype(np.intp)
    last = np.array(seen.shape)[:, None, None] - 1
    return _Mirror(*index.clip(0, last), x > middle, y, ((index >= 0) & (index <= last)).all(axis=0))


def _reflected(mask: np.ndarray, mirror: _Mirror) -> np.ndarray:
    index = mirror.y * mask.shape[2] + mirror.x
    return mask.reshape(len(mask), -1).take(index, axis=1) & mirror.inside  # 5 times as fast as with two indices


def _lung_air(
    hu: np.ndarray, outside: np.ndarray, mirror: _Mirror, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Air of the lungs: the largest piece that is not gas, and pieces that fit its mirror image; and other pieces."""
    air = (hu < BODY_HU) & ~outside
    if air.any():
        box, middle = box_around(air), float((~mirror.left).sum(axis=1).mean())
        air[box] &= ~airways(air[box], hu[box], middle - box[2].start, spacing_mm)
    labels, n = ndimage.label(air)
    sizes = np.bincount(labels.ravel(), minlength=n + 1)
    sizes[0] = 0
    large = np.nonzero(sizes * (math.prod(spacing_mm) * 1e-6) >= MIN_PIECE_L)[0]
    other, keep = np.zeros((2, n + 1), dtype=bool)
    other[large] = True
    large = large[~(is_gas(labels, sizes, hu)[large] | _beyond_bones(labels, large, hu))]
    large = sorted(large, key=lambda k: -sizes[k])
    keep[large[:1]] = True
    for _ in range(2 if len(large) > 1 else 0):  # what fits the largest piece, then what fits them all
        share = np.bincount(labels[_reflected(keep[labels], mirror)], minlength=n + 1) / np.maximum(sizes, 1)
        keep[large] |= share[large] >= OVERLAP
    return keep[labels], (other & ~keep)[labels]


def _beyond_bones(labels: np.ndarray, pieces: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Which of the labelled pieces lie in front of or behind the bones: air of a table, or above a blanket."""
    rows = np.count_nonzero(hu > BONE_HU, axis=(0, 2)).cumsum()
    if rows[-1] == 0:
        return np.zeros(len(pieces), dtype=bool)
    first, last = np.searchsorted(rows, np.multiply(BONES, rows[-1] / 100))
    some = labels[::2, :, ::2]  # tell as much, and faster
    counts = (np.count_nonzero(some == piece, axis=(0, 2)).cumsum() for piece in pieces)
    middles = [np.searchsorted(count, count[-1] / 2) for count in counts]
    return np.array([not first <= middle <= last for middle in middles], dtype=bool)


def _in_body(air: np.ndarray, hu: np.ndarray, spacing_mm: Sequence[float]) -> int:
    """Voxels of air with tissue on all four sides in their slice: neither a table's nor in a fold of the skin."""
    if not air.any():
        return 0
    planes = box_around(air)[0]
    inside, tissue = air[planes, ::2, ::2].copy(), hu[planes, ::2, ::2] >= BODY_HU  # every fourth tells as much
    for axis in (1, 2):
        before = np.cumsum(tissue, axis=axis, dtype=np.int16)
        after = np.take(before, [-1], axis=axis) - before
        inside &= np.minimum(before, after) * (2 * spacing_mm[axis]) >= AROUND_MM
    return 4 * int(np.count_nonzero(inside))


def _cut_cm2(air: np.ndarray, outside: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Area of the faces that lung shares with the outside or with the border of a slice."""
    area = 0.0
    for axis in (1, 2):
        face = math.prod(spacing_mm) / spacing_mm[axis] / 100
        lung, out = np.moveaxis(air, axis, 0), np.moveaxis(outside, axis, 0)
        faces = np.count_nonzero(lung[1:] & out[:-1]) + np.count_nonzero(lung[:-1] & out[1:])
        area += face * (faces + np.count_nonzero(lung[[0, -1]]))
    return area


def _front_right(air: np.ndarray, mirror: _Mirror) -> float:
    height = box_around(air)[0]
    low, high = (height.start + int(share * (height.stop - height.start)) for share in LOW)
    columns = air.sum(axis=0)  # (Y, X)
    rows = np.rint(mirror.depth - mirror.depth.min()).astype(np.intp)
    behind = np.bincount(rows.ravel(), weights=columns.ravel()).cumsum()
    front = air[low:high].sum(axis=0) * (rows < np.searchsorted(behind, FRONT * behind[-1]))
    n = front.sum()
    return float(front[~mirror.left].sum() / n) if n else math.nan


def _cavity(air: np.ndarray, hu: np.ndarray, mirror: _Mirror, spacing_mm: Sequence[float]) -> np.ndarray:
    both = air | _reflected(air, mirror)
    z_mm = spacing_mm[0]
    base = _base(both, spacing_mm) - DOWN_MM / z_mm  # (Y, X)
    seen = both.any(axis=(1, 2)).nonzero()[0]
    slices = slice(max(0, int(seen[0] - DOWN_MM / z_mm)), int(seen[-1] + UP_MM / z_mm) + 1)
    bone = thickened(hu[slices] > BONE_HU, int(RIB_GAP_MM / z_mm))
    height = np.arange(len(hu))[slices, None, None] - base
    cavity = within(air, RIM_MM, spacing_mm)
    for half, medial in ((mirror.left, -1), (~mirror.left, 1)):
        if (both[slices] & half).any():
            columns = half.any(axis=0).nonzero()[0]
            part = np.s_[:, :, columns[0] : columns[-1] + 1]
            lungs = (np.ascontiguousarray((mask[slices] & half)[part]) for mask in (air, both))
            inside, shell = chest_half(*lungs, np.ascontiguousarray(bone[part]), spacing_mm, medial)
            deep = (height[part] >= 0) | (shell & (height[part] >= -RECESS_MM / z_mm))
            cavity[slices][part] |= inside & deep & half[:, part[2]]
    return _without_notches(cavity, spacing_mm)


def _without_notches(cavity: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    n_steps, closed = int(NOTCH_MM / max(spacing_mm[1:])), cavity
    for _ in range(2):  # grow, then grow what is left out
        for _ in range(n_steps):
            closed = grown(closed)
        closed = ~closed
    return cavity | closed


def _base(both: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Lowest slice of the lungs in every column (Y, X): lower towards the back, without bumps, and by the recess."""
    seen = both.any(axis=0)
    away_mm, nearest = ndimage.distance_transform_edt(~seen, sampling=spacing_mm[1:], return_indices=True)
    dy, dx = (np.indices(seen.shape) - nearest) * np.array(spacing_mm[1:])[:, None, None]
    fall_mm = np.where(dy > np.abs(dx), np.minimum(away_mm, BEYOND_MM), 0)  # behind the lungs, as in the recess
    lowest = both.argmax(axis=0)[tuple(nearest)]
    base = ndimage.median_filter(lowest - fall_mm / spacing_mm[0], 5)
    n_y, n_x = (int(BASE_MM / s) for s in spacing_mm[1:])
    y, x = np.ogrid[-n_y : n_y + 1, -n_x : n_x + 1]
    footprint = np.hypot(y * spacing_mm[1], x * spacing_mm[2]) <= BASE_MM
    stood = _stood_on(ndimage.median_filter(lowest, 5), spacing_mm)
    return np.minimum(ndimage.grey_opening(base, footprint=footprint), stood)


def _stood_on(lowest: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Lowest slices (Y, X) that balls of MASS_MM reach which stand on the `lowest` of lung; parabolas for balls."""
    stood = lowest.astype(float)
    for axis, spacing in enumerate(spacing_mm[1:]):
        source, target = (np.moveaxis(a, axis, 0) for a in (stood.copy(), stood))
        for step in range(1, int(MASS_MM / 2 / spacing) + 1):
            rise = (step * spacing) ** 2 / MASS_MM / spacing_mm[0]
            np.minimum(target[step:], source[:-step] + rise, out=target[step:])
            np.minimum(target[:-step], source[step:] + rise, out=target[:-step])
    return stood
