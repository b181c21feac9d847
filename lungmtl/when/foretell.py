"""What the map foretells about a study in 3D: the sign of each contrast with its probability, next to what was found.

A place on the map is a study's relatedness, training scans and optimiser steps. Per contrast a mixed model of the logit
AUC difference over relatedness, log scans, log steps, squares and products is fitted to the cells of the map, whose
errors over seeds are known.
"""

import numpy as np
import pandas as pd
from scipy import stats

from lungmtl.evidence import Fit, fit_mixed
from lungmtl.experiments import AXES
from lungmtl.when.contrasts import TUNED, terms_of

ON_MAP = {"MTL2-mean": "MTL.aux1", "STL-wave": "STL.focus", "FineTune": "ITW1.finetune"}  # names of the same policy
LEAST = 1e-6  # probability that is told apart from 0: no model of 36 cells knows more
FORETOLD_COLUMNS = (
    *("experiment", "reference", "foretold", "deviation", "foretold_higher", "difference", "found_higher", "agree"),
    *("on_map", *AXES),
)


def foretold_table(
    found: pd.DataFrame, place: dict[str, float], experiments: pd.DataFrame, contrasts: pd.DataFrame
) -> pd.DataFrame:
    """Signs that the map foretells for a study, and those found.

    Args:
        found: Contrasts of the study: experiment, reference, difference, error, freedom. n_candidates above 0 means
            that the reference was chosen among static weights; on the map that is ITW2 against tuned static.
        place: Place of the study, a value for each of `AXES`.
        experiments, contrasts: Tables of the map, as `map_tables` gives them.
    Returns:
        `FORETOLD_COLUMNS`, a row per contrast that the map has in more cells than the model has terms: foretold logit
        AUC difference and its deviation, the probabilities of the experiment being higher (foretold: normal; found: t),
        `agree` yes or no for the two signs, `on_map` no where the place lies outside the cells, so that the model
        extrapolates.
    """
    grid = contrasts[contrasts["arm"] == ""]
    on_map = all(grid[name].min() <= place[name] <= grid[name].max() for name in AXES)
    rows = []
    for row in found.dropna(subset="difference").to_dict("records"):
        pair = [ON_MAP.get(row[side], row[side]) for side in ("experiment", "reference")]
        pair = ["ITW2", TUNED] if row.get("n_candidates", 0) > 0 else pair
        cells = grid[(grid["experiment"] == pair[0]) & (grid["reference"] == pair[1])]
        terms = terms_of(pd.concat([cells[list(AXES)], pd.DataFrame([place])], ignore_index=True))
        if len(cells) <= terms.shape[1]:
            continue
        centre, deviation = _fitted(cells, terms[:-1], experiments).foretell(terms[-1])
        higher = float(np.clip(stats.norm.sf(0, centre, deviation), LEAST, 1 - LEAST))
        share = float(stats.t.cdf(row["difference"] / row["error"], row["freedom"])) if row["error"] else np.nan
        agree = "yes" if (centre > 0) == (row["difference"] > 0) else "no"
        rows.append({name: row[name] for name in ("experiment", "reference", "difference")} | place)
        rows[-1] |= {"foretold": centre, "deviation": deviation, "foretold_higher": higher, "found_higher": share}
        rows[-1] |= {"agree": agree, "on_map": "yes" if on_map else "no"}
    return pd.DataFrame(rows, columns=list(FORETOLD_COLUMNS))


def _fitted(cells: pd.DataFrame, terms: np.ndarray, experiments: pd.DataFrame) -> Fit:
    """The model of one contrast over its cells."""
    aucs = experiments[experiments["arm"] == ""].set_index([*AXES, "experiment"])["auc"]
    a, b = (aucs.loc[list(cells[[*AXES, side]].itertuples(index=False, name=None))].to_numpy()
            for side in ("experiment", "reference"))  # fmt: skip
    middle = (a + b) / 2
    quantiles = 2 * stats.t.ppf(0.975, cells["n_seeds"].to_numpy() - 1)
    errors = (cells["high"] - cells["low"]).to_numpy() / quantiles / (middle * (1 - middle))
    return fit_mixed(np.log(a / (1 - a)) - np.log(b / (1 - b)), terms, known=np.diag(errors**2))
