"""Focal signs of the phantom, at the related end of `relatedness`: bullae for emphysema, mucus plugs for bronchitis.

Both are published signs of these diseases, and both share with nodules what finds them: round, sharp-edged, 6 to 18 mm,
few, in single places. A plug is a soft-tissue ball among vessels as a nodule is, but on an airway and mostly smaller
than a malignant one; a bulla is a thin-walled ring around air. At the unrelated end the signs are diffuse: scattered
low attenuation, thick walls everywhere. In between every scan's amount of sign is split in these two; at 1 no diffuse
part is left. Asthma and COPD have diffuse signs alone. Sizes and counts are chosen by us, so that all survive a grid of
4 mm.

Source: Hansell et al. 2008, Fleischner Society glossary, Radiology 246:697-722, doi 10.1148/radiol.2462070712 (a bulla
measures more than 1 cm, its wall 1 mm or less).
"""

import numpy as np
from numpy.random import Generator

from lungmtl.sources.anatomy import Patient, Space

BULLA_HU, TISSUE_HU = -985.0, 40.0
BULLA_MM, PLUG_MM = (10.0, 18.0), (6.0, 9.0)  # ranges of diameters
BULLA_WALL_MM = 1.0
N_BULLAE, N_PLUGS = 24, 16  # of a scan with the most severe disease, all of it focal
LOW_SHARE, WALL_MM = 0.26, 1.0  # the same, all of it diffuse: share of low attenuation, thicker airway walls


def count_signs(patient: Patient, relatedness: float) -> Patient:
    """How many bullae and plugs a patient has: in proportion to the severity and to its focal share."""
    share = {"n_bullae": (N_BULLAE, "emphysema"), "n_plugs": (N_PLUGS, "chronic_bronchitis")}
    return {name: round(most * relatedness * patient[f"severity_{task}"]) for name, (most, task) in share.items()}


def add_signs(
    hu: np.ndarray, space: Space, lung: np.ndarray, bronchi_mm: np.ndarray, patient: Patient, generator: Generator
) -> None:
    """Draw a patient's bullae anywhere in the lungs, more of them high up, and plugs at ends of bronchi (n, 3)."""
    if n := patient["n_bullae"]:
        voxels = np.argwhere(lung)  # from the base to the apex
        rows = (len(voxels) * generator.random(n) ** 0.5).astype(int)
        centers = (voxels[rows] - (np.array(space.shape) - 1) / 2) * space.spacing_mm
        diameters_mm = generator.uniform(*BULLA_MM, n)
        _add_balls(hu, space, lung, centers, diameters_mm, TISSUE_HU)
        _add_balls(hu, space, lung, centers, diameters_mm - 2 * BULLA_WALL_MM, BULLA_HU)
    if n := patient["n_plugs"]:
        voxels = np.clip(space.index(bronchi_mm), 0, np.array(space.shape) - 1)
        inside = bronchi_mm[lung[tuple(voxels.T)]]
        _add_balls(hu, space, lung, generator.choice(inside, n), generator.uniform(*PLUG_MM, n), TISSUE_HU)


def _add_balls(
    hu: np.ndarray, space: Space, lung: np.ndarray, centers_mm: np.ndarray, diameters_mm: np.ndarray, value_hu: float
) -> None:
    """Blend balls into the lung of `hu`, the edge as wide as a voxel."""
    axes, edge_mm = [axis.ravel() for axis in space.axes()], np.mean(space.spacing_mm)
    for center, radius in zip(centers_mm, diameters_mm / 2, strict=True):
        reach = radius + edge_mm
        box = tuple(slice(*np.searchsorted(a, [c - reach, c + reach])) for a, c in zip(axes, center, strict=True))
        z, y, x = np.ix_(*(a[part] - c for a, part, c in zip(axes, box, center, strict=True)))
        inside = np.clip((radius - np.sqrt(z**2 + y**2 + x**2)) / edge_mm + 0.5, 0, 1) * lung[box]
        hu[box] += (value_hu - hu[box]) * inside
