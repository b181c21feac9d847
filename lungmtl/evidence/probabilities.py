"""Calibration and reliability of probabilities."""

from typing import NamedTuple

import numpy as np
import statsmodels.api as sm
from scipy.special import logit

from lungmtl.evidence.areas import Interval, auc, checked, checked_rows
from lungmtl.evidence.decisions import rate

N_BINS = 10
MIN_PROBABILITY = 1e-6  # chosen by us: stored predictions have six digits, so a logit beyond this is not reliable


class ReliabilityBin(NamedTuple):
    """Mean probability of a bin, the share of positives in it with its interval, and the scans it holds."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int
    n_effective: float


class Calibration(NamedTuple):
    """Slope (1 is perfect, below 1 is overconfident) and intercept (0 is perfect), each with its interval."""

    slope: Interval
    intercept: Interval


def reliability(target: np.ndarray, probability: np.ndarray, patient: np.ndarray) -> list[ReliabilityBin]:
    """Reliability curve of the runs of one experiment: share of positives in `N_BINS` bins of equal count, in order.

    Equal probabilities stay together, so there may be fewer bins.
    The predictions of all seeds are pooled, so the curve is that of one network, not of the (less extreme) mean over
    seeds. A scan that several seeds put into a bin counts that often in the share, but at most once in
    the sample size: the band is Wilson's 95 % interval with Kish's effective number of patients, (sum w)^2 / sum w^2,
    where w is a patient's number of predictions in the bin. With one seed and one scan per patient that is the ordinary
    Wilson interval; in a bin of six scans without an expected positive its coverage is between 91 and 100 %.

    Source: Wilson 1927, JASA 22:209-212; Kish 1965, Survey Sampling, section 11.7.
    """
    target, probability = checked_rows(target, probability)
    edges = np.unique(np.quantile(probability, np.arange(1, N_BINS) / N_BINS, method="higher"))
    place = np.searchsorted(edges, probability, side="right")  # (S, N)
    _, index = np.unique(patient, return_inverse=True)
    bins = []
    for inside in (place == k for k in np.unique(place)):
        times = inside.sum(axis=0)  # (N,): seeds that put the scan into the bin
        n_effective = float(times.sum() ** 2 / np.sum(np.bincount(index, weights=times) ** 2))
        observed = rate(times @ target / times.sum() * n_effective, n_effective)
        bins.append(ReliabilityBin(float(probability[inside].mean()), *observed, int(np.sum(times > 0)), n_effective))
    return bins


def calibration(target: np.ndarray, probability: np.ndarray, patient: np.ndarray) -> Calibration:
    """Logistic recalibration: slope on the logit, and intercept with the slope fixed at 1.

    Probabilities are kept `MIN_PROBABILITY` away from 0 and 1. The 95 % intervals are for newly sampled scans,
    prevalence included, and allow for a misspecified logistic form and several scans of a patient (cluster-robust
    variance).

    Raises:
        ValueError: If all probabilities are equal or the classes hardly overlap: the slope is not finite.

    Source: Cox 1958, Biometrika 45:562-565; Van Calster et al. 2019, BMC Medicine 17:230.
    """
    target, probability = checked(target, probability)
    area = auc(target, probability)
    if area in (0.0, 1.0) or np.ptp(probability) == 0:
        raise ValueError(
            "A calibration slope needs probabilities that differ and classes that overlap. "
            f"Found AUC {area:g} over {np.unique(probability).size} different probabilities."
        )
    logits = logit(np.clip(probability, MIN_PROBABILITY, 1 - MIN_PROBABILITY))
    binomial = sm.families.Binomial()
    robust = {"cov_type": "cluster", "cov_kwds": {"groups": np.unique(patient, return_inverse=True)[1]}}
    try:
        with np.errstate(divide="ignore", invalid="ignore"):  # nearly separated classes
            slope = sm.GLM(target, sm.add_constant(logits, has_constant="add"), family=binomial).fit(**robust)
            intercept = sm.GLM(target, np.ones_like(logits), offset=logits, family=binomial).fit(**robust)
    except np.linalg.LinAlgError as error:  # too few scans, or nearly equal probabilities
        raise ValueError(f"A calibration slope needs a fit with a finite variance. Found {error}.") from error
    if not np.isfinite([*slope.bse, *intercept.bse]).all():
        raise ValueError("A calibration slope needs a fit with a finite variance. Found none: classes hardly overlap.")
    return Calibration(
        Interval(float(slope.params[1]), *map(float, slope.conf_int()[1])),
        Interval(float(intercept.params[0]), *map(float, intercept.conf_int()[0])),
    )
