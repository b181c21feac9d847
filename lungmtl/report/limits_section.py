"""Limits: whether the budget was long enough and whether intervals hold, in sentences that follow from tables."""

import pandas as pd

from lungmtl.report.words import ends, number
from lungmtl.words import number_of, some_of

FAILING = "do not learn"  # in the settings of the simulation of coverage where seeds fail
SOUND = (0.93, 0.97)  # chosen by us: a nominal 95 % interval that covers less or more is warned of
ALLOWING = "failing seeds allowed for"  # in the names of the intervals that allow for them


def budget(learning: pd.DataFrame, *, flat_rise: float) -> str:
    """Whether the budget, which all experiments share, was long enough: it is flat only if every curve is.

    Args:
        learning: As `comparison.learning_table` gives it.
        flat_rise: The bound of its rule.
    """
    known = learning[learning["is_flat"] != ""]
    if known.empty:
        return "**Not known to be flat**: there are no learning curves."
    rising, n_epochs = known[known["is_flat"] == "no"], int(known["n_epochs"].max())
    where = f"in {some_of(len(rising) or len(known), len(known), 'experiment', said=number)}"
    if rising.empty:
        return f"**Flat**: {where} the median rises by less than {flat_rise:g} per epoch."
    most = rising.loc[rising["rise"].astype(float).idxmax()]
    return (
        f"**Not flat**: {where} the median validation AUC still rose after {n_epochs} epochs, most in "
        f"{most['experiment']} ({most['rise']:.3f} per epoch)."
    )


def failing_seeds(failures: pd.DataFrame, coverage: pd.DataFrame | None) -> str:
    """Warning about intervals over seeds some of which do not learn, or might not.

    Args:
        failures: As `comparison.failures_table` gives it.
        coverage: The table of benchmarks/coverage.py; None if there is none.
    """
    n_failed, n_runs = failures["n_seeds"] - failures["n_learnt"], failures["n_seeds"].sum()
    covered = _covered(coverage, failures["n_seeds"].max())
    if not n_failed.any():
        lowest = 1 - failures["share_low"].max()
        those = "The one run" if n_runs == 1 else f"All {n_runs} runs"
        return (
            f"{those} learnt; with so few seeds, up to {100 * lowest:.0f} % of an experiment's trainings may still "
            f"fail to learn. Intervals hold for trainings that learn, those in the last column for all.{covered}"
        )
    listed = [f"{row.experiment} {row.n_seeds - row.n_learnt} of {row.n_seeds}"
              for row in failures[n_failed > 0].itertuples()]  # fmt: skip
    warning = f"**Warning: {n_failed.sum()} of {number_of(n_runs, 'run')} did not learn** ({', '.join(listed)})."
    if not covered:
        return f"{warning} Intervals over seeds are too narrow there; those in the last column allow for it."
    return warning + covered


def _covered(coverage: pd.DataFrame | None, n_seeds: int) -> str:
    """How often intervals cover in simulated studies of about as many seeds, some of which fail; "" if unknown."""
    rows = pd.DataFrame() if coverage is None else coverage[coverage["setting"].str.contains(FAILING)]
    if rows.empty:
        return ""
    counts = rows["setting"].str.split().str[0].astype(int)
    nearest = counts.iloc[(counts - n_seeds).abs().argmin()]
    parts = rows[counts == nearest].groupby(rows["interval"].str.endswith(ALLOWING))["coverage"].agg(["min", "max"])
    plain, wide = (f"{ends(100 * part, '{:.0f}')} %{_judged(*part)}" for _, part in parts.iterrows())
    said = f" In simulated studies of {nearest} seeds, some of which do not learn, 95 % intervals"
    return f"{said} cover {plain}, those in the last column {wide}."


def _judged(low: float, high: float) -> str:
    """What is wrong with an interval whose coverage runs from low to high."""
    judged = {"too narrow": low < SOUND[0], "wider than necessary": high > SOUND[1]}
    words = [word for word, holds in judged.items() if holds]
    said = " in some, ".join(words) + (" in others" if len(words) > 1 else "")
    return f" (**{said}**)" if words else ""
