"""NLST's CT series: listed from the index or from headers, one chosen per patient."""

import importlib.util
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from lungmtl.data import open_image
from lungmtl.files import existing
from lungmtl.sources.nlst_tables import check_columns, query
from lungmtl.sources.table import close_to
from lungmtl.words import OTHER, number_of

# reconstructions that show soft tissue; the others sharpen edges and noise
SOFT_KERNELS = ("STANDARD", "B30f", "B31f", "B30s", "B31s", "C", "FC01", "FC02", "FC10", "FC11", "B20f", "SOFT")
ANY_KERNEL = "any"
MAX_THICKNESS_MM = 3.3  # chosen by us: keeps 2.5 mm and 3.2 mm, leaves 5 mm out
SLICES = (60, 800)  # fewer are localizers and parts, more are overlapping reconstructions
VENDORS = {"GE": "GE", "SE": "Siemens", "PH": "Philips", "TO": "Toshiba"}  # in descriptions
INDEX_COLUMNS = ("PatientID", "SeriesInstanceUID", "SeriesDescription", "instanceCount", "series_aws_url")
KERNEL_WORD = r"[BHITU]\d\d[a-z]?|F[CL]\d\d|[A-E]|EC|STANDARD|SOFT|DETAIL|BONE(?:PLUS)?|LUNG|CHEST|EDGE|EXPERIMENTAL\d"
UID = r"[\d.]{1,64}"
FOLDER_DEPTH = 6  # below the images' folder; deeper ones are not searched
NLST_TAGS = {"PatientID": "0010|0020", "SeriesInstanceUID": "0020|000e", "SeriesDescription": "0008|103e"}
SERIES_COLUMNS = ("series", "round", "kernel", "thickness_mm", "n_slices", "manufacturer")  # ride along in cohort.csv
DESCRIBED = ((0, "[0-2]"), (1, "OPA"), (2, "|".join(VENDORS)), (4, KERNEL_WORD), (-5, r"\d\d?(\.\d{1,3})?"))
_NLST_CT = "collection_id = 'nlst' and Modality = 'CT' and analysis_result_id is null"
_logger = logging.getLogger(__name__)


def read_index(path: str | Path | None = None) -> pd.DataFrame:
    """List NLST's original CT series from the IDC index; needs the extra `nlst`.

    Args:
        path: An index file, parquet or csv; that of the package idc-index-data where not given.
    Returns:
        One row per series with the `INDEX_COLUMNS`, all text except `instanceCount`, and `folder`, which is blank.
    Raises:
        FileNotFoundError: If there is no such file, or the package is not installed.
        ValueError: If a column is missing.
    """
    path = _index_file() if path is None else existing(path, "A series index")
    if path.suffix == ".parquet":
        series = query(path, f"select {', '.join(INDEX_COLUMNS)} from read_parquet(?) where {_NLST_CT}")
    else:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        check_columns(table, [*INDEX_COLUMNS, "collection_id", "Modality", "analysis_result_id"], path)
        is_ct = (table["collection_id"] == "nlst") & (table["Modality"] == "CT") & (table["analysis_result_id"] == "")
        series = table.loc[is_ct, list(INDEX_COLUMNS)]
    return series.assign(instanceCount=pd.to_numeric(series["instanceCount"]), folder="").reset_index(drop=True)


