"""Tables of AUC differences between experiments, and their verdicts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from lungmtl.comparison.scans import COUNTS, Pair, Scans, bootstrapped, holm_known, of_task, pairs_of
from lungmtl.evidence import compare_auc, difference_interval, equivalence, mcnemar_exact
from lungmtl.experiments import SIGNIFICANCE

MARGIN = 0.02  # chosen by us: an AUC difference too small to matter; the smallest that the paper's test set can resolve
MCNEMAR = ("experiment_only_right", "reference_only_right", "mcnemar_p")
DIFFERENCE = ("experiment", "reference", "difference", "low", "high", "p", "p_holm", "interval")
ENSEMBLE_COLUMNS = (*DIFFERENCE, "n_family", "n_seeds", *COUNTS)
COMPARISON_COLUMNS = (
    *DIFFERENCE,
    *("error", "freedom", "low_90", "high_90", "equivalence_p", "equivalence_p_holm", "margin"),
    *(*MCNEMAR, "mcnemar_p_holm", "n_family", "n_seeds", *COUNTS),
)
SEED_COLUMNS = (
    *("experiment", "reference", "seed", "difference", "low", "high", "p", "error", "freedom", "interval"),
    *(*MCNEMAR, "n_seeds", *COUNTS),
)


def comparison_table(
    predictions: pd.DataFrame,
    *,
    references: Sequence[str],
    task: str,
    replicates: int,
    seed: int,
    margin: float = MARGIN,
) -> pd.DataFrame:
    """Every experiment against every reference on the test scans of one task, over the seeds that both have.

    The AUC difference is paired by scan and by seed (`evidence.mean_difference`). McNemar's test needs one
    decision per scan: the mean probability over those seeds, at the Youden threshold of the same mean on validation
    scans. Equivalence is tested too (`evidence.equivalence`): a pair may turn out different, equivalent, both (a
    real but small difference) or neither (too few scans or seeds). Holm's adjustment is over all rows (n_family),
    separately for each of the three tests. A pair of references occurs once.

    Returns:
        `COMPARISON_COLUMNS`; the 90 % interval lies inside the margin exactly where equivalence_p is below 5 %.
    """
    validation = of_task(predictions, "validation", task)
    rows = []
    for pair in pairs_of(bootstrapped(of_task(predictions, "test", task), replicates, seed), references):
        found = pair.mean_difference
        inner = difference_interval(found, level=0.90)
        rows.append(pair.place | found._asdict() | pair.a.about | _mcnemar(pair, validation))
        rows[-1] |= {"low_90": inner.low, "high_90": inner.high, "margin": margin}
        rows[-1]["equivalence_p"] = equivalence(found, margin=margin)
    return with_family(rows, COMPARISON_COLUMNS)


def seed_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """The same comparison seed by seed: paired DeLong, and exact McNemar at each run's own validation threshold.

    Every seed predicts the same scans, so the rows of a pair are not independent: p values must not be pooled.

    Returns:
        `SEED_COLUMNS`.
    """
    validation = of_task(predictions, "validation", task)
    rows = []
    for pair in pairs_of(of_task(predictions, "test", task), references):
        for seed in pair.a.seeds:
            one = pair._replace(a=pair.a.of([seed]), b=pair.b.of([seed]))
            rows.append(_delong(one) | _mcnemar(one, validation) | {"seed": seed})
    return pd.DataFrame(rows, columns=list(SEED_COLUMNS))


def ensemble_comparison_table(predictions: pd.DataFrame, *, references: Sequence[str], task: str) -> pd.DataFrame:
    """Ensembles of every experiment against those of every reference: paired DeLong, Holm over all rows.

    Returns:
        `ENSEMBLE_COLUMNS`.
    """
    pairs = pairs_of(of_task(predictions, "test", task), references)
    return with_family(list(map(_delong, pairs)), ENSEMBLE_COLUMNS)


def verdicts(comparisons: pd.DataFrame) -> pd.Series:
    """Verdict of each row of a comparison, from its two adjusted p values.

    Args:
        comparisons: difference, p_holm, equivalence_p_holm, margin.
    Returns:
        "higher" or "lower" if the hypothesis of no difference is rejected, "equivalent within <margin>" if that of a
        difference beyond the margin is, both joined by a comma, otherwise "not settled"; "" if the difference is NaN.
    """
    return comparisons.apply(_verdict, axis=1, result_type="reduce").astype(object)


def judged_by(comparisons: pd.DataFrame, study: pd.DataFrame) -> pd.DataFrame:
    """Comparisons of a choice of runs, with the adjusted p values, family and verdicts of the whole study.

    Args:
        comparisons: `COMPARISON_COLUMNS`.
        study: The study's own, with verdict.
    Returns:
        The comparisons and verdict, which is "not tested", and p values NaN, for a pair that the study did not compare.
    """
    pair = ["experiment", "reference"]
    own = study.set_index(pair)[["p_holm", "equivalence_p_holm", "verdict"]]
    own = own.reindex(pd.MultiIndex.from_frame(comparisons[pair])).set_axis(comparisons.index)
    n_family = study["n_family"].iloc[0]
    return comparisons.assign(**own.fillna({"verdict": "not tested"}), n_family=n_family)


def gain_needed(comparisons: pd.DataFrame) -> pd.Series:
    """The smallest difference that Holm's next step would call higher, given each comparison's standard error.

    That step compares p with 5 % divided by the number of comparisons that are not rejected.
    """
    n_open = max(int((comparisons["p_holm"] >= SIGNIFICANCE).sum()), 1)
    level = 1 - SIGNIFICANCE / n_open
    freedom, error = (comparisons[name].astype(float) for name in ("freedom", "error"))  # object where there is no row
    return pd.Series(stdtrit(freedom, (1 + level) / 2) * error, index=comparisons.index)


def _verdict(row: pd.Series) -> str:
    if np.isnan(row["difference"]):
        return ""
    side = "higher" if row["difference"] > 0 else "lower"
    equivalent = f"equivalent within {row['margin']:g}"
    found = [word for p, word in ((row["p_holm"], side), (row["equivalence_p_holm"], equivalent)) if p < SIGNIFICANCE]
    return ", ".join(found) or "not settled"


def _delong(pair: Pair) -> dict[str, object]:
    """Row of the paired DeLong test of the mean probabilities over seeds."""
    found = pair.difference(lambda a, b: compare_auc(a.target, a.mean, b.mean))
    return pair.place | found._asdict() | pair.a.about | {"interval": "95 % paired DeLong"}


def _mcnemar(pair: Pair, validation: dict[str, Scans]) -> dict[str, float]:
    """McNemar's test at the thresholds of validation scans; empty if those hold only one class."""
    a, b = pair.a, pair.b
    at_a, at_b = (validation[name].of(a.seeds).threshold for name in (pair.experiment, pair.reference))
    if np.isnan([at_a, at_b]).any():
        return {}
    return dict(zip(MCNEMAR, mcnemar_exact(a.target, a.mean >= at_a, b.mean >= at_b), strict=True))


def with_family(rows: list[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows as a frame with these columns; every `*p_holm` is adjusted over all rows."""
    frame = pd.DataFrame(rows, columns=list(columns))
    adjusted = [column for column in columns if column.endswith("p_holm")]
    frame = frame.assign(**{column: holm_known(frame[column.removesuffix("_holm")]) for column in adjusted})
    return frame.assign(n_family=int(frame["p"].notna().sum()))
