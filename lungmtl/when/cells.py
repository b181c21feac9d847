"""Cells of the map: one setting each, all experiments and seeds in it, computed once and kept in a file of its own."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
import torch

from lungmtl.experiments import AXES
from lungmtl.keys import Place, code_key, key
from lungmtl.policies import POLICIES, Weighting, build, names
from lungmtl.tables import write_csv
from lungmtl.when.early import Early
from lungmtl.when.students import Budget, train_students
from lungmtl.when.world import World, ceiling, draw_scans
from lungmtl.workers import run_jobs

SIDE_AT = {"n_scans": 640, "n_steps": 2400}  # where the side arms lie
LEARNT = 0.25  # chosen by us: a network has learnt from this share of the way from 0.5 to the ceiling
ENTRY = Place("lungmtl.when.cells", "run_cell")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting: values of the world and of the budget, and the arm that it belongs to, "" for the grid."""

    relatedness: float
    n_scans: int
    n_steps: int
    arm: str = ""
    label_noise: float = 0.1
    correlation: float = 0.0
    one_label: bool = False
    optimiser: str = "adamw"
    early: float = 0.0  # share of the steps in which students are watched for early signs

    @property
    def world(self) -> World:
        """What scans and labels are like."""
        return World(**{field.name: getattr(self, field.name) for field in dataclasses.fields(World)})

    @property
    def budget(self) -> Budget:
        """How long students learn."""
        return Budget(n_steps=self.n_steps, optimiser=self.optimiser)


def cells_of(axes: Mapping[str, Sequence[float]], arms: Mapping[str, object]) -> list[Cell]:
    """The grid of all values of the axes, and per side arm (a field of `Cell` and its value) a cell per relatedness.

    The longest come first, so that two processes end at about the same time.
    """
    grid = [Cell(**dict(zip(AXES, values, strict=True))) for values in product(*(axes[name] for name in AXES))]
    side = [Cell(relatedness=r, arm=arm, **SIDE_AT, **{arm: value})
            for arm, value in arms.items() for r in axes["relatedness"]]  # fmt: skip
    return sorted([*grid, *side], key=lambda cell: -cell.n_steps)


def run_map(
    cells: Sequence[Cell], experiments: Mapping[str, Weighting], *, n_seeds: int, folder: Path, workers: int
) -> Iterator[Path]:
    """Compute the cells that are not in the folder yet, and yield the file of every one."""
    jobs = [(cell, tuple(experiments.items()), n_seeds, folder / f"{cell_key(cell, experiments, n_seeds)}.csv")
            for cell in cells]  # fmt: skip
    yield from (job[3] for job in jobs if job[3].is_file())
    todo = [job for job in jobs if not job[3].is_file()]
    yield from (result["file"] for result in run_jobs(_write_cell, todo, workers=workers))


def cell_key(cell: Cell, experiments: Mapping[str, Weighting], n_seeds: int) -> str:
    """Name of a cell's file: its setting, its experiments, and the code that it executes."""
    spelled = {name for weighting in experiments.values() for name in names(weighting.spelling)}
    code = code_key(ENTRY, *sorted(Place(f"lungmtl.policies.{POLICIES[name]}", name) for name in spelled))
    values = [dataclasses.asdict(cell), {name: dataclasses.asdict(one) for name, one in experiments.items()}, n_seeds]
    return key(json.dumps(values, sort_keys=True), code)


def run_cell(cell: Cell, experiments: Mapping[str, Weighting], *, n_seeds: int) -> pd.DataFrame:
    """Train every experiment on `n_seeds` worlds of this setting, each with a teacher and training set of its own.

    Returns:
        One row per experiment and seed: the fields of the cell, `experiment`, `seed`, `ceiling`, `auc_train`,
        `auc_validation`, `auc_test` of the central task, the signs of `Early` if the cell is watched, and `learnt`.
    """
    scans = [draw_scans(cell.world, seed=seed) for seed in range(n_seeds)]
    policies = [_of_seeds(weighting, n_seeds) for weighting in experiments.values()]
    watch = Early(cell.early, scans) if cell.early else None
    aucs = train_students(policies, scans, cell.budget, seed=0, watch=watch)
    found = {f"auc_{split}": values for split, values in aucs.items()}
    found |= {f"early_{sign}": values for sign, values in watch.signs.items()} if watch else {}
    ceilings = [ceiling(of_seed["test"]) for of_seed in scans]
    rows = [
        {
            **dataclasses.asdict(cell),
            **{"experiment": name, "seed": seed, "ceiling": ceilings[seed]},
            **{name: float(values[place, seed]) for name, values in found.items()},
        }
        for place, name in enumerate(experiments)
        for seed in range(n_seeds)
    ]
    frame = pd.DataFrame(rows)
    return frame.assign(learnt=frame["auc_test"] >= 0.5 + LEARNT * (frame["ceiling"] - 0.5))


def _of_seeds(weighting: Weighting, n_seeds: int) -> list:
    """A policy per seed; one for all seeds if it depends on the progress alone."""
    made = [build(dataclasses.replace(weighting, seed=seed)) for seed in range(n_seeds)]
    return [made[0]] * n_seeds if made[0].is_schedule and len(set(map(repr, made))) == 1 else made


def _write_cell(job: tuple) -> dict:
    cell, experiments, n_seeds, file = job
    torch.set_num_threads(1)
    frame = run_cell(cell, dict(experiments), n_seeds=n_seeds)
    return {"file": write_csv(frame, file, float_format="%.6g")}
