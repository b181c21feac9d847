"""One scan to the tensor that the network sees: windowed, masked, resampled to the lungs' grid, in [0, 1]."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from lungmtl.data.grid import Grid, box_of, linear_planes, lung_grid
from lungmtl.data.lungs import Lungs, find_lungs
from lungmtl.data.preparation import Preparation
from lungmtl.data.region import Region, find_region
from lungmtl.data.volume import Volume


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A prepared scan, `tensor` float16 (Z, Y, X), and its lungs: their volume, and the share outside the grid."""

    tensor: np.ndarray
    lung_volume_l: float
    cropped_fraction: float


def prepare(volume: Volume, preparation: Preparation) -> np.ndarray:
    """Turn a CT into what the network sees: lungs only, on a grid of fixed voxel size centred on them.

    The tight mask is closed by 10 mm, which takes in small nodules at the wall; it is not dilated, so that the bright
    chest wall stays out. The wide region keeps masses at the wall, too, and shows what is not in the tight mask with
    less contrast. HU are windowed and masked before resampling: a voxel at the edge fades out.

    Returns:
        float16 (Z, Y, X) in [0, 1]; 0 outside the lungs.
    Raises:
        ScanError: If the volume is not a chest.
    """
    return prepare_scan(volume, preparation).tensor


def prepare_scan(volume: Volume, preparation: Preparation, own: Lungs | None = None) -> Prepared:
    """Prepare a CT as `prepare` does, or with an own mask in place of the region, and measure its lungs."""
    seen = own or _seen(volume, preparation)
    prepared = resample_lungs(volume, seen, preparation)
    if isinstance(seen, Region):  # which holds more than air
        prepared = dataclasses.replace(prepared, lung_volume_l=seen.left_l + seen.right_l)
    return prepared


def seen_mask(volume: Volume, preparation: Preparation) -> np.ndarray:
    """Voxels that `prepare` leaves to the network: bool (Z, Y, X) on the volume's own grid."""
    return _seen(volume, preparation).whole(volume)


def _seen(volume: Volume, preparation: Preparation) -> Lungs:
    return find_region(volume) if preparation.region == "wide" else find_lungs(volume)


def resample_lungs(volume: Volume, lungs: Lungs, preparation: Preparation) -> Prepared:
    """Prepare a CT as `prepare` does, with the lungs found before."""
    hu, mask = volume.hu[lungs.box], lungs.mask
    low_hu, high_hu = preparation.window_hu
    grid = lung_grid(mask, volume.spacing_mm, spacing_mm=preparation.spacing_mm, shape=preparation.shape)

    def masked(z: int) -> np.ndarray:
        """A slice (Y, X), windowed, in HU above the window's low end, with its contrast; 0 outside the mask."""
        return (hu[z].astype(np.float32).clip(low_hu, high_hu) - low_hu) * lungs.contrast(z)

    seen = linear_planes(masked, mask.shape, volume.spacing_mm, grid)
    tensor = np.zeros(grid.shape, dtype=np.float16)
    box = box_of(mask.shape, volume.spacing_mm, grid)[1:]
    for target, plane in zip(tensor[:, *box], seen, strict=True):  # each in the processor's cache
        np.clip(plane[box] / np.float32(high_hu - low_hu), 0, 1, out=target, casting="same_kind")
    lung_volume_l = float(np.count_nonzero(mask)) * math.prod(volume.spacing_mm) * 1e-6
    return Prepared(tensor, lung_volume_l, _outside(mask, volume.spacing_mm, grid))


def _outside(mask: np.ndarray, spacing_mm: Sequence[float], grid: Grid) -> float:
    """Share of the mask whose voxel centres lie outside the grid's box."""
    box = []
    for axis in range(3):
        half_mm = grid.shape[axis] * grid.spacing_mm[axis] / 2
        off_mm = np.abs(np.arange(mask.shape[axis]) * spacing_mm[axis] - grid.center_mm[axis])
        seen = (off_mm <= half_mm).nonzero()[0]
        box.append(slice(seen[0], seen[-1] + 1) if len(seen) else slice(0))
    inside = int(np.count_nonzero(mask[tuple(box)]))
    return 1 - inside / max(1, int(np.count_nonzero(mask)))
