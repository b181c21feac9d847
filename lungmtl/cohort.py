"""Cohort tables: read and check one, split it by patient, and serve its prepared scans to torch.

One row of `cohort.csv` is one scan. A diagnosis is 0, 1 or blank, which means not known and becomes NaN. A row with
a reason in `excluded` stays in the table and is used nowhere.
"""

import csv
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.model_selection import train_test_split
from statsmodels.stats.proportion import proportion_confint

from lungmtl.config import CENTRAL_TASK, TASKS

SPLITS = ("train", "validation", "test")
ANSWERS = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "": np.nan}
MAX_LISTED = 20  # problems of a table named at once
ATTRIBUTES = ("nodule_mm", "noise_hu", "thickness_mm", "n_slices", "kernel", "manufacturer", "sex", "age_years")
SCAN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # it becomes a file name


def read_cohort(
    path: str | Path, *, tasks: Sequence[str] = TASKS, allow_outside: bool = False, allow_missing: bool = False
) -> pd.DataFrame:
    """Read a cohort table and check everything that can be wrong with it.

    Args:
        path: The csv file; its images are relative to its folder.
        tasks: Columns that hold a diagnosis.
        allow_outside: Whether an image may lie outside the table's folder.
        allow_missing: Whether an image may be missing, for a caller that lists such scans itself.
    Returns:
        All rows and columns in the file's order: diagnoses float (0, 1, NaN = not known), the rest text, with
        `split` and `excluded` added where the file lacks them ("" = none).
    Raises:
        FileNotFoundError: If the table or an image is missing.
        ValueError: If a column is missing, or values of rows are not what their columns must hold: all are named.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"A cohort must be an existing csv file. Found nothing at {path}.")
    frame = _read_text(path, tasks)
    problems = [*_name_problems(frame), *(text for name in tasks for text in _label_problems(frame, name))]
    problems += [*_split_problems(frame), *_place_problems(included(frame), path, allow_outside)]
    if problems:
        raise ValueError(_listed(problems, path))
    missing = [] if allow_missing else _missing_images(included(frame), path)
    if missing:
        raise FileNotFoundError(_listed(missing, path))
    return frame.assign(**{name: frame[name].map(ANSWERS).astype(float) for name in tasks})


def included(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows that are not excluded, numbered from 0."""
    return frame[frame["excluded"] == ""].reset_index(drop=True)


def exclude_failed(frame: pd.DataFrame, report: pd.DataFrame) -> pd.DataFrame:
    """Exclude the scans that a preparation report lists as failed, with its reason; a new frame.

    Args:
        frame: A cohort as `read_cohort` gives it.
        report: Columns `scan`, `status` and `reason`, from `volumes.prepare_cohort`.
    """
    failed = report.loc[report["status"] != "ok"].set_index("scan")["reason"]
    reasons = frame["scan"].map(failed)
    return frame.assign(excluded=reasons.where(reasons.notna(), frame["excluded"]))


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


def counts(frame: pd.DataFrame, *, tasks: Sequence[str]) -> dict[str, dict[str, dict[str, int]]]:
    """Count scans that are not excluded: split to task to `n` (known), `positives` and `unknown`."""
    rows = {split: included(frame[frame["split"] == split]) for split in SPLITS}
    return {split: {task: _count(part[task]) for task in tasks} for split, part in rows.items()}


