"""Nodules of the phantom: sizes, shapes and densities, drawn into the lungs."""

import dataclasses

import numpy as np
from numpy.random import Generator

from lungmtl.sources.anatomy import Patient, Space

TRUTH_LUNG, TRUTH_MALIGNANT, TRUTH_BENIGN = 1, 2, 3  # labels of truth/<scan>.nii.gz; 2 and 3 lie in the lung, too
# natural log of mm, and of the radial coefficient of variation: mean, standard deviation (fits to LIDC-IDRI)
MALIGNANT_DIAMETER, MALIGNANT_IRREGULARITY = (3.020, 0.428), (-1.678, 0.482)
BENIGN_DIAMETER, BENIGN_IRREGULARITY = (2.060, 0.396), (-1.874, 0.414)
MALIGNANT_RANGE_MM, BENIGN_RANGE_MM = (8.0, 30.0), (4.0, 14.0)
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


def add_nodules(
    hu: np.ndarray, labels: np.ndarray, space: Space, patient: Patient, generator: Generator
) -> list[Nodule]:
    """Draw nodules into `hu` and `labels`, a malignant one if the patient has lung cancer, and return them."""
    lung = np.argwhere(labels == TRUTH_LUNG)
    malignant = [True] * int(patient["true_lung_cancer"])
    benign = [False] * generator.poisson(N_BENIGN)
    nodules = [_draw_nodule(lung, space, is_malignant, generator) for is_malignant in benign + malignant]
    for nodule in nodules:
        _draw_into(hu, labels, space, nodule, generator)
    return nodules


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
        irregularity=_lognormal(generator, irregularity, (0.04, 0.45)),
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
