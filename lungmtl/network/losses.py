"""Losses: binary cross-entropy per task over the scans whose label is known."""

import torch
from torch import Tensor
from torch.nn import functional


def task_losses(logits: Tensor, target: Tensor, known: Tensor, *, positive_weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy per task over the scans whose label is known.

    Args:
        logits: (B, T).
        target: 0 or 1, (B, T); any value, even NaN, where unknown.
        known: bool, (B, T).
        positive_weight: Weight of a positive scan per task, (T,); 1 by default.
    Returns:
        Mean loss per task, (T,); exactly 0, with zero gradient, for a task that is unknown in the whole batch.
    """
    safe = torch.where(known, target, torch.zeros_like(target))
    losses = functional.binary_cross_entropy_with_logits(logits, safe, pos_weight=positive_weight, reduction="none")
    losses = torch.where(known, losses, torch.zeros_like(losses))  # (B, T)
    return losses.sum(dim=0) / known.sum(dim=0).clamp(min=1)


def positive_weights(target: Tensor, known: Tensor) -> Tensor:
    """Negatives over positives per task among known labels, which gives both classes the same weight in the loss.

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
