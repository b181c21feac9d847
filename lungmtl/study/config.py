"""Settings of a run: one flat frozen dataclass, checked on the way in.

A field of `RunConfig` is a line of the parameters cell of `notebooks/02_experiment.ipynb` and a key of a
params file, with the same name and the same default; `tests/test_params.py` holds the three together. The
trailing comment of a field is its help; it has no equals sign, which papermill's parser cannot handle. Defaults
are the smoke size: seconds on one CPU thread.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lungmtl.data import Labelling, Preparation
from lungmtl.experiments import TASKS
from lungmtl.network import Training
from lungmtl.policies import Weighting, build
from lungmtl.sources import Knobs, PhantomSettings
from lungmtl.study.ranges import check_ranges

Part = TypeVar("Part")
STUDY_KEYS = ("experiments", "seeds")  # the only params keys that are not fields: `study` expands them


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run: one experiment with one seed. Immutable; every rule is checked by `from_mapping`."""

    # which run, and where it is written
    study: str = "interactive"  # name of the study, a folder of results_dir
    experiment: str = "ITW3"  # name of the experiment (Table 2 or your own)
    seed: int = 0  # seeds initialisation, batch order and augmentation
    results_dir: str = "../results"  # folder of all studies, relative to notebooks/
    cache_dir: str = "../.cache"  # folder of phantom cohorts and prepared scans, relative to notebooks/
    # cohort
    cohort: str = ""  # path of a cohort.csv; empty generates the phantom cohort
    allow_outside: bool = False  # whether the table may name images outside its folder
    phantom_scans: list[int] = dataclasses.field(default_factory=lambda: [32, 16, 24])  # n train, validation, test
    phantom_seed: int = 2019  # seeds the phantom cohort, apart from `seed`
    training_sets: int = 1  # disjoint training and validation sets; a run takes number `seed` modulo so many
    phantom_label_noise: float = 0.05  # chance that an auxiliary diagnosis column is recorded wrongly
    phantom_relatedness: float = 0.0  # share of the signs of emphysema and bronchitis that is focal, like nodules
    phantom_exposure_severity: float = 0.0  # share of an ill patient's severity that the exposure sets
    phantom_odds_ratios: list[float] = dataclasses.field(default_factory=list)  # with lung cancer; empty: by exposure
    phantom_prevalence: float = 0.4  # of lung cancer
    phantom_invisible: float = 0.0  # share of the cancers without a nodule
    phantom_wall_masses: float = 0.0  # share of the visible cancers that are a mass at the chest wall
    split_fractions: list[float] = dataclasses.field(default_factory=lambda: [0.743, 0.082, 0.175])  # paper's split
    split_seed: int = 0  # seeds the split of patients whose split column is blank
    labels: str = "all"  # training labels kept: all, disjoint (one pattern per scan) or matched (control of disjoint)
    label_patterns: list[str] = dataclasses.field(default_factory=list)  # patterns such as "copd+asthma", one per scan
    label_proportions: list[float] = dataclasses.field(default_factory=list)  # share of scans per pattern; empty: equal
    label_seed: int = 0  # seeds which scan gets which pattern, and the shuffle of shuffle_tasks
    shuffle_tasks: list[str] = dataclasses.field(default_factory=list)  # tasks whose training labels are shuffled
    # preparation
    spacing_mm: list[float] = dataclasses.field(default_factory=lambda: [8.0, 8.0, 8.0])  # voxel size in mm, (z, y, x)
    shape: list[int] = dataclasses.field(default_factory=lambda: [32, 32, 40])  # model grid in voxels, (z, y, x)
    window_hu: list[float] = dataclasses.field(default_factory=lambda: [-1000.0, 400.0])  # HU mapped to 0 and 1
    region: str = "wide"  # what the network sees: wide (all inside the ribs), or tight (the lungs' air)
    # tasks and weighting policy
    tasks: list[str] = dataclasses.field(default_factory=lambda: list(TASKS))  # central task first
    weights: list[float] = dataclasses.field(default_factory=lambda: [3.0] * 5)  # base loss weight per task
    policy: str = ""  # spelled from the outside in, e.g. ITW(PFLP); empty follows from pflp and itw
    pflp: bool = True  # Periodic Focusing: tasks take turns in focus
    pflp_factor: float = 0.1  # multiplies the weight of every task not in focus
    pflp_period: int = 20  # length of one focus, in pflp_unit
    pflp_unit: str = "step"  # step or epoch
    pflp_order: list[str] = dataclasses.field(default_factory=list)  # order of focus; empty is the order of tasks
    pflp_keep_mean: bool = False  # rescale so that the mean weight over a cycle stays the base's
    pflp_shuffle: bool = False  # a new random order of focus in every cycle, drawn from `seed`
    itw: bool = True  # Internal-Transfer Weighting: final stage on the central task
    itw_start: float = 0.6  # fraction of the steps after which ITW begins, inside [0, 1)
    itw_factor: float = 0.01  # multiplies the auxiliary weights in the final stage
    itw_restart: bool = False  # begin the final stage with a fresh optimiser and learning rate schedule
    # network
    network: str = "attention"  # name of the network
    width: int = 8  # channels of the first encoder stage
    start_weights: str = ""  # safetensors file that the network starts from, relative to notebooks/
    # training
    epochs: int = 3  # passes over the training scans
    batch_size: int = 8  # scans per optimiser step
    sampler: str = "natural"  # batches: natural (any scan), each (all tasks labelled), turns (one task) or focus (PFLP)
    learning_rate: float = 0.001  # peak of the schedule
    weight_decay: float = 0.01  # AdamW
    warmup: float = 0.1  # fraction of the steps with a rising learning rate; it falls over the last quarter
    class_balance: str = "positives"  # positives (weigh positives by negatives/positives) or none
    augment: bool = True  # flip, shift, rotate, scale and noise, in training only
    selection: str = "last"  # rule for the epoch kept: last, or best_auc (central task, validation)
    precision: str = "fp32"  # auto, bf16 or fp32; auto is bf16 where the processor has it
    threads: int = 1  # CPU threads of this run
    checkpoint_minutes: float = 1.0  # minutes between checkpoints; an interrupted run goes on from the last one

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "RunConfig":
        """Build a config from parameters, checking names, types and ranges.

        Args:
            mapping: Parameter name to value; missing names take their default.
        Raises:
            ValueError: If a name is unknown, a value has the wrong type or lies outside its range.
        """
        hints = typing.get_type_hints(cls)
        values = {name: _checked(name, value, hints) for name, value in mapping.items()}
        config = cls(**values)
        check_ranges(config)
        build(config.weighting)  # a policy has rules of its own
        return config

    def to_dict(self) -> dict[str, Any]:
        """All fields, defaults included, as plain values for JSON or YAML."""
        return dataclasses.asdict(self)

    def with_seed(self, seed: int) -> "RunConfig":
        """The same experiment with another seed."""
        config = dataclasses.replace(self, seed=seed)
        check_ranges(config)
        return config

    @property
    def preparation(self) -> Preparation:
        """The model's grid and window."""
        return self._part(Preparation)

    @property
    def splitting(self) -> dict[str, Any]:
        """Keyword arguments of `data.judge_splits`."""
        fractions = {"fractions": self.split_fractions, "seed": self.split_seed}
        sets = {"training_sets": self.training_sets} if self.training_sets > 1 else {}
        return {"tasks": self.tasks, **fractions, "batch_size": self.batch_size, **sets}

    @property
    def phantom(self) -> PhantomSettings:
        """The phantom cohort of a run without a cohort table."""
        n_scans = dict(zip(("n_train", "n_validation", "n_test"), self.phantom_scans, strict=True))
        n_scans |= {name: n_scans[name] * self.training_sets for name in ("n_train", "n_validation")}
        settings = {"seed": self.phantom_seed, "label_noise": self.phantom_label_noise}
        return PhantomSettings(**n_scans, **settings, knobs=self._part(Knobs, "phantom_"))

    @property
    def labelling(self) -> Labelling:
        """Which labels the training scans keep."""
        return self._part(Labelling)

    @property
    def weighting(self) -> Weighting:
        """The policy and its flat settings."""
        return self._part(Weighting)

    @property
    def training(self) -> Training:
        """Optimiser, budget and selection."""
        return self._part(Training)

    def _part(self, kind: type[Part], prefix: str = "") -> Part:
        return kind(**{field.name: getattr(self, prefix + field.name) for field in dataclasses.fields(kind)})


