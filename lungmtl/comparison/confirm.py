"""Confirmation: the contrasts that a protocol fixed beforehand, Holm's adjustment over these alone; failing seeds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import linalg, stats

from lungmtl.comparison.differences import MARGIN, verdicts, with_family
from lungmtl.comparison.learning import LEARNT_LOW
from lungmtl.comparison.scans import Scans, best_on, bootstrapped, named, of_task, pair_of
from lungmtl.evidence import Fit, allowing_difference, allowing_mean, delong_covariance, fit_mixed, rate
from lungmtl.experiments import base_of

ANY = ("any_low", "any_high")  # limits that allow for seeds which do not learn
CONFIRM_COLUMNS = (
    *("question", "experiment", "reference", "n_candidates", "difference", "low", "high", "p", "p_holm"),
    *("verdict", "error", "freedom", "n_agree", "n_failed", *ANY, "n_family", "n_seeds", "n", "positives"),
)
AUC = ("auc", "low", "high")
FAILURE_COLUMNS = ("experiment", "n_seeds", "n_learnt", "share", "share_low", "share_high", *AUC, *ANY)
QUESTION_COLUMNS = ("question", "experiment", "reference")
MIXED_COLUMNS = (*QUESTION_COLUMNS, "difference", "low", "high", "p", "set_variance", "variance")
JOINT_COLUMNS = (*MIXED_COLUMNS[:7], "change", "change_low", "change_high", "change_p", *MIXED_COLUMNS[7:], "n_sets")
Contrast = Sequence[str | Sequence[str]]  # question, experiment, reference; validation scans choose one of a list


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

    If every run of both sides learnt, `low`, `high` and `p` are those of `evidence.mean_difference` and hold for
    trainings that learn; otherwise they are those of `evidence.allowing_difference`, as `any_low` and `any_high` always
    are.

    Args:
        predictions: Of all runs.
        contrasts: Question, experiment and reference of each. A list may stand in place of a name: its experiment
            with the highest mean validation AUC over seeds is taken (the first of equals); `MTL.*` stands for MTL
            and its variants.
        learnt: As `learnt_table` returns it.
        task: The central one.
    Returns:
        `CONFIRM_COLUMNS`, a row per contrast, blank if an experiment is missing. difference: of AUC; n_candidates:
        experiments among which one was chosen (0 = no choice); n_agree: seeds whose difference has the sign of the
        mean; n_failed: runs of both sides that did not learn; n_family: contrasts that could be tested.
    """
    test = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    validation = of_task(predictions, "validation", task)
    rows = []
    for question, *sides in contrasts:
        lists = [_group(side, validation) if isinstance(side, str) else list(side) for side in sides]
        chosen = [best_on(validation, names) if set(names) <= set(validation) else names[0] for names in lists]
        n_candidates = max(map(len, lists))
        row = {"question": question, "experiment": chosen[0], "reference": chosen[1]}
        row |= {"n_candidates": n_candidates if n_candidates > 1 else 0}
        rows += [row | _tested(test, *chosen, learnt)]
    frame = with_family(rows, CONFIRM_COLUMNS).astype({"p": float, "difference": float})
    return frame.assign(verdict=verdicts(frame.assign(equivalence_p_holm=np.nan, margin=MARGIN)))  # of difference alone


