"""Splits: patients to train, validation and test, and whether a study can run with them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from lungmtl.data.cohort import exclude_failed, included
from lungmtl.data.labels import counts
from lungmtl.experiments import CENTRAL_TASK, SPLITS
from lungmtl.words import number_of

AUXILIARY = "an auxiliary task"
TRIED_SEEDS = range(50)  # chosen by us: where no seed of so many does, the fractions or the table must change
TRIED_FRACTIONS = ([0.6, 0.2, 0.2], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3])


def assign_splits(
    frame: pd.DataFrame, *, fractions: Sequence[float], seed: int, stratify: str = CENTRAL_TASK
) -> pd.DataFrame:
    """Give every patient whose split is blank to train, validation or test; a new frame.

    Patients are never shared between splits, and those with a split keep it. The draw is stratified on one diagnosis
    (a patient is positive if one of the scans is; an unknown one counts as negative) and depends on the patients'
    names and the seed, not on the order of the rows.

    Args:
        frame: A cohort as `read_cohort` gives it.
        fractions: Share of the patients to split that goes to train, validation and test; they sum to 1.
        seed: Seeds the draw.
        stratify: Diagnosis column whose share of positives is the same in every split.
    Raises:
        ValueError: If there are too few patients to put both classes everywhere.
    """
    given = frame[frame["split"] != ""].groupby("patient")["split"].first()
    open_rows = frame[~frame["patient"].isin(given.index) & (frame["excluded"] == "")]
    positive = open_rows.groupby("patient")[stratify].max().fillna(0).astype(int)  # sorted by patient
    drawn = _draw(positive, fractions, seed) if len(positive) else {}
    return frame.assign(split=frame["patient"].map(given.to_dict() | drawn).fillna(""))


def in_training_set(frame: pd.DataFrame, number: int) -> pd.DataFrame:
    """The scans of one training set, with its validation scans and all test scans, of a cohort that has several."""
    return frame[frame["training_set"].isna() | (frame["training_set"] == number)]


def check_splits(frame: pd.DataFrame, **rules: Any) -> pd.DataFrame:
    """Split a cohort as a study does, or refuse it; arguments and result as of `judge_splits`.

    Raises:
        ValueError: If a study cannot run, with all that stops it and what would mend it.
    """
    split, stops = judge_splits(frame, **rules)
    if stops:
        raise ValueError(" ".join(stops))
    return split


def judge_splits(
    frame: pd.DataFrame,
    *,
    tasks: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    batch_size: int,
    training_sets: int = 1,
    failed: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Split a cohort as a study does, and say what would stop the study: the one gate of studies and of `check`.

    The central task must have both classes in every split, every other task in training: a task of one class cannot be
    learnt, and would take its turns and its weight all the same. Where an auxiliary task has one class in validation or
    test, its figures there stay blank.

    Args:
        frame: A cohort as `read_cohort` gives it, blank splits undrawn.
        tasks: The central one first, on which the draw is stratified.
        fractions, seed: As of `assign_splits`.
        batch_size: Training scans that there must be.
        training_sets: Disjoint sets to which the patients of training, and those of validation, are dealt; each must do
            by itself. With more than one the frame gets `training_set`, the set's number (NaN = test, or no split).
        failed: Report on scans, as of `exclude_failed`: those that failed are excluded after the draw.
    Returns:
        The split cohort (as given, if it cannot be split), and sentences on what stops a study, the last one on what
        would mend it; none if nothing does.
    """

    def tried(fractions: Sequence[float], seed: int) -> tuple[pd.DataFrame, list[str]]:
        """The cohort split so, and what would stop a study of it."""
        try:
            split = assign_splits(frame, fractions=fractions, seed=seed, stratify=tasks[0])
        except ValueError as error:
            return frame, [str(error)]
        split = split if training_sets == 1 else _dealt(split, training_sets, seed, tasks[0])
        split = split if failed is None else exclude_failed(split, failed)
        if training_sets == 1:
            return split, _stops(split, tasks, batch_size)
        found = [(number, _stops(in_training_set(split, number), tasks, batch_size)) for number in range(training_sets)]
        return split, [f"Of training set {number}: {text}" for number, texts in found for text in texts]

    split, stops = tried(fractions, seed)
    if not stops:
        return split, []
    for other in TRIED_SEEDS if (frame["split"] == "").any() else ():
        if not tried(fractions, other)[1]:
            return split, [*stops, f"To mend it: set `split_seed: {other}` in the params file."]
    for others in TRIED_FRACTIONS if (frame["split"] == "").any() else ():
        if not tried(others, seed)[1]:
            return split, [*stops, f"To mend it: set `split_fractions: {others}` in the params file."]
    or_without = ", or leave that auxiliary task out of `tasks`" if AUXILIARY in " ".join(stops) else ""
    return split, [*stops, f"To mend it: add patients, or move some between splits in the column `split`{or_without}."]


