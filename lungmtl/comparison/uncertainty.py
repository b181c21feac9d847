"""Tables of the limits of a comparison: variance of seeds and of scans, detectable differences."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from lungmtl.comparison.printed import PUBLISHED_N
from lungmtl.comparison.scans import Pair, Scans, bootstrapped, of_task, pairs_of
from lungmtl.evidence import MIN_ERROR, Areas, delong_covariance, detectable_difference, variance_parts

VARIANCE_COLUMNS = (
    *("experiment", "reference", "value", "seed_variance", "patient_variance", "total_variance", "seed_share"),
    *("interaction_variance", "seed_sd", "patient_sd", "n_seeds", "n"),
)
POWER_COLUMNS = (
    *("experiment", "reference", "n", "positives", "detectable", "error", "freedom", "correlation"),
    *("n_seeds", "source"),
)
POWER_SIZES = (100, 200, 400, 592, 1000, 2000, 4000, 10000)  # test scans


def variance_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, replicates: int, seed: int
) -> pd.DataFrame:
    """Variance of the mean over seeds, of each AUC and each difference, split into seeds and test scans.

    `evidence.variance_parts` with the covariance of the patient bootstrap. `seed_variance` is what more seeds would
    remove: the raw variance between seeds divided by their number. All seeds share their test scans, so it
    excludes the common effect of the scans, but includes the seed-by-scan interaction, `interaction_variance`, which
    more scans would remove as well. `patient_variance` remains with any number of seeds. With one seed only the sum of
    `patient_variance` and interaction can be estimated.
    With several training sets their means take the place of seeds: `seed_variance` is what more training sets would
    remove, and `set_variance` the part of it that more seeds per set would not (NaN with one seed per set).

    Returns:
        `VARIANCE_COLUMNS`, with several training sets also set_variance and n_sets; reference "" = the AUC itself,
        total_variance the sum of seed_variance and patient_variance, seed_share of the total, seed_sd the standard
        deviation of single runs, patient_sd the root of patient_variance.
    """
    groups = bootstrapped(of_task(predictions, "test", task), replicates, seed)
    rows = [{"experiment": name, "reference": ""} | _variance(scans, scans.areas) for name, scans in groups.items()]
    for pair in pairs_of(groups, references):
        rows.append(pair.place | _variance(pair.a, pair.a.areas and pair.a.areas - pair.b.areas))
    of_sets = [name for name in ("set_variance", "n_sets") if any(name in row for row in rows)]
    return pd.DataFrame(rows, columns=[*VARIANCE_COLUMNS, *of_sets])


def power_table(
    predictions: pd.DataFrame, *, references: Sequence[str], task: str, sizes: Sequence[int] = POWER_SIZES
) -> pd.DataFrame:
    """Smallest true AUC difference that a paired two-sided 5 % test finds with 80 % power, by number of test scans.

    Taken from this study: prevalence, and DeLong's variance and correlation of the two predictors, scaled as 1 / n. The
    paper gives neither its prevalence nor the correlation of its predictions, so its row (`paper's n`) assumes
    both as here for its 592 scans; with a larger correlation smaller differences would be detectable.

    Rows with n_seeds 1 compare one trained network with one other (the paper's case; mean variance over this study's
    pairs of runs): they hold for these two networks, not for their policies. Rows with n_seeds above 1 compare policies
    by the mean over this study's seeds: variance between seeds does not shrink with scans, so the curve levels off.

    Returns:
        `POWER_COLUMNS`; positives as expected, correlation of the two AUCs, source "this study" or "paper's n".
    """
    pairs = [pair for pair in pairs_of(of_task(predictions, "test", task), references) if pair.a.has_both]
    rows = [row for pair in pairs for row in _power_rows(pair, sizes)]
    frame = pd.DataFrame(rows, columns=list(POWER_COLUMNS)).astype({"error": float, "freedom": float})
    return frame.assign(detectable=detectable_difference(frame["error"], freedom=frame["freedom"]))


def _variance(scans: Scans, areas: Areas | None) -> dict[str, float]:
    row = {"n_seeds": len(scans.seeds), "n": scans.counts["n"]}
    if areas is None:
        return row
    row["value"] = float(areas.by_set().value.mean())
    if len(scans.seeds) == 1:
        patients = float(areas.draws[0].var(ddof=1))
        return row | {"patient_variance": patients, "patient_sd": float(np.sqrt(patients))}
    units = areas.by_set()
    parts = variance_parts(units.value, np.cov(units.draws))
    total = parts.seeds + parts.patients
    row |= _of_sets(areas, parts.seeds)
    return row | {
        "seed_variance": parts.seeds,
        "patient_variance": parts.patients,
        "total_variance": total,
        "seed_share": parts.seeds / total if total else np.nan,
        "interaction_variance": parts.interaction,
        "seed_sd": float(areas.value.std(ddof=1)),
        "patient_sd": float(np.sqrt(parts.patients)),
    }


def _of_sets(areas: Areas, between: float) -> dict[str, float]:
    """Training sets, and their part of the variance between their means; nothing where all seeds share one."""
    if len(set(areas.sets or ())) < 2:
        return {}
    within = pd.Series(areas.value).groupby(areas.sets).var().mean()
    return {"n_sets": len(set(areas.sets)), "set_variance": np.maximum(between - within / len(areas.value), 0)}


def _power_rows(pair: Pair, sizes: Sequence[int]) -> Iterator[dict[str, object]]:
    n_seeds, n_scans, prevalence = len(pair.a.seeds), len(pair.a.target), pair.a.target.mean()
    areas, covariance = delong_covariance(pair.a.target, np.vstack([pair.a.probability, pair.b.probability]))
    contrast = np.hstack([np.eye(n_seeds), -np.eye(n_seeds)])  # (S, 2 S)
    of_differences = contrast @ covariance @ contrast.T  # (S, S)
    row = pair.place | {"correlation": _correlation(covariance, n_seeds)}
    for n, source in [*((n, "this study") for n in sorted({*sizes, n_scans})), (PUBLISHED_N, "paper's n")]:
        factor = n / n_scans
        row |= {"n": n, "positives": float(prevalence * n), "source": source}
        variance = float(np.trace(of_differences)) / n_seeds / factor
        yield row | {"n_seeds": 1, "error": np.sqrt(variance), "freedom": np.inf}
        if n_seeds > 1:
            parts = variance_parts(contrast @ areas, of_differences).with_scans(factor)
            yield row | {"n_seeds": n_seeds, "error": np.sqrt(parts.total), "freedom": parts.freedom}


def _correlation(covariance: np.ndarray, n_seeds: int) -> float:
    """Mean correlation of the AUCs of a and b of the same seed; NaN where one has no variance."""
    variances = np.diag(covariance)
    products = variances[:n_seeds] * variances[n_seeds:]
    if products.min() < MIN_ERROR**4:
        return np.nan
    return float(np.mean(np.diag(covariance, k=n_seeds) / np.sqrt(products)))
