"""How well the pilot of `lungmtl advise` tells relatedness on feature phantoms, where it is known.

The pilot trains with balanced weights for a few steps, and again with the auxiliary labels shuffled among the training
scans, which tells what agreement of gradients a network has for nothing; the ratio is what a cohort is placed by.

Command: python -m benchmarks.pilot [--out results/when/tables]. Writes `pilot.csv`, which `advise` places a cohort by.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from lungmtl.experiments import TASKS
from lungmtl.files import PROJECT
from lungmtl.policies import Watching, agreement
from lungmtl.tables import write_csv
from lungmtl.when import KEPT, Budget, World, draw_scans, relatedness_of, train_students
from lungmtl.when.world import Scans

LEVELS = (0.0, 0.3333, 0.6667, 1.0)
N_STEPS, N_SEEDS = 200, 3


def main() -> None:
    """Run the pilot on all worlds, print its correlation with the truth, write the table."""
    options = _options()
    torch.set_num_threads(1)
    found = pilot_on_phantoms(LEVELS, n_worlds=options.worlds, n_steps=options.steps)
    logs, truth = np.log(found["agreement"] / found["shuffled"]), found["relatedness"]
    for name, values in (("ratio", logs), ("agreement alone", found["agreement"])):
        print(
            f"{len(found)} worlds, {options.steps} steps: rank correlation {spearmanr(values, truth)[0]:+.2f} ({name})"
        )
    print(logs.groupby(truth).agg(["mean", "std"]).round(2).to_string())
    is_even = found["world"] % 2 == 0
    chances = pd.DataFrame([relatedness_of(np.exp(log), found[is_even]) for log in logs[~is_even]])
    estimate = chances.to_numpy() @ chances.columns.to_numpy(dtype=float)
    kept = [row[level] >= KEPT for (_, row), level in zip(chances.iterrows(), truth[~is_even], strict=True)]
    print(f"placed by the even worlds, {len(kept)} odd ones: rank correlation of the estimate "
          f"{spearmanr(estimate, truth[~is_even])[0]:+.2f}; the truth is kept in {np.mean(kept):.0%}, and "
          f"{(chances >= KEPT).sum(axis=1).mean():.1f} of {len(LEVELS)} degrees are")  # fmt: skip
    unrelated = chances[0.0][(truth[~is_even] == 0).to_numpy()]
    others = chances[0.0][(truth[~is_even] > 0).to_numpy()]
    print(
        f"chance given to relatedness 0: mean {unrelated.mean():.0%} where that is true, {others.mean():.0%} elsewhere"
    )
    print(f"Table: {write_csv(found, options.out / 'pilot.csv', float_format='%.6g')}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "results" / "when" / "tables")
    parser.add_argument("--worlds", type=int, default=24, help="per degree of relatedness, %(default)s")
    parser.add_argument("--steps", type=int, default=N_STEPS, help="%(default)s")
    return parser.parse_args()


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


if __name__ == "__main__":
    main()