def _dealt(frame: pd.DataFrame, n_sets: int, seed: int, stratify: str) -> pd.DataFrame:
    """Deal the patients of training and of validation in turn, each class in a random order; a new frame."""
    dealt = {}
    for split in SPLITS[:2]:
        positive = frame[frame["split"] == split].groupby("patient")[stratify].max().fillna(0)  # sorted by patient
        order = positive.sample(frac=1, random_state=seed).sort_values(kind="stable").index
        dealt |= dict(zip(order, np.arange(len(order)) % n_sets, strict=True))
    return frame.assign(training_set=frame["patient"].map(dealt))


def _stops(frame: pd.DataFrame, tasks: Sequence[str], batch_size: int) -> list[str]:
    """Sentences on the classes and scans that the splits of a study lack."""
    stops, found = [], counts(frame, tasks=tasks)
    for task in tasks:
        is_central = task == tasks[0]
        where = SPLITS if is_central else SPLITS[:1]
        lacks = [f"{_counted(found[split][task])} in {split}" for split in where if _is_one_class(found[split][task])]
        if lacks:
            must = "in every split for the central task" if is_central else f"in train for {AUXILIARY}"
            stops.append(f"There must be positive and negative scans {must}. Found of `{task}` {'; '.join(lacks)}.")
    n_train = int((included(frame)["split"] == SPLITS[0]).sum())
    if n_train < batch_size:
        stops.append(f"Training must fill a batch (`batch_size: {batch_size}`). Found {number_of(n_train, 'scan')}.")
    return stops


def blank_figures(frame: pd.DataFrame, *, tasks: Sequence[str]) -> list[str]:
    """Name the auxiliary tasks without both classes in validation or test, where their figures stay blank."""
    found, drawn = counts(frame, tasks=tasks), set(included(frame)["split"])
    splits = [split for split in SPLITS[1:] if split in drawn]
    blank = {split: [task for task in tasks[1:] if _is_one_class(found[split][task])] for split in splits}
    return [
        f"Figures stay blank in {split}, for want of positive or negative scans: {', '.join(names)}."
        for split, names in blank.items()
        if names
    ]


def _is_one_class(count: Mapping[str, int]) -> bool:
    return count["positives"] in (0, count["n"])


def _counted(count: Mapping[str, int]) -> str:
    negatives = count["n"] - count["positives"]
    return f"{count['positives']} positive, {negatives} negative and {count['unknown']} unknown"


def _draw(positive: pd.Series, fractions: Sequence[float], seed: int) -> dict[str, str]:
    """Patient to split, stratified on 0 or 1."""
    patients = positive.index.to_numpy()
    rest_share = fractions[1] + fractions[2]
    try:
        train, rest = train_test_split(patients, test_size=rest_share, random_state=seed, stratify=positive)
        validation, test = train_test_split(
            rest, test_size=fractions[2] / rest_share, random_state=seed, stratify=positive[rest]
        )
    except ValueError as error:
        raise ValueError(
            "There must be enough patients of both classes for three splits. "
            f"Found {number_of(len(positive), 'patient')} without a split, {int(positive.sum())} of them positive, "
            f"for the fractions {list(fractions)}."
        ) from error
    return {patient: split for split, part in zip(SPLITS, (train, validation, test), strict=True) for patient in part}
