"""NLST: official tables or LUNA25's labels, and the series index, to a cohort table and a download manifest.

The order of a run: `read_index` (or `read_headers` of what is there) lists the series; `choose_series` keeps one per
patient and `add_labels` joins the diagnoses, or `find_series` keeps those that LUNA25 labels and `findings` joins what
radiologists recorded; `draw` may thin the patients, `locate` finds and counts the files, `write_cohort` writes the
table and a side file with every option. With the index, what is downloaded changes neither choice nor labels nor
split: the same command makes the same table again, only with fewer scans excluded.

Sources: NLST data dictionaries (Participant, Spiral CT Abnormalities), National Cancer Institute, cdas.cancer.gov/nlst;
images: NLST Research Team 2013, doi 10.7937/TCIA.HMQ8-J677, CC BY 4.0, and their index in the package idc-index-data.
"""

import argparse
import importlib.metadata
import logging
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lungmtl.data import DOWNLOAD, assign_splits
from lungmtl.experiments import CENTRAL_TASK, TASKS
from lungmtl.files import write
from lungmtl.sources import luna25
from lungmtl.sources.nlst_findings import AUXILIARIES, FINDINGS, findings, selected
from lungmtl.sources.nlst_labels import ASTHMA, EMPHYSEMA, HORIZON_YEARS, add_labels, follow_up_column
from lungmtl.sources.nlst_series import (
    MAX_THICKNESS_MM,
    SERIES_COLUMNS,
    SLICES,
    SOFT_KERNELS,
    choose_series,
    folders_of,
    read_headers,
    read_index,
)
from lungmtl.sources.nlst_tables import DIAGNOSES, REPORTED, read_abnormalities, read_participants
from lungmtl.sources.table import file_facts, new_table, one_per, place_in, warn_of_splits, write_cohort

SPLIT_FRACTIONS = (0.7434, 0.0818, 0.1748)  # the paper's 2,517 / 277 / 592 of 3,386 patients
COLLECTION = "NLST, images CC BY 4.0, doi 10.7937/TCIA.HMQ8-J677"
CHOICES = {  # options of participant tables, which LUNA25's labels leave nothing to
    **{"round": 0, "kernels": list(SOFT_KERNELS), "max_thickness_mm": MAX_THICKNESS_MM, "slices": list(SLICES)},
    **{"horizon_years": HORIZON_YEARS, "asthma": "either", "emphysema": "report"},
}
OPTIONS = (*CHOICES, "patients", "seed", "split")  # recorded next to the table
LUNA25_OPTIONS = ("auxiliaries", "one_per_patient", "patients", "seed", "split")

_logger = logging.getLogger(__name__)


def add_nlst(parser: argparse.ArgumentParser) -> None:
    """Options of the command `nlst`."""
    add = parser.add_argument
    parser.set_defaults(**CHOICES)
    add("--participants", type=Path, help="CDAS's Participant table, or IDC's nlst_prsn")
    add("--labels", nargs=2, metavar=("luna25", "CSV"), help="label by nodules instead: LUNA25's table")
    add("--abnormalities", type=Path, help="CDAS's CT abnormalities, or IDC's nlst_ctab")
    add("--images", type=Path, help="folder of the DICOM series, in the table's folder; images if not given")
    add("--out", type=new_table, required=True, help="cohort.csv; a json file next to it says how it was made")
    add("--index", nargs="?", const="", help="choose from the IDC index, not from what is there; LUNA25 always does")
    add("--manifest", type=Path, help="with the index: what is still to be downloaded, for s5cmd")
    add("--round", type=int, choices=range(3), help="screening round of the scans, %(default)s")
    add("--kernels", nargs="+", help="kernels that fit, or any")
    add("--max-thickness-mm", type=float, help="of a slice, %(default)s")
    add("--slices", type=int, nargs=2, help="fewest and most, %(default)s")
    add("--horizon-years", type=float, help="lung cancer within, %(default)s")
    add("--asthma", choices=ASTHMA, help="diagnosed when, %(default)s")
    add("--emphysema", choices=EMPHYSEMA, help="said by whom, %(default)s")
    known = ", ".join(f"{name} {code}" for name, code in FINDINGS.items())
    add("--auxiliaries", nargs="*", help=f"with LUNA25, names or codes of {known}; {' '.join(AUXILIARIES)}")
    add("--one-per-patient", action="store_true", help="with LUNA25: the last scan alone, not all of a patient's")
    add("--patients", type=int, help="draw so many, with all lung cancers; all patients if not given")
    add("--seed", type=int, default=0, help="seeds the draw and the split")
    add("--no-split", dest="split", action="store_false", help="leave the split to the study")


