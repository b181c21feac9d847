"""NLST: official tables and series index to a cohort table and a download manifest.

The order of a run: `read_index` (or `read_headers` of what is there) lists the series, `choose_series` keeps one per
patient, `add_labels` joins the diagnoses, `draw` may thin the patients, `locate` finds and counts the files,
`write_cohort` writes the table and a side file with every option. With the index, what is downloaded changes neither
choice nor labels nor split: the same command makes the same table again, only with fewer scans excluded.

Sources: NLST data dictionaries (Participant, Spiral CT Abnormalities), National Cancer Institute, cdas.cancer.gov/nlst;
images: NLST Research Team 2013, doi 10.7937/TCIA.HMQ8-J677, CC BY 4.0, and their index in the package idc-index-data.
"""

import argparse
import importlib.metadata
import json
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
from lungmtl.files import sha256, write
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
from lungmtl.sources.nlst_tables import DIAGNOSES, REPORTED, Table, read_abnormalities, read_participants
from lungmtl.tables import write_csv

SPLIT_FRACTIONS = (0.7434, 0.0818, 0.1748)  # the paper's 2,517 / 277 / 592 of 3,386 patients
COLLECTION = "NLST, images CC BY 4.0, doi 10.7937/TCIA.HMQ8-J677"
OPTIONS = (  # of the command line; all are recorded next to the table
    *("round", "kernels", "max_thickness_mm", "slices", "horizon_years"),
    *("asthma", "emphysema", "patients", "seed", "split"),
)

_logger = logging.getLogger(__name__)


def add_nlst(parser: argparse.ArgumentParser) -> None:
    """Options of the command `nlst`."""
    add = parser.add_argument
    add("--participants", type=Path, required=True, help="CDAS's Participant table, or IDC's nlst_prsn")
    add("--abnormalities", type=Path, help="CDAS's CT abnormalities, or IDC's nlst_ctab")
    add("--images", type=Path, required=True, help="folder of the DICOM series, in the table's folder")
    add("--out", type=Path, required=True, help="cohort.csv; a json file next to it says how it was made")
    add("--index", nargs="?", const="", help="choose from the IDC index, not from what is there")
    add("--manifest", type=Path, help="with --index: what is still to be downloaded, for s5cmd")
    add("--round", type=int, choices=range(3), default=0, help="screening round of the scans")
    add("--kernels", nargs="+", default=list(SOFT_KERNELS), help="kernels that fit, or any")
    add("--max-thickness-mm", type=float, default=MAX_THICKNESS_MM, help="of a slice, %(default)s")
    add("--slices", type=int, nargs=2, default=list(SLICES), help="fewest and most, %(default)s")
    add("--horizon-years", type=float, default=HORIZON_YEARS, help="lung cancer within, %(default)s")
    add("--asthma", choices=ASTHMA, default="either", help="diagnosed when, %(default)s")
    add("--emphysema", choices=EMPHYSEMA, default="report", help="said by whom, %(default)s")
    add("--patients", type=int, help="draw so many, with all lung cancers; all patients if not given")
    add("--seed", type=int, default=0, help="seeds the draw and the split")
    add("--no-split", dest="split", action="store_false", help="leave the split to the study")


def nlst(options: argparse.Namespace) -> int:
    """Make the cohort table of NLST from the official tables, and the manifest of what is still to be downloaded."""
    if options.manifest and options.index is None:
        raise ValueError("`--manifest` must come with `--index`. Found it alone.")
    people = read_participants(options.participants, screen=options.round)
    abnormalities = read_abnormalities(options.abnormalities) if options.abnormalities else None
    has_index = options.index is not None
    series = read_index(options.index or None) if has_index else read_headers(options.images)
    choice = {"kernels": options.kernels, "max_thickness_mm": options.max_thickness_mm, "slices": options.slices}
    meaning = {"horizon_years": options.horizon_years, "asthma": options.asthma, "emphysema": options.emphysema}
    chosen = choose_series(series, screen=options.round, **choice)
    rows = add_labels(chosen, people, abnormalities, screen=options.round, **meaning)
    if options.patients:
        rows = draw(rows, n_patients=options.patients, seed=options.seed)
    if options.split:
        rows = assign_splits(rows, fractions=SPLIT_FRACTIONS, seed=options.seed, stratify=CENTRAL_TASK)
    rows = locate(rows, options.images, root=options.out.absolute().parent)
    counts = write_cohort(rows, options.out, facts=facts(vars(options), people))
    _logger.info("%s: %s", options.out.name, json.dumps(counts, indent=2))
    if options.manifest:
        n_series = write_manifest(rows, options.images, options.manifest)
        _logger.info("%s: %d series to download", options.manifest.name, n_series)
    return 0


