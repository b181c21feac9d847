"""The network's shapes and the masked losses."""

import pytest
import torch

from lungmtl.network.losses import positive_weights, task_losses
from lungmtl.network.model import REDUCTION, MultiTaskNet

TASKS = ["lung_cancer", "asthma", "copd"]


@pytest.fixture
def volume():
    return torch.rand(2, 1, 16, 24, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("tasks", [TASKS, ["lung_cancer"], ["a", "b", "c", "d", "e"]])
def test_tasks_are_a_list(volume, tasks):
    logits, attention = MultiTaskNet(tasks, width=4)(volume)
    assert logits.shape == (2, len(tasks))
    assert attention.shape == (2, len(tasks), *(n // REDUCTION for n in volume.shape[2:]))


def test_attention_sums_to_one_over_space(volume):
    _, attention = MultiTaskNet(TASKS, width=4)(volume)
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(dim=(2, 3, 4)), torch.ones(2, 3))  # float32 sums of 24 values


def test_a_task_has_its_own_subnetwork_and_shares_the_encoder(volume):
    network = MultiTaskNet(TASKS, width=4)
    network(volume)[0][:, 1].sum().backward()
    assert not any(p.grad.any() for p in network.subnetwork["copd"].parameters())
    assert all(p.grad is not None for p in network.encoder.parameters())


def test_a_task_named_twice_is_refused():
    with pytest.raises(ValueError, match=r"different names, at least one\. Found \['a', 'a'\]"):
        MultiTaskNet(["a", "a"], width=4)


def test_losses_are_the_hand_worked_means_over_known_labels():
    logits = torch.zeros(3, 2)
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    known = torch.tensor([[True, True], [True, False], [True, False]])
    losses = task_losses(logits, target, known, positive_weight=torch.tensor([3.0, 1.0]))
    log2 = 0.6931472
    torch.testing.assert_close(losses, torch.tensor([log2 * (3 + 1 + 3) / 3, log2]))


def test_a_blank_label_contributes_nothing_and_never_nan():
    logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(1), requires_grad=True)
    target = torch.tensor([[1.0, torch.nan]] * 2 + [[0.0, torch.nan]] * 2)
    losses = task_losses(logits, target, ~target.isnan())
    losses.sum().backward()
    assert losses[1] == 0
    assert torch.isfinite(losses).all()
    assert (logits.grad[:, 1] == 0).all()
    assert (logits.grad[:, 0] != 0).all()


def test_positive_weights_balance_the_classes():
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    known = torch.tensor([[True, True], [True, True], [True, False], [True, True]])
    torch.testing.assert_close(positive_weights(target, known), torch.tensor([3.0, 0.5]))


def test_positive_weights_need_both_classes():
    with pytest.raises(ValueError, match=r"positive and negative scans\. Found \(positive, negative\) \[\(2, 0\)\]"):
        positive_weights(torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool))
