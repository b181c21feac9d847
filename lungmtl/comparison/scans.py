"""Test scans of experiments side by side, as arrays with one row per seed, and pairs of experiments."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungmtl.evidence import (
    Areas,
    Difference,
    Interval,
    auc,
    bootstrap_areas,
    holm,
    mean_auc,
    patient_weights,
    youden_threshold,
)
from lungmtl.experiments import in_order

MIN_PER_CLASS = 2  # an interval needs two patients with a positive scan and two without
COUNTS = ("n", "positives", "unknown")
PREDICTED = ("validation", "test")  # what a run predicts


class Scans(NamedTuple):
    """Labelled scans of one experiment and task, with one row of probabilities per seed (S, N)."""

    target: np.ndarray
    probability: np.ndarray
    patient: np.ndarray
    scan: np.ndarray
    seeds: list[int]
    n_unknown: int
    areas: Areas | None = None  # where they are bootstrapped

    @property
    def counts(self) -> dict[str, int]:
        """Labelled scans, positives among them, and scans without a label."""
        return {"n": len(self.target), "positives": int(self.target.sum()), "unknown": self.n_unknown}

    @property
    def has_both(self) -> bool:
        """Whether there are enough patients with and without a positive scan for an interval."""
        with_positive = set(self.patient[self.target == 1])
        return min(len(with_positive), len(set(self.patient) - with_positive)) >= MIN_PER_CLASS

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over seeds, (N,)."""
        return self.probability.mean(axis=0)

    def of(self, seeds: Sequence[int]) -> "Scans":
        """The same scans with the rows of these seeds only."""
        rows = [self.seeds.index(seed) for seed in seeds]
        areas = self.areas and self.areas.of(rows)
        return self._replace(probability=self.probability[rows], seeds=list(seeds), areas=areas)

    def among(self, scans: Sequence[str]) -> "Scans":
        """Those of these scans that are labelled; none of them counts as unknown."""
        inside = pd.Index(self.scan).isin(scans)
        arrays = {name: getattr(self, name)[inside] for name in ("target", "patient", "scan")}
        return self._replace(**arrays, probability=self.probability[:, inside], n_unknown=0, areas=None)

    @property
    def ensemble(self) -> "Scans":
        """One predictor, the mean probability over seeds, in place of the runs."""
        return self._replace(probability=self.mean[None], seeds=[0], areas=None)


class Pair(NamedTuple):
    """Test and validation scans of two experiments, rows from the same seeds."""

    experiment: str
    reference: str
    test: tuple[Scans, Scans]
    validation: tuple[Scans, Scans]


def interval_name(n_seeds: int) -> str:
    """What the interval of a mean over this many seeds covers."""
    return "95 % patient bootstrap" if n_seeds == 1 else "95 % patient bootstrap and seed variance"


def mean_auc_of(scans: Scans) -> Interval:
    if not scans.has_both:
        return Interval(np.nan, np.nan, np.nan)
    return mean_auc(scans.target, scans.areas)


def mean_of_runs(scans: Scans) -> float:
    """Mean AUC of single runs; NaN where the scans hold one class."""
    if len(np.unique(scans.target)) < 2:
        return np.nan
    return float(np.mean([auc(scans.target, values) for values in scans.probability]))


def pairs_over(
    predictions: pd.DataFrame,
    references: Sequence[str],
    task: str,
    *,
    bootstrap: tuple[int, int] | None = None,
    groups: dict[str, Scans] | None = None,
) -> list[Pair]:
    """Every experiment against every reference; `bootstrap`: replicates and seed, `groups`: test scans made before."""
    test = groups or of_task(predictions, "test", task)
    if bootstrap:
        test = bootstrapped(test, *bootstrap)
    return pairs_of(test, of_task(predictions, "validation", task), references)


def pairs_of(test: dict[str, Scans], validation: dict[str, Scans], references: Sequence[str]) -> list[Pair]:
    """Every experiment against every reference, without those that share no seed."""
    pairs = []
    for reference in references:
        for name in test:
            met = any({name, reference} == {pair.experiment, pair.reference} for pair in pairs)
            if reference not in test or name == reference or met:
                continue
            seeds = [seed for seed in test[name].seeds if seed in test[reference].seeds]
            sides = (tuple(split[side].of(seeds) for side in (name, reference)) for split in (test, validation))
            if seeds:
                pairs.append(Pair(name, reference, *sides))
    return pairs


class Draws:
    """How often every scan is drawn in every replicate, made once for all groups of the same scans."""

    def __init__(self, replicates: int, seed: int) -> None:
        self.replicates, self.seed = replicates, seed
        self._made: dict[tuple[bytes, tuple[str, ...]], np.ndarray] = {}

    def of(self, scans: Scans) -> np.ndarray:
        """(N, R) for these scans."""
        key = (scans.target.tobytes(), tuple(scans.patient))
        if key not in self._made:
            self._made[key] = patient_weights(scans.target, scans.patient, replicates=self.replicates, seed=self.seed)
        return self._made[key]


def bootstrapped(groups: dict, replicates: int, seed: int) -> dict:
    """The same groups with `areas` where there are scans of both classes."""
    weights = Draws(replicates, seed)

    def areas(scans: Scans) -> Areas | None:
        if not scans.has_both:
            return None
        return bootstrap_areas(scans.target, scans.probability, weights.of(scans))

    return {place: scans._replace(areas=areas(scans)) for place, scans in groups.items()}


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
    return Scans(
        target=scans["target"].to_numpy(dtype=float)[known],
        probability=wide.to_numpy(dtype=float).T[:, known],
        patient=scans["patient"].to_numpy()[known],
        scan=scans.index.to_numpy()[known],
        seeds=[int(seed) for seed in wide.columns],
        n_unknown=int(np.sum(~known)),
    )


def threshold_of(validation: Scans) -> float:
    """Youden threshold of the mean probability over seeds; NaN where the validation scans hold one class."""
    if len(np.unique(validation.target)) < 2:
        return np.nan
    return youden_threshold(validation.target, validation.mean)


def named(name: str, interval: Sequence[float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval, strict=True))


def holm_known(p_values: pd.Series) -> pd.Series:
    known = p_values.dropna()
    return pd.Series(holm(known.to_numpy(float)), index=known.index).reindex(p_values.index)


def with_family(rows: list[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame with these columns; Holm over all of them, for every kind of p value that the columns name."""
    frame = pd.DataFrame(rows, columns=list(columns))
    adjusted = [column for column in columns if column.endswith("p_holm")]
    frame = frame.assign(**{column: holm_known(frame[column.removesuffix("_holm")]) for column in adjusted})
    return frame.assign(n_family=int(frame["p"].notna().sum()))


def blank_difference() -> Difference:
    return Difference(*(np.nan,) * len(Difference._fields))
