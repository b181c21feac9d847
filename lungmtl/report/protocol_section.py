"""Protocol of a study, and what of it does not hold for its runs.

A protocol is a Markdown file that begins with YAML between lines of `---`: `studies`, a mapping of a study's name to
`written` (before or after results), `experiments`, `seeds`, `references`, `task`, `selection` and `margin`, each
optional. A heading of the second level that is a study's name opens the text of that study alone.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd
import yaml

from lungmtl.experiments import run_name
from lungmtl.report.methods_section import recorded, shown, values

PLANNED = ("written", "experiments", "seeds", "references", "task", "selection", "margin")  # of a study's protocol
MACHINE = {  # columns of the runs that must have one value, and how a deviation names them
    **{"environment_cpu": "processors", "environment_gpu": "GPUs", "environment_precision": "precisions"},
    **{"environment_python": "versions of Python", "environment_torch": "versions of torch"},
    "environment_numpy": "versions of NumPy",
}


def protocol(text: str, study: str) -> str:
    """What a protocol says of one study, in Markdown with headings of the third level and below.

    Args:
        text: The protocol file.
        study: Name of the study; the texts of other studies are left out.
    Raises:
        ValueError: If the file does not begin as a protocol must.
    """
    plans, prose = _read_protocol(text)
    if study not in plans:
        return _unplanned(study)
    others = "|".join(re.escape(name) for name in plans if name != study)
    if others:
        prose = re.sub(rf"^## `?(?:{others})`?[ \t]*\n.*?(?=^##? |\Z)", "", prose, flags=re.MULTILINE | re.DOTALL)
    plan = [f"- {name}: {shown(value)}" for name, value in plans[study].items()]
    prose = re.sub(r"^# .*\n", "", prose, flags=re.MULTILINE).strip()
    return re.sub(r"^(#+ )", r"#\1", prose, flags=re.MULTILINE) + "\n\n" + "\n".join(plan)


def deviations(
    text: str, runs: pd.DataFrame, *, references: Sequence[str] | None = None, margin: float | None = None
) -> str:
    """What of a study's protocol does not hold for its runs, as a list in Markdown.

    Args:
        text: The protocol file.
        runs: As `records.collect` returns them, of one study.
        references: Experiments that the comparison took as references; not compared if not given.
        margin: Margin that the comparison took; not compared if not given.
    Raises:
        ValueError: If the file does not begin as a protocol must.
    """
    plans, _ = _read_protocol(text)
    study = runs["study"].iloc[0]
    if study not in plans:
        return _unplanned(study)
    plan = plans[study]
    found = [*_of_runs(plan, runs), *_of_rules(plan, runs)]
    found += _of_comparison("references", plan, None if references is None else list(references))
    found += _of_comparison("margin", plan, margin)
    found += _of_machines(runs)
    none = f"None found in {len(runs)} runs: planned runs and rules, one clean commit, one kind of machine."
    return "\n".join(f"- {sentence}" for sentence in found) or none


def _read_protocol(text: str) -> tuple[dict[str, dict[str, Any]], str]:
    """The plans by study and the prose of a protocol."""
    parts = re.fullmatch(r"---\n(.*?\n)---\n(.*)", text, flags=re.DOTALL)
    if not parts:
        raise ValueError("A protocol must begin with YAML between two lines of `---`. Found none.")
    plans = (yaml.safe_load(parts[1]) or {}).get("studies")
    if not isinstance(plans, dict) or not all(isinstance(plan, dict) for plan in plans.values()):
        raise ValueError(f"`studies` of a protocol must map names of studies to their plans. Found {plans!r}.")
    unknown = sorted({name for plan in plans.values() for name in plan} - set(PLANNED))
    if unknown:
        raise ValueError(f"A plan in a protocol may hold {shown(PLANNED)}. Found {shown(unknown)}.")
    return plans, parts[2]


def _unplanned(study: str) -> str:
    return f"The protocol does not name the study `{study}`: nothing was fixed before its results."


def _of_runs(plan: Mapping[str, Any], runs: pd.DataFrame) -> list[str]:
    """Runs planned and missing, and runs there and not planned."""
    there = list(zip(runs["experiment"], runs["seed"].astype(int), strict=True))
    experiments = plan.get("experiments", list(dict.fromkeys(name for name, _ in there)))
    seeds = plan.get("seeds", sorted({seed for _, seed in there}))
    planned = list(product(experiments, seeds))
    missing = [run_name(*run) for run in planned if run not in there]
    extra = [run_name(*run) for run in there if run not in planned]
    found = [f"Planned and missing: {shown(missing)}."] if missing else []
    return found + ([f"Not planned: {shown(extra)}."] if extra else [])


def _of_rules(plan: Mapping[str, Any], runs: pd.DataFrame) -> list[str]:
    written = str(plan.get("written", "before results"))
    found = [] if written.startswith("before") else [f"The protocol was written {written}."]
    rules = {"task": runs["tasks"].map(lambda tasks: tasks[0]), "selection": runs["selection_rule"]}
    for name, found_here in rules.items():
        others = found_here[found_here != plan.get(name, found_here)]
        if len(others):
            found.append(f"`{name}` is {shown(list(others.unique()))} in {len(others)} runs, planned {plan[name]}.")
    return found


def _of_comparison(name: str, plan: Mapping[str, Any], value: Any) -> list[str]:
    is_as_planned = value is None or name not in plan or value == plan[name]
    return [] if is_as_planned else [f"`{name}` is {shown(value)} in the comparison, planned {shown(plan[name])}."]


def _of_machines(runs: pd.DataFrame) -> list[str]:
    commits, dirty = runs["environment_commit"], runs["environment_dirty"].astype(bool)
    n_commits, n_unknown = commits.nunique(), int((commits == "unknown").sum())
    found = (
        [f"The runs come from {n_commits} commits: {recorded(runs, 'environment_commit')}."] if n_commits > 1 else []
    )
    found += [f"The commit of {n_unknown} runs is unknown."] if n_unknown else []
    found += [f"{dirty.sum()} runs were computed with uncommitted changes."] if dirty.any() else []
    several = {what: column for column, what in MACHINE.items() if len(values(runs, column)) > 1}
    return found + [f"The runs come from {what} that differ: {recorded(runs, several[what])}." for what in several]
