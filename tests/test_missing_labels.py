"""Every policy of the catalogue where labels are missing: what is labelled learns, and what is not stays."""

import copy
import functools

import numpy as np
import pytest
import torch
from test_train import SETTINGS

from lungmtl.network.model import MultiTaskNet
from lungmtl.network.sampling import sampler
from lungmtl.network.settings import Training
from lungmtl.network.training import fit
from lungmtl.policies import BW, PFLP, POLICIES, Step, Weighting, build, gramian, look_ahead

TASKS = ("lung_cancer", "asthma", "copd")
N_SCANS, BATCH = 12, 3
PATTERNS = {  # place of the task that each scan is labelled for, -1 = none; nobody is for copd but in the first
    "apart": [0, 1, 2] * 4,
    "rare central": [0, 1, 1, 1] * 3,
    "blocks": [0] * 3 + [1] * 6 + [-1] * 3,
}
SPELLINGS = [*POLICIES, "PFLP(UW)", "ITW(PFLP(MGDA))", "ITW(Alone)", "PFLP(PCGrad)", "PFLP(ITW)"]


class Scans(torch.utils.data.Dataset):
    """Small random volumes, each labelled for one task."""

    def __init__(self, pattern):
        generator = torch.Generator().manual_seed(0)
        self.volume = torch.rand(len(pattern), 1, 16, 16, 16, generator=generator)
        self.target = (torch.rand(len(pattern), len(TASKS), generator=generator) < 0.5).float()
        self.known = torch.tensor(pattern)[:, None] == torch.arange(len(TASKS))

    def __len__(self):
        return len(self.known)

    def __getitem__(self, index):
        return self.volume[index], self.target[index].where(self.known[index], torch.nan), self.known[index]


def policy(spelling):
    if "CAGrad" in spelling:
        pytest.importorskip("cvxpy", reason="CAGrad takes CVXPY")
    return build(Weighting(tasks=TASKS, weights=[3.0, 1.0, 1.0], policy=spelling, pflp_period=1))


def trained(spelling, pattern, *, batches="natural"):
    """Networks before and after an epoch without weight decay, which would move what has no gradient, and the steps."""
    torch.manual_seed(0)
    network = MultiTaskNet(TASKS, width=4)
    before, scans = copy.deepcopy(network.state_dict()), Scans(pattern)
    fitted = fit(
        network,
        scans,
        Scans([0, 1, 2]),
        policy=policy(spelling),
        training=Training(**SETTINGS | {"epochs": 1, "batch_size": BATCH, "weight_decay": 0.0, "selection": "last"}),
        positive_weight=None,
        precision="fp32",
        seed=1,
        sampler=sampler(batches, PFLP(BW(TASKS, [1.0] * 3), period=1)),
    )
    return before, fitted.model.state_dict(), fitted.steps


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_labelled_learns_and_what_is_not_stays(spelling, pattern):
    before, after, steps = trained(spelling, PATTERNS[pattern])

    moved = {name: not torch.equal(value, before[name]) for name, value in after.items()}
    assert all(value.isfinite().all() for value in after.values())
    assert np.isfinite(steps[["loss", *(f"weight_{task}" for task in TASKS)]].to_numpy()).all()
    assert moved["encoder.0.weight"]
    assert all(moved[name] for name in after if ".lung_cancer." in name and "bias" not in name)
    assert 2 in PATTERNS[pattern] or not any(moved[name] for name in after if ".copd." in name)


@pytest.mark.parametrize("spelling", ["BW", "PFLP", "ITW(PFLP)", "PCD", "OLAUX"])
def test_batches_that_hold_one_tasks_labels_alone_train_that_task(spelling):
    _, after, steps = trained(spelling, PATTERNS["apart"], batches="turns")

    losses = steps[[f"loss_{task}" for task in TASKS]].notna()
    assert (losses.sum(axis=1) == 1).all()
    assert losses.any().all()
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_plain_loop_with_labels_missing_at_random_learns_the_central_task(spelling):
    torch.manual_seed(0)
    encoder, heads, rule = torch.nn.Linear(8, 4), torch.nn.Linear(4, 3), policy(spelling)
    network = torch.nn.Sequential(encoder, heads)
    parameters, optimiser = dict(network.named_parameters()), torch.optim.AdamW(network.parameters(), 0.03)

    def task_losses(outputs, batch):
        inputs, known = batch
        errors = (outputs - inputs[:, :3]).square() * known
        return errors.sum(dim=0) / known.sum(dim=0).clamp(min=1)  # (T,), 0 for a task without a label

    def tried(values, batch):
        return task_losses(torch.func.functional_call(network, values, batch[0]), batch)

    for k in range(120):
        batch, other = ((torch.randn(6, 8), torch.rand(6, 3) < 0.25) for _ in range(2))
        features = encoder(batch[0])
        losses, known = task_losses(heads(features), batch), batch[1].any(dim=0)
        products = gramian(losses, [features], known=known)
        here, there = (lambda values, b=batch: tried(values, b)), (lambda values, b=other: tried(values, b)[0])
        ahead = functools.partial(look_ahead, parameters, losses, rate=0.03, here=here, there=there)
        step = Step(k, 120, k // 30, 4, losses=losses.detach(), known=known, gramian=products, ahead=ahead)
        loss = (losses * torch.tensor(rule(step).weights)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    inputs = torch.randn(500, 8)
    assert (network(inputs)[:, 0] - inputs[:, 0]).square().mean() < 0.7  # 1.2 untrained
