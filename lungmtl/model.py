"""The network: one shared 3D residual encoder, then per task an attention map and a subnetwork to one logit.

Letters: B batch, T tasks, F features, Z Y X voxels, z y x the last feature grid (an eighth of the input).

Sources: one shared attention encoder with a subnetwork per task after Yang et al. 2020, doi 10.1117/12.2548755;
attention over the whole volume in place of nodule positions after Wang et al. 2019, arXiv 1902.08236; residual blocks
after He et al. 2016, arXiv 1512.03385. Their layer sizes are not published: all sizes here are chosen by us.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

REDUCTION = 8  # input voxels per feature voxel along each axis
ATTENTION_GAIN = 3.0  # chosen by us: attention starts on strong features; from a random start some seeds never find it


class ResidualBlock(nn.Module):
    """Two 3 x 3 x 3 convolutions with batch norm around a shortcut.

    Batch norm keeps the absolute density of a scan, which tells emphysema; instance norm would remove it.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm3d(n_out)
        self.conv2 = nn.Conv3d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(n_out)
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
        n_features = 8 * width
        self.encoder = nn.Sequential(
            nn.Conv3d(1, width, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm3d(width),
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
        features = self.encoder(volume)  # (B, F, z, y, x)
        scores = torch.cat([self.attention[task](features) for task in self.tasks], dim=1)  # (B, T, z, y, x)
        attention = scores.float().flatten(2).softmax(dim=2)  # (B, T, zyx)
        pooled = torch.einsum("btv,bfv->tbf", attention, features.float().flatten(2))  # (T, B, F)
        logits = [self.subnetwork[task](pool) for task, pool in zip(self.tasks, pooled, strict=True)]
        return torch.cat(logits, dim=1).float(), attention.view_as(scores)


def task_losses(logits: Tensor, target: Tensor, known: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy per task over the scans whose label is known.

    Args:
        logits: (B, T).
        target: 0 or 1, (B, T); anything, even NaN, where unknown.
        known: bool, (B, T).
        positive_weight: Weight of a positive scan per task, (T,); 1 where not given.
    Returns:
        Mean loss per task, (T,); exactly 0, with zero gradient, for a task that is unknown in the whole batch.
    """
    safe = torch.where(known, target, torch.zeros_like(target))
    losses = functional.binary_cross_entropy_with_logits(logits, safe, pos_weight=positive_weight, reduction="none")
    losses = torch.where(known, losses, torch.zeros_like(losses))  # (B, T)
    return losses.sum(dim=0) / known.sum(dim=0).clamp(min=1)


def positive_weights(target: Tensor, known: Tensor) -> Tensor:
    """Negatives over positives per task among known labels: both classes then weigh the same in the loss.

    Args:
        target: 0 or 1, (N, T).
        known: bool, (N, T).
    Returns:
        (T,) float32.
    Raises:
        ValueError: If a task has no known positive or no known negative scan.
    """
    positives = (known & (target > 0.5)).sum(dim=0)
    negatives = known.sum(dim=0) - positives
    if (positives == 0).any() or (negatives == 0).any():
        found = list(zip(positives.tolist(), negatives.tolist(), strict=True))
        raise ValueError(f"Every task must have positive and negative scans. Found (positive, negative) {found}.")
    return negatives / positives


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    if n_in == n_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv3d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm3d(n_out))


def _attention(n_features: int) -> nn.Module:
    score = nn.Conv3d(n_features, 1, 1)
    nn.init.constant_(score.weight, ATTENTION_GAIN / n_features)
    return score


def _subnetwork(n_features: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, n_features), nn.ReLU(), nn.Linear(n_features, 1))
