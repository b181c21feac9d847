"""Readings of a phantom's truth: what an error-free reader would go by, which bounds what a network can hope for."""

import pandas as pd

from lungmtl.experiments import CENTRAL_TASK
from lungmtl.sources.signs import LOW_SHARE, N_BULLAE, N_PLUGS, WALL_MM

MEASURED = ("diameter_mm", "benign_diameter_mm", "trapped", "wall_thickness_mm", "dome_mm", "laa950")
COUNTED = ("n_bullae", "n_plugs")
RATIOS = ("nodule_log_ratio", "auxiliary_log_ratio")


def read_truth(truth: pd.DataFrame) -> pd.DataFrame:
    """One measurement of the noise-free scan per task, and two ideal readers of the central one; more speaks for it.

    Largest nodule of any kind (0 without one), share of trapped air, airway wall and plugs, height of the diaphragm's
    dome with its sign changed (flat in hyperinflated lungs), LAA-950 and bullae; a focal sign counts as the diffuse one
    in whose place it stands. The ideal readers know the laws that the phantom is drawn by: `nodules.nodule_log_ratio`
    (the best without the auxiliary diagnoses), and this with `diagnoses.auxiliary_log_ratio` added (the best with their
    truth: diagnoses as they are, not as recorded, and their severities).

    Args:
        truth: truth.csv of a phantom cohort; what it lacks is NaN.
    Returns:
        scan, a column per task, and `<task>:<reader>` for the ideal readers.
    """
    truth = truth.reindex(columns=["scan", *MEASURED, *COUNTED, *RATIOS])
    n_bullae, n_plugs = (truth[name].fillna(0) for name in COUNTED)
    measured = {
        "lung_cancer": truth[["diameter_mm", "benign_diameter_mm"]].max(axis=1).fillna(0),
        "asthma": truth["trapped"],
        "chronic_bronchitis": truth["wall_thickness_mm"] + WALL_MM * n_plugs / N_PLUGS,
        "copd": -truth["dome_mm"],
        "emphysema": truth["laa950"] + LOW_SHARE * n_bullae / N_BULLAE,
        f"{CENTRAL_TASK}:all nodules": truth[RATIOS[0]],
        f"{CENTRAL_TASK}:all nodules and auxiliary truth": truth[[*RATIOS]].sum(axis=1, skipna=False),
    }
    return pd.DataFrame({"scan": truth["scan"].astype(str), **measured})
