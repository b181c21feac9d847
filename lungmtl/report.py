"""Report: an executed notebook as one HTML page that loads nothing; its methods and deviations from the records.

The page opens without a network, on a phone and on paper; a policy in its head forbids the browser to load anything.
Its tables sort by a click, and each row that names an experiment leads to the records of the runs behind it.

A protocol is a Markdown file that begins with YAML between lines of `---`: `studies`, a mapping of a study's name to
`written` (before or after results), `experiments`, `seeds`, `references`, `task`, `selection` and `margin`, each
optional. A heading of the second level that is a study's name opens the text of that study alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import numpy as np
import pandas as pd
import yaml
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter

from lungmtl import records

TEMPLATE = "report.html.j2"
NUMBER = re.compile(r"[+\-\u2212]?(\d+(\.\d*)?|\.\d+)(e[+\-]?\d+)?(\s*%|\s*[\[(].*)?", re.IGNORECASE)
BLANKS = ("", "nan", "none", "-", "\u2013")  # this and NUMBER as in the template
LOADING = ("src", "srcset", "data", "poster")  # attributes whose address a browser loads by itself
HASH = re.compile(r"[0-9a-f]{40,64}")
LONG_CELL = 60  # chosen by us: characters after which a cell of text may break its line
HEX_DIGITS = 10  # of a commit or a sha256 that are shown

PLANNED = ("written", "experiments", "seeds", "references", "task", "selection", "margin")  # of a study's protocol
OWN_SETTINGS = ("study", "experiment", "seed", "results_dir", "cache_dir", "cohort", "threads")  # not a method
SAID = (  # settings that the sentences name
    *("phantom_scans", "phantom_seed", "phantom_label_noise", "window_hu", "spacing_mm", "shape", "width"),
    *("learning_rate", "warmup", "weight_decay", "batch_size", "epochs", "class_balance", "augment", "selection"),
)
SPLITS = ("train", "validation", "test")
MACHINE = {  # columns of the runs that must have one value, and how a deviation names them
    **{"environment_cpu": "processors", "environment_gpu": "GPUs", "environment_precision": "precisions"},
    **{"environment_python": "versions of Python", "environment_torch": "versions of torch"},
    "environment_numpy": "versions of NumPy",
}
NOT_RECORDED = "not recorded"
CROSS = " \u00d7 "


def write_html(
    notebook: str | Path, out: str | Path, *, title: str, links: Mapping[str, Mapping[int, str]] | None = None
) -> Path:
    """Write an executed notebook as one HTML page: no code, figures embedded, tables that sort.

    Args:
        notebook: Executed notebook; not changed.
        out: The page; written beside its place and renamed.
        title: Stands in the browser's tab and above the first heading.
        links: Addresses of records as `record_links` gives them; the rows of tables lead there.
    Returns:
        Path of the page.
    Raises:
        FileNotFoundError: If there is no such notebook.
        ValueError: If something in the notebook would be loaded from outside the page.
    """
    notebook, out, links = Path(notebook), Path(out), links or {}
    if not notebook.is_file():
        raise FileNotFoundError(f"A report must have its executed notebook. Found none at {notebook}.")
    body = _body(notebook)
    for table in body.find_all("table"):
        _dress_table(body, table, links)
    for number, image in enumerate(body.find_all("img"), start=1):
        _dress_figure(body, image, number)
    _check_offline(body, notebook)
    _link_files(body, out.parent)
    page = _page(body, title, links)
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(out.name + ".partial")
    beside.write_text(page, encoding="utf-8")
    return beside.replace(out)


def record_links(study_dir: str | Path, runs: Sequence[str] | None = None) -> dict[str, dict[int, str]]:
    """Addresses of the records of a study from its folder: experiment -> seed -> `runs/STL-s0/record.json`.

    Args:
        study_dir: The study's folder.
        runs: Names of the runs wanted, in order; all if not given. Those without a record are left out.
    """
    folder = Path(study_dir) / "runs"
    names = sorted(path.name for path in folder.glob("*")) if runs is None else runs
    links: dict[str, dict[int, str]] = {}
    for name in names:
        experiment, _, seed = name.rpartition("-s")
        if seed.isdigit() and (folder / name / records.RECORD_FILE).is_file():
            links.setdefault(experiment, {})[int(seed)] = f"runs/{name}/{records.RECORD_FILE}"
    return {experiment: dict(sorted(links[experiment].items())) for experiment in links}


def methods(runs: pd.DataFrame) -> str:
    """The methods in Markdown, every number from the records; where runs differ, each value with its number of runs.

    Args:
        runs: As `records.collect` returns them, one row per run. A field that an old record lacks is "not recorded".
    """
    return "\n\n".join(
        part(runs) for part in (_cohort, _counts, _training, _experiments, _settings, _others, _computation)
    )


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
    plan = [f"- {name}: {_shown(value)}" for name, value in plans[study].items()]
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


def _body(notebook: Path) -> BeautifulSoup:
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        exclude_anchor_links=True,
        embed_images=True,
    )
    node = nbformat.read(notebook, as_version=4)
    for cell in node.cells:
        cell.metadata.setdefault("alt", "figure")  # nbconvert warns of images without it; `_dress_figure` says more
    html, _ = exporter.from_notebook_node(node, resources={"metadata": {"path": str(notebook.parent)}})
    body = BeautifulSoup(html, "html.parser")
    for tag in body.find_all(["style", "script"]):
        tag.decompose()
    for tag in body.find_all("div"):  # cells and outputs: their names change from one execution to the next
        tag.unwrap()
    return body


def _page(body: BeautifulSoup, title: str, links: Mapping[str, Mapping[int, str]]) -> str:
    contents = [_address(head) for head in body.find_all("h2")]
    contents += [("records", "Run records")] if links else []
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files("lungmtl") / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(title=title, contents=contents, body=str(body), links=links) + "\n"


def _dress_table(body: BeautifulSoup, table: Tag, links: Mapping[str, Mapping[int, str]]) -> None:
    """Give a table its scroll box, one row of heads, its sorting and its links."""
    table.attrs = {}
    label = f"Table: {_heading_before(table)}"
    table.wrap(body.new_tag("div", attrs={"class": "table", "tabindex": "0", "role": "region", "aria-label": label}))
    heads = _heads(table)
    rows = [row.find_all(["th", "td"]) for row in table.select("tbody tr")]
    is_plain = bool(heads) and not table.find(rowspan=True) and all(len(row) == len(heads) for row in rows)
    if not rows:
        nothing = f'<tbody><tr><td colspan="{len(heads) or 1}">no rows</td></tr></tbody>'
        table.append(BeautifulSoup(nothing, "html.parser"))
    if not rows or not is_plain:
        return
    if len(rows) > 1:
        table["class"] = "sortable"
    names = [head.get_text(strip=True).lower() for head in heads]
    if not names[0] and all(row[0].get_text().isdigit() for row in rows):  # numbers that pandas gave the rows
        for cell in (heads, *rows):
            cell.pop(0).decompose()
        names.pop(0)
    for head, *column in zip(heads, *rows, strict=True):
        _align(head, column)
    for row in rows:
        _link_row(body, dict(zip(names, row, strict=True)), links)


def _heads(table: Tag) -> list[Tag]:
    """The heads of a table; the second row, in which pandas names the index, is merged into the first."""
    rows = table.select("thead tr")
    cells = [row.find_all(["th", "td"]) for row in rows]
    if len(rows) == 2 and len(cells[0]) == len(cells[1]) and not cells[1][-1].get_text(strip=True):
        for upper, lower in zip(*cells, strict=True):
            if lower.get_text(strip=True):
                upper.string = lower.get_text(strip=True)
        rows.pop().decompose()
    for row in rows:
        row.attrs = {}
    for cell in table.select("thead td"):
        cell.name = "th"
    for cell in table.select("thead th"):
        cell["scope"] = "col"
    return cells[0] if len(rows) == 1 else []


def _align(head: Tag, column: Sequence[Tag]) -> None:
    texts = [cell.get_text(strip=True) for cell in column]
    said = [text for text in texts if text.lower() not in BLANKS]
    is_number = bool(said) and all(NUMBER.fullmatch(text) for text in said)
    for cell in (head, *column):
        cell.attrs = {name: value for name, value in cell.attrs.items() if name == "scope"}
        if is_number:
            cell["class"] = "number"
    for cell, text in zip(column, texts, strict=True):
        if text == "NaN":
            cell.string = ""
        if len(text) > LONG_CELL:
            cell["class"] = "long"
        if HASH.fullmatch(text):
            cell["title"], cell.string = text, text[:HEX_DIGITS]


def _link_row(body: BeautifulSoup, row: Mapping[str, Tag], links: Mapping[str, Mapping[int, str]]) -> None:
    """Lead the cells of a row to the record of its run, or to the list of its experiment's runs."""
    said = {name: row[name].get_text(strip=True) for name in ("experiment", "reference", "seed") if name in row}
    seed = int(said["seed"]) if said.get("seed", "").isdigit() else None
    names = [said[name] for name in ("experiment", "reference") if said.get(name) in links]
    if not names or names[0] != said.get("experiment") or (seed is not None and seed not in links[names[0]]):
        return
    sources = [name if seed is None else records.run_name(name, seed) for name in names]
    source = f"from the records of {' and '.join(sources)}"
    for name, cell in row.items():
        target = said[name] if name == "reference" and said[name] in links else names[0]
        address = links[target].get(seed, f"#runs-{target}")
        is_name = name in ("experiment", "reference", "seed")
        if cell.get_text(strip=True) and not cell.find("a"):
            _wrap_contents(body, cell, {"class": "source name" if is_name else "source", "href": address})
            cell.a.attrs |= {"title": source} | ({} if is_name else {"tabindex": "-1"})


