"""Readings of a phantom's truth: one error-free measurement per task, which bounds what a network can hope for."""

import pandas as pd


def read_truth(truth: pd.DataFrame) -> pd.DataFrame:
    """One measurement of the noise-free scan per task; a larger one speaks for the diagnosis.

    Largest nodule of any kind (0 without one), share of trapped air, airway wall, height of the diaphragm's dome with
    its sign changed (flat in hyperinflated lungs), LAA-950.

    Args:
        truth: truth.csv of a phantom cohort; what it lacks is NaN.
    Returns:
        scan and a column per task.
    """
    names = ("diameter_mm", "benign_diameter_mm", "trapped", "wall_thickness_mm", "dome_mm", "laa950")
    truth = truth.reindex(columns=["scan", *names])
    measured = {
        "lung_cancer": truth[["diameter_mm", "benign_diameter_mm"]].max(axis=1).fillna(0),
        "asthma": truth["trapped"],
        "chronic_bronchitis": truth["wall_thickness_mm"],
        "copd": -truth["dome_mm"],
        "emphysema": truth["laa950"],
    }
    return pd.DataFrame({"scan": truth["scan"].astype(str), **measured})
