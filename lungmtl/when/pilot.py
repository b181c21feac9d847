"""Pilot: how far a short training's auxiliary gradients agree with the central one, as a guess at relatedness.

Balanced weights are trained for a few steps, and again with the auxiliary labels shuffled among the training scans,
which tells what agreement a network has for nothing; the ratio is what a cohort is placed by. Chosen by us on the
feature phantom, whose relatedness is known: `benchmarks/pilot.py` says how well it does there.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lungmtl.experiments import TASKS
from lungmtl.policies import Watching, agreement
from lungmtl.when.students import Budget, train_students
from lungmtl.when.world import Scans, World, draw_scans

N_STEPS, N_SEEDS = 200, 3
KEPT = 0.05  # chance that a degree of relatedness must have to be reckoned with


def pilot_on_phantoms(levels: Sequence[float], *, n_worlds: int, n_steps: int, n_scans: int = 640) -> pd.DataFrame:
    """The pilot on worlds of known relatedness: `relatedness`, `world`, `agreement`, `shuffled`, one row per world."""
    places = [(level, world) for level in levels for world in range(n_worlds)]
    drawn = [draw_scans(World(relatedness=level, n_scans=n_scans), seed=world) for level, world in places]
    found = {
        "agreement": _agreements(drawn, n_steps),
        "shuffled": _agreements(
            [_shuffled(scans, seed=world) for scans, (_, world) in zip(drawn, places, strict=True)], n_steps
        ),
    }
    return pd.DataFrame(places, columns=["relatedness", "world"]).assign(n_steps=n_steps, **found)


def relatedness_of(ratio: float, phantoms: pd.DataFrame) -> pd.Series:
    """Chance of each degree of relatedness among the phantoms' whose pilot found such a ratio, all alike before.

    Args:
        ratio: Agreement over that with shuffled labels.
        phantoms: As `pilot_on_phantoms` gives them; the logarithm of their ratios is taken as normal at every degree.
    """
    logs = np.log(phantoms["agreement"] / phantoms["shuffled"]).groupby(phantoms["relatedness"])
    density = np.exp(-(((np.log(ratio) - logs.mean()) / logs.std()) ** 2) / 2) / logs.std()
    return density / density.sum()


def _agreements(drawn: Sequence[dict[str, Scans]], n_steps: int) -> list[float]:
    """Of every world, over `N_SEEDS` trainings."""
    scans = [of_seed for of_seed in drawn for _ in range(N_SEEDS)]
    watched = [Watching(TASKS, [1.0] * len(TASKS)) for _ in scans]
    train_students([watched], scans, Budget(n_steps=n_steps), seed=0)
    return [agreement(watched[place : place + N_SEEDS]) for place in range(0, len(watched), N_SEEDS)]


def _shuffled(scans: dict[str, Scans], *, seed: int) -> dict[str, Scans]:
    """The same scans with each auxiliary label of training exchanged among them."""
    generator, train = np.random.default_rng(seed), scans["train"]
    target = train.target.clone()
    for t in range(1, target.shape[1]):
        target[:, t] = target[generator.permutation(len(target)), t]
    return scans | {"train": train._replace(target=target)}
