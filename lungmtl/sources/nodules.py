"""Nodules of the phantom: sizes, shapes and densities, drawn into the lungs."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr

from lungmtl.sources.anatomy import Patient, Space
from lungmtl.sources.phantom_settings import Knobs

TRUTH_LUNG, TRUTH_MALIGNANT, TRUTH_BENIGN = 1, 2, 3  # labels of truth/<scan>.nii.gz; 2 and 3 lie in the lung, too
# natural log of mm, and of the radial coefficient of variation: mean, standard deviation (fits to LIDC-IDRI)
MALIGNANT_DIAMETER, MALIGNANT_IRREGULARITY = (3.020, 0.428), (-1.678, 0.482)
BENIGN_DIAMETER, BENIGN_IRREGULARITY = (2.060, 0.396), (-1.874, 0.414)
MALIGNANT_RANGE_MM, BENIGN_RANGE_MM = (8.0, 30.0), (4.0, 14.0)
N_BENIGN = 1.0  # mean count of benign look-alikes per scan, in both classes
CALCIFIED_FRACTION, GROUND_GLASS_FRACTION = 0.31, 0.12  # of benign nodules; of all others (LIDC-IDRI)
IRREGULARITY_RANGE = (0.04, 0.45)
MASS_RANGE_MM = (30.0, 50.0)  # of masses at the wall; a mass is larger than 30 mm (Fleischner glossary)
MAX_LOG_RATIO = 20.0  # stands for certainty


@dataclasses.dataclass(frozen=True)
class Nodule:
    """One nodule: where, how large, how irregular, how dense."""

    center_mm: np.ndarray  # (z, y, x)
    diameter_mm: float  # largest in-plane extent
    irregularity: float  # coefficient of variation of the radius
    hu: float
    malignant: bool


def draw_nodules(
    lung: np.ndarray, space: Space, patient: Patient, knobs: Knobs, generator: Generator, own: Generator
) -> list[Nodule]:
    """Draw benign look-alikes and, if the patient has lung cancer that can be seen, a malignant nodule.

    Args:
        lung: Voxels of the lungs, (n, 3), in the order of `argwhere`.
        own: Generator of what the knobs draw, so that they move nothing else.
    """
    visible = own.random() >= knobs.invisible
    malignant = [True] * int(patient["true_lung_cancer"] and visible)
    benign = [False] * generator.poisson(N_BENIGN)
    nodules = [_draw_nodule(lung, space, is_malignant, generator) for is_malignant in benign + malignant]
    if malignant and own.random() < knobs.wall_masses:
        nodules[-1] = _at_wall(nodules[-1], lung, space, own)
    return nodules


def add_nodules(
    hu: np.ndarray, labels: np.ndarray, space: Space, nodules: Sequence[Nodule], generator: Generator
) -> None:
    """Draw nodules into `hu` and `labels`."""
    for nodule in nodules:
        _draw_into(hu, labels, space, nodule, generator)


def nodule_log_ratio(nodules: Sequence[Nodule], knobs: Knobs) -> float:
    """Log likelihood ratio of lung cancer for a reader who sees all nodules without error, but not which is malignant.

    Benign nodules are a Poisson process of mean `N_BENIGN` with and without cancer, so the ratio is `invisible`, plus
    `1 - invisible` times the sum over nodules of malignant density by `N_BENIGN` times benign density, in diameter,
    irregularity and attenuation (calcified, ground glass or solid). Never beyond +-`MAX_LOG_RATIO`.
    """
    ratio = knobs.invisible + (1 - knobs.invisible) * sum(_density_ratio(nodule, knobs) for nodule in nodules)
    return float(np.clip(math.log(max(ratio, 1e-300)), -MAX_LOG_RATIO, MAX_LOG_RATIO))


def _density_ratio(nodule: Nodule, knobs: Knobs) -> float:
    size, shape, is_calcified = nodule.diameter_mm, nodule.irregularity, nodule.hu > 150
    benign = N_BENIGN * _density(size, BENIGN_DIAMETER, BENIGN_RANGE_MM)
    benign *= _density(shape, BENIGN_IRREGULARITY, IRREGULARITY_RANGE)
    malignant = (1 - knobs.wall_masses) * _density(size, MALIGNANT_DIAMETER, MALIGNANT_RANGE_MM)
    malignant *= _density(shape, MALIGNANT_IRREGULARITY, IRREGULARITY_RANGE) * (not is_calcified)
    if nodule.hu > -200:  # not ground glass, which is as frequent in both
        benign *= CALCIFIED_FRACTION if is_calcified else 1 - CALCIFIED_FRACTION
    return malignant / benign if benign else math.inf


def _density(value: float, log: tuple[float, float], limits: tuple[float, float]) -> float:
    """Density of `_lognormal` by the logarithm, but for a factor that all have."""
    if not limits[0] <= value <= limits[1]:
        return 0.0
    mean, deviation = log
    low, high = ndtr((np.log(limits) - mean) / deviation)
    return math.exp(-(((math.log(value) - mean) / deviation) ** 2) / 2) / (deviation * (high - low))


def _at_wall(nodule: Nodule, lung: np.ndarray, space: Space, generator: Generator) -> Nodule:
    """The nodule as a mass whose middle is the outermost voxel of the lung beside a drawn one."""
    z, y, x = generator.choice(lung)
    row = lung[(lung[:, 0] == z) & (lung[:, 1] == y), 2]
    middle = (np.array(space.shape) - 1) / 2
    outer = row[(row > middle[2]) == (x > middle[2])]
    at = np.array([z, y, outer[np.argmax(np.abs(outer - middle[2]))]])
    center_mm = (at - middle) * space.spacing_mm
    return dataclasses.replace(nodule, center_mm=center_mm, diameter_mm=float(generator.uniform(*MASS_RANGE_MM)))


def _draw_nodule(lung: np.ndarray, space: Space, malignant: bool, generator: Generator) -> Nodule:
    sizes = MALIGNANT_DIAMETER, MALIGNANT_RANGE_MM, MALIGNANT_IRREGULARITY
    diameter, range_mm, irregularity = sizes if malignant else (BENIGN_DIAMETER, BENIGN_RANGE_MM, BENIGN_IRREGULARITY)
    center = generator.choice(lung) - (np.array(space.shape) - 1) / 2
    solid_hu = generator.normal(35, 15)
    if generator.random() < GROUND_GLASS_FRACTION:
        solid_hu = generator.uniform(-650, -350)
    elif not malignant and generator.random() < CALCIFIED_FRACTION:
        solid_hu = generator.uniform(250, 700)
    return Nodule(
        center_mm=center * space.spacing_mm,
        diameter_mm=_lognormal(generator, diameter, range_mm),
        irregularity=_lognormal(generator, irregularity, IRREGULARITY_RANGE),
        hu=solid_hu,
        malignant=malignant,
    )


def _lognormal(generator: Generator, log: tuple[float, float], limits: tuple[float, float]) -> float:
    """Draw from a log-normal distribution, again until inside the limits."""
    value = np.exp(generator.normal(*log))
    return float(value) if limits[0] <= value <= limits[1] else _lognormal(generator, log, limits)


def _draw_into(hu: np.ndarray, labels: np.ndarray, space: Space, nodule: Nodule, generator: Generator) -> None:
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
        """Sum of the bumps that face these directions, (..., 3) to (...)."""
        return (np.maximum(direction @ bumps.T, 0) ** 6) @ heights

    outline = bumpy(ring)
    mean, spread = outline.mean(), max(outline.std(), 1e-3)

    def relative(bump: np.ndarray) -> np.ndarray:
        """Radius relative to the mean, kept positive."""
        return np.clip(1 + nodule.irregularity * (bump - mean) / spread, 0.4, 1.9)

    chord = relative(outline) + np.roll(relative(outline), 36)
    return nodule.diameter_mm / chord.max() * relative(bumpy(unit))
