"""Disease drawn into a CT, and how much of it a mask keeps: masses, a consolidated lobe, an effusion, tight fields.

Everything is drawn in place of lung and touches it: a mass at the wall bulges inwards from it. In the recess, which is
thinner than a large mass, the rest is drawn in place of ribs, wall and liver. Arrays are (Z, Y, X), LPS, HU.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay

from lungmtl.data.grid import box_around
from lungmtl.data.volume import Volume

DIAMETERS_MM = (8, 12, 20, 30, 40, 50, 70, 90)
PLACES = ("lateral wall", "back wall", "mediastinum", "apex", "base", "recess", "fissure")
MASS_HU, LOBE_HU, FLUID_HU, NOISE_HU = 40, 30, 10, 15
RIBS, BELOW = (92, 115), (1, 2, 3, 5, 6)  # labels of the published mask; below the diaphragm: spleen to stomach
RIB_GAP_MM, RIB_MM = 10.0, 9.0  # between ribs in z, half; a rib and the pleura
SUNK_MM = 2.0  # a mass is this deep in the wall, so that no lung is between the two


@dataclasses.dataclass(frozen=True)
class Disease:
    """A CT with disease: the volume, and bool masks of the disease and of all lung, diseased or not."""

    volume: Volume
    ill: np.ndarray
    lung: np.ndarray


def side_of(lung: np.ndarray, side: str) -> np.ndarray:
    """The right or the left lung: what lies on either side of the middle of all lung in x."""
    middle = int(np.mean(np.nonzero(lung.any(axis=(0, 1)))[0]))
    half = np.zeros_like(lung)
    half[:, :, slice(middle) if side == "right" else slice(middle, None)] = True
    return lung & half


def with_mass(volume: Volume, lung: np.ndarray, place: str, side: str, diameter_mm: float, *, seed: int) -> Disease:
    """Draw a solid mass; `seed` 0 is a sphere, others are irregular."""
    spacing = np.array(volume.spacing_mm)
    anchor, inward = _anchor(side_of(lung, side), place, side, spacing)
    radius_mm = diameter_mm / 2
    center = anchor * spacing + np.array(inward) * (0 if place == "fissure" else radius_mm - SUNK_MM)
    ill = _solid(lung.shape, spacing, center, radius_mm, seed)
    return Disease(_drawn(volume, ill, MASS_HU), ill, lung | ill)


def in_chest(labels: np.ndarray, lung: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Inside of the ribs and not in an organ below the diaphragm; all lung is. Fat below it counts as inside, too."""
    gap = int(RIB_GAP_MM / spacing_mm[0])
    ribs = ndimage.maximum_filter1d((labels >= RIBS[0]) & (labels <= RIBS[1]), 2 * gap + 1, axis=0)
    inside, index = np.zeros(lung.shape, dtype=bool), np.indices(lung.shape[1:])
    for z in ribs.any(axis=(1, 2)).nonzero()[0]:
        points = np.argwhere(ribs[z])
        hull = Delaunay(points[ConvexHull(points).vertices]).find_simplex(np.moveaxis(index, 0, -1)) >= 0
        inside[z] = ndimage.distance_transform_edt(hull, sampling=spacing_mm[1:]) > RIB_MM
    return (inside & ~np.isin(labels, BELOW)) | lung


def with_lobe(volume: Volume, lung: np.ndarray, lobe: np.ndarray) -> Disease:
    """Consolidate a lobe."""
    return Disease(_drawn(volume, lobe, LOBE_HU), lobe, lung | lobe)


def lobe_like(lung: np.ndarray, side: str, spacing_mm: tuple[float, ...], *, upper: bool) -> np.ndarray:
    """Half of a lung above or below a plane that falls from back to front, as the oblique fissure does."""
    half = side_of(lung, side)
    z, y, _ = np.ogrid[tuple(slice(n) for n in lung.shape)]
    height = np.broadcast_to(z * spacing_mm[0] - y * spacing_mm[1], lung.shape)
    middle = np.median(height[half])
    return half & (height > middle if upper else height <= middle)


def with_effusion(volume: Volume, lung: np.ndarray, sides: tuple[str, ...], depth_mm: float) -> Disease:
    """Fill the back of the lungs with fluid up to a level, `depth_mm` above the deepest point."""
    fluid = np.zeros_like(lung)
    for side in sides:
        half = side_of(lung, side)
        level = box_around(half)[1].stop - depth_mm / volume.spacing_mm[1]
        fluid |= half & (np.arange(lung.shape[1])[:, None] >= level)
    return Disease(_drawn(volume, fluid, FLUID_HU), fluid, lung)


def with_white_lung(volume: Volume, lung: np.ndarray, side: str) -> Disease:
    """A lung without air."""
    white = side_of(lung, side)
    return Disease(_drawn(volume, white, LOBE_HU), white, lung)


