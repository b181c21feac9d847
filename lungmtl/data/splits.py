"""Splits: patients to train, validation and test."""

from collections.abc import Sequence

import pandas as pd
from sklearn.model_selection import train_test_split

from lungmtl.data.cohort import exclude_failed
from lungmtl.data.labels import counts
from lungmtl.experiments import CENTRAL_TASK, SPLITS


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


def check_splits(frame: pd.DataFrame, *, tasks: Sequence[str]) -> None:
    """Check that every split has scans and, for every task, both classes.

    Raises:
        ValueError: Naming the split, the task and the class that is missing.
    """
    for split, by_task in counts(frame, tasks=tasks).items():
        for task, count in by_task.items():
            n_negatives = count["n"] - count["positives"]
            if min(count["positives"], n_negatives) == 0:
                raise ValueError(
                    f"Every split must have positive and negative scans of every task. Found {count['positives']} "
                    f"positive, {n_negatives} negative and {count['unknown']} unknown of `{task}` in split `{split}`."
                )


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
            f"There must be enough patients of both classes for three splits. Found {len(positive)} patients without "
            f"a split, {int(positive.sum())} of them positive: {error}"
        ) from error
    return {patient: split for split, part in zip(SPLITS, (train, validation, test), strict=True) for patient in part}


def split_if_possible(
    frame: pd.DataFrame, *, fractions: Sequence[float], seed: int, stratify: str
) -> tuple[pd.DataFrame, list[str]]:
    """Split a cohort as `assign_splits` does; one that is too small is left as it is, with the reason as a sentence."""
    try:
        return assign_splits(frame, fractions=fractions, seed=seed, stratify=stratify), []
    except ValueError as error:
        return frame, [str(error)]


def without_failed(frame: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Exclude the scans whose verdict is `failed`, with the reason; a new frame."""
    return exclude_failed(frame, scans.assign(status=scans["verdict"].replace("look", "ok")))
