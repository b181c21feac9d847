"""Anatomy of the phantom: body, lungs, parenchyma, vessels and airways.

Lengths are those of a body of scale 1, whose lungs hold about 4.5 L; `scale` stretches them all.
"""

import dataclasses

import numpy as np
import torch
from numpy.random import Generator

BLOOD_HU, WALL_HU, LUMEN_HU = 45.0, 30.0, -990.0
Patient = dict[str, float]  # what was drawn of one, by name


@dataclasses.dataclass(frozen=True)
class Space:
    """Voxel grid of one scan with broadcastable coordinates in mm."""

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    def axes(self) -> list[np.ndarray]:
        """Coordinates z (Z,1,1), y (1,Y,1), x (1,1,X) in mm, 0 in the middle."""
        vectors = [
            (np.arange(n, dtype=np.float32) - (n - 1) / 2) * s for n, s in zip(self.shape, self.spacing_mm, strict=True)
        ]
        return [v.reshape([-1 if axis == k else 1 for k in range(3)]) for axis, v in enumerate(vectors)]

    def index(self, points_mm: np.ndarray) -> np.ndarray:
        """Nearest voxel (n, 3) of points (n, 3) in mm; may lie outside."""
        middle = (np.array(self.shape) - 1) / 2
        return np.rint(points_mm / np.array(self.spacing_mm) + middle).astype(np.int64)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000


def body_scale(patient: Patient) -> float:
    """Scale at which the lungs hold the patient's volume."""
    coarse = Space((52, 46, 60), (6.0, 6.0, 6.0))
    volume_l = lungs_of(coarse, patient, 1.0).sum() * coarse.voxel_ml / 1000
    return float((patient["target_volume_l"] / volume_l) ** (1 / 3))


def lungs_of(space: Space, patient: Patient, scale: float) -> np.ndarray:
    """Lungs, bool (Z, Y, X)."""
    z, y, x = (axis / scale for axis in space.axes())
    height = np.clip((z + 120) / 245, 0, 1)  # 0 at the base, 1 at the apex
    taper = np.sqrt(1 - height**2.6)
    lungs = np.zeros(space.shape, bool)
    for side, lift in ((-1, 12.0), (1, 0.0)):  # the right dome stands higher
        u = (x - side * (74 - 26 * height)) / (66 * taper + 1e-3)
        v = (y - 4 - 6 * height) / (88 * taper + 1e-3)
        dome = -112 + lift + patient["dome_mm"] * np.clip(1.1 - u**2 - v**2, 0, None)
        lungs |= (np.abs(u) ** 2.3 + np.abs(v) ** 2.3 < 1) & (z > dome) & (z < 125)
    heart = ((x - 24) / 62) ** 2 + ((y + 34) / 50) ** 2 + ((z + 62) / 62) ** 2 < 1
    spine = (x / 30) ** 2 + ((y - 78) / 34) ** 2 < 1
    return lungs & ~heart & ~spine & (np.abs(x) > 17)


def body_of(space: Space, lung: np.ndarray, patient: Patient, scale: float) -> np.ndarray:
    """Body around the lungs, and the table, in HU, float32 (Z, Y, X)."""
    z, y, x = (axis / scale for axis in space.axes())
    hu = np.full(space.shape, -1000, np.float32)
    thorax = (np.abs(x) / 146) ** 2.4 + (np.abs(y - 4) / 96) ** 2.4  # 1 on the inner chest wall
    shell_mm = (thorax ** (1 / 2.4) - 1) * 110
    hu[np.broadcast_to(shell_mm < 20 + patient["fat_mm"], space.shape)] = -95
    hu[np.broadcast_to(shell_mm < 20, space.shape)] = 45
    rib = (shell_mm > 4) & (shell_mm < 13) & (np.mod(z + 0.35 * y, 27) < 10)
    hu[rib & (z > -130)] = 330
    spine = (x / 19) ** 2 + ((y - 80) / 17) ** 2 < 1
    hu[spine & (np.mod(z, 29) > 6)] = 190
    hu[np.broadcast_to((np.abs(x) < 17) & (np.abs(y + 98) < 6), space.shape) & (z > -60)] = 200  # sternum
    hu[np.broadcast_to((x - 16) ** 2 + (y - 52) ** 2 < 12**2, space.shape) & ~lung] = 55  # descending aorta
    hu[np.broadcast_to((np.abs(y - 133) < 4) & (np.abs(x) < 150), space.shape) & (hu < -900)] = -300  # table
    return hu


def parenchyma(space: Space, lung: np.ndarray, patient: Patient, generator: Generator) -> np.ndarray:
    """Lung tissue with trapped air (asthma) and destruction (emphysema), in HU, (Z, Y, X)."""
    z, y, _ = space.axes()
    hu = np.float32(patient["parenchyma_hu"]) + np.float32(0.16) * y  # denser at the back of a patient lying supine
    hu = hu + np.float32(9) * _field(space, 11, generator)
    trapped = _above_quantile(_field(space, 26, generator), lung, patient["trapped"])
    contrast = min(1.0, 3 * patient["trapped"])
    hu += np.where(trapped, np.float32(-69 * contrast), np.float32(16 * contrast))
    destroyed = _field(space, 8, generator) + np.float32(0.009) * np.clip(z, -60, 90)  # upper lobes more
    np.maximum(hu, np.float32(-940), out=hu)
    hu[_above_quantile(destroyed, lung, patient["low_attenuation"])] = -982
    return hu