def _wrap_contents(body: BeautifulSoup, cell: Tag, attributes: Mapping[str, str]) -> None:
    link = body.new_tag("a", attrs=dict(attributes))
    link.extend(list(cell.contents))
    cell.append(link)


def _address(head: Tag) -> tuple[str, str]:
    """Give a heading its address in the page; returns address and text."""
    head["id"] = re.sub(r"\W+", "-", head.get_text().strip().lower()).strip("-")
    return head["id"], head.get_text()


def _dress_figure(body: BeautifulSoup, image: Tag, number: int) -> None:
    image["alt"] = f"Figure {number}: {_heading_before(image)}"
    image.wrap(body.new_tag("figure"))


def _heading_before(tag: Tag) -> str:
    heading = tag.find_previous(["h1", "h2", "h3"])
    return heading.get_text(strip=True) if heading else ""


def _check_offline(body: BeautifulSoup, notebook: Path) -> None:
    """Raise where a tag would load something: only what is inside the page may be shown."""
    outside = body.find_all(
        lambda tag: any(not tag[name].startswith("data:") for name in LOADING if tag.has_attr(name))
    )
    outside += body.find_all(["iframe", "object", "embed", "link", "base"])
    outside += body.find_all(style=re.compile(r"url\s*\("))
    if outside:
        raise ValueError(f"A report must load nothing. Found {str(outside[0])[:80]} in {notebook}.")


