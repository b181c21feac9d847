"""Air of a region that may be gas, what a check measures."""

import math

import numpy as np
from scipy import ndimage

from lungmtl.data.lungs import GAS_HU, blocks_of, within
from lungmtl.data.region import Region
from lungmtl.data.volume import Volume

POOL_MM = 8.0  # chosen by us: emphysema is pierced by vessels and septa at less than twice that


def pool_l(volume: Volume, region: Region) -> float:
    """Litres of a region's air that are in one pool, nowhere thinner than 2 POOL_MM, as dark as gas."""
    blocks = blocks_of(volume)
    dark, spacing_mm = region.air & (blocks.hu <= GAS_HU), blocks.spacing_mm
    labels, n = ndimage.label(~within(~dark, POOL_MM, spacing_mm) & dark)
    if n == 0:
        return 0.0
    pool = within(labels == np.bincount(labels[labels > 0]).argmax(), POOL_MM, spacing_mm) & dark
    return float(np.count_nonzero(pool)) * math.prod(spacing_mm) * 1e-6
