"""NLST's diagnoses: official tables to one column per task.

A label that is not known is NaN: an answer that was not given (`.M`, `.N`, blank), a follow-up shorter than the
horizon, a column that the table does not have. In `cancyr` 0 is a cancer of the first round, not a missing value.
"""

import logging

import numpy as np
import pandas as pd

from lungmtl.experiments import CENTRAL_TASK, TASKS
from lungmtl.sources.nlst_findings import FINDINGS, findings
from lungmtl.sources.nlst_tables import DIAGNOSES, FOLLOW_UP, REPORTED, Table, numbers, optional
from lungmtl.sources.table import highest

ASTHMA = ("either", "adult", "childhood")
EMPHYSEMA = ("report", "ct")
HORIZON_YEARS = 1.0  # chosen by us: a cancer found within a year of the scan is likely to be seen on it
DAYS_PER_YEAR = 365.25
NOT_LISTED = "not in the participant table"
AFTER_DIAGNOSIS = "scan after the diagnosis of lung cancer"
_logger = logging.getLogger(__name__)


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
        abnormalities: Needed for `emphysema="ct"`.
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
        screens = pd.DataFrame({"patient": people.rows["pid"], "round": str(screen)})
        codes = {"emphysema": FINDINGS["emphysema"]}
        labels["emphysema"] = findings(screens, abnormalities, people, codes=codes)["emphysema"]
    labels = labels.set_index(people.rows["pid"])
    is_listed = chosen["patient"].isin(labels.index)
    if not is_listed.any():
        raise ValueError(f"Patients must be in the participant table. Found none of {len(chosen)} in {people.path}.")
    joined = labels.reindex(chosen["patient"]).set_axis(chosen.index)
    reasons = joined["reason"].where(is_listed, NOT_LISTED)
    excluded = chosen["excluded"].where(chosen["excluded"] != "", reasons)
    unknown = [task for task in TASKS if joined[task].isna().all()]
    if unknown:
        _logger.warning("Not known of any patient, for want of a column or an answer: %s", ", ".join(unknown))
    return chosen.assign(excluded=excluded, **{task: joined[task] for task in TASKS}, split="")


def lung_cancer(people: Table, *, screen: int, horizon_years: float) -> pd.DataFrame:
    """Say for every participant whether lung cancer was diagnosed within a time after the scan.

    The diagnosis has a day, or else a study year. A cancer of study year y counts as diagnosed between y and y + 1
    years after the first round. Without cancer the participant must have been followed for the whole horizon. Nothing
    is known where the scan has no day.

    Returns:
        A row per row of the table: `lung_cancer` (0, 1, NaN = not known) and `reason`, which is blank unless the scan
        was made after the diagnosis.
    """
    has_cancer, is_free = _cancer_status(people)
    scan_day = numbers(people, f"scr_days{screen}")
    years = (numbers(people, "candx_days") - scan_day) / DAYS_PER_YEAR
    dated = has_cancer & years.notna()
    first_year = numbers(people, "cancyr") - screen
    by_year = has_cancer & years.isna() & scan_day.notna() & first_year.notna()
    followed = numbers(people, follow_up_column(people)) - scan_day >= horizon_years * DAYS_PER_YEAR
    is_after = (people.rows[f"scr_days{screen}"] == ".E") | (dated & (years < 0)) | (by_year & (first_year < 0))

    label = pd.Series(np.nan, index=people.rows.index)
    label[(dated & (years <= horizon_years)) | (by_year & (first_year + 1 <= horizon_years))] = 1.0
    label[(dated & (years > horizon_years)) | (by_year & (first_year >= horizon_years)) | (is_free & followed)] = 0.0
    label[is_after] = np.nan
    return pd.DataFrame({CENTRAL_TASK: label, "reason": is_after.map({True: AFTER_DIAGNOSIS, False: ""})})


def _cancer_status(people: Table) -> tuple[pd.Series, pd.Series]:
    """Whether lung cancer was confirmed at any time, and whether it surely was not."""
    screened, confirmed = optional(people, "can_scr", allowed=range(5)), optional(people, "conflc")
    has_date = numbers(people, "candx_days").notna() | numbers(people, "cancyr").notna()
    has_cancer = (confirmed == 1) | (screened > 0) | has_date
    return has_cancer, ~has_cancer & ((screened == 0) | confirmed.notna())


def follow_up_column(people: Table) -> str:
    """The first of the columns `FOLLOW_UP` that a table has."""
    return next(name for name in FOLLOW_UP if name in people.rows)


def _reported(people: Table, asthma: str) -> pd.DataFrame:
    """Participants' own answers, one column per auxiliary task."""
    answers = {task: optional(people, name, allowed=(0, 1)) for task, name in DIAGNOSES.items()}
    times = REPORTED if asthma == "either" else {asthma: REPORTED[asthma]}
    asked = pd.DataFrame({time: optional(people, name, allowed=(0, 1)) for time, name in times.items()})
    return pd.DataFrame({"asthma": highest(asked), **answers})


def _check_meaning(horizon_years: float, asthma: str, emphysema: str, abnormalities: Table | None) -> None:
    if not horizon_years > 0:
        raise ValueError(f"`--horizon-years` must be positive. Found {horizon_years}.")
    if asthma not in ASTHMA:
        raise ValueError(f"`--asthma` must be one of {', '.join(ASTHMA)}. Found {asthma}.")
    if emphysema not in EMPHYSEMA:
        raise ValueError(f"`--emphysema` must be one of {', '.join(EMPHYSEMA)}. Found {emphysema}.")
    if emphysema == "ct" and abnormalities is None:
        raise ValueError("`--abnormalities` must be given for `--emphysema ct`. Found none.")
