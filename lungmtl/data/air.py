"""Air: the lungs of a region as far as they hold air, what a check measures."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from lungmtl.data.grid import box_around
from lungmtl.data.lungs import CLOSING_MM, GAS_HU, Lungs, blocks_of, closed, voxels_of, within
from lungmtl.data.region import Region
from lungmtl.data.volume import Volume

POOL_MM = 8.0  # chosen by us: emphysema is pierced by vessels and septa at less than twice that


def aerated(volume: Volume, region: Region) -> tuple[Lungs, float]:
    """The lungs as far as they hold air, and how much of it, in litres, is in one pool as dark as gas.

    A region's air, closed as the tight mask of `find_lungs` is.
    """
    blocks = blocks_of(volume)
    box = box_around(region.air, margin=[math.ceil(CLOSING_MM / s) + 1 for s in blocks.spacing_mm])
    lungs = np.zeros_like(region.air)
    lungs[box] = closed(region.air[box], blocks.spacing_mm)
    part = tuple(slice(b.start // f, b.stop // f) for b, f in zip(region.box, blocks.factors, strict=True))
    cavity = np.zeros_like(lungs)
    fz, fy, fx = blocks.factors
    cavity[part] = region.mask[::fz, ::fy, ::fx]
    return voxels_of(volume, lungs & cavity, blocks), _pool_l(region.air & (blocks.hu <= GAS_HU), blocks.spacing_mm)


def _pool_l(dark: np.ndarray, spacing_mm: Sequence[float]) -> float:
    """Litres of the largest piece of a mask that is nowhere thinner than 2 POOL_MM."""
    labels, n = ndimage.label(~within(~dark, POOL_MM, spacing_mm) & dark)
    if n == 0:
        return 0.0
    pool = within(labels == np.bincount(labels[labels > 0]).argmax(), POOL_MM, spacing_mm) & dark
    return float(np.count_nonzero(pool)) * math.prod(spacing_mm) * 1e-6
