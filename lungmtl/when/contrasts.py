"""Contrasts of the map: paired differences over seeds in every cell, and whether half of the seeds predicts the rest.

A seed is a world of its own (teacher, training set, test set, start), so an interval over seeds covers all of these.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lungmtl.evidence import fit_mixed, rate
from lungmtl.experiments import AXES
from lungmtl.when.early import predictor_table

HELD_OUT = ["n_cells", "correlation", "error", "same_sign", "n_clear"]
CELL = ["arm", *AXES]
MIN_ROWS = 3  # chosen by us: the test of the map needs this many differences per term of its model
TUNED = "tuned static"  # per seed the static weights with the highest validation AUC, as a user would choose them
RIVALS = ("UW", "DWA", "GradNorm", "DBMTL", "GCS", "OLAUX")
ADDED = ("MGDA", "PCGrad", "IMTLG", "PCD")  # of a map of their own, params/when-rivals.yaml
PAIRS = (  # contrasts of the protocol (params/when.md), and more against the single task
    ("MTL", "STL"),
    ("MTL2", "MTL.aux1"),
    ("ITW2", "MTL2"),
    ("ITW2", "tuned static"),
    ("ITW2", "ITW1.finetune"),
    ("ITW2", "STL.focus"),
    ("ITW3", "MTL3"),
    ("STL.focus", "STL"),
    ("MTL2", "STL"),
    ("ITW1", "STL"),
    ("ITW2", "STL"),
    ("tuned static", "STL"),
    *((rival, "STL") for rival in RIVALS),
    ("ITW2", "GCS"),
    *((rival, reference) for reference in ("STL", "MTL") for rival in ADDED),
)


def map_tables(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables of a map by name: `experiments`, `contrasts` (those of `PAIRS` that are there), `held_out`;
    and `predictors` where the cells were watched.

    Args:
        results: Rows of `run_cell`, of many cells; "" as `arm` of the grid.
    """
    statics = [name for name in results["experiment"].unique() if name.startswith("MTL.aux")]
    results = with_tuned(results, statics) if statics else results
    pairs = [pair for pair in PAIRS if set(pair) <= set(results["experiment"])]
    tables = {"experiments": experiment_table(results), "contrasts": contrast_table(results, pairs)}
    tables["held_out"] = held_out(results, pairs)
    return tables | ({"predictors": predictor_table(results)} if "early_cosine" in results else {})


def with_tuned(results: pd.DataFrame, statics: Sequence[str]) -> pd.DataFrame:
    """Results and, as experiment `TUNED`, of every cell and seed the static weights chosen on validation scans."""
    among = results[results["experiment"].isin(statics)]
    best = among.sort_values("auc_validation", kind="stable").groupby([*CELL, "seed"]).tail(1)
    return pd.concat([results, best.assign(experiment=TUNED)], ignore_index=True)


def experiment_table(results: pd.DataFrame) -> pd.DataFrame:
    """Mean test AUC of every experiment in every cell with its 95 % t interval over seeds, ceiling, share that learnt.

    Args:
        results: Rows of `run_cell`, of many cells.
    Returns:
        `arm`, the axes, `experiment`, `auc`, `low`, `high`, `auc_train`, `ceiling`, `learnt`, `n_seeds`.
    """
    groups = results.groupby([*CELL, "experiment"], sort=False)
    table = groups["auc_test"].apply(_interval, "auc").unstack()  # noqa: PD010 (a series)
    more = groups[["auc_train", "ceiling", "learnt"]].mean()
    return table.join(more).assign(n_seeds=groups.size()).reset_index()


def failure_table(experiments: pd.DataFrame) -> pd.DataFrame:
    """Share of the trainings that failed to learn, mean over relatedness, with Wilson's 95 % interval.

    Worlds of one seed share scans over relatedness, so the interval is that of as many trainings as there are seeds.

    Args:
        experiments: Rows of the grid of `experiment_table`.
    Returns:
        `experiment`, `n_steps`, `n_scans`, `failed`, `low`, `high`, `n_seeds`.
    """
    keys = ["experiment", "n_steps", "n_scans"]
    n, shares = int(experiments["n_seeds"].min()), 1 - experiments.groupby(keys, sort=False)["learnt"].mean()
    rows = [(*place, *rate(share * n, n), n) for place, share in shares.items()]
    return pd.DataFrame(rows, columns=[*keys, "failed", "low", "high", "n_seeds"])