def failures_table(
    predictions: pd.DataFrame, learnt: pd.DataFrame, *, task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """How many seeds of every experiment learnt, and its mean AUC with an interval that allows for those that do not.

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

    The data set is the training set, or the seed if all seeds share one. DeLong's covariance accounts for the test
    scans and the runs that several differences share.

    Args:
        predictions: Of all runs.
        confirmed: As `confirm_table` returns it.
        task: The central one.
    Returns:
        `MIXED_COLUMNS`. difference: in logit AUC, with its 95 % t interval on one degree of freedom less than there are
        data sets; set_variance: between data sets; variance: the rest, without DeLong's. No row with one seed.
    """
    tested = confirmed.dropna(subset="difference")[[*QUESTION_COLUMNS]]
    part = _logits(predictions, tested, task)
    if part is None:
        return pd.DataFrame(columns=list(MIXED_COLUMNS))
    fit = fit_mixed(part.logits, _per_pair(part), known=part.known, groups=part.sets)
    found = _with_limits(fit, range(len(tested)), len(set(part.sets)) - 1)
    return tested.assign(**found, set_variance=fit.between, variance=fit.rest)


def joint_table(studies: Sequence[tuple[pd.DataFrame, pd.DataFrame, float]], *, task: str) -> pd.DataFrame:
    """One mixed model of the confirmatory differences of several studies: relatedness a factor, data set random.

    The studies ask the same contrasts and share no scan, so that DeLong's errors of two studies are independent.

    Args:
        studies: Predictions, table of `confirm_table` and relatedness of the diagnoses of each study.
        task: The central one.
    Returns:
        `JOINT_COLUMNS`, a row per contrast that every study has: difference in logit AUC at the mean relatedness, and
        `change`, its change from relatedness 0 to 1, each with a 95 % t interval that is not adjusted; the degrees of
        freedom are the number of data sets less one per study. No row with fewer than two degrees of relatedness.
    """
    there = pd.concat([confirmed["difference"] for _, confirmed, _ in studies], axis=1).notna().all(axis=1)
    tested = [confirmed.loc[there[there].index, [*QUESTION_COLUMNS]] for _, confirmed, _ in studies]
    parts = [_logits(study[0], pairs, task) for study, pairs in zip(studies, tested, strict=True)]
    levels = np.array([study[2] for study in studies])
    if len(set(levels)) < 2 or None in parts:
        return pd.DataFrame(columns=list(JOINT_COLUMNS))
    places = zip(levels - levels.mean(), parts, strict=True)
    terms = np.vstack([np.kron([1, level], _per_pair(part)) for level, part in places])
    sets = [f"{place}, {one}" for place, part in enumerate(parts) for one in part.sets]
    known = linalg.block_diag(*(part.known for part in parts))
    fit = fit_mixed(np.concatenate([part.logits for part in parts]), terms, known=known, groups=sets)
    n, freedom = there.sum(), len(set(sets)) - len(parts)
    changes = dict(zip(JOINT_COLUMNS[7:11], _with_limits(fit, range(n, 2 * n), freedom).values(), strict=True))
    both = {name: zip(*(one[name] for one in tested), strict=True) for name in QUESTION_COLUMNS}
    named = pd.DataFrame({name: [" or ".join(dict.fromkeys(of)) for of in values] for name, values in both.items()})
    found = {**_with_limits(fit, range(n), freedom), **changes, "set_variance": fit.between, "variance": fit.rest}
    return named.assign(**found, n_sets=len(set(sets)))


class _Logits(NamedTuple):
    """Differences of logit AUC of P pairs and S seeds, pairs outermost, (P S,); DeLong's covariance; data sets."""

    logits: np.ndarray
    known: np.ndarray
    sets: list[int]
    n_seeds: int


def _logits(predictions: pd.DataFrame, tested: pd.DataFrame, task: str) -> _Logits | None:
    """Of the pairs of experiments in these rows; none with one seed."""
    test = of_task(predictions, "test", task)
    pairs = [pair_of(test, row.experiment, row.reference) for row in tested.itertuples()]
    if not pairs or len(pairs[0].a.seeds) < 2:
        return None
    stack = np.vstack([part for pair in pairs for part in (pair.a.probability, pair.b.probability)])
    areas, covariance = delong_covariance(pairs[0].a.target, stack)
    n_seeds = len(pairs[0].a.seeds)
    sides = np.hstack([np.eye(n_seeds), -np.eye(n_seeds)])  # (S, 2 S)
    contrast = np.kron(np.eye(len(pairs)), sides)  # (pairs S, 2 pairs S)
    areas = np.clip(areas, 1e-6, 1 - 1e-6)
    slopes = contrast / (areas * (1 - areas))
    sets = list(pairs[0].a.sets or pairs[0].a.seeds) * len(pairs)
    return _Logits(contrast @ np.log(areas / (1 - areas)), slopes @ covariance @ slopes.T, sets, n_seeds)


def _per_pair(part: _Logits) -> np.ndarray:
    """A term per pair, (P S, P)."""
    return np.kron(np.eye(len(part.logits) // part.n_seeds), np.ones((part.n_seeds, 1)))


def _with_limits(fit: Fit, rows: range, freedom: int) -> dict[str, np.ndarray]:
    """Coefficients of these terms with t intervals and p values."""
    values, errors = fit.coefficients[rows], np.sqrt(np.diag(fit.covariance))[rows]
    half = stats.t.ppf(0.975, freedom) * errors
    p_values = 2 * stats.t.sf(np.abs(values) / errors, freedom)
    return {"difference": values, "low": values - half, "high": values + half, "p": p_values}


def _group(name: str, validation: dict[str, Scans]) -> list[str]:
    """The experiment, or of `NAME.*` it and its variants."""
    base = name.removesuffix(".*")
    return [base] if base == name else [one for one in validation if base_of(one) == base] or [base]


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