def _link_files(body: BeautifulSoup, folder: Path) -> None:
    """Make links of printed paths into the report's folder, and plain text of links that lead nowhere."""
    for text in body.find_all(string=True):
        lines = text.strip().splitlines() if text.parent.name == "pre" else []
        inside = [line.rpartition(f"{folder.name}/")[2] for line in lines]
        if lines and all(line != part and (folder / part).is_file() for line, part in zip(lines, inside, strict=True)):
            links = [str(body.new_tag("a", attrs={"href": part}, string=part)) for part in inside]
            text.replace_with(BeautifulSoup("\n".join(links), "html.parser"))
    for link in body.find_all("a", href=True):
        address = link["href"]
        if not address.startswith(("#", "http:", "https:", "mailto:")) and not (folder / address).is_file():
            link.unwrap()


def _cohort(runs: pd.DataFrame) -> str:
    if _values(runs, "config_cohort") == [""]:
        phantom = _say(runs, "config_phantom_seed"), _say(runs, "config_phantom_label_noise")
        kind = "synthetic chest CTs (phantom seed {}, chance of a wrong auxiliary answer {})".format(*phantom)
    else:
        kind = "chest CTs of a cohort table"
    sizes = ", ".join(f"{_n_scans(runs, split)} {split}" for split in SPLITS)
    sha256 = _say(runs, "cohort_sha256", lambda value: f"`{value[:HEX_DIGITS]}`")
    window, spacing = _say(runs, "config_window_hu", " to ".join), _say(runs, "config_spacing_mm", CROSS.join)
    return (
        f"**Scans.** The scans are {kind}: {sizes}; the sha256 of their table begins with {sha256}. Intensities were"
        f" clipped to {window} HU and scans resampled to voxels of {spacing} mm on a grid of"
        f" {_say(runs, 'config_shape', CROSS.join)} (z, y, x)."
    )


