"""Region: what of a CT the network should see so that no disease is cut away, the chest cavity around the lungs.

The tight mask of `lungs.py` is the air; a tumour at the wall, a consolidated lobe or an effusion is not in it. Here the
air only shows where the cavity is: in every slice it reaches from the middle to the ribs, and down to a base that the
other lung and the neighbourhood correct. Found on blocks of voxels, by thresholds; arrays are (Z, Y, X).
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lungmtl.data.grid import box_around
from lungmtl.data.lungs import BODY_HU, IN_PLANE, LUNG_GRID_MM, MIN_LUNGS_L, Lungs, _airways, _block_means, _within
from lungmtl.data.volume import ScanError, Volume

OUTSIDE_HU = -950  # chosen by us: between lung, of which even the emphysematous blocks are lighter, and air
GAS_HU = -960  # chosen by us: a piece of air whose median is darker is bowel gas or a hollow table, not lung
BORDER_SHARE = 0.4  # chosen by us: where more of the border is grey air, HU are shifted and all of it is outside
MIN_PIECE_L = 0.02  # chosen by us: smaller pieces of air say nothing about the cavity
OVERLAP = 0.4  # chosen by us: so much of a piece lies where the mirrored other lung lies; of bowel gas less
BONE_HU = 150  # of blocks: ribs and vertebrae, and contrast in vessels
ANGLES = 180  # rays from the middle of the chest, 2 degrees apart
RIB_GAP_MM = 12.0  # chosen by us: half of what lies between two ribs in z
MIRROR_MM = 15.0  # chosen by us: so far the mirrored lung may lie outside the own ribs
BEYOND_MM = 45.0  # chosen by us: fluid deeper than this between lungs and ribs is not believed
BASE_MM = 45.0  # chosen by us: half-width of a mass on the diaphragm; a dome of 80 mm radius loses 14 mm of its cap
DOWN_MM = 12.0  # chosen by us: the left dome stands about so much lower than the mirrored right one
RIM_MM = 5.0  # chosen by us: around the air that is seen, which takes in the pleura


@dataclasses.dataclass(frozen=True)
class Region(Lungs):
    """The chest cavity, as `Lungs`, with the air seen on each side and the area in which the image cuts it."""

    left_l: float
    right_l: float
    cut_cm2: float


def find_region(volume: Volume) -> Region:
    hu, factors, spacing_mm = _blocks(volume)
    outside = _outside(hu)
    mirror = _mirror(hu)
    air = _lung_air(hu, outside, mirror, spacing_mm)
    cavity = _cavity(air, hu, mirror, spacing_mm)
    blocks = box_around(cavity)
    box = tuple(slice(int(b.start) * f, int(b.stop) * f) for b, f in zip(blocks, factors, strict=True))
    mask = cavity[blocks]
    for axis, f in enumerate(factors):
        mask = mask.repeat(f, axis=axis)
    block_l = math.prod(spacing_mm) * 1e-6
    side = mirror[2]
    right = np.count_nonzero(air[:, side])*block_l
    left = np.count_nonzero(air)*block_l-right
    return Region(box, mask, left, right, 0.0)


def _blocks(volume):
    factors = tuple(max(1, int(LUNG_GRID_MM / s)) for s in volume.spacing_mm)
    return _block_means(volume.hu, factors), factors, tuple(s * f for s, f in zip(volume.spacing_mm, factors))


def _outside(hu: np.ndarray) -> np.ndarray:
    """Air and padding around the body: dark, connected to the border of a slice, and the rim that is blurred."""
    frame = np.zeros(hu.shape[1:], dtype=bool)
    frame[[0, -1]] = frame[:, [0, -1]] = True
    dark = hu < OUTSIDE_HU
    if np.mean((hu < BODY_HU)[:, frame] & ~dark[:, frame]) > BORDER_SHARE:
        dark = hu < BODY_HU
    dark = ndimage.binary_erosion(dark, IN_PLANE, border_value=1, brute_force=True)
    labels, n = ndimage.label(dark)
    touching = np.zeros(n + 1, dtype=bool)
    touching[labels[:, frame]] = True
    touching[0] = False
    return ndimage.binary_dilation(touching[labels], IN_PLANE, iterations=2)


def _mirror(hu):
    """Index (y, x) of every block's mirror image: the plane about which the bones are most symmetric."""
    bones = (hu > BONE_HU).sum(axis=0).astype(np.float32)
    n = bones.shape[1]
    best = (0.0, 0.0, 0.0)
    for degrees in np.arange(-10, 11, 2.0):
        turned = ndimage.rotate(bones, degrees, reshape=False, order=1)
        turned = ndimage.gaussian_filter(turned, 1)
        score = np.fft.irfft((np.fft.rfft(turned, 2 * n, axis=1) ** 2).sum(axis=0), 2 * n)
        best = max(best, (score.max(), degrees, score.argmax() / 2))
    _, degrees, middle = best
    a = math.radians(degrees)
    center = (np.array(bones.shape) - 1) / 2
    y, x = np.indices(bones.shape) - center[:, None, None]
    # rotate: output(o) = input(R o); in the turned frame the plane is x = middle
    r = np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    ty, tx = r.T[0, 0] * y + r.T[0, 1] * x, r.T[1, 0] * y + r.T[1, 1] * x
    tx = 2 * (middle - center[1]) - tx
    my, mx = r[0, 0] * ty + r[0, 1] * tx, r[1, 0] * ty + r[1, 1] * tx
    side = tx < (middle - center[1])  # own tx > middle: the patient's left
    return np.rint(my + center[0]).astype(int), np.rint(mx + center[1]).astype(int), side, best


