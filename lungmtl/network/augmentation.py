"""Augmentation: what a scanner and a patient's position vary, drawn anew for every batch."""

import torch
from torch import Tensor
from torch.nn import functional

# chosen by us: what a scanner and a patient's position vary, small against what a disease changes
MAX_SHIFT_FRACTION = 0.05  # of the grid, along each axis
MAX_ROTATION_DEG = 8.0  # about the body's long axis
MAX_SCALE = 0.06
MAX_NOISE = 0.015  # standard deviation on the [0, 1] scale


def augmented(volume: Tensor, generator: torch.Generator) -> Tensor:
    """Flip left-right, shift, rotate about the long axis, scale in plane, add noise inside the lungs: same shape."""
    n, _, n_z, _, _ = volume.shape

    def draw(limit: float) -> Tensor:
        """A value per scan, even between -limit and limit, (B,)."""
        return (2 * torch.rand(n, generator=generator) - 1) * limit

    angle, scale = torch.deg2rad(draw(MAX_ROTATION_DEG)), 1 + draw(MAX_SCALE)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    ratio = volume.shape[3] / volume.shape[4]  # affine_grid's unit is half an axis: y and x differ in length
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin() * ratio, draw(2 * MAX_SHIFT_FRACTION)], dim=1),
        torch.stack([flip * scale * angle.sin() / ratio, scale * angle.cos(), draw(2 * MAX_SHIFT_FRACTION)], dim=1),
    ]
    planes = volume[:, 0]  # (B, Z, Y, X): every slice moves alike, so Z can be the channels of a picture
    grid = functional.affine_grid(torch.stack(rows, dim=1), planes.shape, align_corners=False)
    moved = functional.grid_sample(planes, grid, align_corners=False)
    shifts = draw(MAX_SHIFT_FRACTION * n_z).round().long().tolist()
    for k, shift in enumerate(shifts):
        moved[k] = _shifted(moved[k], shift)
    noise = torch.randn(moved.shape, generator=generator).mul_(draw(MAX_NOISE).abs()[:, None, None, None])
    return noise.mul_(moved > 0).add_(moved).clamp_(0, 1)[:, None]


def _shifted(planes: Tensor, shift: int) -> Tensor:
    """Move along the first axis by whole voxels, air coming in."""
    moved = torch.roll(planes, shift, dims=0)
    if shift:
        moved[slice(0, shift) if shift > 0 else slice(shift, None)] = 0
    return moved
