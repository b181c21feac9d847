"""The network: one shared 3D residual encoder, then per task an attention map and a subnetwork to one logit.

Letters: B batch, T tasks, F features, Z Y X voxels, z y x the last feature grid (an eighth of the input).

Sources: one shared attention encoder with a subnetwork per task after Yang et al. 2020, doi 10.1117/12.2548755;
attention over the whole volume in place of nodule positions after Wang et al. 2019, arXiv 1902.08236; residual blocks
after He et al. 2016, arXiv 1512.03385. Their layer sizes are not published: all sizes here are chosen by us.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from lungmtl.network.norm import Norm

REDUCTION = 8  # input voxels per feature voxel along each axis
ATTENTION_GAIN = 3.0  # chosen by us: attention starts on strong features; from a random start some seeds never learn it


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with batch norm around a shortcut.

    Batch norm keeps the absolute density of a scan, which indicates emphysema; instance norm would remove it.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = Norm(n_out)
        self.conv2 = nn.Conv3d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = Norm(n_out)
        self.shortcut = _shortcut(n_in, n_out, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, n_in, Z, Y, X) to (B, n_out, Z/stride, Y/stride, X/stride)."""
        inner = functional.relu(self.norm1(self.conv1(features)))
        return functional.relu(self.norm2(self.conv2(inner)) + self.shortcut(features))


class MultiTaskNet(nn.Module):
    """Shared encoder, attention and subnetwork per task; tasks are a list of names.

    Args:
        tasks: Task names, the central task first; the order of all outputs.
        width: Channels of the first stage; the last has eight times as many.
    Raises:
        ValueError: If a task is named twice or none is given.
    """

    def __init__(self, tasks: Sequence[str], *, width: int) -> None:
        super().__init__()
        if not tasks or len(set(tasks)) != len(tasks):
            raise ValueError(f"`tasks` must be different names, at least one. Found {list(tasks)}.")
        self.tasks = tuple(tasks)
        self.reduction = REDUCTION
        n_features = 8 * width
        self.encoder = nn.Sequential(
            nn.Conv3d(1, width, 3, stride=2, padding=1, bias=False),
            Norm(width),
            nn.ReLU(),
            ResidualBlock(width, 2 * width, stride=2),
            ResidualBlock(2 * width, 4 * width, stride=2),
            ResidualBlock(4 * width, n_features, stride=1),
        )
        self.attention = nn.ModuleDict({task: _attention(n_features) for task in tasks})
        self.subnetwork = nn.ModuleDict({task: _subnetwork(n_features) for task in tasks})

    def forward(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        """Run the network.

        Args:
            volume: Prepared scans in [0, 1], (B, 1, Z, Y, X).
        Returns:
            Logits (B, T) and attention maps (B, T, z, y, x), each map summing to 1 over space; both float32.
        """
        return self.read(self.encode(volume))

    def encode(self, volume: Tensor) -> Tensor:
        """Volumes (B, 1, Z, Y, X) to the shared features (B, F, z, y, x)."""
        return self.encoder(volume)

    def read(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Shared features to what `forward` returns."""
        scores = functional.conv3d(features, *_joined(self.attention, self.tasks))  # (B, T, z, y, x)
        attention = scores.float().flatten(2).softmax(dim=2)  # (B, T, zyx)
        pooled = torch.einsum("btv,bfv->tbf", attention, features.float().flatten(2))  # (T, B, F)
        layers = [_stacked([self.subnetwork[task][layer] for task in self.tasks]) for layer in (0, 2)]
        inner = functional.relu(torch.baddbmm(layers[0][1], pooled, layers[0][0]))  # (T, B, F)
        logits = torch.baddbmm(layers[1][1], inner, layers[1][0])  # (T, B, 1)
        return logits[..., 0].t().float(), attention.view_as(scores)

    def shared_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the encoder."""
        return self.encoder.parameters()


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    if n_in == n_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv3d(n_in, n_out, 1, stride=stride, bias=False), Norm(n_out))


def _joined(heads: nn.ModuleDict, tasks: Sequence[str]) -> list[Tensor]:
    """Weight and bias of all tasks' layers as those of one layer."""
    return [torch.cat([getattr(heads[task], name) for task in tasks]) for name in ("weight", "bias")]


def _stacked(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights (T, n_in, n_out) and biases (T, 1, n_out) of one linear layer per task."""
    weight, bias = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return weight.transpose(1, 2), bias[:, None]


def _attention(n_features: int) -> nn.Module:
    score = nn.Conv3d(n_features, 1, 1)
    nn.init.constant_(score.weight, ATTENTION_GAIN / n_features)
    return score


def _subnetwork(n_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, 1))
