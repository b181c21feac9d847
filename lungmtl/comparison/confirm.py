"""Confirmation: the contrasts that a protocol fixed beforehand, Holm's adjustment over these alone; failing seeds."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lungmtl.comparison.differences import MARGIN, verdicts, with_family
from lungmtl.comparison.learning import LEARNT_LOW
from lungmtl.comparison.scans import Scans, best_on, bootstrapped, named, of_task, pair_of
from lungmtl.evidence import allowing_difference, allowing_mean, delong_covariance, fit_mixed, rate
from lungmtl.experiments import base_of

ANY = ("any_low", "any_high")  # limits that allow for seeds which do not learn
CONFIRM_COLUMNS = (
    *("question", "experiment", "reference", "n_candidates", "difference", "low", "high", "p", "p_holm"),
    *("verdict", "error", "freedom", "n_agree", "n_failed", *ANY, "n_family", "n_seeds", "n", "positives"),
)
AUC = ("auc", "low", "high")
FAILURE_COLUMNS = ("experiment", "n_seeds", "n_learnt", "share", "share_low", "share_high", *AUC, *ANY)
MIXED_COLUMNS = ("question", "experiment", "reference", "difference", "low", "high", "p", "set_variance", "variance")
Contrast = Sequence[str | Sequence[str]]  # question, experiment, reference; of a list validation scans choose one


def confirm_table(
    predictions: pd.DataFrame,
    contrasts: Sequence[Contrast],
    learnt: pd.DataFrame,
    *,
    task: str,
    replicates: int,
    seed: int,
) -> pd.DataFrame:
    """Differences of test AUC that a protocol asks for, paired by scan and seed, Holm over all of them.

    Where every run of both sides learnt, `low`, `high` and `p` are those of `evidence.mean_difference` and hold for
    trainings that learn; where one did not, those of `evidence.allowing_difference`, which `any_low` and `any_high`
    are in any case.

    Args:
        predictions: Of all runs.
        contrasts: Of each its question, experiment and reference. In place of a name a list may stand: of its
            experiments that with the highest mean validation AUC over seeds is taken (the first of equals);
            `MTL.*` stands for MTL and its variants.
        learnt: As `learnt_table` returns it.
        task: The central one.
    Returns:
        `CONFIRM_COLUMNS`, a row per contrast, blank where an experiment is missing; difference in AUC, n_candidates
        experiments that a choice was made among (0 = none), n_agree seeds on the side of the mean, n_failed runs of
        either side that did not learn, n_family contrasts that could be tested.
    """
    test = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    validation = of_task(predictions, "validation", task)
    rows = []
    for question, *sides in contrasts:
        lists = [_group(side, validation) if isinstance(side, str) else list(side) for side in sides]
        chosen = [_chosen(names, validation) for names in lists]
        n_candidates = max(map(len, lists))
        row = {"question": question, "experiment": chosen[0], "reference": chosen[1]}
        row |= {"n_candidates": n_candidates if n_candidates > 1 else 0}
        rows += [row | _tested(test, *chosen, learnt)]
    frame = with_family(rows, CONFIRM_COLUMNS).astype({"p": float, "difference": float})
    return frame.assign(verdict=verdicts(frame.assign(equivalence_p_holm=np.nan, margin=MARGIN)))  # of difference alone


def failures_table(
    predictions: pd.DataFrame, learnt: pd.DataFrame, *, task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """How many seeds of every experiment learnt, and its mean AUC with an interval that allows for those which do not.

    Returns:
        `FAILURE_COLUMNS`: share of the trainings that learn with Wilson's 95 % interval; auc, low and high as of
        `auc_table`; any_low and any_high as of `evidence.allowing_mean` (blank with one seed).
    """
    rows = []
    for experiment, scans in bootstrapped(of_task(predictions, "test", task), replicates, seed).items():
        own = _learnt(learnt, experiment, scans.seeds)
        row = {"experiment": experiment, "n_seeds": len(own), "n_learnt": int(own.sum())}
        row |= named("share", rate(own.sum(), len(own))) | dict(zip(AUC, scans.mean_auc, strict=True))
        if scans.areas and len(own) > 1:
            row |= dict(zip(ANY, allowing_mean(scans.target, scans.areas, own, bound=LEARNT_LOW)[1:], strict=True))
        rows.append(row)
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


def mixed_table(predictions: pd.DataFrame, confirmed: pd.DataFrame, *, task: str) -> pd.DataFrame:
    """Mixed model of all confirmatory differences of logit AUC: policies fixed, data set random, DeLong's error known.

    The data set is the training set, or the seed where all share one. What several differences owe to the same test
    scans and runs is in DeLong's covariance of them.

    Args:
        predictions: Of all runs.
        confirmed: As `confirm_table` returns it.
        task: The central one.
    Returns:
        `MIXED_COLUMNS`: difference in logit AUC with its 95 % t interval, of as many degrees of freedom as there are
        data sets less one; set_variance between data sets, variance of what is left but for DeLong's. No row with
        one seed.
    """
    test = of_task(predictions, "test", task)
    tested = confirmed.dropna(subset="difference")[["question", "experiment", "reference"]]
    pairs = [pair_of(test, row.experiment, row.reference) for row in tested.itertuples()]
    if not pairs or len(pairs[0].a.seeds) < 2:
        return pd.DataFrame(columns=list(MIXED_COLUMNS))
    stack = np.vstack([part for pair in pairs for part in (pair.a.probability, pair.b.probability)])
    areas, covariance = delong_covariance(pairs[0].a.target, stack)
    n_seeds = len(pairs[0].a.seeds)
    sides = np.hstack([np.eye(n_seeds), -np.eye(n_seeds)])  # (S, 2 S)
    contrast = np.kron(np.eye(len(pairs)), sides)  # (pairs S, 2 pairs S)
    areas = np.clip(areas, 1e-6, 1 - 1e-6)
    slopes = contrast / (areas * (1 - areas))
    sets = pairs[0].a.sets or pairs[0].a.seeds
    terms = np.kron(np.eye(len(pairs)), np.ones((n_seeds, 1)))
    values = contrast @ np.log(areas / (1 - areas))
    fit = fit_mixed(values, terms, known=slopes @ covariance @ slopes.T, groups=list(sets) * len(pairs))
    freedom, errors = len(set(sets)) - 1, np.sqrt(np.diag(fit.covariance))
    half = stats.t.ppf(0.975, freedom) * errors
    found = {"difference": fit.coefficients, "low": fit.coefficients - half, "high": fit.coefficients + half}
    p_values = 2 * stats.t.sf(np.abs(fit.coefficients) / errors, freedom)
    return tested.assign(**found, p=p_values, set_variance=fit.between, variance=fit.rest)


def _group(name: str, validation: dict[str, Scans]) -> list[str]:
    """The experiment, or of `NAME.*` it and its variants."""
    base = name.removesuffix(".*")
    return [base] if base == name else [one for one in validation if base_of(one) == base] or [base]


def _chosen(names: Sequence[str], validation: dict[str, Scans]) -> str:
    """The one of the names with the highest mean validation AUC; the first of those that are not there."""
    return best_on(validation, names) if set(names) <= set(validation) else names[0]


def _learnt(learnt: pd.DataFrame, experiment: str, seeds: Sequence[int]) -> np.ndarray:
    return learnt[learnt["experiment"] == experiment].set_index("seed")["learnt"].reindex(seeds).eq("yes").to_numpy()


def _tested(test: dict[str, Scans], experiment: str, reference: str, learnt: pd.DataFrame) -> dict[str, object]:
    """Numbers of one contrast; none where a side is missing."""
    pair = pair_of(test, experiment, reference)
    if pair is None:
        return {}
    if not pair.a.areas:
        return pair.a.about
    found = pair.mean_difference
    own = [_learnt(learnt, name, pair.a.seeds) for name in (experiment, reference)]
    row = {"n_failed": int(sum((~one).sum() for one in own)), "n_agree": pair.n_agree}
    if len(pair.a.seeds) > 1:
        allowing = allowing_difference(pair.a.areas, pair.b.areas, *own, bound=LEARNT_LOW)
        row |= dict(zip(ANY, allowing[1:3], strict=True))
        found = allowing if row["n_failed"] else found
    return row | found._asdict() | pair.a.about