def fields(volume: Volume, lung: np.ndarray) -> Iterator[tuple[str, Volume, np.ndarray]]:
    """Name, volume and lung of tight fields of view cut from a CT, and of a CT with a hole in the chest wall."""
    box = box_around(lung)
    _, dy, dx = volume.spacing_mm
    my, mx = ((b.start + b.stop) // 2 for b in box[1:])
    for size_mm in (260, 255, 250, 245, 240):
        part = (slice(None), _around(my, size_mm / dy, lung.shape[1]), _around(mx, size_mm / dx, lung.shape[2]))
        yield f"square {size_mm} mm", Volume(np.ascontiguousarray(volume.hu[part]), volume.spacing_mm), lung[part]
        inside = np.zeros(lung.shape[1:], dtype=bool)
        inside[part[1:]] = True
        yield f"square {size_mm} mm, padded", _padded(volume, inside), lung & inside
    y, x = np.ogrid[: lung.shape[1], : lung.shape[2]]
    disc = np.hypot((y - my) * dy, (x - mx) * dx) <= 130
    yield "disc 260 mm", _padded(volume, disc), lung & disc
    for name, part in {
        "cut 14 mm on the right": np.s_[:, :, box[2].start + round(14 / dx) :],
        "cut 14 mm on the left": np.s_[:, :, : box[2].stop - round(14 / dx)],
        "cut 14 mm at the back": np.s_[:, : box[1].stop - round(14 / dy)],
        "cut 14 mm in front": np.s_[:, box[1].start + round(14 / dy) :],
    }.items():
        yield name, Volume(np.ascontiguousarray(volume.hu[part]), volume.spacing_mm), lung[part]
    holed = volume.hu.copy()
    middle = (box[0].start + box[0].stop) // 2
    z, rows = slice(middle - 20, middle + 21), slice(my - round(15 / dy), my + round(15 / dy))
    wall = (np.arange(lung.shape[2]) < mx) & ~np.maximum.accumulate(
        lung[z, rows], axis=2
    )  # from the border to the lung
    holed[z, rows][wall] = -1000
    yield "a hole in the wall, 41 slices", Volume(holed, volume.spacing_mm), lung


def _around(middle: int, size: float, n: int) -> slice:
    return slice(max(0, round(middle - size / 2)), min(n, round(middle + size / 2)))


def _padded(volume: Volume, inside: np.ndarray) -> Volume:
    return Volume(np.where(inside, volume.hu, np.int16(-1024)), volume.spacing_mm)


def _drawn(volume: Volume, where: np.ndarray, hu: float) -> Volume:
    drawn = volume.hu.copy()
    noise = np.random.default_rng(0).normal(hu, NOISE_HU, np.count_nonzero(where))
    drawn[where] = np.rint(noise).astype(np.int16)
    return Volume(drawn, volume.spacing_mm)


def _anchor(lung: np.ndarray, place: str, side: str, spacing: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Voxel of the lung's surface at a place, and the direction into the lung, (z, y, x)."""
    outward = -1 if side == "right" else 1  # x of the outer wall
    voxels = np.argwhere(lung)
    height = voxels[:, 0].min() + (voxels[:, 0].max() - voxels[:, 0].min()) * 0.5
    middle = voxels[np.abs(voxels[:, 0] - height) * spacing[0] < 3]
    center = middle.mean(axis=0)
    row = middle[np.abs(middle[:, 1] - center[1]) * spacing[1] < 3]
    if place == "lateral wall":
        return row[(row[:, 2] * outward).argmax()], (0, 0, -outward)
    if place == "mediastinum":
        return row[(row[:, 2] * outward).argmin()], (0, 0, outward)
    column = middle[np.abs(middle[:, 2] - center[2]) * spacing[2] < 3]
    if place == "back wall":
        return column[column[:, 1].argmax()], (0, -1, 0)
    if place == "apex":
        return voxels[voxels[:, 0].argmax()], (-1, 0, 0)
    if place == "recess":
        return voxels[voxels[:, 0].argmin()], (1, 0, 0)
    if place == "base":  # the highest point of the diaphragm that has lung all around it
        seen = lung.any(axis=0)
        lowest = np.where(seen, lung.argmax(axis=0), -1)
        inner = ndimage.binary_erosion(seen, iterations=max(1, round(20 / spacing[1])))
        y, x = np.argwhere(inner & (lowest >= np.percentile(lowest[inner], 80))).mean(axis=0).astype(int)
        return np.array([lowest[y, x], y, x]), (1, 0, 0)
    return voxels.mean(axis=0), (0, 0, 0)


def _solid(shape: tuple[int, ...], spacing: np.ndarray, center: np.ndarray, radius_mm: float, seed: int) -> np.ndarray:
    reach = 1.3 * radius_mm
    low = np.maximum(0, np.floor((center - reach) / spacing)).astype(int)
    high = np.minimum(shape, np.ceil((center + reach) / spacing) + 1).astype(int)
    offset = [np.arange(a, b) * s - c for a, b, s, c in zip(low, high, spacing, center, strict=True)]
    offset = np.stack(np.meshgrid(*offset, indexing="ij"), axis=-1)
    distance = np.linalg.norm(offset, axis=-1)
    limit = np.full(distance.shape, radius_mm)
    if seed:
        bumps = np.random.default_rng(seed).normal(size=(8, 3))
        bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
        cosine = (offset / np.maximum(distance, 1e-6)[..., None]) @ bumps.T
        bumpy = np.exp(6 * (cosine - 1)).sum(axis=-1)
        limit = radius_mm * (0.75 + 0.45 * np.minimum(bumpy, 1))
    solid = np.zeros(shape, dtype=bool)
    solid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = distance <= limit
    return solid