def prevalence(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Share of positive scans: split, task, n, positives, unknown, share, and Wilson's 95 % interval low, high.

    Scans without an answer are left out of the share; it is NaN where none has one.
    """
    table = pd.DataFrame(
        {"split": split, "task": task, **count}
        for split, by_task in counts(frame, tasks=tasks).items()
        for task, count in by_task.items()
    )
    known = table["n"].where(table["n"] > 0)
    low, high = proportion_confint(table["positives"], known, method="wilson")
    return table.assign(share=table["positives"] / known, low=low, high=high)


def cooccurrence(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Share of the scans with the row's diagnosis that also have the column's, of those where both are known."""
    labels = included(frame)[list(tasks)]
    return pd.DataFrame(
        {task: {given: labels.loc[labels[given] == 1, task].mean() for given in tasks} for task in tasks}
    )


def examples(frame: pd.DataFrame, truth: pd.DataFrame, *, tasks: Sequence[str]) -> dict[str, str]:
    """Scan to show of every task: the positive one with the highest severity in the truth, else the first.

    Args:
        frame: A cohort as `read_cohort` gives it; every task has a positive scan.
        truth: `scan` and, where known, severity_<task>, as a phantom cohort has it; may be empty.
        tasks: Diagnosis columns.
    """
    rows = included(frame)
    severity = rows[["scan"]].merge(truth.astype({"scan": str}), on="scan", how="left")
    found = {}
    for task in tasks:
        score = severity.get(f"severity_{task}", pd.Series(0.0, index=rows.index)).fillna(0.0)
        found[task] = rows.loc[score[rows[task] == 1].idxmax(), "scan"]
    return found


def attributes(frame: pd.DataFrame, truth: pd.DataFrame | None = None) -> pd.DataFrame:
    """What the table tells of its scans beside the diagnoses, for subgroups: `scan` and those of `ATTRIBUTES` it has.

    Other columns stay behind: they may name a patient.

    Args:
        frame: A cohort table.
        truth: Columns `scan`, `diameter_mm` (of the malignant nodule) and `noise_hu`, where a generator knows them.
    Returns:
        One row per scan; numbers where a column holds nothing but numbers and blanks, else text.
    """
    if truth is not None:
        known = truth.rename(columns={"diameter_mm": "nodule_mm"})[["scan", "nodule_mm", "noise_hu"]]
        frame = frame.merge(known, on="scan", how="left")
    scans = frame[["scan", *(name for name in ATTRIBUTES if name in frame)]].copy()
    for name in scans.columns.drop("scan"):
        numbers = pd.to_numeric(scans[name], errors="coerce")
        is_number = numbers.notna() | scans[name].isna() | (scans[name] == "")
        scans[name] = numbers if is_number.all() else scans[name]
    return scans


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, 64 hex digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class ScanDataset(torch.utils.data.Dataset):
    """Prepared scans, read one file at a time: (volume, target, known).

    An item is the volume float32 (1, Z, Y, X) in [0, 1], the targets float32 (T,) with 0 where not known, and bool
    (T,) that says which are known.
    """

    def __init__(self, frame: pd.DataFrame, folder: str | Path, *, tasks: Sequence[str]):
        """Keep the rows and targets; no scan is read yet.

        Args:
            frame: Rows of a cohort; excluded ones are left out.
            folder: Where `volumes.prepare_cohort` put `<scan>.npy`.
            tasks: Diagnosis columns, in the network's order.
        Raises:
            FileNotFoundError: If a scan is not prepared.
        """
        self.frame = included(frame)
        self.scans = self.frame["scan"].tolist()
        self.folder = Path(folder)
        self.tasks = tuple(tasks)
        labels = torch.tensor(self.frame[list(tasks)].to_numpy(dtype=np.float32))  # (N, T)
        self.known = ~labels.isnan()  # (N, T)
        self.target = labels.nan_to_num(0.0)  # (N, T)
        missing = [scan for scan in self.scans if not self._file(scan).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Every scan must be prepared. Found {len(missing)} of {len(self.scans)} missing, "
                f"first {self._file(missing[0])}."
            )

    def __len__(self) -> int:
        """Count the scans."""
        return len(self.scans)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read one scan."""
        array = np.load(self._file(self.scans[index]), allow_pickle=False)
        volume = torch.from_numpy(array).float().unsqueeze(0)  # (1, Z, Y, X)
        return volume, self.target[index], self.known[index]

    def predictions(self, probability: np.ndarray) -> pd.DataFrame:
        """Put probabilities (N, T) beside the targets.

        Returns:
            One row per scan and task: scan, patient, split, task, target (NaN = not known), probability.
        """
        rows = self.frame[["scan", "patient", "split"]]
        target = self.target.masked_fill(~self.known, torch.nan).numpy()
        parts = [
            rows.assign(task=task, target=target[:, t], probability=probability[:, t])
            for t, task in enumerate(self.tasks)
        ]
        return pd.concat(parts, ignore_index=True)

    def _file(self, scan: str) -> Path:
        return self.folder / f"{scan}.npy"


def _read_text(path: Path, tasks: Sequence[str]) -> pd.DataFrame:
    """Read every cell as stripped text and check the columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"A cohort must be a csv table in UTF-8. Found in {path}: {error}") from error
    header = rows[0] if rows else []
    ragged = [number for number, row in enumerate(rows, start=1) if len(row) != len(header)]
    if ragged:
        raise ValueError(
            f"Every row must have as many cells as the header. Found another count in row {ragged[0]} of {path}."
        )
    if len(set(header)) < len(header):
        raise ValueError(f"Column names must differ. Found {', '.join(header)} in {path}.")
    frame = pd.DataFrame(rows[1:], columns=header, dtype=str)
    missing = [f"`{name}`" for name in ("scan", "patient", "image", *tasks) if name not in frame]
    if missing:
        found = ", ".join(frame) or "none"
        raise ValueError(f"A cohort must have the column {' and '.join(missing)}. Found {found} in {path}.")
    for name in ("split", "excluded"):
        frame[name] = frame.get(name, "")
    if frame.empty:
        raise ValueError(f"A cohort must have at least one scan. Found none in {path}.")
    return frame