def draw(rows: pd.DataFrame, *, n_patients: int, seed: int) -> pd.DataFrame:
    """Keep every patient with lung cancer and draw the others until there are `n_patients`; a new frame.

    Enriches the cohort, as case-control studies do, so that it can be downloaded; prevalence is then no longer that
    of screening. Excluded rows stay and are not counted; patients whose lung cancer is not known are left out.

    Raises:
        ValueError: If there are fewer patients, or more with lung cancer.
    """
    usable = rows["excluded"] == ""
    positive, negative = (rows[usable & (rows[CENTRAL_TASK] == answer)] for answer in (1, 0))
    least, most = len(positive), len(positive) + len(negative)
    if not least <= n_patients <= most:
        raise ValueError(f"`--patients` must be {least} (all with lung cancer) to {most}. Found {n_patients}.")
    others = np.random.default_rng(seed).choice(negative.index, n_patients - len(positive), replace=False)
    return rows.loc[sorted([*rows.index[~usable], *positive.index, *others])].reset_index(drop=True)


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
    place = os.path.relpath(images, root)
    if place.startswith(os.pardir):
        must = "`--images` must lie in the folder of `--out`; a link there will do, with `check --allow-outside`."
        raise ValueError(f"{must} Found {images}, outside {root}.")
    n_files = {folder: len(files) for folder, files in folders_of(images).items()}
    by_uid = {os.path.basename(folder).rpartition("_")[2]: folder for folder in sorted(n_files, key=n_files.get)}
    folder = rows["folder"].where(rows["folder"] != "", rows["series"].map(by_uid))
    n_found = folder.map(n_files).fillna(0).astype(int)
    n_wanted = rows["n_slices"].fillna(0).astype(int)
    is_short = (rows["excluded"] == "") & (n_found != n_wanted)
    missing = DOWNLOAD + ": " + n_found.astype(str) + " of " + n_wanted.astype(str) + " files"
    image = folder.map(lambda name: os.path.normpath(os.path.join(place, name)), na_action="ignore")
    return rows.assign(image=image.fillna(""), excluded=rows["excluded"].mask(is_short, missing))


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


def write_cohort(rows: pd.DataFrame, path: str | Path, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the cohort table of `locate` and next to it a json file, with the same name, that says how it was made.

    The json file holds `facts` as they are, and the counts of scans, reasons, labels and splits that are returned.
    """
    path = Path(path)
    table = rows.assign(scan=rows["patient"] + "-T" + rows["round"])
    whole = {name: table[name].astype("Int64") for name in (*TASKS, "n_slices")}
    columns = ["scan", "patient", "image", *TASKS, "split", "excluded", *SERIES_COLUMNS]
    write_csv(table.assign(**whole)[columns], path)
    counts = _summary(table)
    write(path.with_suffix(".json"), json.dumps({**facts, **counts}, indent=2) + "\n")
    return counts


def facts(options: Mapping[str, Any], people: Table) -> dict[str, Any]:
    """How a table was made: options of the command line, names and hashes of files (no paths), and what these lack."""
    files = {name: options[name] for name in ("participants", "abnormalities") if options[name]}
    return {
        "collection": COLLECTION,
        "options": {name: options[name] for name in OPTIONS},
        "files": {name: {"name": path.name, "sha256": sha256(path)} for name, path in files.items()},
        "series": _series_source(options["index"]),
        "follow_up": follow_up_column(people),
        "not_in_participants": [name for name in (*REPORTED.values(), *DIAGNOSES.values()) if name not in people.rows],
    }


def _series_source(index: str | None) -> str:
    if index is None:
        return "headers of the images"
    return Path(index).name if index else f"idc-index-data {importlib.metadata.version('idc-index-data')}"


def _summary(table: pd.DataFrame) -> dict[str, Any]:
    """Count scans and reasons, and labels and splits of the scans that are there or still to be downloaded."""
    is_missing = table["excluded"].str.startswith(DOWNLOAD)
    wanted = table[(table["excluded"] == "") | is_missing]
    reasons = table.loc[(table["excluded"] != "") & ~is_missing, "excluded"]
    answers = {1.0: "positive", 0.0: "negative"}
    labels = {task: wanted[task].map(answers).fillna("unknown").value_counts().to_dict() for task in TASKS}
    return {
        "n_scans": int((table["excluded"] == "").sum()),
        "n_to_download": int(is_missing.sum()),
        "excluded": reasons.value_counts().to_dict(),
        "labels": labels,
        "splits": wanted["split"].value_counts().to_dict(),
    }