def read_params(*paths: str | Path) -> dict[str, Any]:
    """Merge flat YAML params files, later ones winning.

    Raises:
        ValueError: If a file is not a flat mapping in YAML, or names a key twice.
        FileNotFoundError: If a file is missing.
    """
    merged: dict[str, Any] = {}
    for path in (Path(path).absolute() for path in paths):
        content = _read_yaml(path)
        if not isinstance(content, dict) or any(isinstance(value, dict) for value in content.values()):
            raise ValueError(f"A params file must be a flat mapping of names to values. Found {path}.")
        merged |= content
    return merged


def _read_yaml(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        pairs = getattr(yaml.compose(text, Loader=yaml.SafeLoader), "value", [])
        content = yaml.safe_load(text) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        found = " ".join(str(error).replace('in "<unicode string>", ', "").split())
        raise ValueError(f"A params file must be YAML. Found {found}, in {path}.") from error
    keys = [pair[0].value for pair in pairs if isinstance(pair, tuple)]
    twice = [key for key in dict.fromkeys(map(str, keys)) if keys.count(key) > 1]
    if twice:
        raise ValueError(f"A params file must name each key once. Found `{twice[0]}` more than once in {path}.")
    return content


def _checked(name: str, value: Any, hints: dict[str, Any]) -> Any:
    if name not in hints:
        close = difflib.get_close_matches(str(name), hints, n=1)  # YAML reads the names `n` and `on` as booleans
        hint = f" Did you mean `{close[0]}`?" if close else ""
        raise ValueError(f"A parameter must be a field of RunConfig. Found `{name}`.{hint}")
    if _matches(value, hints[name]):
        return _converted(value, hints[name])
    hint = " YAML reads 2e-3 as text and 2.0e-3 as a number." if _is_float_text(value, hints[name]) else ""
    raise ValueError(f"`{name}` must be {_type_name(hints[name])}. Found {value!r} ({type(value).__name__}).{hint}")


def _matches(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.GenericAlias):
        return isinstance(value, list | tuple) and all(_matches(item, hint.__args__[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _is_float_text(value: Any, hint: Any) -> bool:
    return hint is float and isinstance(value, str)


def _converted(value: Any, hint: Any) -> Any:
    if isinstance(hint, types.GenericAlias):
        return [_converted(item, hint.__args__[0]) for item in value]
    return float(value) if hint is float else value


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.GenericAlias):
        return f"a list, each item {_type_name(hint.__args__[0])}"
    return {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}[hint]
