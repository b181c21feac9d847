"""Protocol of a study, and where its runs depart from it.

A protocol is a Markdown file that begins with YAML between lines of `---`: `studies`, a mapping of a study's name to
`written` (before or after results), `experiments`, `seeds`, `references`, `task`, `selection` and `margin`, each
optional; and `contrasts`, a list of question, experiment and reference (`comparison.confirm_table`). A heading of the
second level that names studies, "a" or "a, b", opens the text of these alone.
"""

import re
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import pandas as pd
import yaml

from lungmtl.experiments import run_name
from lungmtl.report.words import counted, render, shown
from lungmtl.words import task_label

PLANNED = ("written", "experiments", "seeds", "references", "task", "selection", "margin", "contrasts")
UNPLANNED = "The protocol does not name the study `{}`: nothing was fixed before its results."


def protocol(text: str, study: str) -> str:
    """What a protocol, the text of its file, says of one study: Markdown, headings of the third level and below.

    Raises:
        ValueError: If the file does not begin as a protocol must.
    """
    plans, prose = _read_protocol(text)
    if study not in plans:
        return UNPLANNED.format(study)
    prose = "".join(part for part in re.split(r"(?m)^(?=##? )", prose) if _is_of(study, part, list(plans)))
    prose = re.sub(r"(?m)^(#+ )", r"#\1", re.sub(r"(?m)^# .*\n", "", prose).strip())
    said = {"contrasts": partial(shown, between="; "), "task": task_label}  # a contrast is itself a list
    lines = [f"- {name}: {said.get(name, shown)(value)}" for name, value in plans[study].items()]
    return f"{prose}\n\n" + "\n".join(lines)


def contrasts(text: str, study: str) -> list[list[Any]]:
    """The confirmatory contrasts that a protocol fixes for a study, if any: question, experiment, reference.

    Raises:
        ValueError: If one of them is no such triple.
    """
    found = _read_protocol(text)[0].get(study, {}).get("contrasts", [])
    for contrast in found:
        if not isinstance(contrast, list) or len(contrast) != 3:
            raise ValueError(f"A contrast of a protocol must be [question, experiment, reference]. Found {contrast}.")
    return found


def alike(text: str, study: str) -> list[str]:
    """Other studies for which a protocol fixes the same contrasts; none where it fixes none."""
    asked = contrasts(text, study)
    return [name for name in _read_protocol(text)[0] if name != study and asked and contrasts(text, name) == asked]


def _is_of(study: str, part: str, studies: list[str]) -> bool:
    """Whether a part of a protocol, which begins with its heading, concerns this study or all."""
    names = part.partition("\n")[0].replace("`", "").lstrip("# ").strip().split(", ")
    return study in names or not set(names) <= set(studies)


def deviations(
    text: str, runs: pd.DataFrame, *, references: Sequence[str] | None = None, margin: float | None = None
) -> str:
    """Where the runs of a study depart from its protocol, as a list in Markdown.

    Args:
        text: Of the protocol file.
        runs: As `study.collect` returns them, of one study.
        references: References that the comparison used; not checked if not given.
        margin: Margin that the comparison used; not checked if not given.
    Raises:
        ValueError: If the file does not begin as a protocol must.
    """
    study = runs["study"].iloc[0]
    plan = _read_protocol(text)[0].get(study)
    if plan is None:
        return UNPLANNED.format(study)
    there = list(zip(runs["experiment"], runs["seed"].astype(int), strict=True))
    experiments = plan.get("experiments", runs["experiment"].unique())
    planned = list(product(experiments, plan.get("seeds", sorted(runs["seed"].unique()))))
    rules = {"task": runs["tasks"].str[0], "selection": runs["selection_rule"]}
    rules = {name: values[values != plan.get(name, values)] for name, values in rules.items()}
    compared = {"references": None if references is None else list(references), "margin": margin}
    machine = runs.filter(regex="^environment_").map(shown)
    return render(
        "deviations.md.j2",
        plan=plan,
        n_runs=len(runs),
        missing=[run_name(*run) for run in planned if run not in there],
        extra=[run_name(*run) for run in there if run not in planned],
        rules={name: (list(values.unique()), len(values)) for name, values in rules.items() if len(values)},
        compared={name: value for name, value in compared.items() if value not in (None, plan.get(name, value))},
        n_unknown=(runs["environment_commit"] == "unknown").sum(),
        n_dirty=runs["environment_dirty"].astype(bool).sum(),
        machines={name: counted(machine[name]) for name in machine if len(set(machine[name])) > 1},
    )


def _read_protocol(text: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The plans by study and the prose of a protocol."""
    parts = re.fullmatch(r"(?s)---\n(.*?\n)---\n(.*)", text)
    if not parts:
        raise ValueError("A protocol must begin with YAML between two lines of `---`. Found none.")
    plans = (yaml.safe_load(parts[1]) or {}).get("studies")
    if not isinstance(plans, dict) or not all(isinstance(plan, dict) for plan in plans.values()):
        raise ValueError(f"`studies` of a protocol must map names of studies to their plans. Found {plans!r}.")
    unknown = sorted({name for plan in plans.values() for name in plan} - set(PLANNED))
    if unknown:
        raise ValueError(f"A plan in a protocol may hold {shown(PLANNED)}. Found {shown(unknown)}.")
    return plans, parts[2]
