"""A study's plan: from params files to runs, their paths and their keys.

The Snakefile imports this module alone; nothing here imports torch, pandas or papermill.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lungmtl.data import prepared_folder
from lungmtl.experiments import base_of, root_of, run_name
from lungmtl.files import PROJECT, existing, sha256
from lungmtl.keys import Place, key, notebook_key
from lungmtl.network import NETWORKS
from lungmtl.policies import POLICIES, names
from lungmtl.study.config import STUDY_KEYS, RunConfig, read_params
from lungmtl.study.trials import ALL_TRIALS, trials

NOTEBOOKS = PROJECT / "notebooks"  # working directory of every notebook; relative paths in params start here
TABLE2_PARAMS = PROJECT / "params" / "table2"
CONTROL_PARAMS = PROJECT / "params" / "controls"  # what takes PFLP and ITW apart, for any study
POLICY_PARAMS = PROJECT / "params" / "policies"  # policies from the literature, for any study
SMALL = "-smoke"  # ends the name of a study's small copy
EXPERIMENT_NOTEBOOK = "02_experiment.ipynb"
COMPARISON_NOTEBOOK = "03_comparison.ipynb"
PREPARATION_FILE = "preparation.csv"  # in the study's folder, or the table's: the outcome for every scan
RECORD_FILE = "record.json"  # in a run's folder: its presence means that the run is complete
STEPS_FILE, HISTORY_FILE, PREDICTIONS_FILE = "steps.csv", "history.csv", "predictions.csv"
MODEL_FILE = "model.safetensors"
FILES = (STEPS_FILE, HISTORY_FILE, PREDICTIONS_FILE, MODEL_FILE, RECORD_FILE)  # of a run, in the order they are written
COMPARISON_TABLE = "tables/auc.csv"  # in the study's folder, written by a finished comparison
PLACES = ("results_dir", "cache_dir", "allow_outside")  # where files are or may be, not what they contain
UNKEYED = (*PLACES, "checkpoint_minutes")  # settings that do not affect results: no part of a key
SHOWN = ("lungmtl.figures",)  # used by a run's notebook for display only
OF_STUDY = (  # every run of a study works on the same scans, prepared in the same way
    *("study", *PLACES, "cohort", "training_sets"),
    *(field.name for field in dataclasses.fields(RunConfig) if field.name.startswith("phantom_")),
    *("label_patterns", "label_proportions", "label_seed"),
    *("split_fractions", "split_seed", "spacing_mm", "shape", "window_hu", "region"),
)


class RunError(RuntimeError):
    """A notebook that failed or did not finish; the message names its log."""


class Rules(NamedTuple):
    """A study as a workflow engine needs it; paths are absolute."""

    runs: dict[str, RunConfig]
    cohort: Path
    is_phantom: bool
    threads: int
    keys: dict[str, str]  # by run; without the cohort table, which is an input file
    preparation_key: str
    comparison_key: str


def plan_runs(
    params: str | Path, *, seeds: Sequence[int] | None = None, places: Mapping[str, Any] | None = None
) -> list[RunConfig]:
    """Expand a study's params file into its runs, seed by seed, experiments in the file's order.

    A run's parameters are RunConfig's defaults, overridden by the study's file, then by the experiment's file, then by
    the seed. The experiment's file is `<experiment>.yaml` in the folder of the study's name (of `disjoint-smoke` that
    of `disjoint`, too), `table2`, `policies` or `controls` next to the study's file or in the project. A variant,
    `<base>.<change>`, and an arm, `<base>-<arm>`, inherit from their base what their own file does not set;
    `<experiment>.*` stands for the experiment and its trials in `params/trials.csv`. In a study with its own tasks, the
    project's experiments apply their central weight to the first task and their auxiliary weight to every other one.

    Args:
        params: File with the lists `experiments` and `seeds` and any fields of RunConfig.
        seeds: Override the file's seeds.
        places: Override the file's `PLACES`.
    Raises:
        ValueError: If a name or value is wrong, or two runs would not share their cohort and preparation.
        FileNotFoundError: If a file is missing.
    """
    path = Path(params)
    given = read_params(existing(path.resolve(), "A study's params file"))
    settings = {"study": path.stem} | given | dict(places or {})
    lists = {name: settings.pop(name, None) for name in STUDY_KEYS}
    experiments = _checked_list(lists["experiments"], "experiments", str, path)
    seeds = _checked_list(lists["seeds"] if seeds is None else list(seeds), "seeds", int, path)
    _check_settings(settings, path)
    firsts = []
    for name in experiments:  # one that ends in `ALL_TRIALS` stands for its trials, too
        config = experiment_config(settings, name.removesuffix(ALL_TRIALS), path)
        firsts += trials(config) if name.endswith(ALL_TRIALS) else [config]
    _checked_list([config.experiment for config in firsts], "experiments", str, path)
    _check_shared(firsts, path)
    return [config.with_seed(seed) for seed in seeds for config in firsts]


def rules(params: str | Path, *, seeds: Sequence[int] | None = None, places: Mapping[str, Any] | None = None) -> Rules:
    """The study that `plan_runs` expands, as the Snakefile needs it."""
    runs = plan_runs(params, seeds=seeds, places=places)
    first = runs[0]
    return Rules(
        runs={name_of(config): config for config in runs},
        cohort=cohort_path(first),
        is_phantom=not first.cohort,
        threads=first.threads,
        keys={name_of(config): settings_key(config) for config in runs},
        preparation_key=key(str(prepared_dir(first)), json.dumps(first.splitting | {"tasks": tasks_of(runs)})),
        comparison_key=comparison_key(runs),
    )


def question(params: str | Path) -> str:
    """The question in the first line of a params file, `# NAME: QUESTION?`; "" if there is none."""
    line = Path(params).read_text(encoding="utf-8").partition("\n")[0]
    found = re.match(r"#\s*[\w.-]+:\s*(.+?\?)(\s|$)", line)
    return found[1] if found else ""


def study_dir(config: RunConfig) -> Path:
    """Absolute folder of a run's study."""
    return (NOTEBOOKS / config.results_dir).resolve() / config.study


