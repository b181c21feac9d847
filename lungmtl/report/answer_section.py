"""Answer: what a study found, in sentences that follow from its tables, with its strongest limits."""

from collections.abc import Sequence

import pandas as pd

from lungmtl.experiments import SIGNIFICANCE
from lungmtl.report.words import number, render
from lungmtl.words import shown_difference, task_label

REFERENCE_NAMES = {"STL": "the single-task network (STL)", "MTL": "multi-task training with balanced weights (MTL)"}


def answer(comparisons: pd.DataFrame, *, task: str) -> str:
    """One sentence: how many settings were better or worse than the first reference, and how many are not settled.

    Args:
        comparisons: experiment, reference, difference, margin, verdict, n_seeds; as tables/comparisons.csv has them.
        task: The central task.
    """
    rows = _first(comparisons)
    if rows.empty:
        return "No two experiments could be compared: a run of a reference or of another experiment is missing."
    if rows["difference"].isna().all():
        return "No difference could be computed: the test scans hold too few patients with or without a positive scan."
    rows = rows.dropna(subset="difference")
    counts = {word: rows[rows["verdict"].map(_word) == word] for word in ("better", "worse", "equivalent", "open")}
    return render(
        "answer.md.j2",
        what=task_label(task),
        rows=rows,
        counts={word: found["experiment"].tolist() for word, found in counts.items()},
        reference=REFERENCE_NAMES.get(rows["reference"].iloc[0], rows["reference"].iloc[0]),
        is_one_seed=rows["n_seeds"].max() == 1,
        number=number,
        listed=_listed,
    )


def decisions(comparisons: pd.DataFrame) -> str:
    """One sentence on McNemar's tests against the first reference, after Holm; "" where there are none."""
    rows = _first(comparisons).dropna(subset="mcnemar_p_holm")
    if rows.empty:
        return ""
    differs = rows[rows["mcnemar_p_holm"] < SIGNIFICANCE]
    is_worse = differs["experiment_only_right"] < differs["reference_only_right"]
    counts = {"n_worse": int(is_worse.sum()), "n_better": int((~is_worse).sum())}
    return render("decisions.md.j2", rows=rows, **counts, reference=rows["reference"].iloc[0], number=number)


def confirmed(contrasts: pd.DataFrame, *, budget: str) -> str:
    """The answer of a study whose contrasts were fixed beforehand: its budget, then what is settled; "" without any.

    Args:
        contrasts: As tables/confirm.csv has them.
        budget: What `budget` says.
    """
    rows = contrasts.dropna(subset="p_holm")
    if rows.empty:
        return ""
    is_rest = rows["verdict"].map(is_open)
    listed = {"settled": shown_rows(rows[~is_rest]), "rest": shown_rows(rows[is_rest])}
    return render("confirmed.md.j2", budget=budget, n=len(rows), n_asked=len(contrasts), **listed, number=number)


def box(
    tables: dict[str, pd.DataFrame], *, task: str, scans: str, n_out: int = 0, n_sets: int = 1, fixed: str = ""
) -> str:
    """The answer with its numbers and limits as Markdown; a page frames the cell that is tagged `answer`.

    Args:
        tables: `auc`, `comparisons`, `parts` and `learning`, as the csv files of these names hold them; the second with
            `gain_needed`, the difference from which on an experiment would be called higher.
        task: The central task.
        scans: What the test scans are: "phantoms" or "patients".
        n_out: Planned runs that are missing or left out.
        n_sets: Training sets of the runs.
        fixed: What `confirmed` says; where there is something, it is the answer.
    """
    comparisons, learning = tables["comparisons"], tables["learning"]
    aucs = tables["auc"][tables["auc"]["task"] == task].set_index("experiment")
    compared = _first(comparisons).dropna(subset="difference").sort_values("difference")
    ends = [f"{shown_difference(row)} ({row.experiment})" for row in compared.itertuples()]
    reference = aucs.loc[compared["reference"].iloc[0]] if len(compared) else None
    transfer = tables["parts"].query("part == 'transfer'").dropna(subset="difference")
    return render(
        "box.md.j2",
        answer=fixed or f"**{answer(comparisons, task=task)}**",
        is_fixed=bool(fixed),
        decisions="" if fixed else decisions(comparisons),
        reference=reference,
        ends=" to ".join(dict.fromkeys(ends[:1] + ends[-1:])),
        transfer=shown_rows(transfer),
        learning=learning,
        rising=int((learning["is_flat"] == "no").sum()),
        failed=learning[learning["n_learnt"] < learning["n_seeds"]],
        n_seeds=int(aucs["n_seeds"].max()),
        n_closed=int((compared["gain_needed"] > 1 - reference["auc"]).sum()) if len(compared) else 0,
        n_compared=len(compared),
        scans=scans,
        n_out=n_out,
        n_sets=n_sets,
        number=number,
    )


def _first(comparisons: pd.DataFrame) -> pd.DataFrame:
    """The rows against the first reference: all other experiments have one there."""
    return comparisons[comparisons["reference"] == next(iter(comparisons["reference"]), "")]


def _word(verdict: str) -> str:
    words = {"higher": "better", "lower": "worse", "equivalent": "equivalent"}
    return next((word for start, word in words.items() if verdict.startswith(start)), "open")


def is_open(verdict: str) -> bool:
    """Whether a verdict settles nothing."""
    return _word(verdict) == "open"


def shown_rows(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Rows for a template, with `shown`, a difference and its interval."""
    return [row._asdict() | {"shown": shown_difference(row)} for row in rows.itertuples(index=False)]


def _listed(names: Sequence[str]) -> str:
    """Names as in a sentence: A, B and C."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
