"""Made-up predictions of several runs, for the tests of the comparison."""

import numpy as np
import pandas as pd

TASKS = ("lung_cancer", "copd")
SPLITS = ["validation"] * 30 + ["test"] * 60


def predictions(experiments=("ITW3", "MTL", "STL"), seeds=(0, 1), *, n_unknown=4):
    """Runs over 30 validation and 60 test scans; STL has the central task only."""
    generator = np.random.default_rng(0)
    target = (generator.random((90, 2)) < 0.4).astype(float)
    target[-n_unknown:, 1] = np.nan
    frames = []
    for experiment in experiments:
        for seed in seeds:
            for position, task in enumerate(TASKS[:1] if experiment == "STL" else TASKS):
                signal = np.nan_to_num(target[:, position]) * (1.5 if experiment == "ITW3" else 0.8)
                logit = signal + generator.normal(size=90)
                frames.append(
                    pd.DataFrame(
                        {
                            "run": f"{experiment}-s{seed}",
                            "experiment": experiment,
                            "seed": seed,
                            "scan": [f"s{i:02d}" for i in range(90)],
                            "patient": [f"p{i:02d}" for i in range(90)],
                            "split": SPLITS,
                            "task": task,
                            "target": target[:, position],
                            "probability": 1 / (1 + np.exp(-logit)),
                        }
                    )
                )
    return pd.concat(frames, ignore_index=True)
