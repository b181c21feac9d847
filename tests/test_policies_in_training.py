"""Every policy in the training loop: it trains, stops and goes on with the same bits, also where labels are missing."""

import dataclasses

import pandas as pd
import pytest
import torch

from lungmtl.network import Checkpoints, MultiTaskNet, Training, fit
from lungmtl.policies import POLICIES, Weighting, build
from lungmtl.policies.contract import Policy, Wrapper

TASKS = ("lung_cancer", "copd", "emphysema")
TRAINING = Training(
    epochs=1, batch_size=4, learning_rate=0.003, weight_decay=0.01, warmup=0.1, augment=True, selection="last"
)
NAMES = [name for name in POLICIES if name != "CAGrad"]  # whose solver is no dependency
SPELLINGS = [*NAMES, "PCD(at='parameters')", "ITW(PFLP(UW, period=1), start=0.7)", "PFLP(PCGrad, period=1)"]


def scans(n=16, *, known=None):
    """Volumes that are denser where a label is 1, one corner per task."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.arange(n)[:, None] // torch.tensor([1, 2, 4]) % 2).float()
    volume = 0.2 * torch.rand(n, 1, 8, 8, 8, generator=generator)
    for task in range(3):
        volume[:, :, 2 * task : 2 * task + 2] += 0.5 * target[:, task].view(-1, 1, 1, 1, 1)
    return torch.utils.data.StackDataset(volume, target, torch.ones(n, 3, dtype=torch.bool) if known is None else known)


def policy(spelling):
    return build(Weighting(tasks=TASKS, weights=[1.0, 0.5, 0.8], policy=spelling, seed=3))


def train(policy, train_set=None, **options):
    torch.manual_seed(0)
    network = MultiTaskNet(TASKS, width=4)
    options |= {"training": TRAINING, "positive_weight": None, "precision": "fp32", "seed": 0}
    return fit(network, train_set or scans(), scans(8), policy=policy, **options)


@dataclasses.dataclass(frozen=True)
class Asked(Wrapper):
    """A policy that ends the training in a step that it must not be asked for."""

    steps: range

    def __call__(self, step):
        if step.step not in self.steps:
            raise InterruptedError
        return self.before(step)


def steps_of(spelling, folder, train_set):
    """Steps of a training, which are the same bits, as its network is, if it is stopped and goes on from its file."""
    straight = train(policy(spelling), train_set)
    with pytest.raises(InterruptedError):
        train(Asked(policy(spelling), range(2)), train_set, checkpoints=Checkpoints(f"{folder}/checkpoint"))
    resumed = train(Asked(policy(spelling), range(2, 4)), train_set, checkpoints=Checkpoints(f"{folder}/checkpoint"))

    pd.testing.assert_frame_equal(straight.steps, resumed.steps, check_exact=True)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    return straight.steps


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_policy_trains_and_goes_on_after_a_stop_with_the_same_bits(spelling, tmp_path):
    steps = steps_of(spelling, tmp_path, scans())

    assert steps["mean_weight"].to_numpy() == pytest.approx(steps.filter(like="weight_").mean(axis=1).to_numpy())
    assert (steps["n_known"] == 3).all()


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_policy_trains_and_goes_on_where_every_scan_has_one_label(spelling, tmp_path):
    known = torch.nn.functional.one_hot(torch.arange(16) % 4, 4)[:, :3].bool()  # a quarter has none
    steps = steps_of(spelling, tmp_path, scans(known=known))

    has_label = steps.filter(like="loss_").notna().to_numpy()
    weights = steps.filter(regex="^weight_").to_numpy()
    assert (steps["n_known"] == has_label.sum(axis=1)).all()
    assert (steps["n_known"] < 3).any()
    assert steps["loss"].notna().all()
    assert steps["mean_weight"].to_numpy() == pytest.approx((weights * has_label).mean(axis=1))
    if not policy(spelling).is_schedule and not isinstance(policy(spelling), Wrapper):
        assert (weights[~has_label] == 0).all()


def test_a_batch_without_any_label_moves_no_rule_and_breaks_none():
    nothing = scans(known=torch.zeros(16, 3, dtype=torch.bool))
    for spelling in ("UW", "MGDA", "PCD", "ITW(GradNorm)"):
        steps = train(policy(spelling), nothing).steps
        assert (steps[["loss", "mean_weight", "n_known"]] == 0).all(axis=None)


def test_schedules_give_a_task_without_a_label_its_weight_as_ever():
    known = torch.ones(16, 3, dtype=torch.bool)
    known[:, 1] = False
    steps = train(policy("BW"), scans(known=known)).steps

    assert (steps["weight_copd"] == 0.5).all()
    assert steps["mean_weight"].to_numpy() == pytest.approx([1.8 / 3] * len(steps))


@dataclasses.dataclass(frozen=True)
class Told(Policy):
    """Given weights, and no gradients."""

    weights: tuple
    tasks: tuple = TASKS
    base: tuple = (1.0, 1.0, 1.0)

    def __call__(self, step):
        return dataclasses.replace(policy("BW")(step), weights=self.weights[step.step])


@pytest.mark.parametrize("spelling", ["MGDA", "PCGrad(at='parameters')", "AutoLambda"])
def test_the_weights_of_a_rule_are_all_that_it_does_to_a_training(spelling):
    found = train(policy(spelling))
    told = train(Told(tuple(map(tuple, found.steps.filter(like="weight_").to_numpy()))))
    for name, value in found.model.state_dict().items():
        assert torch.equal(value, told.model.state_dict()[name]), name