def _listed(problems: Sequence[str], path: Path) -> str:
    """One problem as a sentence, several as a list."""
    if len(problems) == 1:
        return f"{problems[0]} In {path}."
    more = [f"... and {len(problems) - MAX_LISTED} more"] if len(problems) > MAX_LISTED else []
    return "\n  - ".join([f"{path} has {len(problems)} problems:", *problems[:MAX_LISTED], *more])


def _label_problems(frame: pd.DataFrame, name: str) -> list[str]:
    wrong = frame[~frame[name].isin(list(ANSWERS))]
    return [
        f"`{name}` must be 0, 1 or blank. Found {value!r} in scan {scan}."
        for value, scan in zip(wrong[name], wrong["scan"], strict=True)
    ]


def _name_problems(frame: pd.DataFrame) -> list[str]:
    rows = enumerate(frame["scan"], start=2)  # the header is row 1
    twice = frame["scan"][frame["scan"].str.lower().duplicated()]  # some file systems ignore case
    return [
        *(
            f"A scan's name must be letters, digits, dot, dash and underscore. Found {scan!r} in row {row}."
            for row, scan in rows
            if not SCAN_NAME.fullmatch(scan)
        ),
        *(f"Every scan must have one row. Found {scan} again." for scan in twice),
        *(
            f"Every scan must have a patient. Found none in scan {scan}."
            for scan in frame.loc[frame["patient"] == "", "scan"]
        ),
    ]


def _split_problems(frame: pd.DataFrame) -> list[str]:
    unknown = frame[~frame["split"].isin(["", *SPLITS])]
    given = frame[frame["split"].isin(SPLITS)].drop_duplicates(["patient", "split"])
    shared = given[given["patient"].duplicated(keep=False)].groupby("patient", sort=False)["split"].agg(" and ".join)
    return [
        *(
            f"`split` must be train, validation, test or blank. Found {split!r} in scan {scan}."
            for split, scan in zip(unknown["split"], unknown["scan"], strict=True)
        ),
        *(f"A patient must be in one split. Found {patient} in {splits}." for patient, splits in shared.items()),
    ]


def _place_problems(frame: pd.DataFrame, path: Path, allow_outside: bool) -> list[str]:
    problems = []
    root = os.path.abspath(path.parent)
    for scan, image in zip(frame["scan"], frame["image"], strict=True):
        place = os.path.normpath(os.path.join(root, image))
        if image == "":
            problems.append(f"Every scan must have an image. Found none in scan {scan}.")
        elif not allow_outside and not place.startswith(root.rstrip(os.sep) + os.sep):
            problems.append(f"An image must lie in the table's folder. Found {image} in scan {scan}.")
    return problems


def _missing_images(frame: pd.DataFrame, path: Path) -> list[str]:
    root = os.path.abspath(path.parent)
    places = [os.path.normpath(os.path.join(root, image)) for image in frame["image"]]
    return [
        f"Every image must exist. Found nothing at {place}, scan {scan}."
        for scan, place in zip(frame["scan"], places, strict=True)
        if not os.path.exists(place)
    ]


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


def _count(labels: pd.Series) -> dict[str, int]:
    return {
        "n": int(labels.notna().sum()),
        "positives": int((labels == 1).sum()),
        "unknown": int(labels.isna().sum()),
    }
