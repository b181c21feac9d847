"""Rays: how far one half of the chest reaches in every direction of a slice, on blocks of voxels (Z, Y, X), LPS."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

ANGLES = 120  # rays from the middle of a lung, 3 degrees apart
REACH_MM = 180.0  # chosen by us: no half of a chest is wider
MIRROR_MM = 15.0  # chosen by us: so far the mirrored lung may lie outside the ribs of an uneven chest
DIFFERS_MM, UNSURE_MM = 10.0, 8.0  # chosen by us: where a lung is so much smaller than the mirrored, so much farther
NEAR_MM = 15.0  # chosen by us: lungs whose sides come so close to the ribs fill the chest
LEVEL_SHARE = 0.4  # chosen by us: where more of a lung's back is one plane, it is the level of fluid; found 0.1 to 0.2
WALL_MM = 15.0  # chosen by us: between lungs and ribs elsewhere
MEDIAL, BACK = (-0.65, 0.25), 0.3  # sines of angles: towards the mediastinum, not the vertebrae; to the back
SHELL_MM = 30.0  # chosen by us: so near the ribs
APEX_CM2 = 20.0  # chosen by us: above the last slice with so much of a lung, its ribs stay those of that slice
SHADOW = 13  # rays of ANGLES: a kidney full of contrast, as bright as ribs, is seen narrower
RIB_GAP_MM = 12.0  # chosen by us: half of what lies between two ribs in z
BEYOND_MM = 60.0  # chosen by us: fluid of 40 mm behind the lungs, seen at an angle
RIM_MM = 5.0  # chosen by us: pleura, around the air that is seen and where no ribs are near


def chest_half(
    air: np.ndarray, both: np.ndarray, bone: np.ndarray, spacing_mm: Sequence[float], medial: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inside of the ribs of one half, on rays from the middle of its lung, and of that what lies near the ribs.

    `both` is the lung's air and the other lung's mirror image, `medial` the sign of x towards the middle. Along a ray
    (Z, A), all lengths are in steps of the smaller side of a block.
    """
    step, shape = min(spacing_mm[1:]), both.shape[1:]
    center, widest, top = _middles(both, spacing_mm)
    steady = np.arange(len(both)).clip(widest, top)  # below its widest slice a lung is a crescent around the diaphragm
    theta = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    sine, inward = np.sin(theta), np.cos(theta) * medial > 0
    middle = inward & (sine > MEDIAL[0]) & (sine < MEDIAL[1])
    seen = _cast(air.view(np.uint8) | both.view(np.uint8) << 1 | bone.view(np.uint8) << 2, center, theta, spacing_mm)
    own, lung = (_last(seen & bit != 0) for bit in (1, 2))
    hull = _hull(lung[widest : top + 1].clip(0), theta)[steady - widest]
    start = np.maximum(own, np.maximum(lung - MIRROR_MM / step, hull - BEYOND_MM / step))
    start[top + 1 :] = start[top]
    ribs = (seen & 4 != 0) & (np.arange(seen.shape[2]) >= start[:, :, None]) & ~middle[:, None]
    outer = ~inward | (sine > 0.9)  # where no vertebra is
    found, rib = ribs.any(axis=2), ribs.argmax(axis=2)
    rib[:widest] = np.maximum(rib[:widest], _outermost(ribs[:widest], hull[:widest] + WALL_MM / step) * outer)
    side = (lung > 0) & found & ~middle & (sine < BACK)
    near = (2 * np.count_nonzero(side & (rib - lung <= NEAR_MM / step), axis=1) >= side.sum(axis=1))[steady, None]
    beyond_mm = np.where((sine > BACK) & (near | _has_level(both)), BEYOND_MM, np.where(near, WALL_MM, RIM_MM))
    reach = np.minimum(np.where(found, rib, hull), hull + beyond_mm / step)
    reach[:, middle] = hull[:, middle] + BEYOND_MM / step  # to the middle plane
    reach += np.where(lung - own > DIFFERS_MM / step, UNSURE_MM / step, 0)
    reach[top + 1 :] += UNSURE_MM / step  # one apex may be wider, too
    lit = ndimage.grey_closing(reach[:widest], size=(1, SHADOW), mode=("nearest", "wrap"))
    reach[:widest] = np.where(outer, lit, reach[:widest])
    size = (2 * int(RIB_GAP_MM / spacing_mm[0]) + 1, 7)
    smooth = ndimage.grey_opening(np.maximum(reach, own), size=size, mode=("nearest", "wrap"))
    reach = np.maximum(smooth, own) + 1.5 + (smooth - own > DIFFERS_MM / step)  # with the blocks of pleura and rib
    aside = ~(inward & (sine > MEDIAL[0]) & (sine < 0.4))  # where a recess may lie
    return _filled(reach, aside, center, shape, spacing_mm)


