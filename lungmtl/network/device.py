"""Device, seeds and precision of a network's computations."""

import contextlib
import ctypes
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lungmtl.network.model import REDUCTION

MAX_BF16_ERROR = 0.02  # chosen by us, of the largest value: bf16 keeps 8 bits, and errors of a kernel are far larger
MIN_BF16_VOXELS = 2 * REDUCTION + 1  # along every axis, on a CPU; see `forward`
_logger = logging.getLogger(__name__)


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
        ValueError: If `precision` is not auto, bf16 or fp32, or is bf16 and the GPU computes it wrongly.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"`precision` must be auto, bf16 or fp32. Found {precision!r}.")
    if torch.cuda.is_available() and precision != "fp32":
        return _checked_on_gpu(precision)
    if precision != "auto":
        return precision
    return "bf16" if torch.cpu._is_avx512_bf16_supported() and min(shape) >= MIN_BF16_VOXELS else "fp32"


def _checked_on_gpu(precision: str) -> str:
    if precision == "auto" and not torch.cuda.is_bf16_supported():
        return "fp32"
    error = bf16_error(torch.device("cuda"))
    if error <= MAX_BF16_ERROR:
        return "bf16"
    found = f"bf16 convolutions must agree with fp32 to {MAX_BF16_ERROR}. Found a difference of {error:.3g} on this GPU"
    if precision == "bf16":
        raise ValueError(f"{found}: use fp32.")
    _logger.warning("%s: fp32 is used.", found)
    return "fp32"


def bf16_error(device: torch.device) -> float:
    """Largest difference of bf16 from fp32 in small 3D convolutions and their gradients, over the largest value."""
    generator, errors = torch.Generator().manual_seed(0), []
    for n_in, stride in ((1, 2), (8, 2), (16, 1)):
        source = torch.randn(2, n_in, 12, 12, 12, generator=generator).to(device)
        kernel = torch.randn(16, n_in, 3, 3, 3, generator=generator).to(device)
        found = {
            dtype: _convolved(source.to(dtype), kernel.to(dtype), stride) for dtype in (torch.bfloat16, torch.float32)
        }
        for rough, exact in zip(*found.values(), strict=True):
            errors.append(((rough.float() - exact).abs().max() / exact.abs().max()).nan_to_num(torch.inf).item())
    return max(errors)


def _convolved(source: Tensor, kernel: Tensor, stride: int) -> tuple[Tensor, ...]:
    """A convolution and its gradients, at the bf16 values of source and kernel."""
    parts = [part.to(torch.bfloat16).to(part.dtype).requires_grad_() for part in (source, kernel)]
    source = parts[0].contiguous(memory_format=torch.channels_last_3d)
    result = functional.conv3d(source, parts[1], stride=stride, padding=1)
    return result, *torch.autograd.grad(result.sum() + (result.float() ** 2).sum() / 2, parts)


def keep_memory() -> None:
    """Have glibc keep what is freed, which every step needs again: no bit changes, and no pages are fetched anew."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, bytes
        mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes


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