def nlst(options: argparse.Namespace) -> int:
    """Make the cohort table of NLST from the official tables, and the manifest of what is still to be downloaded."""
    _check_options(options)
    root = options.out.absolute().parent
    images = options.images or root / "images"
    rows, tasks, how = _from_luna25(options) if options.labels else _from_participants(options, images)
    if options.patients:
        rows = draw(rows, n_patients=options.patients, seed=options.seed)
    if options.split:
        try:
            rows = assign_splits(rows, fractions=SPLIT_FRACTIONS, seed=options.seed, stratify=CENTRAL_TASK)
        except ValueError as error:
            raise ValueError(f"{error} To leave the split to the study: `--no-split`.") from error
        warn_of_splits(rows, [task for task in tasks if rows[task].notna().any()])
    rows = locate(name_scans(rows), images, root=root)
    columns = [*SERIES_COLUMNS, *(name for name in ("sex", "age_years", "n_nodules") if name in rows)]
    rows = rows.assign(n_slices=rows["n_slices"].astype("Int64"))
    write_cohort(rows, options.out, tasks=tasks, columns=columns, facts=facts(vars(options)) | how)
    if options.manifest:
        n_series = write_manifest(rows, images, options.manifest)
        _logger.info("%s: %d series to download", options.manifest.name, n_series)
    return 0


def _check_options(options: argparse.Namespace) -> None:
    if not (options.labels or options.participants):
        raise ValueError("`--participants TABLE` or `--labels luna25 CSV` must be given. Found neither.")
    if not options.labels:
        given = [name for name in ("auxiliaries", "one_per_patient") if getattr(options, name) not in (None, False)]
        if given:
            raise ValueError(f"`--labels luna25 CSV` must come with {_spelled(given)}. Found none.")
        if options.manifest and options.index is None:
            raise ValueError("`--manifest` must come with `--index`. Found it alone.")
        return
    if options.labels[0] != "luna25":
        raise ValueError(f"`--labels` must be luna25 and its table. Found {' '.join(options.labels)}.")
    given = [name for name, default in CHOICES.items() if getattr(options, name) != default]
    if given:
        raise ValueError(f"`--labels luna25` says itself which series and label. Found {_spelled(given)} with it.")
    if options.abnormalities is None and options.auxiliaries != []:
        remedy = "for the auxiliaries, or `--auxiliaries` without a word for lung cancer alone"
        raise ValueError(f"`--abnormalities` must be given {remedy}. Found neither.")


def _spelled(names: list[str]) -> str:
    return ", ".join(f"`--{name.replace('_', '-')}`" for name in names)


def _from_participants(options: argparse.Namespace, images: Path) -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    """One series per patient, with the diagnoses of a participant table; also tasks, and what the side file says."""
    people = read_participants(options.participants, screen=options.round)
    abnormalities = read_abnormalities(options.abnormalities) if options.abnormalities else None
    has_index = options.index is not None
    series = read_index(options.index or None) if has_index else read_headers(images)
    choice = {"kernels": options.kernels, "max_thickness_mm": options.max_thickness_mm, "slices": options.slices}
    meaning = {"horizon_years": options.horizon_years, "asthma": options.asthma, "emphysema": options.emphysema}
    chosen = choose_series(series, screen=options.round, **choice)
    missing = [name for name in (*REPORTED.values(), *DIAGNOSES.values()) if name not in people.rows]
    how = {"follow_up": follow_up_column(people), "not_in_participants": missing}
    return add_labels(chosen, people, abnormalities, screen=options.round, **meaning), list(TASKS), how


def _from_luna25(options: argparse.Namespace) -> tuple[pd.DataFrame, list[str], dict[str, Any]]:
    """The series that LUNA25 labels, with radiologists' findings; also tasks, and what the side file says."""
    codes = selected(AUXILIARIES if options.auxiliaries is None else options.auxiliaries)
    listed = luna25.read_luna25(options.labels[1])
    rows = luna25.find_series(listed, read_index(options.index or None))
    if options.one_per_patient:
        rows = one_per(rows, "patient", keep="last", reason="not the patient's last scan")  # whatever its label
    people = read_participants(options.participants) if options.participants else None
    if options.abnormalities:
        rows = rows.join(findings(rows, read_abnormalities(options.abnormalities), people, codes=codes))
    how = {
        CENTRAL_TASK: "1 where LUNA25 has a malignant nodule in the scan, 0 where all its nodules are benign",
        "findings": {task: f"sct_ab_desc {code} of that round" for task, code in codes.items()},
        "finding_0": "the round has a row in the table of abnormalities, or a read result, and not this code",
        "n_nodules": int(listed["n_nodules"].sum()),
        "limit": "only patients with nodules are in it: its AUCs do not compare with those of screening",
    }
    return rows, [CENTRAL_TASK, *codes], how