def _middles(both: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, int, int]:
    """Block (2, Z) y and x in the middle of a lung, its widest slice, and the highest that is not its apex."""
    z_mm, y_mm, x_mm = spacing_mm
    rows, columns = both.sum(axis=2), both.sum(axis=1)  # (Z, Y), (Z, X)
    n = rows.sum(axis=1)
    sums = np.stack([n, rows @ np.arange(rows.shape[1]), columns @ np.arange(columns.shape[1])]).astype(float)
    sums = ndimage.gaussian_filter1d(sums, 10 / z_mm, axis=1)
    top = int((n >= min(APEX_CM2 * 100 / (y_mm * x_mm), n.max())).nonzero()[0][-1])
    widest = min(int(sums[0].argmax()), top)
    steady = np.arange(len(n)).clip(widest, top)
    middles = np.floor(sums[1:, steady] / sums[0, steady] + 0.5 + 1e-6)  # a half is a half, wherever the lung lies
    return middles.astype(np.int32), widest, top


def _cast(array: np.ndarray, center: np.ndarray, theta: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Values (Z, A, R) of an array (Z, Y, X) along rays from `center`, a step apart; 0 outside."""
    (n_z, n_y, n_x), (_, y_mm, x_mm) = array.shape, spacing_mm
    step = min(y_mm, x_mm)
    way = np.outer(np.stack([np.sin(theta) / y_mm, np.cos(theta) / x_mm]), np.arange(int(REACH_MM / step)) * step)
    y, x = np.rint(way.reshape(2, 1, len(theta), -1)).astype(np.int32) + center[:, :, None, None]
    valid = (y >= 0) & (y < n_y) & (x >= 0) & (x < n_x)
    return (
        array.ravel()[np.where(valid, (np.arange(n_z, dtype=np.int32)[:, None, None] * n_y + y) * n_x + x, 0)] * valid
    )


def _outermost(ribs: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Where on each ray (Z, A, R) the last bone before a limit (Z, A) begins: bright kidneys lie inside."""
    begins = ribs & (np.arange(ribs.shape[2]) <= limit[:, :, None])
    begins[:, :, 1:] &= ~ribs[:, :, :-1]
    return _last(begins)


def _has_level(both: np.ndarray) -> bool:
    """Whether a lung ends behind in one plane (Y), as above fluid."""
    back = both.shape[1] - 1 - both[:, ::-1].argmax(axis=1)[both.any(axis=1)]
    return bool(np.mean(back >= np.percentile(back, 99) - 1) > LEVEL_SHARE)


def _last(rays: np.ndarray) -> np.ndarray:
    """Index of the last True of each ray (Z, A, R); -1 where there is none."""
    return np.where(rays.any(axis=2), rays.shape[2] - 1 - rays[:, :, ::-1].argmax(axis=2), -1)


def _filled(
    reach: np.ndarray, aside: np.ndarray, center: np.ndarray, shape: tuple[int, int], spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Blocks (Z, Y, X) within `reach` (Z, A), in steps of mm, and those of them near it in the directions `aside` (A,).

    `center` is the block (2, Z) y and x from which the rays start, `shape` (Y, X).
    """
    (n_y, n_x), step = shape, min(spacing_mm[1:])
    y, x = (np.arange(1 - n, n, dtype=np.float32) * s for n, s in zip(shape, spacing_mm[1:], strict=True))
    angle = np.rint(np.arctan2(y[:, None], x) * (ANGLES / 2 / np.pi)).astype(np.intp) % ANGLES  # (2 Y - 1, 2 X - 1)
    radius = np.hypot(y[:, None], x) / np.float32(step)
    inside, shell = np.empty((2, len(reach), n_y, n_x), dtype=bool)
    near = np.where(aside, reach - SHELL_MM / step, np.inf)
    for z, (cy, cx) in enumerate(center.T):
        seen = np.s_[n_y - 1 - cy : 2 * n_y - 1 - cy, n_x - 1 - cx : 2 * n_x - 1 - cx]
        np.less_equal(radius[seen], reach[z][angle[seen]], out=inside[z])
        np.greater_equal(radius[seen], near[z][angle[seen]], out=shell[z])
    return inside, shell & inside


def _hull(reach: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Radii (Z, A) of the convex hull of the points at `theta` (A,) and `reach` (Z, A), in each slice."""
    cosine = np.cos(theta[:, None] - theta)  # (A, A)
    support = (reach[:, :, None] * cosine).max(axis=1)[:, None]  # (Z, 1, A)
    bound = np.divide(support, cosine, out=np.full((len(reach), *cosine.shape), np.inf), where=cosine > 1e-3)
    return bound.min(axis=2)
