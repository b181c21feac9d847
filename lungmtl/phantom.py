"""Synthetic chest CTs with known truth: anatomy drawn per patient, voxels computed, files and cohort table written.

Coordinates are millimetres from the middle of the volume, LPS: x to the patient's left, y to the back, z to the head.
Arrays are (Z, Y, X), intensities HU. Every scan has its own generator, seeded by (seed, index), so that a cohort can be
made in any order, in parallel, and completed after a kill. Difficulty was fixed before any policy was compared.

Sources: nodule diameters and irregularities are fits to the readers' contours of LIDC-IDRI (doi
10.7937/K9/TCIA.2015.LO9QL9SX; 691 annotations of malignancy 5, 2,600 of 1 or 2). All other numbers without a
source are chosen by us so that volumes, densities and wall figures lie in the range that reviews of quantitative CT
give (lungs 3 to 6 L, parenchyma near -850 HU, LAA-950 below 6 % without and 6 to 35 % with emphysema, wall area 50 to
75 %).
"""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813
import torch
from scipy import ndimage
from tqdm import tqdm

from lungmtl import volumes
from lungmtl.config import CENTRAL_TASK, TASKS

CODE_VERSION = 1  # raise it when a change alters the voxels: old cohorts are then left alone and a new one is made
TRUTH_LUNG, TRUTH_MALIGNANT, TRUTH_BENIGN = 1, 2, 3  # labels of truth/<scan>.nii.gz; 2 and 3 lie in the lung, too
BLANK_FRACTION = 0.03  # auxiliary answers that were not given

# log-odds: intercept and slope on the latent exposure (a standard normal); enriched, not a screening prevalence
LABEL_ODDS = {
    "lung_cancer": (-0.45, 0.7),
    "asthma": (-1.0, 0.15),
    "chronic_bronchitis": (-0.9, 0.7),
    "copd": (-0.75, 0.9),
    "emphysema": (-0.5, 1.0),
}
# natural log of mm, and of the radial coefficient of variation: mean, standard deviation (fits to LIDC-IDRI)
MALIGNANT_DIAMETER, MALIGNANT_IRREGULARITY = (3.020, 0.428), (-1.678, 0.482)
BENIGN_DIAMETER, BENIGN_IRREGULARITY = (2.060, 0.396), (-1.874, 0.414)
MALIGNANT_RANGE_MM, BENIGN_RANGE_MM = (8.0, 30.0), (4.0, 14.0)
BLOOD_HU, WALL_HU, LUMEN_HU = 45.0, 30.0, -990.0
N_BENIGN = 1.0  # mean count of benign look-alikes per scan, in both classes
CALCIFIED_FRACTION, GROUND_GLASS_FRACTION = 0.31, 0.12  # of benign nodules; of all others (LIDC-IDRI)


@dataclasses.dataclass(frozen=True)
class Nodule:
    """One nodule: where, how large, how irregular, how dense."""

    center_mm: np.ndarray  # (z, y, x)
    diameter_mm: float  # largest in-plane extent
    irregularity: float  # coefficient of variation of the radius
    hu: float
    malignant: bool


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


def cohort_dir(
    cache_dir: str | Path, *, n_train: int, n_validation: int, n_test: int, seed: int, label_noise: float
) -> Path:
    """Folder of the cohort with these settings inside the cache, the same on every call."""
    key = json.dumps([CODE_VERSION, n_train, n_validation, n_test, seed, label_noise])
    return Path(cache_dir) / f"phantom-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def make_cohort(
    folder: str | Path,
    *,
    n_train: int,
    n_validation: int,
    n_test: int,
    seed: int,
    label_noise: float,
    workers: int = 1,
    progress: bool = True,
) -> Path:
    """Write a phantom cohort; a complete one is left as it is, a started one is completed.

    Args:
        folder: Where images/, truth/, truth.csv and, last, cohort.csv are written.
        n_train, n_validation, n_test: Scans per split, one scan per patient.
        seed: Seeds every draw; the same seed gives the same voxels and labels.
        label_noise: Chance that an auxiliary diagnosis column is recorded wrongly.
        workers: Processes.
        progress: Show a bar.
    Returns:
        Path of cohort.csv.
    """
    folder = Path(folder)
    table_path = folder / "cohort.csv"
    if table_path.exists():
        return table_path
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    splits = np.repeat(["train", "validation", "test"], [n_train, n_validation, n_test])
    jobs = [(folder, seed, index) for index in range(len(splits))]
    rows = tqdm(
        volumes.run_jobs(_make_scan, jobs, workers=workers),
        total=len(jobs),
        desc="phantom scans",
        unit="scan",
        disable=not progress,
    )
    truth = pd.DataFrame(sorted(rows, key=lambda row: row["scan"]))
    _write_table(truth, folder / "truth.csv")
    _write_table(diagnoses(truth, seed=seed, label_noise=label_noise).assign(split=splits), table_path)
    return table_path