def name_scans(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `scan`, patient and round; a second series of a round gets a number. A new frame."""
    name = rows["patient"] + "-T" + rows["round"]
    number = name.groupby(name).cumcount() + 1
    return rows.assign(scan=name.mask(number > 1, name + "-" + number.astype(str)))


def draw(rows: pd.DataFrame, *, n_patients: int, seed: int) -> pd.DataFrame:
    """Keep every patient with lung cancer and draw the others until there are `n_patients`; a new frame.

    Enriches the cohort, as case-control studies do, so that it can be downloaded; prevalence is then no longer that
    of screening. Excluded rows stay and are not counted; patients whose lung cancer is not known are left out.

    Raises:
        ValueError: If there are fewer patients, or more with lung cancer.
    """
    by_patient = rows[rows["excluded"] == ""].groupby("patient")[CENTRAL_TASK].max()
    positive, negative = (by_patient.index[by_patient == answer] for answer in (1, 0))
    least, most = len(positive), len(positive) + len(negative)
    if not least <= n_patients <= most:
        raise ValueError(f"`--patients` must be {least} (all with lung cancer) to {most}. Found {n_patients}.")
    others = np.random.default_rng(seed).choice(negative, n_patients - len(positive), replace=False)
    is_kept = (rows["excluded"] != "") | rows["patient"].isin([*positive, *others])
    return rows[is_kept].reset_index(drop=True)


def locate(rows: pd.DataFrame, images: str | Path, *, root: str | Path) -> pd.DataFrame:
    """Find the folder of every chosen series and compare its files with what there must be; a new frame.

    Args:
        images: Folder of series folders; where `folder` is blank, a name is the series' UID or ends in `_` and it.
        root: Folder of the cohort table; `images` lies in it.
    Returns:
        The rows of `add_labels` with `image` (relative to `root`; blank where there is none) and, in `excluded`,
        what is missing.
    Raises:
        ValueError: If `images` is not inside `root`.
    """
    place = place_in(root, images)
    n_files = {folder: len(files) for folder, files in folders_of(images).items()}
    by_uid = {os.path.basename(folder).rpartition("_")[2]: folder for folder in sorted(n_files, key=n_files.get)}
    folder = rows["folder"].where(rows["folder"] != "", rows["series"].map(by_uid)).fillna("")
    n_found = folder.map(n_files).fillna(0).astype(int)
    n_wanted = rows["n_slices"].fillna(0).astype(int)
    is_short = (rows["excluded"] == "") & (n_found != n_wanted)
    missing = DOWNLOAD + ": " + n_found.astype(str) + " of " + n_wanted.astype(str) + " files"
    image = [os.path.normpath(os.path.join(place, name)) if name else "" for name in folder]
    return rows.assign(image=image, excluded=rows["excluded"].mask(is_short, missing))


def write_manifest(rows: pd.DataFrame, images: str | Path, path: str | Path) -> int:
    """Write what is still to be downloaded, for `s5cmd --no-sign-request run FILE`; return the number of series.

    `images` gets a folder per series; an incomplete download is fetched again as a whole.
    """
    wanted = rows[rows["excluded"].str.startswith(DOWNLOAD)]
    folders = (os.path.join(os.path.abspath(images), uid) + os.sep for uid in wanted["series"])
    lines = [f"cp {shlex.quote(url)} {shlex.quote(to)}" for url, to in zip(wanted["url"], folders, strict=True)]
    head = f"# {len(lines)} series. Fetch: s5cmd --no-sign-request run {Path(path).name}; then make the table again."
    write(Path(path), "\n".join([head, *lines]) + "\n")
    return len(lines)


def facts(options: Mapping[str, Any]) -> dict[str, Any]:
    """How a table was made: options of the command line, names and hashes of files (no paths)."""
    labels = Path(options["labels"][1]) if options["labels"] else None
    files = {"labels": labels, **{name: options[name] for name in ("participants", "abnormalities")}}
    index = options["index"] or "" if labels else options["index"]
    source = "headers of the images" if index is None else Path(index).name
    return {
        "collection": COLLECTION,
        "options": {name: options[name] for name in (LUNA25_OPTIONS if labels else OPTIONS)},
        "files": file_facts(files),
        "series": source or f"idc-index-data {importlib.metadata.version('idc-index-data')}",
    }
