"""A run: what its notebook refuses, what a network may start from, what a finished run gives back."""

import papermill
import pytest
import torch
from papermill.exceptions import PapermillExecutionError
from safetensors.torch import load_file, save_file
from standin import PROJECT

from lungmtl.network.catalogue import build_network, start_from
from lungmtl.network.device import seed_everything
from lungmtl.study.config import RunConfig
from lungmtl.study.plan import plan_runs
from lungmtl.study.record import read_rebuild
from lungmtl.study.run import (
    check_name,
    configure,
    datasets,
    evaluate,
    gather,
    load_run,
    new_network,
    train,
    write_record,
)

TASKS = ["lung_cancer", "copd"]


def namespace(*cells, **changes):
    return {**RunConfig().to_dict(), "In": ["", "import pandas as pd", "epochs = 3\nseed = 0", *cells], **changes}


def test_a_notebook_has_the_settings_of_its_parameters_cell():
    assert configure(namespace("# Parameters\nepochs = 5\n", epochs=5)) == RunConfig(epochs=5)


def test_an_injected_parameter_that_does_not_exist_is_refused():
    message = "A parameter must be in the parameters cell of the notebook. Found epoch, unknown to the notebook."
    with pytest.raises(ValueError, match=message):
        configure(namespace("# Parameters\nepoch = 5\n", epoch=5))


def test_a_misspelt_parameter_of_a_hand_started_run_is_refused_by_the_notebook(tmp_path):
    notebook = PROJECT / "notebooks" / "02_experiment.ipynb"
    with pytest.raises(PapermillExecutionError, match="Found epoch, unknown to the notebook"):
        papermill.execute_notebook(
            notebook, tmp_path / "out.ipynb", {"epoch": 3}, cwd=notebook.parent, progress_bar=False
        )


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"experiment": "STL"}, "pflp True, itw True"),
        ({"experiment": "ITW3", "itw": False}, "itw False"),
        ({"experiment": "ITW3", "policy": "PFLP"}, "policy PFLP"),
        ({"experiment": "ITW2"}, r"weights \[3.0, 3.0, 3.0, 3.0, 3.0\]"),
        ({"experiment": "ITW3", "tasks": ["lung_cancer"], "weights": [3.0]}, r"tasks \['lung_cancer'\]"),
    ],
)
def test_a_name_of_table_2_with_other_settings_is_refused(settings, found):
    with pytest.raises(ValueError, match=rf"must have the tasks, weights and policy of Table 2\. Found .*{found}"):
        check_name(RunConfig.from_mapping(settings))


@pytest.mark.parametrize("params", ["phantom.yaml", "sensitivity.yaml", "smoke.yaml"])
def test_every_planned_run_may_have_its_name(params):
    for config in plan_runs(PROJECT / "params" / params):
        check_name(config)


def test_own_names_are_free():
    check_name(RunConfig(experiment="MINE", pflp=False))


def network(tasks=TASKS, *, seed):
    torch.manual_seed(seed)
    return build_network("attention", tasks, width=4)


def test_a_network_starts_from_the_tensors_it_shares_with_a_file(tmp_path):
    source, target = network(seed=1), network(["lung_cancer", "asthma"], seed=2)
    before = target.state_dict()["subnetwork.asthma.0.weight"].clone()
    save_file(source.state_dict(), tmp_path / "start.safetensors")

    untouched = start_from(target, tmp_path / "start.safetensors")

    after = target.state_dict()
    assert torch.equal(after["encoder.0.weight"], source.state_dict()["encoder.0.weight"])
    assert torch.equal(after["subnetwork.lung_cancer.0.weight"], source.state_dict()["subnetwork.lung_cancer.0.weight"])
    assert torch.equal(after["subnetwork.asthma.0.weight"], before)
    assert {name.split(".")[1] for name in untouched} == {"asthma"}


def test_a_weights_file_that_does_not_fit_is_refused(tmp_path):
    save_file({"other": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file(build_network("attention", TASKS, width=8).state_dict(), tmp_path / "wide.safetensors")

    with pytest.raises(ValueError, match=r"must fit the network\. Found none of its tensors in other\.safetensors"):
        start_from(network(seed=0), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="Found other shapes of "):
        start_from(network(seed=0), tmp_path / "wide.safetensors")
    with pytest.raises(FileNotFoundError, match="`start_weights`, a safetensors file, must exist"):
        start_from(network(seed=0), tmp_path / "none.safetensors")


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"`network` must be one of attention\. Found 'resnet'"):
        build_network("resnet", TASKS, width=4)


def test_features_read_on_are_what_the_network_returns():
    model = network(seed=0).eval()
    volume = torch.rand(2, 1, 24, 24, 24)

    logits, attention = model(volume)
    again = model.read(model.encode(volume))

    assert torch.equal(logits, again[0])
    assert torch.equal(attention, again[1])
    assert model.encode(volume).shape[2:] == (24 // model.reduction,) * 3
    inner = {id(parameter) for parameter in model.shared_parameters()}
    assert {id(p) for name, p in model.named_parameters() if name.startswith("encoder.")} == inner


def test_a_finished_run_gives_back_its_network_by_its_checkpoint_alone_and_says_what_it_saw(tmp_path):
    settings = {"experiment": "MINE", "policy": "ITW(PFLP(period=1), start=0.5)", "epochs": 1, "batch_size": 4}
    settings |= {
        "tasks": TASKS,
        "weights": [3, 1],
        "phantom_scans": [8, 8, 8],
        "phantom_seed": 0,
        "spacing_mm": [20.0] * 3,
        "shape": [16, 16, 20],
        "labels": "disjoint",
        "label_patterns": TASKS,
        "label_seed": 2,  # leaves both classes of both tasks
        "sampler": "turns",
    }
    config = RunConfig.from_mapping({**settings, "results_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache")})

    seed_everything(config.seed)
    cohort = gather(config)
    scans = datasets(config, cohort)
    trained = train(config, new_network(config), scans)
    folder = write_record(config, cohort, trained, evaluate(config, trained, scans)).parent
    found = load_run(folder)

    saved = load_file(folder / "model.safetensors")
    assert all(torch.equal(tensor, saved[name]) for name, tensor in found.network.state_dict().items())
    assert found.network.tasks == tuple(config.tasks)
    assert found.record["policy"]["name"] == "ITW(PFLP(BW))"
    assert found.record["policy"]["settings"]["PFLP"]["period"] == 1
    assert read_rebuild(folder)["config"]["network"] == "attention"
    assert found.record["config"]["sampler"] == "turns"
    assert found.record["cost"].pop("seconds_per_step") > 0
    assert found.record["cost"] == {"steps": 2, "forward": 2, "backward": 2, "backward_features": 2}
    counts = found.record["cohort"]["counts"]
    assert [counts["train"][task]["n"] for task in TASKS] == [4, 4]
    assert counts["validation"]["lung_cancer"]["n"] == counts["test"]["lung_cancer"]["n"] == 8
    single = gather(RunConfig.from_mapping(config.to_dict() | {"tasks": TASKS[:1], "weights": [3]}))
    assert single.counts["train"]["lung_cancer"] == counts["train"]["lung_cancer"]  # no other pattern for one task
    torch.manual_seed(9)
    assert not torch.equal(new_network(config).state_dict()["encoder.0.weight"], saved["encoder.0.weight"])
    started = RunConfig.from_mapping({**config.to_dict(), "start_weights": str(folder / "model.safetensors")})
    assert torch.equal(new_network(started).state_dict()["encoder.0.weight"], saved["encoder.0.weight"])