def _n_scans(runs: pd.DataFrame, split: str) -> str:
    task = runs["tasks"].iloc[0][0]
    parts = [f"cohort_counts_{split}_{task}_{kind}" for kind in ("n", "unknown")]
    if not set(parts) <= set(runs.columns):
        return NOT_RECORDED
    return _say(runs.assign(scans=runs[parts].sum(axis=1, min_count=len(parts))), "scans")


def _counts(runs: pd.DataFrame) -> str:
    """Table of positive among known answers per task and split."""
    heads, said = ("task", *SPLITS), "Positive scans of those whose answer is known:"
    lines = [said, "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for task in dict.fromkeys(task for tasks in runs["tasks"] for task in tasks):
        columns = [[f"cohort_counts_{split}_{task}_{kind}" for kind in ("positives", "n")] for split in SPLITS]
        cells = [" of ".join(_say(runs, column, known_only=True) for column in pair) for pair in columns]
        lines.append(f"| {task.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _training(runs: pd.DataFrame) -> str:
    say = {name: _say(runs, f"config_{name}") for name in SAID}
    kept = _say(runs.assign(kept=runs["selection_epoch"] + 1), "kept")
    return (
        f"**Network and training.** One shared 3D encoder ({say['width']} channels in its first stage) and one"
        f" subnetwork per task. AdamW with peak learning rate {say['learning_rate']}, rising over the first fraction"
        f" {say['warmup']} of the steps, and weight decay {say['weight_decay']}; batches of {say['batch_size']} scans,"
        f" {say['epochs']} epochs; class balance: {say['class_balance']}; augmentation: {say['augment']}. Rule for the"
        f" epoch kept: {_say(runs, 'selection_rule')}; epoch kept, counted from 1: {kept}."
    )


def _experiments(runs: pd.DataFrame) -> str:
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, group in runs.groupby("experiment", sort=False):
        groups.setdefault(tuple(sorted(group["seed"])), []).append(name)
    said = "; ".join(f"{_shown(seeds)} of {_shown(names)}" for seeds, names in groups.items())
    return f"**Runs.** {len(runs)} runs; seeds {said}. Settings in which experiments differ:"


def _settings(runs: pd.DataFrame) -> str:
    """Table of the settings that tell experiments apart; a rule's settings are blank where the rule is off."""
    firsts = runs.drop_duplicates("experiment")
    names = [name for name in _setting_names(runs) if len(_values(firsts, f"config_{name}")) > 1]
    n_tasks = max(map(len, runs["tasks"]))
    lines = [f"| experiment | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for row in firsts.to_dict("records"):
        is_off = {name: "_" in name and row.get(f"config_{name.split('_')[0]}") is False for name in names}
        row["config_tasks"] = row["tasks"] if len(row["tasks"]) < n_tasks else f"all {n_tasks}"
        cells = ["" if is_off[name] else _shown(row[f"config_{name}"]) for name in names]
        lines.append(f"| {row['experiment']} | {' | '.join(cells)} |")
    return "\n".join(lines) if names else "none."


def _others(runs: pd.DataFrame) -> str:
    """The settings that every run shares and that no sentence before named."""
    names = [name for name in _setting_names(runs) if len(_values(runs, f"config_{name}")) == 1]
    said = [f"{name} {_say(runs, f'config_{name}')}" for name in names if name not in (*SAID, "tasks")]
    return f"The same in every run: {'; '.join(said) or 'nothing else'}."


def _setting_names(runs: pd.DataFrame) -> list[str]:
    names = [name.removeprefix("config_") for name in runs.columns if name.startswith("config_")]
    return [name for name in names if name not in OWN_SETTINGS]


def _computation(runs: pd.DataFrame) -> str:
    names = ("dirty", "python", "torch", "numpy", "cpu", "gpu", "threads", "precision")
    say = {name: _say(runs, f"environment_{name}") for name in names}
    commit = _say(runs, "environment_commit", lambda value: f"`{value[:HEX_DIGITS]}`")
    hours = runs[[name for name in runs.columns if name.startswith("seconds_")]].sum(axis=None) / 3600
    return (
        f"**Computation.** Commit {commit}, uncommitted changes: {say['dirty']}; Python {say['python']}, torch"
        f" {say['torch']}, NumPy {say['numpy']}. Processor: {say['cpu']}; threads: {say['threads']}; GPU:"
        f" {say['gpu'] or 'none'}; precision: {say['precision']}. All runs together: {hours:.2f} hours."
    )


def _say(runs: pd.DataFrame, column: str, show: Callable[[Any], str] | None = None, *, known_only: bool = False) -> str:
    """The value of a column; where runs differ, each value with its number of runs."""
    if column not in runs:
        return NOT_RECORDED
    values = runs[column].map(lambda value: _text(value, show))
    counts = values[values != NOT_RECORDED] if known_only else values
    counts = counts.value_counts(sort=False)
    if len(counts) < 2:
        return counts.index[0] if len(counts) else NOT_RECORDED
    return ", ".join(f"{value or 'none'} ({n} runs)" for value, n in counts.items())


def _text(value: Any, show: Callable[[Any], str] | None) -> str:
    if not isinstance(value, list) and pd.isna(value):
        return NOT_RECORDED
    if show is None:
        return _shown(value)
    return show([_shown(item) for item in value] if isinstance(value, list) else value)


def _shown(value: Any) -> str:
    """A value for readers: lists with commas, yes and no, numbers without trailing zeros, nothing for not known."""
    if isinstance(value, list | tuple):
        return ", ".join(_shown(item) for item in value) if value else "none"
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else f"{value:.10g}"


def _values(runs: pd.DataFrame, column: str) -> list[str]:
    """Different values of a column as text."""
    return list(dict.fromkeys(_text(value, None) for value in runs.get(column, [])))


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
        raise ValueError(f"A plan in a protocol may hold {_shown(PLANNED)}. Found {_shown(unknown)}.")
    return plans, parts[2]


def _unplanned(study: str) -> str:
    return f"The protocol does not name the study `{study}`: nothing was fixed before its results."


def _of_runs(plan: Mapping[str, Any], runs: pd.DataFrame) -> list[str]:
    """Runs planned and missing, and runs there and not planned."""
    there = list(zip(runs["experiment"], runs["seed"].astype(int), strict=True))
    experiments = plan.get("experiments", list(dict.fromkeys(name for name, _ in there)))
    seeds = plan.get("seeds", sorted({seed for _, seed in there}))
    planned = list(product(experiments, seeds))
    missing = [records.run_name(*run) for run in planned if run not in there]
    extra = [records.run_name(*run) for run in there if run not in planned]
    found = [f"Planned and missing: {_shown(missing)}."] if missing else []
    return found + ([f"Not planned: {_shown(extra)}."] if extra else [])


def _of_rules(plan: Mapping[str, Any], runs: pd.DataFrame) -> list[str]:
    written = str(plan.get("written", "before results"))
    found = [] if written.startswith("before") else [f"The protocol was written {written}."]
    rules = {"task": runs["tasks"].map(lambda tasks: tasks[0]), "selection": runs["selection_rule"]}
    for name, values in rules.items():
        others = values[values != plan.get(name, values)]
        if len(others):
            found.append(f"`{name}` is {_shown(list(others.unique()))} in {len(others)} runs, planned {plan[name]}.")
    return found


def _of_comparison(name: str, plan: Mapping[str, Any], value: Any) -> list[str]:
    is_as_planned = value is None or name not in plan or value == plan[name]
    return [] if is_as_planned else [f"`{name}` is {_shown(value)} in the comparison, planned {_shown(plan[name])}."]


def _of_machines(runs: pd.DataFrame) -> list[str]:
    commits, dirty = runs["environment_commit"], runs["environment_dirty"].astype(bool)
    n_commits, n_unknown = commits.nunique(), int((commits == "unknown").sum())
    found = [f"The runs come from {n_commits} commits: {_say(runs, 'environment_commit')}."] if n_commits > 1 else []
    found += [f"The commit of {n_unknown} runs is unknown."] if n_unknown else []
    found += [f"{dirty.sum()} runs were computed with uncommitted changes."] if dirty.any() else []
    several = {what: column for column, what in MACHINE.items() if len(_values(runs, column)) > 1}
    return found + [f"The runs come from {what} that differ: {_say(runs, several[what])}." for what in several]