def diagnoses(truth: pd.DataFrame, *, seed: int, label_noise: float) -> pd.DataFrame:
    """Cohort table from the truth: auxiliary columns with wrong and missing answers, lung cancer as it is.

    Args:
        truth: One row per scan with `scan` and true_<task>.
        seed: Seeds the wrong and the missing answers.
        label_noise: Chance that an auxiliary answer is wrong.
    Returns:
        scan, patient, image and the five label columns (1, 0 or blank).
    """
    generator = np.random.default_rng([seed, 1_000_003])
    table = pd.DataFrame({"scan": truth["scan"]})
    table["patient"] = table["scan"].str.replace("s", "p")
    table["image"] = "images/" + table["scan"] + ".nii.gz"
    for task in TASKS:
        wrong, blank = generator.random((2, len(truth)))
        answer = truth[f"true_{task}"].astype("Int64")
        if task != CENTRAL_TASK:
            answer = (answer ^ (wrong < label_noise).astype(int)).mask(blank < BLANK_FRACTION)
        table[task] = answer
    return table


def draw_patient(generator: np.random.Generator) -> dict[str, float]:
    """Labels, severities and acquisition of one patient, coupled by a latent exposure.

    Returns:
        exposure, true_<task> (0 or 1), severity_<task> (0 to 1) and the drawn anatomy, units in the names.
    """
    exposure = generator.normal()
    patient: dict[str, float] = {"exposure": exposure}
    for task, (intercept, slope) in LABEL_ODDS.items():
        patient[f"true_{task}"] = int(generator.random() < 1 / (1 + np.exp(-(intercept + slope * exposure))))
        ill, subclinical = generator.uniform(0.3, 1.0), generator.beta(1.2, 8.0)
        patient[f"severity_{task}"] = ill if patient[f"true_{task}"] else subclinical
    copd, bronchitis = patient["severity_copd"], patient["severity_chronic_bronchitis"]
    patient["target_volume_l"] = float(np.clip(generator.normal(4.2, 0.5) * (1 + 0.25 * copd), 3.1, 5.9))
    patient["dome_mm"] = generator.uniform(38, 52) * (1 - 0.5 * copd)
    patient["parenchyma_hu"] = generator.normal(-842, 9) - 28 * copd
    patient["wall_thickness_mm"] = generator.normal(1.15, 0.10) + 1.0 * bronchitis
    patient["low_attenuation"] = generator.uniform(0.002, 0.015) + 0.26 * patient["severity_emphysema"] ** 1.3
    patient["trapped"] = 0.45 * patient["severity_asthma"]
    patient["noise_hu"] = generator.uniform(18, 45)
    patient["fat_mm"] = generator.uniform(8, 28)
    return patient


def make_volume(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Space, dict[str, float]]:
    """Draw a patient and compute the scan.

    Returns:
        HU int16 (Z, Y, X); truth labels uint8, same shape; the grid; the truth, one number per name.
    """
    patient = draw_patient(generator)
    in_plane, slice_mm = generator.uniform(2.2, 3.0), generator.choice([2.5, 3.0, 3.5])
    scale = _body_scale(patient)
    extent_mm = np.array([312, 272, 352]) * scale
    spacing_mm = (float(slice_mm), float(in_plane), float(in_plane))
    space = Space(tuple(int(n) for n in np.ceil(extent_mm / spacing_mm)), spacing_mm)
    lung = _lungs(space, patient, scale)
    hu = _body(space, lung, patient, scale)
    np.copyto(hu, _parenchyma(space, lung, patient, generator), where=lung)
    _add_trees(hu, space, lung, patient, scale, generator)
    labels = lung.astype(np.uint8)
    nodules = _add_nodules(hu, labels, space, patient, generator)
    patient |= _measure(hu, labels, space, nodules)
    return _acquire(hu, patient, generator), labels, space, patient


def _make_scan(job: tuple[Path, int, int]) -> dict[str, Any]:
    folder, seed, index = job
    scan = f"s{index:05d}"
    record = folder / "truth" / f"{scan}.json"
    if record.exists():
        return json.loads(record.read_text())
    generator = np.random.default_rng([seed, index])
    hu, labels, space, truth = make_volume(generator)
    orientation = str(generator.choice(["LPS", "RAS", "LAS", "RPI"]))
    _write_image(hu, space, folder / "images" / f"{scan}.nii.gz", orientation)
    _write_image(labels, space, folder / "truth" / f"{scan}.nii.gz", orientation)
    row = {"scan": scan} | {name: round(float(value), 5) for name, value in truth.items()}
    _replace(record, json.dumps(row))
    return row


