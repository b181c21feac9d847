"""Attention maps: whether the highest voxel touches the target, and how often it would by chance."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from lungmtl.evidence.areas import Interval
from lungmtl.evidence.decisions import rate


class HitRate(NamedTuple):
    """Share of N scans with a hit, the share expected by chance, and the one-sided p value against chance."""

    hits: int
    n_scans: int
    rate: Interval
    chance: float
    p: float


def touched_cells(mask: np.ndarray, *, cell: int) -> np.ndarray:
    """Cells of a network's feature grid that a mask touches: every input voxel belongs to the nearest feature voxel.

    Convolutions of size 3, stride 2 and padding 1 centre feature voxel i on input voxel `cell * i`. Its cell reaches
    half a cell to either side, so it is touched if its centre lies in the mask dilated by half a feature voxel; the
    last cell of an axis reaches to the end of the input.

    Args:
        mask: bool (Z, Y, X), on the network's input grid.
        cell: Input voxels per feature voxel along each axis, here and below.
    Returns:
        bool (z, y, x), the feature grid: the mask's shape by `cell`, rounded up.
    """
    shape = np.array([-(-n // cell) for n in mask.shape])
    nearest = np.minimum((np.argwhere(mask) + cell // 2) // cell, shape - 1)  # (voxels, 3)
    touched = np.zeros(shape, dtype=bool)
    touched[tuple(nearest.T)] = True
    return touched


def peak_inside(attention: np.ndarray, target: np.ndarray, lungs: np.ndarray, *, cell: int) -> tuple[bool, float]:
    """Does the highest voxel of an attention map touch the target, and how likely is that by chance?

    Args:
        attention: (z, y, x), the feature grid.
        target: bool (Z, Y, X), on the network's input grid, e.g. a nodule.
        lungs: bool (Z, Y, X).
    Returns:
        The hit, and its chance for a peak drawn evenly from the cells that touch the lungs.
    """
    touched, inner = touched_cells(target, cell=cell), touched_cells(lungs, cell=cell)
    if not touched.shape == inner.shape == attention.shape:
        raise ValueError(
            f"`attention` must be the masks' shape by {cell}, rounded up. "
            f"Found {attention.shape} for {target.shape} and {lungs.shape}."
        )
    if not inner.any():
        raise ValueError("`lungs` must have a voxel in the grid. Found none.")
    peak = np.unravel_index(np.argmax(attention), attention.shape)
    return bool(touched[peak]), float((touched & inner).sum() / inner.sum())


def swapped_chance(attentions: Sequence[np.ndarray], targets: Sequence[np.ndarray], *, cell: int) -> np.ndarray:
    """Chance of a hit with another scan's attention map: a baseline that knows only the usual location.

    For N maps and targets as in `peak_inside`, N at least 2, the share of the other scans' peaks that touch a scan's
    target, (N,).
    """
    if len(attentions) != len(targets) or len(targets) < 2:
        found = f"{len(attentions)} maps, {len(targets)} targets"
        raise ValueError(f"Swapping needs one map per target and two scans. Found {found}.")
    peaks = [np.unravel_index(np.argmax(attention), attention.shape) for attention in attentions]
    touched = [touched_cells(target, cell=cell) for target in targets]
    hits = np.array([[cells[peak] for peak in peaks] for cells in touched], dtype=np.float64)  # (N targets, N maps)
    return (hits.sum(axis=1) - np.diag(hits)) / (len(targets) - 1)


def hit_rate(hit: np.ndarray, chance: np.ndarray) -> HitRate:
    """Share of hits, bool (N,), with Wilson's 95 % interval, against the mean of their chances, (N,).

    The p value is binomial with the mean chance; where chances differ between scans that is conservative, because
    their sum varies less than a binomial one.

    Source: Wilson 1927, JASA 22:209-212; Hoeffding 1956, Annals of Mathematical Statistics 27:713-721, theorem 4.
    """
    hit, chance = np.asarray(hit, dtype=bool), np.asarray(chance, dtype=np.float64)
    if hit.ndim != 1 or hit.shape != chance.shape or not hit.size:
        raise ValueError(f"There must be one hit and one chance per scan. Found {hit.shape} and {chance.shape}.")
    hits, n_scans, mean_chance = int(hit.sum()), hit.size, float(chance.mean())
    p = float(stats.binomtest(hits, n_scans, mean_chance, alternative="greater").pvalue)
    return HitRate(hits, n_scans, rate(hits, n_scans), mean_chance, p)
