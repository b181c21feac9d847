"""Augmentation: what a scanner and a patient's position vary, drawn anew for every batch.

All slices of a scan move alike in plane. Scans are therefore held as columns along z: each voxel in plane is then a
weighted sum of four rows of a table, which `embedding_bag` computes for a whole batch straight from the training set.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

# chosen by us: what a scanner and a patient's position vary, small against what a disease changes
MAX_SHIFT_FRACTION = 0.05  # of the grid, along each axis
MAX_ROTATION_DEG = 8.0  # about the body's long axis
MAX_SCALE = 0.06
MAX_NOISE = 0.015  # standard deviation on the [0, 1] scale
AIR = 2.0**-7  # noise fades out below, and is none outside the lungs, where volumes are 0
N_OFFSETS = 2**20  # places in the pool of noise where a scan's may begin


def columns(volume: Tensor) -> Tensor:
    """A scan (1, Z, Y, X) as its columns along z, (Y*X, Z)."""
    return volume.flatten(2)[0].t().contiguous()


class Augmentation:
    """Flip left-right, shift, rotate about the long axis, scale in plane, add noise inside the lungs.

    Noise comes from a pool drawn once: a scan takes a part of it from a random place, with a random factor and sign.

    Args:
        shape: Voxels of a scan, (Z, Y, X).
        generator: Draws, on the CPU, what each scan of a batch undergoes.
        seed: Of the pool.
        dtype, device: Of the volumes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        generator: torch.Generator,
        *,
        seed: int,
        dtype: torch.dtype,
        device: torch.device | None = None,
    ):
        self.shape, self.generator = tuple(shape), generator
        n_values = self.shape[0] * self.shape[1] * self.shape[2] + N_OFFSETS
        self.pool = torch.randn(n_values, generator=torch.Generator().manual_seed(seed)).to(device, dtype)

    def __call__(self, held: Tensor, scans: Tensor) -> Tensor:
        """A batch, (B, 1, Z, Y, X), of the scans with the numbers `scans` (B,) among those `held`, (N, Y*X, Z)."""
        n_scans, (n_z, n_y, n_x) = len(scans), self.shape
        index, weight = _neighbours(self._motions(n_scans).to(held.device), n_y, n_x)  # (4, B, Y*X)
        index += (scans * (n_y * n_x)).int()[:, None]
        index, weight = (part.flatten(1).t().contiguous() for part in (index, weight.to(held.dtype)))  # (B*Y*X, 4)
        table = held.flatten(0, 1)
        moved = functional.embedding_bag(index, table, per_sample_weights=weight, mode="sum")
        moved = moved.view(n_scans, n_y * n_x, n_z)
        volume = held.new_zeros(n_scans, n_z, n_y * n_x)
        shifts = self._draw(n_scans, MAX_SHIFT_FRACTION * n_z).round().long().tolist()
        factors = self._draw(n_scans, MAX_NOISE).tolist()
        places = torch.randint(N_OFFSETS, (n_scans,), generator=self.generator).tolist()
        for planes, source, shift, factor, place in zip(volume, moved, shifts, factors, places, strict=True):
            planes[max(shift, 0) : n_z + min(shift, 0)] = source.t()[max(-shift, 0) : n_z - max(shift, 0)]
            noise = self.pool[place : place + planes.numel()].view_as(planes)
            planes.addcmul_(planes.clamp(max=AIR), noise, value=factor / AIR)
        return volume.view(n_scans, 1, *self.shape)

    def seeded(self, seed: int) -> "Augmentation":
        """The same, with a generator of its own."""
        other = copy.copy(self)
        other.generator = torch.Generator().manual_seed(seed)
        return other

    def _draw(self, n_scans: int, limit: float) -> Tensor:
        """A value per scan, even between -limit and limit, (B,)."""
        return (2 * torch.rand(n_scans, generator=self.generator) - 1) * limit

    def _motions(self, n_scans: int) -> Tensor:
        """Where a voxel comes from: x and y in voxels from the centre, by x, y and 1, (B, 2, 3)."""
        _, n_y, n_x = self.shape
        angle, scale = torch.deg2rad(self._draw(n_scans, MAX_ROTATION_DEG)), 1 + self._draw(n_scans, MAX_SCALE)
        flip = torch.where(torch.rand(n_scans, generator=self.generator) < 0.5, -1.0, 1.0)
        cos, sin = scale * angle.cos(), scale * angle.sin()
        shift_x, shift_y = (self._draw(n_scans, MAX_SHIFT_FRACTION * n) for n in (n_x, n_y))
        return torch.stack([flip * cos, -sin, shift_x, flip * sin, cos, shift_y], dim=1).view(n_scans, 2, 3)


def _neighbours(motion: Tensor, n_y: int, n_x: int) -> tuple[Tensor, Tensor]:
    """The four voxels between which each voxel in plane comes to lie, and their weights: (4, B, Y*X) each.

    A neighbour outside the grid is air: its weight is 0.
    """
    size = torch.tensor([n_x, n_y], device=motion.device)[:, None, None]
    x, y = (torch.arange(n, device=motion.device) - (n - 1) / 2 for n in (n_x, n_y))
    by_x, by_y, shift = motion[..., None, None].unbind(dim=2)  # (B, 2, 1, 1)
    source = by_x * x + by_y * y[:, None] + (shift + (size - 1) / 2)  # (B, 2, Y, X)
    below = source.floor()
    corner = torch.stack([below, below + 1])  # (2, B, 2, Y, X)
    is_inside = (corner >= 0) & (corner < size)
    weight = (1 - (source - corner).abs()) * is_inside
    corner = (corner * is_inside).int()
    index = corner[:, None, :, 1] * n_x + corner[None, :, :, 0]  # (2, 2, B, Y, X)
    weight = weight[:, None, :, 1] * weight[None, :, :, 0]
    return index.view(4, len(motion), -1), weight.view(4, len(motion), -1)