def _write_image(array: np.ndarray, space: Space, path: Path, orientation: str) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(space.spacing_mm)])
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(reversed(space.shape), reversed(space.spacing_mm), strict=True)])
    part = path.with_name(f".{os.getpid()}-{path.name}")
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(part), useCompression=True, compressionLevel=1)
    part.replace(path)


def _write_table(table: pd.DataFrame, path: Path) -> None:
    _replace(path, table.to_csv(index=False))


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{os.getpid()}-{path.name}")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


# Anatomy ------------------------------------------------------------------------------------------------------------
# Lengths are those of a body of scale 1, whose lungs hold about 4.5 L; `scale` stretches them all.


def _body_scale(patient: dict[str, float]) -> float:
    coarse = Space((52, 46, 60), (6.0, 6.0, 6.0))
    volume_l = _lungs(coarse, patient, 1.0).sum() * coarse.voxel_ml / 1000
    return float((patient["target_volume_l"] / volume_l) ** (1 / 3))


def _lungs(space: Space, patient: dict[str, float], scale: float) -> np.ndarray:
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


def _body(space: Space, lung: np.ndarray, patient: dict[str, float], scale: float) -> np.ndarray:
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


def _parenchyma(
    space: Space, lung: np.ndarray, patient: dict[str, float], generator: np.random.Generator
) -> np.ndarray:
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


def _field(space: Space, length_mm: float, generator: np.random.Generator) -> np.ndarray:
    """Smooth random field of unit variance at its nodes, `length_mm` apart."""
    nodes = [max(2, int(np.ceil(n * s / length_mm))) for n, s in zip(space.shape, space.spacing_mm, strict=True)]
    values = torch.from_numpy(generator.standard_normal(nodes, dtype=np.float32))[None, None]
    return torch.nn.functional.interpolate(values, space.shape, mode="trilinear", align_corners=True)[0, 0].numpy()


def _above_quantile(field: np.ndarray, lung: np.ndarray, fraction: float) -> np.ndarray:
    inside = field[lung]
    rank = int(np.clip(len(inside) * (1 - fraction), 0, len(inside) - 1))
    return field > np.partition(inside, rank)[rank]


def _add_trees(
    hu: np.ndarray,
    space: Space,
    lung: np.ndarray,
    patient: dict[str, float],
    scale: float,
    generator: np.random.Generator,
) -> None:
    """Draw vessels, then airways with lumen and wall, into `hu`."""
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
    space: Space,
    starts: np.ndarray,
    stops: np.ndarray,
    inner: np.ndarray,
    outer: np.ndarray,
    generator: np.random.Generator,
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


# Nodules ------------------------------------------------------------------------------------------------------------


def _add_nodules(
    hu: np.ndarray, labels: np.ndarray, space: Space, patient: dict[str, float], generator: np.random.Generator
) -> list[Nodule]:
    lung = np.argwhere(labels == TRUTH_LUNG)
    malignant = [True] * int(patient["true_lung_cancer"])
    benign = [False] * generator.poisson(N_BENIGN)
    nodules = [_draw_nodule(lung, space, is_malignant, generator) for is_malignant in benign + malignant]
    for nodule in nodules:
        _draw_into(hu, labels, space, nodule, generator)
    return nodules


def _draw_nodule(lung: np.ndarray, space: Space, malignant: bool, generator: np.random.Generator) -> Nodule:
    diameter = MALIGNANT_DIAMETER if malignant else BENIGN_DIAMETER
    irregularity = MALIGNANT_IRREGULARITY if malignant else BENIGN_IRREGULARITY
    center = generator.choice(lung) - (np.array(space.shape) - 1) / 2
    solid_hu = generator.normal(35, 15)
    if generator.random() < GROUND_GLASS_FRACTION:
        solid_hu = generator.uniform(-650, -350)
    elif not malignant and generator.random() < CALCIFIED_FRACTION:
        solid_hu = generator.uniform(250, 700)
    return Nodule(
        center_mm=center * space.spacing_mm,
        diameter_mm=_lognormal(generator, diameter, MALIGNANT_RANGE_MM if malignant else BENIGN_RANGE_MM),
        irregularity=_lognormal(generator, irregularity, (0.04, 0.45)),
        hu=solid_hu,
        malignant=malignant,
    )


