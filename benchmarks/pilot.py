"""How well the pilot of `lungmtl advise` tells relatedness on feature phantoms, where it is known.

Command: python -m benchmarks.pilot [--out results/when/tables]. Writes `pilot.csv`, which `advise` places a cohort by.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from lungmtl.files import PROJECT
from lungmtl.tables import write_csv
from lungmtl.when import KEPT, N_STEPS, pilot_on_phantoms, relatedness_of

LEVELS = (0.0, 0.3333, 0.6667, 1.0)


def main() -> None:
    """Run the pilot on all worlds, print its correlation with the truth, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=PROJECT / "results" / "when" / "tables")
    parser.add_argument("--worlds", type=int, default=24, help="per degree of relatedness, %(default)s")
    parser.add_argument("--steps", type=int, default=N_STEPS, help="%(default)s")
    options = parser.parse_args()
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


if __name__ == "__main__":
    main()
