"""LUNA25's labels over NLST: a table with one row per nodule to one row per scan, each found in the index by its UID.

A scan is positive if one of its nodules is malignant. Only patients with nodules are in the table: an AUC on it does
not compare with one on screening. Source: LUNA25, Public Training and Development Data, luna25.grand-challenge.org.
"""

import logging
from pathlib import Path

import pandas as pd

from lungmtl.experiments import CENTRAL_TASK
from lungmtl.sources.nlst_series import SERIES_COLUMNS, described
from lungmtl.sources.nlst_tables import LUNA25_COLUMNS, Table, check_cells, numbers, optional, read_table
from lungmtl.words import number_of

REQUIRED = LUNA25_COLUMNS[:4]  # the patient, the series, the date, the label
ROUNDS = {"19990102": "0", "20000102": "1", "20010102": "2"}  # NLST's study dates are codes of the screening round
_logger = logging.getLogger(__name__)


def read_luna25(path: str | Path) -> pd.DataFrame:
    """Read the label table of LUNA25.

    Returns:
        One row per series, by patient, round and UID: `patient`, `series`, `round`, lung cancer (the maximum of
        `label`), `n_nodules`, `age_years` (the median) and `sex` (blank where rows differ).
    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a column is missing, a cell is not what it must be, or a series has two patients or dates.
    """
    table = read_table(path, required=REQUIRED)
    _check(table)
    rows = _without_doubles(table.rows)
    rows = rows.assign(round=rows["studydate"].map(ROUNDS), label=numbers(table, "label", allowed=(0, 1)))
    rows = rows.assign(age=optional(table, "age_at_studydate"), sex=rows.get("gender", ""))
    by_series = rows.groupby("seriesinstanceuid", sort=False)
    return (
        by_series.agg(
            patient=("patientid", "first"),
            round=("round", "first"),
            **{CENTRAL_TASK: ("label", "max")},
            n_nodules=("label", "size"),
            age_years=("age", "median"),
            sex=("sex", lambda sexes: sexes.iloc[0] if (sexes == sexes.iloc[0]).all() else ""),
        )
        .rename_axis("series")
        .reset_index()
        .sort_values(["patient", "round", "series"], ignore_index=True)
    )


def find_series(listed: pd.DataFrame, series: pd.DataFrame) -> pd.DataFrame:
    """Join the scans of `read_luna25` with the index (`read_index`) by series UID.

    Returns:
        The rows with the `SERIES_COLUMNS`, `url`, `folder`, `split` (blank) and `excluded`: series that the index does
        not have, or has under another patient or round.
    """
    found = described(series[series["SeriesInstanceUID"].isin(listed["series"])])
    wanted = [name for name in SERIES_COLUMNS if name not in listed]
    found = found.rename(columns={"patient": "its_patient", "round": "its_round"})
    found = found[["series", "its_patient", "its_round", *wanted, "url", "folder"]].drop_duplicates("series")
    rows = listed.merge(found, on="series", how="left", validate="one_to_one")
    excluded = pd.Series("", index=rows.index)
    excluded[rows["its_round"] != rows["round"]] = "no series: the index has it in another round"
    excluded[rows["its_patient"] != rows["patient"]] = "no series: the index has it under another patient"
    excluded[rows["its_patient"].isna()] = "no series: not in the index"
    text = {name: rows[name].fillna("") for name in ("url", "folder")}
    return rows.drop(columns=["its_patient", "its_round"]).assign(**text, split="", excluded=excluded)


def _check(table: Table) -> None:
    check_cells(table, "patientid", r"\d+", "NLST's participant number", is_secret=True)
    check_cells(table, "seriesinstanceuid", r"[\d.]+", "a series UID")
    check_cells(table, "studydate", "|".join(ROUNDS), f"{', '.join(ROUNDS)}, for the three rounds")
    check_cells(table, "label", r"[01](\.0*)?", "0 or 1")
    for name in ("patientid", "studydate"):
        n_values = table.rows.groupby("seriesinstanceuid")[name].transform("nunique")
        if (n_values > 1).any():
            found = f"{n_values.max()} in row {n_values.idxmax()} of {table.path}"
            raise ValueError(f"A series must have one `{name}`. Found {found}.")


def _without_doubles(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave out rows whose annotation was there before: it is one nodule, written twice."""
    if "annotationid" not in rows:
        return rows
    is_double = (rows["annotationid"] != "") & rows.duplicated(["seriesinstanceuid", "annotationid", "label"])
    if is_double.any():
        _logger.warning("left out, as an annotation that is there already: %s", number_of(is_double.sum(), "row"))
    return rows[~is_double]
