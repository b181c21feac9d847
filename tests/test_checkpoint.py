"""An interrupted training goes on bit for bit, whenever it was ended and however."""

import dataclasses
import random
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_train import TASKS, run, scans

from lungmtl.network.checkpoint import Checkpoints, packed, unpacked
from lungmtl.network.training import predict
from lungmtl.policies.contract import Decision, Policy
from lungmtl.policies.schedules import BW, ITW, PFLP


class EndError(Exception):
    """What ends a training in these tests."""


@dataclasses.dataclass(frozen=True)
class Learning(Policy):
    """A policy with a state: weights that follow the losses seen so far; ends the training at a step."""

    tasks: tuple[str, ...] = TASKS
    base: tuple[float, ...] = (1.0, 1.0)
    mean: dict = dataclasses.field(default_factory=lambda: {"losses": torch.ones(2), "n": 0})

    def __call__(self, step):
        self.mean["losses"] = 0.9 * self.mean["losses"] + 0.1 * step.losses
        self.mean["n"] += 1
        return Decision(tuple((1 / self.mean["losses"]).tolist()), "learnt")

    def state_dict(self):
        return dict(self.mean)

    def load_state_dict(self, state):
        self.mean.update(state)


POLICIES = {
    "PFLP": lambda: PFLP(BW(TASKS, [3.0, 1.0]), period=2, shuffle_seed=0),
    "restart": lambda: ITW(BW(TASKS, [3.0, 1.0]), start=0.4, restart=True),
    "learning": Learning,
}


def train(prefix="", *, end=None, kind="PFLP", seed=0, minutes=0.0, **changes):
    """A training whose checkpoints begin with `prefix`; `end` = the step before which it is ended."""
    policy = POLICIES[kind]()
    if end is not None:
        policy = Ending(policy, end)
    settings = {"epochs": 3, "selection": "best_auc", "policy": policy} | changes
    return run(checkpoints=Checkpoints(prefix, minutes=minutes), **settings)


class Ending(Policy):
    """Another policy until a step; keeps the steps that it was asked for."""

    def __init__(self, before, end, asked=None):
        self.before, self.end, self.tasks, self.base = before, end, before.tasks, before.base
        self.asked = [] if asked is None else asked

    def __call__(self, step):
        if step.step == self.end:
            raise EndError
        self.asked.append(step.step)
        return self.before(step)

    def state_dict(self):
        return self.before.state_dict()

    def load_state_dict(self, state):
        self.before.load_state_dict(state)


def assert_same(found, expected):
    pd.testing.assert_frame_equal(found.steps, expected.steps, check_exact=True)
    columns = ["epoch", "split", "task", "loss", "auc"]
    pd.testing.assert_frame_equal(found.history[columns], expected.history[columns], check_exact=True)
    assert found.best_epoch == expected.best_epoch
    for name, value in expected.model.state_dict().items():
        assert torch.equal(value, found.model.state_dict()[name]), name
    test = scans(8, seed=2)
    probabilities = [predict(one.model, test, batch_size=4, precision="fp32") for one in (found, expected)]
    assert (probabilities[0] == probabilities[1]).all()


@pytest.mark.parametrize("kind", POLICIES)
def test_a_training_ended_at_any_step_goes_on_to_the_same_bits(tmp_path, kind):
    expected = train(kind=kind)
    for end in (1, 4, 6, 11):  # first epoch, its border, inside the second and the last step
        prefix = f"{tmp_path}/c{end}"
        with pytest.raises(EndError):
            train(prefix, end=end, kind=kind)
        torch.manual_seed(99)
        torch.rand(1)  # what the process has drawn before does not count
        assert_same(train(prefix, kind=kind), expected)


def test_a_training_ended_twice_goes_on_to_the_same_bits(tmp_path):
    for end in (3, 9):
        with pytest.raises(EndError):
            train(f"{tmp_path}/c", end=end)
    assert_same(train(f"{tmp_path}/c"), train())


@pytest.mark.parametrize(("damaged", "goes_on"), [(1, ["epoch 2/3  goes on after step 6"]), (2, [])])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, damaged, goes_on):
    with pytest.raises(EndError):
        train(f"{tmp_path}/c", end=7)
    files = sorted(tmp_path.glob("c.*"))
    assert [int(path.name.split(".")[1]) for path in files] == [6, 7]
    for path in files[-damaged:]:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # one bit
        path.write_bytes(content if damaged == 1 else content[:1000])
    caplog.set_level("INFO")
    assert_same(train(f"{tmp_path}/c"), train())
    assert len([line for line in caplog.messages if "A checkpoint is damaged" in line]) == damaged
    assert [line for line in caplog.messages if "goes on" in line] == goes_on


def test_checkpoints_of_another_key_are_not_taken(tmp_path):
    with pytest.raises(EndError):
        train(f"{tmp_path}/checkpoint.one", end=6, learning_rate=0.01)
    assert_same(train(f"{tmp_path}/checkpoint.two"), train())


def test_a_checkpoint_is_written_after_so_many_minutes(tmp_path):
    train(f"{tmp_path}/c", minutes=5.0)
    assert list(tmp_path.iterdir()) == []


def test_a_state_comes_back_as_it_was(tmp_path):
    channels = torch.arange(16.0).view(2, 2, 2, 2, 1).to(memory_format=torch.channels_last_3d)
    state = {"a": {0: channels, "b": [1, 0.1, None, True, "text"]}, "pair": (channels, [(2, float("inf"))])}
    (tmp_path / "state").write_bytes(packed(state))
    found = unpacked(tmp_path / "state")
    assert torch.equal(found["a"][0], channels)
    assert found["a"]["b"] == state["a"]["b"]
    assert found["pair"][1] == [(2, float("inf"))]
    assert isinstance(found["pair"], tuple)


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_checkpoint import train
train(sys.argv[2], epochs=int(sys.argv[3]))
"""


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_training_killed_at_random_moments_ends_in_the_same_bits(tmp_path, n_kills):
    draw, epochs = random.Random(0), 3 + n_kills
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), f"{tmp_path}/c", str(epochs)]
    for _ in range(n_kills):
        process, known = subprocess.Popen(command), set(tmp_path.iterdir())
        while set(tmp_path.iterdir()) == known:
            assert process.poll() is None
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.08))  # a step takes some 20 ms
        process.kill()
        assert process.wait() == -9
    assert_same(train(f"{tmp_path}/c", epochs=epochs), train(epochs=epochs))


@pytest.mark.parametrize(("restart", "selection"), [(False, "best_auc"), (True, "last")])
def test_a_training_goes_on_from_the_steps_that_another_one_has_done_to_the_same_bits(tmp_path, restart, selection):
    warm_up = PFLP(BW(TASKS, [3.0, 1.0]), period=2)
    transfer = ITW(warm_up, start=0.45, restart=restart)  # from step 6 of 12, inside the second epoch
    shared = {"shared": f"{tmp_path}/key", "share_at": transfer.first_step}
    run(policy=warm_up, epochs=3, selection=selection, checkpoints=Checkpoints(**shared))
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["000000006"]
    asked = []
    counting = Ending(transfer, end=None, asked=asked)
    found = run(policy=counting, epochs=3, selection=selection, checkpoints=Checkpoints(**shared))
    assert asked == list(range(6, 12))
    assert_same(found, run(policy=transfer, epochs=3, selection=selection))