def read_headers(images: str | Path) -> pd.DataFrame:
    """List the series of a folder of series folders, in any layout, by the header of one DICOM file of each.

    Returns:
        As `read_index` gives it, with `folder`; `instanceCount` is the number of files, which proves nothing.
    Raises:
        ValueError: If no DICOM file is found.
    """
    folders = sorted(folders_of(images).items())
    headers = [_as_in_index(Path(images), place, files) for place, files in tqdm(folders, desc="headers", disable=None)]
    rows = [header for header in headers if header]
    if not rows:
        raise ValueError(f"`--images` must hold series folders with DICOM files (.dcm). Found none in {images}.")
    if len(rows) < len(headers):
        n_other, n_all = len(headers) - len(rows), number_of(len(headers), "folder")
        _logger.warning("no DICOM header of an NLST participant in %d of %s", n_other, n_all)
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
        slices: Smallest and largest number of slices that fit.
    Returns:
        One row per patient, in their order: `patient`, the `SERIES_COLUMNS`, `url`, `folder`, and `excluded`: why a
        patient has no series.
    Raises:
        ValueError: If an option is outside its range.
    """
    _check_choice(screen, max_thickness_mm, slices)
    left = described(series)
    _check_kernels(kernels, left["kernel"])
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
    best = best.drop_duplicates("patient").set_index("patient")[[*SERIES_COLUMNS, "url", "folder"]]
    return best.reindex(patients).assign(round=str(screen), excluded=excluded).rename_axis("patient").reset_index()


def described(series: pd.DataFrame) -> pd.DataFrame:
    """Take what the description says: comma-separated words, the thickness fifth from the end."""
    names = {"PatientID": "patient", "SeriesInstanceUID": "series", "instanceCount": "n_slices"}
    words = [text.split(",") for text in series["SeriesDescription"]]
    words = [parts if len(parts) >= 11 else [""] * 11 for parts in words]
    places = {"round": 0, "type": 1, "kernel": 4, "thickness_mm": -5, "vendor": 2}
    found = {name: [parts[place] for parts in words] for name, place in places.items()}
    found["thickness_mm"] = pd.to_numeric(found["thickness_mm"], errors="coerce")
    found["manufacturer"] = [VENDORS.get(vendor, vendor) for vendor in found.pop("vendor")]
    return series.rename(columns={**names, "series_aws_url": "url"}).assign(**found)


def _index_file() -> Path:
    if importlib.util.find_spec("idc_index_data") is None:
        raise FileNotFoundError("`--index` must have the package idc-index-data: pip install 'lungmtl[nlst]'.")
    import idc_index_data

    return Path(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)


def folders_of(images: str | Path) -> dict[str, list[str]]:
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


def _as_in_index(images: Path, place: str, files: Sequence[str]) -> dict[str, Any]:
    """Read what the index would say of a folder from its first file; empty if that is not one of NLST."""
    try:
        header = open_image(images / place / min(files))
    except RuntimeError:
        return {}
    has = header.HasMetaDataKey
    said = {name: header.GetMetaData(tag).strip() if has(tag) else "" for name, tag in NLST_TAGS.items()}
    if not (said["PatientID"].isdigit() and re.fullmatch(UID, said["SeriesInstanceUID"])):
        return {}  # perhaps a name: goes nowhere
    said["SeriesDescription"] = _known(said["SeriesDescription"].split(","))
    return {**said, "instanceCount": len(files), "series_aws_url": "", "folder": place}


def _known(words: Sequence[str]) -> str:
    """Description of a header with nothing but known words and numbers: a name may stand in any other place."""
    kept = [""] * len(words)
    for place, pattern in DESCRIBED:
        if -len(words) <= place < len(words):
            kept[place] = words[place] if re.fullmatch(pattern, words[place]) else OTHER
    return ",".join(kept)


def _check_choice(screen: int, max_thickness_mm: float, slices: Sequence[int]) -> None:
    if screen not in (0, 1, 2):
        raise ValueError(f"`--round` must be 0, 1 or 2. Found {screen}.")
    if not max_thickness_mm > 0:
        raise ValueError(f"`--max-thickness-mm` must be positive. Found {max_thickness_mm}.")
    if not 1 < slices[0] <= slices[1]:
        raise ValueError(f"`--slices` must be two counts above 1, the smaller first. Found {tuple(slices)}.")


def _check_kernels(kernels: Sequence[str], there: pd.Series) -> None:
    known = {*SOFT_KERNELS, *there.unique()} - {""}
    for kernel in kernels:
        if kernel not in known | {ANY_KERNEL}:
            near = close_to(kernel, known) or f" Some are {', '.join(there.value_counts().index[:6])}."
            raise ValueError(f"`--kernels` must be kernels of the series, or {ANY_KERNEL}. Found {kernel}.{near}")
