"""Device, seeds and precision of a network's computations."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lungmtl.network.model import REDUCTION

MIN_BF16_VOXELS = 2 * REDUCTION + 1  # along every axis, on a CPU; see `forward`


def seed_everything(seed: int) -> None:
    """Seed torch and make its algorithms deterministic: the only global seeding; called once by a notebook."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, *, shape: Sequence[int]) -> str:
    """Resolve `auto` to bf16 if the device supports it natively and correctly on a grid of this shape, else to fp32.

    Args:
        precision: auto, bf16 or fp32.
        shape: Voxels of the model's grid, (z, y, x).
    Raises:
        ValueError: If `precision` is not auto, bf16 or fp32.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"`precision` must be auto, bf16 or fp32. Found {precision!r}.")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() and min(shape) >= MIN_BF16_VOXELS else "fp32"


def forward(model: nn.Module, volume: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Logits (B, T) of volumes (B, 1, Z, Y, X), and the shared features (B, F, z, y, x).

    Raises:
        ValueError: If a grid is too small for bf16 on a CPU. There oneDNN 3.12 (torch 2.13) computes a wrong
            weight gradient of a 3 x 3 x 3 convolution over 2 slices: it reads one slice beyond the source, which is
            arbitrary memory, even NaN. Strided ones over 1 row or column fail too; 3 feature voxels are correct.
            Source: `compute_od_loop_common` in oneDNN's jit_avx512_core_bf16_conv_kernel.cpp.
    """
    if precision == "bf16" and volume.device.type == "cpu" and min(volume.shape[2:]) < MIN_BF16_VOXELS:
        least, found = MIN_BF16_VOXELS, tuple(volume.shape[2:])
        raise ValueError(f"bf16 on a CPU must have at least {least} voxels along every axis. Found {found}: use fp32.")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    volume = volume.to(dtype, memory_format=torch.channels_last_3d)
    with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        features = model.encode(volume)
        return model.read(features)[0], features