def run_dir(config: RunConfig) -> Path:
    """Absolute folder of a run."""
    return study_dir(config) / "runs" / name_of(config)


def cache_dir(config: RunConfig) -> Path:
    """Absolute folder of phantom cohorts and prepared scans."""
    return (NOTEBOOKS / config.cache_dir).resolve()


def cohort_path(config: RunConfig) -> Path:
    """Absolute path of a run's cohort table: the given one, or the phantom's in the cache."""
    if config.cohort:
        return (NOTEBOOKS / config.cohort).resolve()
    return config.phantom.folder(cache_dir(config)) / "cohort.csv"


def prepared_dir(config: RunConfig) -> Path:
    """Absolute folder of a run's prepared scans."""
    return prepared_folder(config.preparation, cache_dir(config), cohort_path(config).parent)


def name_of(config: RunConfig) -> str:
    """Name of a run in its study, e.g. `ITW3-s0`."""
    return run_name(config.experiment, config.seed)


def tasks_of(runs: Sequence[RunConfig]) -> list[str]:
    """Tasks of all runs, the central one first."""
    return list(dict.fromkeys(task for config in runs for task in config.tasks))


def incomplete(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The runs without a record."""
    return [config for config in runs if not (run_dir(config) / RECORD_FILE).is_file()]


def settings_key(config: RunConfig) -> str:
    """Hash of everything that determines a run except the cohort: notebook, parameters and the code that they reach.

    `UNKEYED` settings, figures, and policies and networks other than the run's own are excluded. A weights file that
    the run starts from is hashed by its content.
    """
    parameters = {name: value for name, value in config.to_dict().items() if name not in UNKEYED}
    start = sha256(NOTEBOOKS / config.start_weights) if config.start_weights else ""
    module, kind = NETWORKS[config.network].split(".")
    used = {*names(config.weighting.spelling), *(["PFLP"] if config.sampler == "focus" else [])}
    chosen = [Place(f"lungmtl.policies.{POLICIES[name]}", name) for name in sorted(used)]
    chosen += [Place(f"lungmtl.network.{module}", kind)]
    code = notebook_key(NOTEBOOKS / EXPERIMENT_NOTEBOOK, *chosen, without=(*SHOWN, *config.preparation.unused))
    return key(json.dumps(parameters, sort_keys=True), start, code)


def run_key(config: RunConfig, *, cohort: Path) -> str:
    """Hash of `settings_key` and the cohort table; a complete run with the same key is not computed again.

    Raises:
        FileNotFoundError: If there is no cohort table.
    """
    return key(settings_key(config), sha256(existing(cohort, "The cohort table of a run")))


def shared_key(config: RunConfig, *, cohort: Path) -> str:
    """`run_key` of the steps before Internal-Transfer Weighting begins or would begin; empty if no other run has them.

    Runs with the same key, such as MTL and ITW1, are identical up to that step.
    """
    if config.policy or len(config.tasks) == 1:
        return ""
    unfinished = {"experiment": "", "itw": False, "itw_factor": 0, "itw_restart": False}
    return run_key(dataclasses.replace(config, **unfinished), cohort=cohort)


def comparison_key(runs: Sequence[RunConfig]) -> str:
    """Hash of everything that determines the comparison except the records: notebook, code, templates, run names."""
    code = notebook_key(NOTEBOOKS / COMPARISON_NOTEBOOK, Place("lungmtl.report.page", "write_html"))
    templates = [sha256(file) for file in sorted((PROJECT / "lungmtl" / "report").glob("*.j2"))]
    return key(code, *templates, *(name_of(config) for config in runs))


def _checked_list(values: Any, name: str, kind: type, path: Path) -> list[Any]:
    proper = isinstance(values, list) and values and all(type(value) is kind for value in values)
    if not proper or len(set(values)) < len(values):
        raise ValueError(f"`{name}` must be a list of different {kind.__name__} values. Found {values!r} in {path}.")
    return values


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    for name in ("experiment", "seed"):
        if name in settings:
            raise ValueError(f"A study's file must list `{name}s`. Found `{name}` in {path}.")
    try:
        RunConfig.from_mapping(_with_weights(settings))
    except ValueError as error:
        raise ValueError(f"{error} In {path}.") from error


def experiment_config(settings: Mapping[str, Any], experiment: str, path: Path) -> RunConfig:
    """Merge the settings of one experiment over those of a study, whose params file is at `path`."""
    file = _experiment_file(experiment, path)
    own = read_params(existing(file.resolve(), f"The params file of experiment {experiment}"))
    if own.get("experiment", experiment) != experiment:
        raise ValueError(f"`experiment` must be the file's name. Found {own['experiment']!r} in {file}.")
    family = dict.fromkeys((root_of(experiment), base_of(experiment), experiment))  # later ones win
    files = [found for name in family if (found := _experiment_file(name, path)).is_file()]
    merged = {**settings, **read_params(*files), "experiment": experiment}
    has_weights = [found for found in files if "weights" in read_params(found)]
    if "tasks" in settings and has_weights and has_weights[-1].parent in (TABLE2_PARAMS, POLICY_PARAMS):
        merged |= _table2_settings(experiment, merged["weights"], list(settings["tasks"]), path)
    try:
        return RunConfig.from_mapping(merged)
    except ValueError as error:
        raise ValueError(f"{error} In {path.name} with {file.name}.") from error


def _table2_settings(experiment: str, weights: Sequence[float], tasks: list[str], path: Path) -> dict[str, Any]:
    """Tasks and weights of one of the project's experiments in a study with its own tasks."""
    if len(tasks) < min(len(weights), 2):
        raise ValueError(
            f"{experiment} weighs auxiliary tasks, so `tasks` must name at least two. Found {tasks} in {path}: "
            "with one task, `experiments` may list only STL and your own single-task experiments."
        )
    tasks = tasks[:1] if len(weights) == 1 else tasks
    return {"tasks": tasks, "weights": [weights[0], *[weights[-1]] * (len(tasks) - 1)]}


def _with_weights(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with one default weight per task if the study's file sets tasks but no weights."""
    if "tasks" not in settings or "weights" in settings or not isinstance(settings["tasks"], list):
        return dict(settings)
    return {**settings, "weights": [3.0] * len(settings["tasks"])}


def _experiment_file(experiment: str, path: Path) -> Path:
    own = [path.parent / name for name in (path.stem, path.stem.removesuffix(SMALL), "table2", "policies", "controls")]
    files = [folder / f"{experiment}.yaml" for folder in (*own, CONTROL_PARAMS, POLICY_PARAMS, TABLE2_PARAMS)]
    return next((file for file in files if file.is_file()), files[-1])


def _check_shared(runs: Sequence[RunConfig], path: Path) -> None:
    shared = {name: [getattr(config, name) for config in runs] for name in OF_STUDY}
    for name, values in (shared | {"tasks[0]": [config.tasks[0] for config in runs]}).items():
        for config, value in zip(runs, values, strict=True):
            if value != values[0]:
                raise ValueError(
                    f"`{name}` must be the same for every run of a study. Found {value!r} in {config.experiment} and "
                    f"{values[0]!r} in {runs[0].experiment} of {path}."
                )