def contrast_table(results: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Difference of test AUC of every pair in every cell, paired by seed, with its 95 % t interval over seeds.

    Returns:
        `arm`, the axes, `experiment`, `reference`, `difference`, `low`, `high`, `favours` (seeds in which the
        experiment is above its reference), `n_seeds`.
    """
    wide = results.pivot_table(index=[*CELL, "seed"], columns="experiment", values="auc_test")
    parts = []
    for experiment, reference in pairs:
        groups = (wide[experiment] - wide[reference]).groupby(CELL)
        part = groups.apply(_interval, "difference").unstack()  # noqa: PD010
        part = part.assign(favours=groups.apply(lambda values: int((values > 0).sum())), n_seeds=groups.size())
        parts.append(part.reset_index().assign(experiment=experiment, reference=reference))
    columns = [*CELL, "experiment", "reference", "difference", "low", "high", "favours", "n_seeds"]
    return pd.concat(parts, ignore_index=True)[columns]


def held_out(results: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Test of the map: a model fitted to the even seeds, against the mean differences of the odd seeds.

    Per pair a mixed model of the logit AUC difference over relatedness, log scans, log steps, their squares and
    products, with a random effect of the seed (whose world is its own), predicts every cell of the grid.

    Returns:
        Per pair: `experiment`, `reference`, `n_cells`, `correlation` of foretold and found, `error` (root mean square,
        in logit AUC), `same_sign` (share of correct signs among the cells whose found interval excludes 0), `n_clear`
        (the number of these cells); no row if there are too few seeds and cells.
    """
    grid = results[results["arm"] == ""]
    logit = grid.assign(logit=np.log(grid["auc_test"] / (1 - grid["auc_test"])))
    wide = logit.pivot_table(index=[*AXES, "seed"], columns="experiment", values="logit").reset_index()
    is_enough = (wide["seed"] % 2 == 0).sum() >= MIN_ROWS * terms_of(wide).shape[1]
    rows = [_foretold(wide, *pair) for pair in pairs] if is_enough else []
    return pd.DataFrame(rows, columns=["experiment", "reference", *HELD_OUT])


def _foretold(wide: pd.DataFrame, experiment: str, reference: str) -> dict[str, object]:
    difference = (wide[experiment] - wide[reference]).to_numpy()
    terms, is_even = terms_of(wide), (wide["seed"] % 2 == 0).to_numpy()
    n = is_even.sum()  # DeLong's errors of the cells are not kept: part of what no term explains
    fit = fit_mixed(difference[is_even], terms[is_even], known=np.zeros((n, n)), groups=wide["seed"][is_even])
    others = wide[~is_even].assign(found=difference[~is_even], foretold=(terms @ fit.coefficients)[~is_even])
    cells = others.groupby(list(AXES))
    found = cells["found"].apply(_interval, "mean").unstack()  # noqa: PD010
    foretold = cells["foretold"].mean()
    clear = (found["low"] > 0) | (found["high"] < 0)
    agree = np.sign(found["mean"]) == np.sign(foretold)
    return {
        **{"experiment": experiment, "reference": reference, "n_cells": len(found)},
        "correlation": float(np.corrcoef(found["mean"], foretold)[0, 1]),
        "error": float(np.sqrt(np.mean((found["mean"] - foretold) ** 2))),
        "same_sign": float(agree[clear].mean()) if clear.any() else np.nan,
        "n_clear": int(clear.sum()),
    }


def terms_of(wide: pd.DataFrame) -> np.ndarray:
    """Intercept, axes that vary, centred, their products, and the squares of those with three values or more."""
    axes = np.stack([wide["relatedness"] - 0.5, np.log(wide["n_scans"] / 640) / 2, np.log(wide["n_steps"] / 2400)])
    n_values = [len(np.unique(axis)) for axis in axes]
    used = [i for i in range(3) if n_values[i] > 1]
    pairs = [(i, j) for i in used for j in used if i < j or (i == j and n_values[i] > 2)]
    return np.stack([np.ones(len(wide)), *axes[used], *(axes[i] * axes[j] for i, j in pairs)], axis=1)


def _interval(values: pd.Series, name: str) -> pd.Series:
    """Mean with its 95 % t interval, whose limits are NaN for a single value."""
    mean, error = values.mean(), values.sem()
    half = stats.t.ppf(0.975, len(values) - 1) * error if len(values) > 1 else np.nan
    return pd.Series({name: mean, "low": mean - half, "high": mean + half})
