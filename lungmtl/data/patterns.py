"""Patterns of labels: training scans that are labelled for some tasks only, or with labels of other scans."""

import zlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lungmtl.data.labelling import Labelling


def labelled(frame: pd.DataFrame, labelling: Labelling, *, central: str) -> pd.DataFrame:
    """Take labels from training scans, and exchange others, as a run's settings say; a new frame.

    Args:
        frame: Scans with splits, none excluded; the diagnoses of all tasks of `labelling` float, NaN = not known.
        labelling: The settings.
        central: Task that `matched` counts by.
    """
    found, is_train = frame.copy(), (frame["split"] == "train").to_numpy()
    tasks = labelling.tasks
    if tasks:
        known = frame.loc[is_train, tasks].notna().to_numpy()  # (N, T)
        patterns = np.array([[task in pattern for task in tasks] for pattern in labelling.patterns])  # (P, T)
        kept = known & patterns[assigned(known, patterns, labelling.proportions, seed=labelling.label_seed)]
        if labelling.labels == "matched":
            kept = known & kept[:, [tasks.index(central)]]
        found.loc[is_train, tasks] = frame.loc[is_train, tasks].where(kept)
    for task in labelling.shuffle_tasks:
        at = is_train & found[task].notna().to_numpy()
        generator = np.random.default_rng([labelling.label_seed, zlib.crc32(task.encode())])
        found.loc[at, task] = generator.permutation(found.loc[at, task].to_numpy())
    return found


def assigned(known: np.ndarray, patterns: np.ndarray, proportions: Sequence[float], *, seed: int) -> np.ndarray:
    """Give every scan one pattern, at random, in proportions.

    Scans come in random order, those with few known labels first; each takes, of the patterns that hold one of its
    known labels, the one that lacks most scans. Where all labels are known, no pattern is a whole scan from its share.

    Args:
        known: Which labels are known, bool (N, T).
        patterns: Which tasks a pattern holds, bool (P, T).
        proportions: Share of every pattern, (P,), summing to 1.
        seed: Seeds the order of the scans.
    Returns:
        Index of every scan's pattern, (N,); of a scan without a known label in any pattern, one that keeps nothing.
    """
    order = np.random.default_rng(seed).permutation(len(known))
    order = order[np.argsort(known[order].sum(axis=1), kind="stable")]
    lacking = np.asarray(proportions, dtype=float) * len(known)
    found = np.zeros(len(known), dtype=int)
    for scan in order:
        is_possible = (patterns & known[scan]).any(axis=1)
        found[scan] = np.argmax(np.where(is_possible | ~is_possible.any(), lacking, -np.inf))
        lacking[found[scan]] -= 1
    return found
