"""Who of the phantom's patients is ill, by a latent exposure and odds ratios, and what that tells of lung cancer.

The law of a diagnosis is logistic in the exposure, a standard normal, and in lung cancer. Published relative risks for
`odds_ratios`, adjusted for smoking: asthma 1.28 (Rosenberger et al. 2012, Carcinogenesis 33:587-597, doi
10.1093/carcin/bgr307), chronic bronchitis 1.47 and emphysema 2.44 (Brenner et al. 2012, Am J Epidemiol 176:573-585, doi
10.1093/aje/kws151), COPD 2.22 (Brenner et al. 2011, PLoS ONE 6:e17479, doi 10.1371/journal.pone.0017479). Here they are
crude odds ratios, with the exposure's part in them, so that the phantom couples rather too little than too much.
"""

import functools
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, ndtr

from lungmtl.experiments import CENTRAL_TASK, TASKS
from lungmtl.sources.anatomy import Patient
from lungmtl.sources.phantom_settings import USUAL, Knobs

# log-odds: intercept and slope on the latent exposure (a standard normal); enriched, not a screening prevalence
LABEL_ODDS = {
    "lung_cancer": (-0.45, 0.7),
    "asthma": (-1.0, 0.15),
    "chronic_bronchitis": (-0.9, 0.7),
    "copd": (-0.75, 0.9),
    "emphysema": (-0.5, 1.0),
}
ILL_SEVERITY = (0.3, 1.0)  # range of an ill patient
EXPOSURES = np.linspace(-6, 6, 601)
OF_EXPOSURES = np.exp(-(EXPOSURES**2) / 2) / np.exp(-(EXPOSURES**2) / 2).sum()  # their shares of the patients


class Law(NamedTuple):
    """Log-odds of a diagnosis: `intercept + slope * exposure`, and `with_cancer` on top for who has lung cancer."""

    intercept: float
    slope: float
    with_cancer: float = 0.0


@functools.cache
def laws(knobs: Knobs) -> dict[str, Law]:
    """Law of every diagnosis, lung cancer first: the auxiliary ones keep their prevalence whatever the odds ratios."""
    found = {task: Law(*odds) for task, odds in LABEL_ODDS.items()}
    if knobs.prevalence != USUAL.prevalence:
        slope = found[CENTRAL_TASK].slope
        found[CENTRAL_TASK] = Law(_intercept(knobs.prevalence, slope * EXPOSURES, OF_EXPOSURES), slope)
    cancer = OF_EXPOSURES * _chance(found[CENTRAL_TASK])
    for task, ratio in zip(TASKS[1:], knobs.odds_ratios, strict=False):  # none or one of each
        slope, share = found[task].slope, OF_EXPOSURES @ _chance(found[task])
        of_healthy = _intercept(share, np.log([1, ratio]), np.array([1 - cancer.sum(), cancer.sum()]))  # log-odds
        without = _intercept(expit(of_healthy), slope * EXPOSURES, OF_EXPOSURES - cancer)
        with_cancer = _intercept(expit(of_healthy + np.log(ratio)), slope * EXPOSURES, cancer)
        found[task] = Law(without, slope, with_cancer - without)
    return found


def severity_of_exposure(exposure: float | np.ndarray) -> float | np.ndarray:
    """Severity that an exposure alone gives an ill patient: its rank among all patients, in `ILL_SEVERITY`."""
    return ILL_SEVERITY[0] + np.ptp(ILL_SEVERITY) * ndtr(exposure)


def auxiliary_log_ratio(patient: Patient, knobs: Knobs) -> float:
    """Log likelihood ratio of lung cancer from true_<task> and severity_<task> of all auxiliary diagnoses.

    The exposure is not known to the reader and integrated out. A healthy patient's severity tells nothing.
    """
    prior, ill_of = _on_exposures(knobs)
    joint = prior
    middle, half = np.mean(ILL_SEVERITY), np.ptp(ILL_SEVERITY) / 2 * (1 - knobs.exposure_severity)
    middle = middle + knobs.exposure_severity * (severity_of_exposure(EXPOSURES) - middle)
    for task, ill in ill_of.items():
        if patient[f"true_{task}"]:
            # 0.01 holds a few steps of the grid, where the exposure sets all of the severity
            joint = joint * ill * (np.abs(patient[f"severity_{task}"] - middle) <= half + 0.01)
        else:
            joint = joint * (1 - ill)
    return float(np.subtract(*np.log(joint.sum(axis=1) / prior.sum(axis=1))[::-1]))


@functools.cache
def _on_exposures(knobs: Knobs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Shares of the patients without and with lung cancer, and who of them has each auxiliary diagnosis, all (2, E)."""
    found = laws(knobs)
    cancer = OF_EXPOSURES * _chance(found[CENTRAL_TASK])
    ill_of = {task: np.stack([_chance(found[task], has_cancer) for has_cancer in (0, 1)]) for task in TASKS[1:]}
    return np.stack([OF_EXPOSURES - cancer, cancer]), ill_of


def _chance(law: Law, has_cancer: int = 0) -> np.ndarray:
    """Chance of a diagnosis at every exposure (E,)."""
    return expit(law.intercept + law.slope * EXPOSURES + law.with_cancer * has_cancer)


def _intercept(share: float, log_odds: np.ndarray, weights: np.ndarray) -> float:
    """What must be added to the log-odds of groups so that their weighted chance is `share`."""
    return brentq(lambda x: weights @ expit(x + log_odds) / weights.sum() - share, -30, 30)
