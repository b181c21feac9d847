"""Labelled scans of experiments as arrays with one row per seed, and pairs of experiments."""

import functools
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lungmtl import evidence
from lungmtl.evidence import Areas, Difference, Interval
from lungmtl.experiments import in_order

MIN_PER_CLASS = 2  # an interval needs two patients with a positive scan and two without
COUNTS = ("n", "positives", "unknown")
ENDS = ("", "_low", "_high")  # of the columns of a value and its interval
PREDICTED = ("validation", "test")  # what a run predicts


class Scans(NamedTuple):
    """Labelled scans of one experiment and task, with one row of probabilities per seed (S, N).

    With several training sets a seed has predicted the validation scans of its own set alone; the others are NaN.
    """

    target: np.ndarray
    probability: np.ndarray
    patient: np.ndarray
    scan: np.ndarray
    seeds: list[int]
    n_unknown: int
    sets: list[int] | None = None  # training set of every seed, if there are several
    areas: Areas | None = None  # if they are bootstrapped

    @property
    def counts(self) -> dict[str, int]:
        """Labelled scans, positives among them, and scans without a label."""
        return {"n": len(self.target), "positives": int(self.target.sum()), "unknown": self.n_unknown}

    @property
    def about(self) -> dict[str, object]:
        """Columns that describe a mean over seeds: name of its bootstrap interval, seeds and counts."""
        between = " and variance of training sets" if len(set(self.sets or ())) > 1 else " and seed variance"
        interval = f"95 % patient bootstrap{between if len(self.seeds) > 1 else ''}"
        return {"interval": interval, "n_seeds": len(self.seeds)} | self.counts

    @property
    def has_both(self) -> bool:
        """Whether there are enough patients with and without a positive scan for an interval."""
        with_positive = set(self.patient[self.target == 1])
        return min(len(with_positive), len(set(self.patient) - with_positive)) >= MIN_PER_CLASS

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over the seeds that predicted the scan, (N,)."""
        return np.nanmean(self.probability, axis=0)

    @property
    def ensemble(self) -> "Scans":
        """One predictor, the mean probability over seeds, in place of the runs."""
        return self._replace(probability=self.mean[None], seeds=[0], sets=None, areas=None)

    @property
    def mean_auc(self) -> Interval:
        """Mean AUC over seeds with its bootstrap interval; NaN with too few patients of a class."""
        return evidence.mean_auc(self.target, self.areas) if self.has_both else Interval(np.nan, np.nan, np.nan)

    @property
    def mean_of_runs(self) -> float:
        """Mean AUC over seeds; NaN if the scans hold one class."""
        has_both = len(np.unique(self.target)) == 2
        own = [(values, ~np.isnan(values)) for values in self.probability]
        return float(np.mean([evidence.auc(self.target[at], row[at]) if has_both else np.nan for row, at in own]))

    @property
    def threshold(self) -> float:
        """Youden threshold of the mean probability over seeds; NaN if the scans hold one class."""
        return evidence.youden_threshold(self.target, self.mean) if len(np.unique(self.target)) == 2 else np.nan

    def weights(self, replicates: int, seed: int) -> np.ndarray:
        """How often every scan is drawn in every replicate, (N, R)."""
        return _weights(self.target.tobytes(), tuple(self.patient), replicates, seed)

    def of(self, seeds: Sequence[int]) -> "Scans":
        """The same scans, those that they predicted, with the rows of these seeds only."""
        rows = [self.seeds.index(seed) for seed in seeds]
        there = ~np.isnan(self.probability[rows]).all(axis=0)
        arrays = {name: getattr(self, name)[there] for name in ("target", "patient", "scan")}
        sets = self.sets and [self.sets[row] for row in rows]
        own = {"probability": self.probability[rows][:, there], "seeds": list(seeds), "sets": sets}
        return self._replace(**arrays, **own, areas=self.areas and self.areas.of(rows))

    def among(self, scans: Sequence[str]) -> "Scans":
        """The labelled scans among those named; `n_unknown` is 0."""
        inside = pd.Index(self.scan).isin(scans)
        arrays = {name: getattr(self, name)[inside] for name in ("target", "patient", "scan")}
        return self._replace(**arrays, probability=self.probability[:, inside], n_unknown=0, areas=None)


class Pair(NamedTuple):
    """Scans of two experiments, rows from the same seeds."""

    experiment: str
    reference: str
    a: Scans
    b: Scans

    @property
    def place(self) -> dict[str, str]:
        """The first columns of a row."""
        return {"experiment": self.experiment, "reference": self.reference}

    @property
    def mean_difference(self) -> Difference:
        """Mean AUC difference over seeds with its bootstrap interval; NaN with too few patients of a class."""
        return self.difference(lambda a, b: evidence.mean_difference(a.areas, b.areas))

    @property
    def n_agree(self) -> int:
        """Seeds whose AUC difference has the sign of the mean; 0 if they are not bootstrapped."""
        if not self.a.areas:
            return 0
        areas = self.a.areas - self.b.areas
        return int(np.sum(np.sign(areas.value) == np.sign(areas.by_set().value.mean())))

    def difference(self, test: Callable[[Scans, Scans], Difference]) -> Difference:
        """Result of `test`; NaN with too few patients of a class."""
        return test(self.a, self.b) if self.a.has_both else Difference(*(np.nan,) * len(Difference._fields))


def pairs_of(groups: dict[str, Scans], references: Sequence[str]) -> list[Pair]:
    """Every experiment paired with every reference over their common seeds; a pair of references occurs once."""
    pairs: dict[frozenset[str], Pair] = {}
    for reference, name in product([name for name in references if name in groups], groups):
        a, b = groups[name], groups[reference]
        seeds = [seed for seed in a.seeds if seed in b.seeds]
        if name != reference and seeds:
            pairs.setdefault(frozenset((name, reference)), Pair(name, reference, a.of(seeds), b.of(seeds)))
    return list(pairs.values())


def pair_of(groups: dict[str, Scans], experiment: str, reference: str) -> Pair | None:
    """One experiment paired with one reference; None if a side is missing or they have no seed in common."""
    sides = {name: groups[name] for name in (experiment, reference) if name in groups}
    return next(iter(pairs_of(sides, [reference])), None)


def best_on(validation: dict[str, Scans], names: Sequence[str]) -> str:
    """The one of these experiments with the highest mean validation AUC over seeds, the first if tied."""
    return max(names, key=lambda name: np.nan_to_num(validation[name].mean_of_runs, nan=-1.0))


def bootstrapped(groups: dict[Any, Scans], replicates: int, seed: int) -> dict[Any, Scans]:
    """The same groups with `areas` if there are enough patients of both classes."""
    found = dict(groups)
    for place, scans in groups.items():
        if scans.has_both:
            areas = evidence.bootstrap_areas(scans.target, scans.probability, scans.weights(replicates, seed))
            areas = areas._replace(sets=scans.sets)
            found[place] = scans._replace(areas=areas)
    return found


def of_task(predictions: pd.DataFrame, split: str, task: str) -> dict[str, Scans]:
    """Scans of every experiment that has this task."""
    groups = scans_of(predictions[predictions["task"] == task], split)
    return {experiment: scans for (experiment, _), scans in groups.items()}


def scans_of(predictions: pd.DataFrame, split: str) -> dict[tuple[str, str], Scans]:
    """Scans of every experiment and task of a split, in the paper's order."""
    rows = predictions[predictions["split"] == split]
    groups = dict(list(rows.groupby(["experiment", "task"])))
    places = product(in_order(rows["experiment"].unique()), rows["task"].unique())
    return {place: _of_group(groups[place]) for place in places if place in groups}


