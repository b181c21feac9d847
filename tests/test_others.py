"""Looking ahead: slopes of another batch's central loss against autograd through the step, draws, and no traces."""

import copy

import pytest
import torch
from test_policies_in_training import TASKS, scans
from torch.func import functional_call

from lungmtl.network import MultiTaskNet, OtherBatches, counted, forward, task_losses
from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.held import Held
from lungmtl.policies import look_ahead

WEIGHTS = (0.3, 0.2, 0.5)
RATE = 0.05


def test_slopes_of_smooth_losses_are_those_of_autograd_through_the_step():
    draws = torch.Generator().manual_seed(0)
    volume, other, first, second = torch.randn(4, 5, 5, generator=draws, dtype=torch.float64)
    parameters = {"first": first.requires_grad_(), "second": second[:, :3].clone().requires_grad_()}

    def losses(values, x=volume):
        return (x @ values["first"]).tanh().matmul(values["second"]).square().mean(dim=0)

    weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)
    steps = torch.autograd.grad(weights @ losses(parameters), list(parameters.values()), create_graph=True)
    moved = {name: parameters[name] - RATE * step for name, step in zip(parameters, steps, strict=True)}
    exact = torch.autograd.grad(losses(moved, other)[0], weights)[0]
    found = look_ahead(
        parameters, losses(parameters), WEIGHTS, rate=RATE, here=losses, there=lambda values: losses(values, other)[0]
    )
    assert found == pytest.approx(exact.tolist(), rel=1e-4)


def network():
    torch.manual_seed(0)
    return MultiTaskNet(TASKS, width=4)


def others(network, **changes):
    held = Held(changes.pop("scans", scans()), torch.device("cpu"), dtype=None, arranged=columns)
    moved = Augmentation((8, 8, 8), torch.Generator(), seed=0, dtype=torch.float32)
    options = {"positive_weight": None, "precision": "fp32", "seed": 3}
    return OtherBatches(network, held, moved, 4, **options | changes)


def looked(found, *, known=None, rows=slice(4)):
    """Slopes for a batch of four scans."""
    batch = [part[rows] for part in scans(known=known).datasets]
    losses = task_losses(forward(found.model, batch[0], "fp32")[0], *batch[1:], positive_weight=found.positive_weight)
    return found.ahead(losses, batch, step=5, rate=RATE)(WEIGHTS), batch


def through_the_step(found, batch):
    """The same by autograd in float64, through the step itself."""
    exact = copy.deepcopy(found.model).double()
    parameters = dict(exact.named_parameters())
    weights = torch.tensor(WEIGHTS, dtype=torch.float64, requires_grad=True)

    def losses(values, volume, target, known):
        return task_losses(functional_call(exact, values, volume.double())[0], target.double(), known)

    slopes = torch.autograd.grad(weights @ losses(parameters, *batch), list(parameters.values()), create_graph=True)
    moved = {name: value - RATE * slope for (name, value), slope in zip(parameters.items(), slopes, strict=True)}
    return torch.autograd.grad(losses(moved, *found.draw(5))[0], weights)[0].tolist()


def test_slopes_are_those_of_autograd_through_the_step(monkeypatch):
    monkeypatch.setattr("lungmtl.policies.ahead.LENGTH", 1e-4)  # over 0.01 many rectifiers turn in so small a network
    found = others(network())
    slopes, batch = looked(found)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the network returns float32
    exact = through_the_step(found, batch)
    assert slopes == pytest.approx(exact, rel=0.01)
    assert min(map(abs, exact)) > 1e-3


def test_a_task_without_a_label_in_the_batch_has_no_slope_and_no_other_is_touched():
    known = torch.ones(16, 3, dtype=torch.bool)
    known[:4, 1] = False
    found = others(network())
    slopes, _ = looked(found, known=known)
    assert slopes[1] == 0
    assert 0 not in (slopes[0], slopes[2])


def test_an_other_batch_without_a_central_label_says_nothing():
    known = torch.ones(16, 3, dtype=torch.bool)
    known[:, 0] = False
    assert looked(others(network(), scans=scans(known=known)))[0] == [0, 0, 0]


def test_looking_ahead_leaves_no_trace_and_is_counted():
    model = network().train()
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    with counted(model) as passes:
        volume, target, known = (part[:4] for part in scans().datasets)
        losses = task_losses(forward(model, volume, "fp32")[0], target, known)
        after = copy.deepcopy(model.state_dict())
        others(model).ahead(losses, (volume, target, known), step=0, rate=RATE)(WEIGHTS)
        losses.sum().backward()
    assert passes == {"forward": 4, "backward": 3, "backward_features": 3}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, after[name]) for name, value in model.state_dict().items())
    assert not all(torch.equal(value, before[name]) for name, value in after.items())


def test_an_other_batch_follows_from_seed_and_step():
    found = others(network())
    assert all(torch.equal(one, other) for one, other in zip(found.draw(2), others(network()).draw(2), strict=True))
    assert not torch.equal(found.draw(2)[0], found.draw(3)[0])
    assert not torch.equal(found.draw(2)[0], others(network(), seed=4).draw(2)[0])
    assert found.draw(2)[0].shape == (4, 1, 8, 8, 8)