def _reflected(mask, mirror):
    y, x = mirror[:2]
    inside = (y >= 0) & (y < mask.shape[1]) & (x >= 0) & (x < mask.shape[2])
    return mask[:, y.clip(0, mask.shape[1] - 1), x.clip(0, mask.shape[2] - 1)] & inside


def _lung_air(hu, outside, mirror, spacing_mm):
    air = (hu < BODY_HU) & ~outside
    middle = float(mirror[2].sum(axis=1).mean())
    middle = hu.shape[2] - middle
    air &= ~_airways(air, hu, middle, spacing_mm)
    labels, n = ndimage.label(air)
    litres = np.bincount(labels.ravel()) * (math.prod(spacing_mm) * 1e-6)
    litres[0] = 0
    large = [int(k) for k in np.argsort(litres)[::-1] if litres[k] >= MIN_PIECE_L]
    boxes = ndimage.find_objects(labels)
    large = [k for k in large if np.median(hu[boxes[k - 1]][labels[boxes[k - 1]] == k]) > GAS_HU]
    keep = np.zeros(n + 1, dtype=bool)
    keep[large[:1]] = True
    for _ in range(2):
        seen = keep[labels]
        twin = seen | _reflected(seen, mirror)
        share = np.bincount(labels.ravel(), weights=twin.ravel(), minlength=n + 1)
        for k in large:
            keep[k] |= share[k] * (math.prod(spacing_mm) * 1e-6) >= OVERLAP * litres[k]
    print({k: round(litres[k], 3) for k in large}, [k for k in large if keep[k]])
    return keep[labels]


def _cavity(air, hu, mirror, spacing_mm):
    twin = _reflected(air, mirror)
    both = air | twin
    z_mm, y_mm, x_mm = spacing_mm
    box = box_around(both)
    center = ((box[1].start + box[1].stop - 1) / 2, (box[2].start + box[2].stop - 1) / 2)
    n_radii = int(math.hypot(*hu.shape[1:]) / 1) + 1
    theta = np.arange(ANGLES) * 2 * np.pi / ANGLES
    step = min(y_mm, x_mm)
    radii = np.arange(int(260 / step))
    py = np.rint(center[0] + np.outer(np.sin(theta), radii * step / y_mm)).astype(int)
    px = np.rint(center[1] + np.outer(np.cos(theta), radii * step / x_mm)).astype(int)
    ok = (py >= 0) & (py < hu.shape[1]) & (px >= 0) & (px < hu.shape[2])
    flat = np.where(ok, py * hu.shape[2] + px, 0)

    def rays(mask):
        return mask.reshape(len(mask), -1)[:, flat] & ok  # (Z, A, R)

    def last(mask):
        r = rays(mask)
        return np.where(r.any(axis=2), r.shape[2] - 1 - r[:, :, ::-1].argmax(axis=2), 0)

    own, other = last(air), last(twin)
    hull = _hull_radius(np.maximum(own, other), theta)
    bone = ndimage.maximum_filter1d((hu > BONE_HU).view(np.uint8), 2 * int(RIB_GAP_MM / z_mm) + 1, axis=0).astype(bool)
    bone = rays(bone)
    front = np.sin(theta) < 0
    start = np.maximum(own, other - MIRROR_MM / step)
    start = np.maximum(start, np.where((start <= 0) & front, hull - MIRROR_MM / step, 0))
    bone &= radii >= start[:, :, None] - 1
    found = bone.any(axis=2)
    reach = np.where(found, bone.argmax(axis=2) - 1, hull)
    reach = np.minimum(reach, hull + BEYOND_MM / step)
    reach = np.maximum(reach, own)
    grown = ndimage.grey_opening(reach, size=(2 * int(RIB_GAP_MM / z_mm) + 1, 9), mode=("nearest", "wrap"))
    reach = np.maximum(grown, own)
    # back to slices
    y, x = np.indices(hu.shape[1:]) - np.array(center)[:, None, None]
    angle = np.rint(np.arctan2(y * y_mm, x * x_mm) / (2 * np.pi / ANGLES)).astype(int) % ANGLES
    radius = np.hypot(y * y_mm, x * x_mm) / step
    cavity = radius <= reach[:, angle]  # (Z, Y, X)
    z = np.arange(len(hu))[:, None, None]
    base = _base(both, spacing_mm)
    cavity &= z >= base - DOWN_MM / z_mm
    top = box[0].stop + RIM_MM / z_mm
    cavity &= z <= top
    return cavity | _within(air, RIM_MM, spacing_mm)


def _hull_radius(reach, theta):
    """Radii of the convex hull of the points (angle, reach), per slice."""
    x, y = reach * np.cos(theta), reach * np.sin(theta)  # (Z, A)
    normal = np.array([np.cos(theta), np.sin(theta)])
    support = (x[:, :, None] * normal[0] + y[:, :, None] * normal[1]).max(axis=1)  # (Z, A)
    cosine = np.cos(theta[:, None] - theta)  # (A, N)
    with np.errstate(divide="ignore"):
        bound = np.where(cosine > 1e-3, support[:, None, :] / np.maximum(cosine, 1e-3), np.inf)
    return bound.min(axis=2)


def _base(both, spacing_mm):
    seen = both.any(axis=0)
    base = both.argmax(axis=0)
    nearest = ndimage.distance_transform_edt(~seen, sampling=spacing_mm[1:], return_distances=False, return_indices=True)
    base = base[tuple(nearest)]
    base = ndimage.median_filter(base, 5)
    size = [2 * int(BASE_MM / s) + 1 for s in spacing_mm[1:]]
    return ndimage.grey_opening(base, size=size)
