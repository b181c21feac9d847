"""RunConfig, the parameters cell of the experiment and every params file agree in names and defaults."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from lungmtl.experiments import TASKS
from lungmtl.policies.catalogue import POLICIES, build, names
from lungmtl.policies.contract import Policy
from lungmtl.policies.timelines import timeline
from lungmtl.study.config import STUDY_KEYS, RunConfig, read_params
from lungmtl.study.plan import plan_runs

ROOT = Path(__file__).parents[1]
EXPERIMENT = ROOT / "notebooks" / "02_experiment.ipynb"
TABLE2 = ROOT / "params" / "table2"
MAPS = [ROOT / "params" / f"{name}.yaml" for name in ("when", "when-rivals", "when-early")]  # of no runs
PARAMS = sorted(path for path in (ROOT / "params").rglob("*.yaml") if path not in MAPS)
STUDIES = [path for path in PARAMS if path.parent == TABLE2.parent]
RIVALS = {path.stem for path in (ROOT / "params" / "policies").glob("*.yaml")}
VARIANTS = sorted((ROOT / "params" / "sensitivity").glob("*.yaml"))
OWN_KEYS = {"experiment", "tasks", "weights", "pflp", "itw"}  # what tells one experiment of Table 2 from another

# Table 2: tasks, base weights, PFLP, ITW
EXPERIMENTS = {
    "STL": (TASKS[:1], [3], False, False),
    "MTL": (TASKS, [3, 3, 3, 3, 3], False, False),
    "MTL0": (TASKS, [3, 0.01, 0.01, 0.01, 0.01], True, False),
    "MTL1": (TASKS, [3, 0.1, 0.1, 0.1, 0.1], True, False),
    "MTL2": (TASKS, [3, 1, 1, 1, 1], True, False),
    "MTL3": (TASKS, [3, 3, 3, 3, 3], True, False),
    "MTL4": (TASKS, [3, 6, 6, 6, 6], True, False),
    "ITW1": (TASKS, [3, 3, 3, 3, 3], False, True),
    "ITW2": (TASKS, [3, 1, 1, 1, 1], True, True),
    "ITW3": (TASKS, [3, 3, 3, 3, 3], True, True),
}


def parameters_source(path: Path) -> str:
    """Code of the cell that is tagged `parameters`."""
    cells = nbformat.read(path, as_version=4).cells
    return next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))


def parameters(path: Path) -> dict[str, object]:
    """Names and default values of the parameters cell."""
    body = ast.parse(parameters_source(path)).body
    return {node.targets[0].id: ast.literal_eval(node.value) for node in body}


def policy_of(config: RunConfig) -> Policy:
    names = build.__annotations__.keys() - {"return"}
    return build(**{name: getattr(config, name) for name in names})


def test_parameters_cell_has_the_fields_and_defaults_of_the_config_in_its_order():
    assert list(parameters(EXPERIMENT).items()) == list(RunConfig().to_dict().items())


def test_papermill_sees_every_parameter_with_the_help_of_its_field():
    # papermill's parser passes over a line whose comment has an equals sign: such a parameter could not be set
    seen = {name: entry["help"] for name, entry in papermill.inspect_notebook(str(EXPERIMENT)).items()}

    assert seen == dict(re.findall(r"^    (\w+): .*  # (.*)$", inspect.getsource(RunConfig), re.MULTILINE))
    assert list(seen) == [field.name for field in dataclasses.fields(RunConfig)]


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_params_file_has_only_fields_with_valid_values(path):
    study = path.parent.with_suffix(".yaml")  # an arm of a study may set what stands on the study's own settings
    content = read_params(*([study] if study.is_file() and study not in MAPS else []), path)
    content = {name: value for name, value in content.items() if name not in STUDY_KEYS}

    RunConfig.from_mapping(content)


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_params_file_opens_with_a_comment_that_gives_its_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = "\n".join(lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])

    assert "Command" in comment
    assert "achine" in comment


@pytest.mark.parametrize("path", PARAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_params_file_names_no_key_twice(path):
    keys = [key.value for key, _ in yaml.compose(path.read_text(encoding="utf-8")).value]

    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_names_itself_and_experiments_that_exist(path):
    content = read_params(path)

    assert content["study"] == path.stem
    assert plan_runs(path)  # raises where an experiment has no file


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_study_leaves_the_weights_to_table_2(path):
    # a study's value would be overridden by the experiment's, or override it: neither is what it reads like; but a
    # study may have tasks of its own, on which the plan lays Table 2's weights
    assert not set(read_params(path)) & (OWN_KEYS - {"tasks"})


def test_table_2_is_complete():
    assert {path.stem for path in TABLE2.glob("*.yaml")} == set(EXPERIMENTS)


@pytest.mark.parametrize("study", ["policies", "controls", "disjoint", "tuned"])
def test_the_small_copy_of_a_study_has_its_experiments(study):
    full, small = (plan_runs(ROOT / "params" / f"{name}.yaml", seeds=[0]) for name in (study, f"{study}-smoke"))
    wanted = {run.experiment: (run.weights, run.policy, run.labels, run.sampler) for run in full}
    found = {run.experiment: (run.weights, run.policy, run.labels, run.sampler) for run in small}
    assert found == {name: wanted[name] for name in (found if study == "tuned" else wanted)}


@pytest.mark.parametrize("study", ["phantom-full", "sensitivity", "policies", "controls", "disjoint"])
def test_the_protocol_has_the_experiments_and_seeds_of_its_study(study):
    protocol = (ROOT / "params" / "protocol.md").read_text(encoding="utf-8").split("---\n")[1]
    fixed, planned = yaml.safe_load(protocol)["studies"][study], read_params(ROOT / "params" / f"{study}.yaml")

    assert {name: fixed[name] for name in STUDY_KEYS} == {name: planned[name] for name in STUDY_KEYS}


def test_every_policy_has_a_params_file_and_runs_in_the_pilot_as_in_its_smoke_study():
    pilot, smoke = (plan_runs(ROOT / "params" / f"{name}.yaml") for name in ("policies", "policies-smoke"))
    files = {path.stem: read_params(path) for path in (ROOT / "params" / "policies").glob("*.yaml")}

    in_files = {name for params in files.values() for name in names(params["policy"])}
    assert set(POLICIES) - {"Alone"} == in_files  # a control, of params/controls
    assert [run.weighting for run in pilot] == [dataclasses.replace(run.weighting, pflp_period=20) for run in smoke]
    assert {run.experiment for run in pilot} >= RIVALS - {"CAGrad"}  # whose solver is no dependency


def test_a_rival_takes_the_tasks_of_a_study_with_tasks_of_its_own(tmp_path):
    study = tmp_path / "own.yaml"
    study.write_text("experiments: [UW, Static]\nseeds: [0]\ntasks: [nodule, emphysema]\n", encoding="utf-8")

    assert [(run.tasks, run.weights) for run in plan_runs(study)] == [
        (["nodule", "emphysema"], [1, 1]),
        (["nodule", "emphysema"], [3, 0.3]),
    ]


def test_sensitivity_runs_every_variant_and_its_base():
    experiments = read_params(ROOT / "params" / "sensitivity.yaml")["experiments"]

    assert {name for name in experiments if "." in name} == {path.stem for path in VARIANTS}
    assert {name.partition(".")[0] for name in experiments} <= set(experiments)


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variant_changes_its_base_and_nothing_but_the_policy(path):
    runs = {run.experiment: run.to_dict() for run in plan_runs(ROOT / "params" / "sensitivity.yaml", seeds=[0])}
    variant, base = runs[path.stem], runs[path.stem.partition(".")[0]]

    changed = {name for name, value in variant.items() if value != base[name]} - {"experiment"}

    assert changed == set(read_params(path)) - {"experiment"}
    assert changed
    assert all(name == "weights" or name.startswith(("pflp_", "itw_")) for name in changed)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_table_2_file_gives_the_weights_of_table_2(name):
    tasks, weights, pflp, itw = EXPERIMENTS[name]

    config = RunConfig.from_mapping(read_params(TABLE2 / f"{name}.yaml"))

    assert config.experiment == name
    assert tuple(config.tasks) == tasks
    assert config.weights == weights
    assert (config.pflp, config.itw) == (pflp, itw)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_table_2_file_sets_only_what_tells_it_apart(name):
    assert set(read_params(TABLE2 / f"{name}.yaml")) <= OWN_KEYS


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_table_2_file_builds_the_phases_of_table_2(name):
    _, _, pflp, itw = EXPERIMENTS[name]
    policy = policy_of(RunConfig.from_mapping(read_params(TABLE2 / f"{name}.yaml")))

    phases = timeline(policy, n_steps=100, steps_per_epoch=10)["phase"].tolist()

    warm_up = "focus" if pflp else "balanced"
    assert phases == ([warm_up] * 60 + ["transfer"] * 40 if itw else [warm_up] * 100)
