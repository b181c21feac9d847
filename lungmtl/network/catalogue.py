"""Catalogue of networks: build a network by its name in a params file, and load weights to start from.

To add a network write its class in a file of this folder, as `Network` says, and its line in `NETWORKS` (settings.py).
"""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor, nn

from lungmtl.files import existing
from lungmtl.network.settings import NETWORKS


class Network(Protocol):
    """Interface of a network to training, prediction and attention maps; constructed as `kind(tasks, width=width)`.

    Attributes:
        tasks: Names, the central task first.
        reduction: Input voxels per feature voxel along each axis.
    """

    tasks: tuple[str, ...]
    reduction: int

    def __call__(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Volumes (B, 1, Z, Y, X) to logits (B, T) and attention (B, T, z, y, x): `read` of `encode`."""

    def encode(self, volume: Tensor) -> Tensor:
        """Volumes (B, 1, Z, Y, X) to the last features that all tasks share, (B, F, z, y, x)."""

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shared features to logits (B, T) and attention maps (B, T, z, y, x) that sum to 1 over space."""

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that every task's loss reaches."""


def build_network(name: str, tasks: Sequence[str], *, width: int) -> nn.Module:
    """Make a network with random weights from torch's global generator.

    Raises:
        ValueError: If there is no network of this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"`network` must be one of {', '.join(NETWORKS)}. Found {name!r}.")
    module, kind = NETWORKS[name].split(".")
    return getattr(importlib.import_module(f"lungmtl.network.{module}"), kind)(tasks, width=width)


def start_from(network: nn.Module, weights: str | Path) -> list[str]:
    """Load the tensors that a safetensors file, such as another run's model, shares with the network.

    Returns:
        Names of the network's tensors that the file lacks, which stay unchanged, e.g. the head of a new task.
    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no tensor of the network, or one with another shape.
    """
    from safetensors.torch import load_file

    found, wanted = load_file(existing(weights, "`start_weights`, a safetensors file,")), network.state_dict()
    shared = {name: tensor for name, tensor in found.items() if name in wanted}
    wrong = [name for name, tensor in shared.items() if tensor.shape != wanted[name].shape]
    if wrong or not shared:
        problem = f"other shapes of {', '.join(wrong[:3])}" if wrong else "none of its tensors"
        raise ValueError(f"`start_weights` must fit the network. Found {problem} in {Path(weights).name}.")
    network.load_state_dict(shared, strict=False)
    return [name for name in wanted if name not in shared]