def _of_group(group: pd.DataFrame) -> Scans:
    wide = group.pivot(index="scan", columns="seed", values="probability")  # noqa: PD010 (it refuses duplicates)
    scans = group.drop_duplicates("scan").set_index("scan").loc[wide.index]
    known = scans["target"].notna().to_numpy()
    sets = group.get("training_set", pd.Series(0, index=group.index)).groupby(group["seed"]).first()
    return Scans(
        target=scans["target"].to_numpy(dtype=float)[known],
        probability=wide.to_numpy(dtype=float).T[:, known],
        patient=scans["patient"].to_numpy()[known],
        scan=scans.index.to_numpy()[known],
        seeds=[int(seed) for seed in wide.columns],
        n_unknown=int(np.sum(~known)),
        sets=sets.astype(int).tolist() if len(set(sets)) > 1 else None,
    )


@functools.lru_cache(maxsize=8)
def _weights(target: bytes, patients: tuple[str, ...], replicates: int, seed: int) -> np.ndarray:
    """Drawn once for all experiments and tables of the same scans."""
    return evidence.patient_weights(np.frombuffer(target), np.array(patients), replicates=replicates, seed=seed)


def named(name: str, interval: Sequence[float]) -> dict[str, float]:
    """A value and its interval as columns `name`, `name`_low, `name`_high."""
    return dict(zip((f"{name}{end}" for end in ENDS), interval, strict=True))


def holm_known(p_values: pd.Series) -> pd.Series:
    """Holm's adjustment over the p values that are not blank."""
    known = p_values.dropna()
    return pd.Series(evidence.holm(known.to_numpy(float)), index=known.index).reindex(p_values.index)
