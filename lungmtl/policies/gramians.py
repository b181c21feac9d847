"""Gramians: the products of task gradients with each other, all that gradient rules look at; needs torch."""

from collections.abc import Sequence

import torch
from torch import Tensor


def gramian(losses: Sequence[Tensor] | Tensor, at: Sequence[Tensor], *, known: Tensor | None = None) -> Tensor:
    """Products of the gradients of every task's loss; the graph is kept for the step's own backward pass.

    Args:
        losses: (T,), with their graph.
        at: Tensors of the graph: shared features, or shared parameters.
        known: Whether the batch has a label of the task, bool (T,); None = of every task.
    Returns:
        float64 (T, T) on the CPU; zeros for a task without a label.
    """
    rows = [row for row in range(len(losses)) if known is None or known[row]]
    gradients = [torch.autograd.grad(losses[row], list(at), retain_graph=True) for row in rows]
    products = torch.zeros(len(losses), len(losses), dtype=torch.float64)
    for parts in zip(*gradients, strict=True):
        stacked = torch.stack([part.flatten() for part in parts]).double()  # (K, values of one tensor)
        products[torch.tensor(rows)[:, None], torch.tensor(rows)] += (stacked @ stacked.T).cpu()
    return products
