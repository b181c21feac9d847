"""What a policy costs: passes counted while a network trains, and seconds per step."""

import pandas as pd
import pytest
import torch
from test_train import TASKS, run, scans
from torch.utils.data import DataLoader

from lungmtl.comparison.printed import cost_table
from lungmtl.network.cost import counted, seconds_per_step
from lungmtl.network.device import forward
from lungmtl.network.model import MultiTaskNet
from lungmtl.network.training import predict
from lungmtl.policies import BW, gramian


@pytest.mark.parametrize(
    ("place", "expected"),
    [("", (3, 3, 3)), ("features", (3, 3, 9)), ("parameters", (3, 9, 9))],
)
def test_passes_are_counted_by_how_far_they_go(place, expected):
    network = MultiTaskNet(TASKS, width=4).train()
    with counted(network) as passes:
        for volume, _, _ in DataLoader(scans(12), 4):
            logits, features = forward(network, volume, "fp32")
            at = {"features": [features], "parameters": list(network.shared_parameters())}
            if place:
                gramian(logits.mean(dim=0), at[place])
            logits.sum().backward()
        predict(network, scans(4), batch_size=4, precision="fp32")
    assert tuple(passes.values()) == expected
    forward(network, volume, "fp32")[0].sum().backward()
    assert tuple(passes.values()) == expected  # counting ends with the block


def test_counting_changes_no_bit_of_the_training(monkeypatch):
    plain = run(policy=BW(TASKS, [3.0, 1.0]))
    monkeypatch.setattr("test_train.fit", counting_fit)
    counting = run(policy=BW(TASKS, [3.0, 1.0]))
    pd.testing.assert_frame_equal(plain.steps, counting.steps, check_exact=True)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, counting.model.state_dict()[name]), name


def counting_fit(model, *arguments, **options):
    from lungmtl.network.training import fit

    with counted(model) as passes:
        fitted = fit(model, *arguments, **options)
    assert passes == {"forward": 8, "backward": 8, "backward_features": 8}
    return fitted


def test_seconds_per_step_leave_validation_out():
    history = pd.DataFrame({"epoch": [0, 0, 0, 1, 1, 1], "split": ["train", "train", "validation"] * 2})
    assert seconds_per_step(history.assign(seconds=[2.0, 2.0, 9.0, 4.0, 4.0, 9.0]), 12) == 0.5


def test_costs_are_per_step_and_trials_are_those_of_the_group():
    runs = pd.DataFrame(
        [("MTL", 0, 10, 20, 0.5), ("MTL", 1, 10, 20, 0.7), ("MTL.aux1", 0, 10, 20, 0.6), ("MTL-full", 0, 10, 30, 0.9)],
        columns=["experiment", "seed", "cost_steps", "cost_backward", "cost_seconds_per_step"],
    ).assign(cost_forward=10, cost_backward_features=50)
    found = cost_table(runs).set_index("experiment")
    assert found.index.tolist() == ["MTL", "MTL.aux1", "MTL-full"]
    assert found["trials"].tolist() == [2, 2, 1]
    assert found["n_seeds"].tolist() == [2, 1, 1]
    assert found.loc["MTL", ["forward", "backward", "backward_features"]].tolist() == [1, 2, 5]
    assert found.loc["MTL", ["seconds_per_step", "seconds_min", "seconds_max"]].tolist() == [0.6, 0.5, 0.7]


def test_runs_without_a_cost_have_no_row():
    assert cost_table(pd.DataFrame({"experiment": ["MTL"], "seed": [0]})).empty
