"""Looking ahead: how the central loss of another batch, after a virtual step, follows from the weights; needs torch."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

LENGTH = 0.01  # of the finite difference, along the central gradient, in parameters


def look_ahead(
    parameters: Mapping[str, Tensor],
    losses: Tensor,
    weights: Sequence[float],
    *,
    rate: float,
    here: Callable[[Mapping[str, Tensor]], Tensor],
    there: Callable[[Mapping[str, Tensor]], Tensor],
) -> list[float]:
    """Slopes of the central loss of another batch, after a step of plain gradient descent, by this batch's weights.

    A weight's slope is -rate times the product of its task's gradient with the central one of the other batch. One
    finite difference of this batch's losses along that central gradient gives all of these products.

    Args:
        parameters: Of the network, by name.
        losses: Of this batch, (T,), with their graph, which is kept.
        weights: Of the step to be tried, (T,).
        rate: Its learning rate.
        here: This batch's losses, (T,), from parameters; in float32, since bf16 rounds the difference away.
        there: The other batch's central loss, a scalar, from parameters. Neither may change a state, such as the
            statistics of batch norm.
    Returns:
        (T,); zeros where the other batch's loss has no gradient.
    Source: Liu et al. 2022, section 4, arXiv 2202.03091; Liu et al. 2019, section 2.3, arXiv 1806.09055.
    """
    names, values = list(parameters), list(parameters.values())
    options = {"allow_unused": True, "materialize_grads": True}
    step = torch.autograd.grad(losses @ losses.new_tensor(weights), values, retain_graph=True, **options)
    tried = {name: value - rate * slope for name, value, slope in zip(names, values, step, strict=True)}
    central = torch.autograd.grad(there(tried), values, **options)
    norm = torch.stack([part.double().square().sum() for part in central]).sum().sqrt().item()
    if norm == 0:
        return [0.0] * len(losses)
    far = LENGTH / norm
    with torch.no_grad():
        ends = [
            here({name: value + sign * far * part for name, value, part in zip(names, values, central, strict=True)})
            for sign in (1, -1)
        ]
    return ((ends[0].double() - ends[1].double()) * (-rate / (2 * far))).tolist()