def _lognormal(generator: np.random.Generator, log: tuple[float, float], limits: tuple[float, float]) -> float:
    """Draw from a log-normal distribution, again until inside the limits."""
    value = np.exp(generator.normal(*log))
    return float(value) if limits[0] <= value <= limits[1] else _lognormal(generator, log, limits)


def _draw_into(
    hu: np.ndarray, labels: np.ndarray, space: Space, nodule: Nodule, generator: np.random.Generator
) -> None:
    """Blend a star-shaped nodule with a bumpy surface into `hu` and mark it in `labels`, inside the lung only."""
    bumps = generator.standard_normal((10, 3))
    bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
    heights = generator.standard_normal(10)
    reach = np.ceil(0.75 * nodule.diameter_mm / np.array(space.spacing_mm)).astype(int) + 1
    middle = space.index(nodule.center_mm[None])[0]
    low, high = np.maximum(middle - reach, 0), np.minimum(middle + reach + 1, space.shape)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    inside = _star(space, low, high, nodule, bumps, heights) * (labels[box] > 0)
    hu[box] += (nodule.hu - hu[box]) * inside
    labels[box][inside >= 0.5] = TRUTH_MALIGNANT if nodule.malignant else TRUTH_BENIGN


def _star(
    space: Space, low: np.ndarray, high: np.ndarray, nodule: Nodule, bumps: np.ndarray, heights: np.ndarray
) -> np.ndarray:
    """Fraction of each voxel of a box inside the nodule, from 3 x 3 x 3 points per voxel."""
    fine = [np.arange(a, b, 1 / 3) - 1 / 3 - (n - 1) / 2 for a, b, n in zip(low, high, space.shape, strict=True)]
    grids = np.meshgrid(
        *[f * s - c for f, s, c in zip(fine, space.spacing_mm, nodule.center_mm, strict=True)], indexing="ij"
    )
    offset = np.stack(grids, axis=-1)
    distance = np.linalg.norm(offset, axis=-1)
    unit = offset / np.maximum(distance, 1e-6)[..., None]
    inside = distance < _radius_mm(nodule, bumps, heights, unit)
    shape = [n for pair in zip(high - low, (3, 3, 3), strict=True) for n in pair]
    return inside.reshape(shape).mean(axis=(1, 3, 5)).astype(np.float32)


def _radius_mm(nodule: Nodule, bumps: np.ndarray, heights: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Radius in each direction: its coefficient of variation is the irregularity, its largest chord the diameter."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    ring = np.column_stack([np.zeros(72), np.sin(angle), np.cos(angle)])

    def bumpy(direction: np.ndarray) -> np.ndarray:
        return (np.maximum(direction @ bumps.T, 0) ** 6) @ heights

    outline = bumpy(ring)
    mean, spread = outline.mean(), max(outline.std(), 1e-3)

    def relative(bump: np.ndarray) -> np.ndarray:
        return np.clip(1 + nodule.irregularity * (bump - mean) / spread, 0.4, 1.9)

    chord = relative(outline) + np.roll(relative(outline), 36)
    return nodule.diameter_mm / chord.max() * relative(bumpy(unit))


# Truth and acquisition ----------------------------------------------------------------------------------------------


def _measure(hu: np.ndarray, labels: np.ndarray, space: Space, nodules: list[Nodule]) -> dict[str, float]:
    """Figures of the noise-free scan."""
    lung = hu[labels > 0]
    malignant = [n for n in nodules if n.malignant]
    benign = [n for n in nodules if not n.malignant]
    return {
        "lung_volume_l": lung.size * space.voxel_ml / 1000,
        "mean_lung_hu": float(lung.mean()),
        "laa950": float((lung < -950).mean()),
        "diameter_mm": max((n.diameter_mm for n in malignant), default=np.nan),
        "irregularity": max((n.irregularity for n in malignant), default=np.nan),
        "n_benign": len(benign),
        "benign_diameter_mm": max((n.diameter_mm for n in benign), default=np.nan),
    }


def _acquire(hu: np.ndarray, patient: dict[str, float], generator: np.random.Generator) -> np.ndarray:
    """Blur by the scanner, add correlated noise, clip to what scanners store."""
    blurred = ndimage.gaussian_filter(hu, 0.55, truncate=3)
    noise = ndimage.gaussian_filter(generator.standard_normal(hu.shape, dtype=np.float32), 0.6, truncate=3)
    return np.clip(np.rint(blurred + noise * (patient["noise_hu"] / noise.std())), -1024, 3071).astype(np.int16)
