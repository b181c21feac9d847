"""What radiologists recorded on NLST's screens: the table of CT abnormalities to one column per finding.

Source: data dictionary Spiral CT Abnormalities, column `sct_ab_desc`, National Cancer Institute, cdas.cancer.gov/nlst.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lungmtl.sources.nlst_tables import Table, check_columns, numbers
from lungmtl.sources.table import close_to

FINDINGS = {  # task -> sct_ab_desc
    "emphysema": 59,
    "fibrosis": 61,  # reticular opacities, honeycombing, fibrosis, scar
    "consolidation": 58,
    "pleura": 55,  # thickening or effusion
    "adenopathy": 56,  # hilar or mediastinal
    "cardiovascular": 60,
    "atelectasis": 54,  # segmental or greater
}
# chosen by us: four, as in the paper, of the lung and its surface, which is what the network sees
AUXILIARIES = ("emphysema", "fibrosis", "consolidation", "pleura")
NODULE = "51"
READ_RESULTS = (1, 6)  # scr_res of a screen that was read; from 10 on there is none


def selected(words: Sequence[str]) -> dict[str, int]:
    """Tasks and codes of findings that are given by name or by code.

    Raises:
        ValueError: If a word is neither, or comes twice.
    """
    names = {str(code): name for name, code in FINDINGS.items()} | {name: name for name in FINDINGS}
    for word in words:
        if word == NODULE:
            why = "51, a nodule of 4 mm or more, by which LUNA25's scans were selected: nearly all have it"
            raise ValueError(f"`--auxiliaries` must differ between scans. Found {why}.")
        if word not in names:
            known = ", ".join(f"{name} ({code})" for name, code in FINDINGS.items())
            raise ValueError(f"`--auxiliaries` must be of {known}. Found {word}.{close_to(word, names)}")
    if len({names[word] for word in words}) < len(words):
        raise ValueError(f"`--auxiliaries` must differ. Found {', '.join(words)}.")
    return {names[word]: FINDINGS[names[word]] for word in words}


def findings(
    scans: pd.DataFrame, abnormalities: Table, people: Table | None = None, *, codes: Mapping[str, int]
) -> pd.DataFrame:
    """Say of every scan which findings were recorded in its round.

    Args:
        scans: `patient` and `round`, as text.
        people: A participant table, which says of more screens that they were read: those without any finding.
    Returns:
        A column per task of `codes` on the index of `scans`: 1 where the finding is listed, 0 where the screen was
        read and it is not, NaN where nothing says that the screen was read.
    """
    code, year = (numbers(abnormalities, name) for name in ("sct_ab_desc", "study_yr"))
    listed = abnormalities.rows["pid"] + "-T" + year.map("{:.0f}".format)
    wanted = scans["patient"] + "-T" + scans["round"]
    is_read = wanted.isin(listed) | wanted.isin(_read_screens(people, sorted(set(scans["round"]))))
    known = pd.Series(np.nan, index=scans.index).mask(is_read, 0.0)
    return pd.DataFrame({task: known.mask(wanted.isin(listed[code == n]), 1.0) for task, n in codes.items()})


def _read_screens(people: Table | None, rounds: Sequence[str]) -> set[str]:
    """Screens that the participant table says were read, as `PID-T0`."""
    if people is None:
        return set()
    check_columns(people.rows, [f"scr_res{screen}" for screen in rounds], people.path)
    return {
        f"{pid}-T{screen}"
        for screen in rounds
        for pid in people.rows.loc[numbers(people, f"scr_res{screen}").between(*READ_RESULTS), "pid"]
    }
