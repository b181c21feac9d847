"""Page: an executed notebook as one HTML file that loads nothing.

The page opens without a network, on a phone and on paper; a policy in its head forbids the browser to load anything.
Its tables sort by a click, and each row that names an experiment leads to the records of the runs behind it.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2
import nbformat
from bs4 import BeautifulSoup, Tag
from nbconvert import HTMLExporter

from lungmtl.experiments import run_name
from lungmtl.study import RECORD_FILE

TEMPLATE = "page.html.j2"
NUMBER = re.compile(r"[+\-\u2212]?(\d+(\.\d*)?|\.\d+)(e[+\-]?\d+)?(\s*%|\s*[\[(].*)?", re.IGNORECASE)
BLANKS = ("", "nan", "none", "-", "\u2013")  # this and NUMBER as in the template
LOADING = ("src", "srcset", "data", "poster")  # attributes whose address a browser loads by itself
HASH = re.compile(r"[0-9a-f]{40,64}")
LONG_CELL = 60  # chosen by us: characters after which a cell of text may break its line
HEX_DIGITS = 10  # of a commit or a sha256 that are shown


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
        if seed.isdigit() and (folder / name / RECORD_FILE).is_file():
            links.setdefault(experiment, {})[int(seed)] = f"runs/{name}/{RECORD_FILE}"
    return {experiment: dict(sorted(links[experiment].items())) for experiment in links}


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
    sources = [name if seed is None else run_name(name, seed) for name in names]
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