def _field(space: Space, length_mm: float, generator: Generator) -> np.ndarray:
    """Smooth random field of unit variance at its nodes, `length_mm` apart."""
    nodes = [max(2, int(np.ceil(n * s / length_mm))) for n, s in zip(space.shape, space.spacing_mm, strict=True)]
    values = torch.from_numpy(generator.standard_normal(nodes, dtype=np.float32))[None, None]
    return torch.nn.functional.interpolate(values, space.shape, mode="trilinear", align_corners=True)[0, 0].numpy()


def _above_quantile(field: np.ndarray, lung: np.ndarray, fraction: float) -> np.ndarray:
    inside = field[lung]
    rank = int(np.clip(len(inside) * (1 - fraction), 0, len(inside) - 1))
    return field > np.partition(inside, rank)[rank]


def add_trees(
    hu: np.ndarray, space: Space, lung: np.ndarray, patient: Patient, scale: float, generator: Generator
) -> np.ndarray:
    """Draw vessels, then airways with lumen and wall, into `hu`; return where branches of airways end, (n, 3) mm."""
    carina = np.array([[28.0, 14.0, 0.0]]) * scale
    voxels = np.column_stack(np.nonzero(lung))
    offset = voxels - (np.array(space.shape) - 1) / 2
    vessels, airways = [], [_tubes(carina + np.array([130.0 * scale, 0, 0]), carina, 8.0, 1.5)]
    for side in (-1, 1):
        hilum = np.array([8.0, 14.0, side * 26.0]) * scale
        ends = generator.choice(offset[offset[:, 2] * side > 0], 230) + generator.uniform(-0.5, 0.5, (230, 3))
        vessels.append(_tubes(*_tree(ends[:170] * space.spacing_mm, hilum, terminal_mm=0.62, exponent=2.7), 0.0))
        starts, stops, radius = _tree(ends[170:] * space.spacing_mm, hilum, terminal_mm=0.8, exponent=2.4)
        airways.append(_tubes(starts, stops, radius, patient["wall_thickness_mm"] * np.sqrt(radius / 2.5)))
        airways.append(_tubes(carina, hilum[None], 6.0, 1.3))
    starts, stops, radius, _ = (np.concatenate(parts) for parts in zip(*vessels, strict=True))
    _blend(hu, _occupancy(space, starts, stops, 0 * radius, radius, generator), BLOOD_HU)
    starts, stops, radius, wall = (np.concatenate(parts) for parts in zip(*airways, strict=True))
    _blend(hu, _occupancy(space, starts, stops, radius, radius + wall, generator), WALL_HU)
    _blend(hu, _occupancy(space, starts, stops, 0 * radius, radius, generator), LUMEN_HU)
    return stops


def _tubes(
    starts: np.ndarray, stops: np.ndarray, radius: np.ndarray | float, wall: np.ndarray | float
) -> tuple[np.ndarray, ...]:
    """Starts and stops (n, 3), lumen radius and wall (n,), all in mm."""
    radius, wall = (np.broadcast_to(value, len(starts)) for value in (radius, wall))
    return starts, stops, radius, wall


def _tree(ends: np.ndarray, root: np.ndarray, *, terminal_mm: float, exponent: float) -> tuple[np.ndarray, ...]:
    """Grow a tree from the root to all ends: starts (n, 3), stops (n, 3) in mm, lumen radius (n,) by Murray's law."""
    ends = ends[np.argsort(np.linalg.norm(ends - root, axis=1))]
    nodes = np.vstack([root, ends])
    reach = np.linalg.norm(nodes - root, axis=1)
    parent = np.zeros(len(nodes), int)
    for k in range(1, len(nodes)):  # short branches, and no long detours from the root
        cost = np.linalg.norm(nodes[:k] - nodes[k], axis=1) + 0.35 * reach[:k]
        parent[k] = np.argmin(cost)
    flow = np.full(len(nodes), terminal_mm**exponent)
    for k in range(len(nodes) - 1, 0, -1):
        flow[parent[k]] += flow[k]
    return nodes[parent[1:]], nodes[1:], flow[1:] ** (1 / exponent)


def _blend(hu: np.ndarray, occupancy: np.ndarray, value_hu: float) -> None:
    touched = occupancy > 0
    hu[touched] += (value_hu - hu[touched]) * occupancy[touched]


def _occupancy(
    space: Space, starts: np.ndarray, stops: np.ndarray, inner: np.ndarray, outer: np.ndarray, generator: Generator
) -> np.ndarray:
    """Fraction of each voxel (Z, Y, X) inside hollow cylinders, by points drawn uniformly in them."""
    along = stops - starts
    length = np.linalg.norm(along, axis=1)
    volume = np.pi * (outer**2 - inner**2) * length / (1000 * space.voxel_ml)  # voxels
    n_points = np.ceil(volume * 12 + 4).astype(int)
    tube = np.repeat(np.arange(len(starts)), n_points)
    t, angle, area = generator.random((3, len(tube)))
    r = np.sqrt(inner[tube] ** 2 + area * (outer[tube] ** 2 - inner[tube] ** 2))[:, None]
    side, up = _perpendicular(along / length[:, None])
    angle = 2 * np.pi * angle[:, None]
    points = starts[tube] + t[:, None] * along[tube] + r * (np.cos(angle) * side[tube] + np.sin(angle) * up[tube])
    voxel = space.index(points)
    inside = ((voxel >= 0) & (voxel < space.shape)).all(axis=1)
    flat = np.ravel_multi_index(tuple(voxel[inside].T), space.shape)
    counts = np.bincount(flat, (volume / n_points)[tube][inside], minlength=int(np.prod(space.shape)))
    return np.minimum(counts, 1).reshape(space.shape).astype(np.float32)


def _perpendicular(direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    helper = np.where(np.abs(direction[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    side = np.cross(direction, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    return side, np.cross(direction, side)
