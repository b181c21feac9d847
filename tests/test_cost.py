"""What a policy costs: passes counted while a network trains, and seconds per step."""

import operator
import sys

import pandas as pd
import pytest
import torch
from test_train import TASKS, run, scans
from torch.utils.data import DataLoader

from benchmarks import policies as benchmark
from lungmtl.comparison.printed import cost_table
from lungmtl.network.cost import counted, seconds_per_step
from lungmtl.network.device import forward
from lungmtl.network.held import Held
from lungmtl.network.model import MultiTaskNet
from lungmtl.network.others import OtherBatches
from lungmtl.network.training import predict
from lungmtl.policies import BW, Weighting, build, gramian


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


@pytest.mark.parametrize("spelling", ["UW", "PCGrad", "GCS(at='parameters')", "AutoLambda"])
def test_the_step_that_is_timed_is_that_of_training(spelling):
    rate, train_set = benchmark.LEARNING_RATE, scans(4)
    options = {"epochs": 1, "warmup": 0.0, "augment": False, "selection": "last", "learning_rate": rate}
    trained = run(train_set, policy=build(weighting(spelling)), **options).model

    torch.manual_seed(0)
    network = MultiTaskNet(TASKS, width=4).to(memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.01, fused=True)
    held = Held(train_set, torch.device("cpu"), dtype=None)
    others = OtherBatches(network, held, operator.getitem, 4, None, "fp32", 0)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(0))
    batch = benchmark.Batch(*(part[order] for part in train_set.datasets))
    benchmark.train_step(network, optimiser, build(weighting(spelling)), batch, others)

    for name, value in trained.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def weighting(spelling):
    return Weighting(tasks=TASKS, weights=[1.0, 1.0], policy=spelling)


def test_the_benchmark_of_policies_runs_and_says_what_it_leaves_out(monkeypatch, capsys):
    monkeypatch.setattr("torchjd._mixins.find_spec", lambda name: None if name == "cvxpy" else name)
    words = "policies --size 8 --batch 2 --width 4 --pairs 1 --only"
    monkeypatch.setattr(sys, "argv", [*words.split(), "ITW(PFLP);AutoLambda;CAGrad"])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["ITW(PFLP)", "AutoLambda", "CAGrad"]
    assert "left out: CAGrad must have TorchJD 0.18" in lines[-1]
