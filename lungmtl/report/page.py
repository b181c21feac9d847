"""Page: an executed notebook as one HTML file that loads nothing.

The page opens without a network, on a phone and on paper; a policy in its head forbids the browser to load anything.
Its tables sort by a click and download as CSV; each row that names an experiment leads to the records of the runs
behind it, and these lead back. Tags of a notebook's text cells say what the page does with them: `off-page` leaves the
text out, `if-shown` the text of a code cell that shows nothing, `collapsed` folds the section that it opens, `answer`
frames what a code cell shows.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nbformat
import pandas as pd
from bs4 import BeautifulSoup, Tag
from bs4.element import PageElement
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from lungmtl.experiments import run_name
from lungmtl.files import existing, write
from lungmtl.report.words import HASH, HEX_DIGITS
from lungmtl.tables import csv_text

SHOWN_NUMBER = (
    r"(<\s*)?[+\-\u2212]?(\d+(\.\d*)?|\.\d+)(e[+\-]?\d+)?(\s*%|\s*[\[(].*)?"  # for Python and for the page's JavaScript
)
BLANKS = ("", "nan", "none", "-", "\u2013")
LOADING = "iframe, object, embed, link, base, [style*='url(' i], " + ", ".join(  # what a browser loads by itself
    f"[{name}]:not([{name}^='data:'])" for name in ("src", "srcset", "data", "poster")
)
PHANTOM_TAG = "phantom"  # of cells that hold for phantoms alone
STACKED = ("against", "verdict", "difference")  # how the head of a column begins that a phone must show
WIDE = 8  # chosen by us: columns of a table above which paper must break its numbers
LONG_CELL = 64  # chosen by us: characters (those of a sha256) above which a column's texts may break their lines
Links = Mapping[str, Mapping[int, str]]  # experiment -> seed -> address of the record


def write_html(
    notebook: str | Path,
    out: str | Path,
    *,
    title: str,
    heading: str = "",
    links: Links | None = None,
    is_phantom: bool = True,
) -> Path:
    """Write an executed notebook as one HTML page: no code, figures embedded, tables that sort; returns its path.

    Args:
        notebook: Executed notebook; not changed.
        out: The page; written atomically.
        title: Stands in the browser's tab and above the first heading.
        heading: First heading of the page; empty = the notebook's own.
        links: Addresses of records as `record_links` gives them; the rows of tables lead there.
        is_phantom: Whether the cohort is made of phantoms; if not, cells tagged `phantom` are left out.
    Raises:
        FileNotFoundError: If there is no such notebook.
        ValueError: If something in the notebook would be loaded from outside the page.
    """
    notebook, out, links = existing(notebook, "The executed notebook of a report"), Path(out), links or {}
    page = _page(notebook, out.parent, {"title": title, "links": links}, is_phantom)
    for number, table in enumerate(page.find_all("table"), start=1):
        _dress_table(page, table, links, label=f"Table {number}: {_heading_before(table)}")
    for number, image in enumerate(page.select("figure img"), start=1):
        image["alt"] = f"Figure {number}: {image.get('alt') or _heading_before(image)}"
    if heading and page.h1:
        page.h1.string = heading
    for link in page.select("a.back"):
        if not page.find(id=link["href"][1:]):
            link.decompose()
    if outside := page.main.select(LOADING):
        raise ValueError(f"A report must load nothing. Found {str(outside[0])[:80]} in {notebook}.")
    for link in page.main.find_all("a", href=re.compile("^(?!#|https?:|mailto:|data:text/csv)")):
        if not (out.parent / link["href"]).is_file():
            link.unwrap()  # it leads nowhere from here
    return write(out, str(page))


def record_links(study_dir: str | Path, runs: Sequence[str] | None = None) -> dict[str, dict[int, str]]:
    """Addresses of records from the study's folder: experiment -> seed -> `runs/STL-s0/record.json`.

    All that are there, or those of the named runs, in order; runs without a record are left out.
    """
    names = sorted(path.name for path in Path(study_dir, "runs").glob("*")) if runs is None else runs
    links: dict[str, dict[int, str]] = {}
    for name in names:
        experiment, _, seed = name.rpartition("-s")
        address = f"runs/{name}/record.json"
        if seed.isdigit() and Path(study_dir, address).is_file():
            links.setdefault(experiment, {})[int(seed)] = address
    return {experiment: dict(sorted(links[experiment].items())) for experiment in links}


def _page(notebook: Path, folder: Path, shown: dict[str, Any], is_phantom: bool) -> BeautifulSoup:
    """The notebook in the page's template, with its contents listed."""
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    filters = {"link_files": partial(_link_files, folder)}
    exporter = HTMLExporter(raw_template=template, filters=filters, exclude_anchor_links=True, embed_images=True)
    cells = _for_page(nbformat.read(notebook, as_version=4), is_phantom)
    html, _ = exporter.from_notebook_node(cells, resources=shown | {"number": SHOWN_NUMBER, "blanks": BLANKS})
    page = BeautifulSoup(html, "html.parser")
    for tag in page.main.find_all(["style", "script"]):
        tag.decompose()
    for head in page.find_all("h2"):
        head["id"] = head.get("id") or re.sub(r"\W+", "-", _text(head).lower()).strip("-")
        entry = page.nav.ul.append(page.new_tag("li"))
        entry.append(page.new_tag("a", attrs={"href": f"#{head['id']}"}, string=_text(head)))
    for mark in page.select("span.collapsed"):
        _collapse(page, mark)
    return page


def _for_page(notebook: NotebookNode, is_phantom: bool) -> NotebookNode:
    """The notebook without the cells that their tags keep from the page; `notebook` is changed."""
    away = {"off-page"} if is_phantom else {"off-page", PHANTOM_TAG}
    kept = []
    for cell, after in itertools.zip_longest(notebook.cells, notebook.cells[1:], fillvalue={}):
        tags = set(cell.metadata.get("tags", []))
        kept += [cell] if not away & tags and ("if-shown" not in tags or after.get("outputs")) else []
    notebook.cells = kept
    return notebook


def _collapse(page: BeautifulSoup, mark: Tag) -> None:
    """Fold the section whose heading follows a mark, up to the next one; the mark goes."""
    head = mark.find_next("h2")
    section, summary = page.new_tag("details", attrs={"class": "section"}), page.new_tag("summary")
    rest = list(itertools.takewhile(lambda tag: not _opens_section(tag), head.next_siblings))
    head.insert_before(section)
    summary.append(head)
    section.extend([summary, *rest])
    mark.decompose()


def _opens_section(tag: PageElement) -> bool:
    """Whether a heading, a mark or a folded section begins here."""
    return isinstance(tag, Tag) and (tag.name in ("h2", "details") or "collapsed" in tag.get("class", []))


def _link_files(folder: Path, printed: str) -> str:
    """Make links of printed paths, each alone on its line, into the report's folder."""
    path, link = rf"(?m)^\S*{re.escape(folder.name)}/(\S+)$", '<a href="{0}">{0}</a>'
    return re.sub(path, lambda found: link.format(found[1]) if (folder / found[1]).is_file() else found[0], printed)


def _dress_table(page: BeautifulSoup, table: Tag, links: Links, *, label: str) -> None:
    """Give a table its scroll box with a label, one row of heads, its sorting and its links."""
    table.attrs = {}
    kind = "table cards" if table.find("img") else "table"
    box = table.wrap(page.new_tag("div", attrs={"class": kind, "tabindex": "0", "role": "region", "aria-label": label}))
    heads = _heads(table)
    rows = [row.find_all(["th", "td"]) for row in table.select("tbody tr")]
    if not rows:
        none = f"<tbody><tr><td colspan={len(heads) or 1}>no rows</td></tr></tbody>"
        table.append(BeautifulSoup(none, "html.parser"))
    if not rows or not heads or table.find(rowspan=True) or any(len(row) != len(heads) for row in rows):
        return
    if not _text(heads[0]) and all(_text(row[0]).isdigit() for row in rows):  # numbers that pandas gave the rows
        for cells in (heads, *rows):
            cells.pop(0).decompose()
    for column in zip(heads, *rows, strict=True):
        _dress_column(column)
    names = [_text(head).lower() for head in heads]
    looks = {"sortable": len(rows) > 1, "stacked": any(name.startswith(STACKED) for name in names)}
    looks["wide"] = len(heads) > WIDE
    table.attrs |= {"class": " ".join(name for name, is_so in looks.items() if is_so)} if any(looks.values()) else {}
    box.insert_after(_download(page, heads, rows))
    for row in rows:
        for head, cell in zip(heads, row, strict=True):
            cell.attrs |= {"data-head": _text(head)} if looks["stacked"] else {}
        _link_row(page, dict(zip(names, row, strict=True)), links)


def _download(page: BeautifulSoup, heads: Sequence[Tag], rows: Sequence[Sequence[Tag]]) -> Tag:
    """A link that holds the table as CSV, so that the page alone is enough."""
    texts = [[_text(cell) for cell in row] for row in rows]
    text = csv_text(pd.DataFrame(texts, columns=[_text(head) for head in heads]))
    name = re.sub(r"\W+", "-", _heading_before(heads[0]).lower()).strip("-") or "table"
    address = f"data:text/csv;charset=utf-8,{quote(text)}"
    attrs = {"class": "csv", "href": address, "download": f"{name}.csv"}
    return page.new_tag("a", attrs=attrs, string="CSV of this table")


def _heads(table: Tag) -> list[Tag]:
    """The heads of a table; the second row, in which pandas names the index, is merged into the first."""
    rows = table.select("thead tr")
    cells = [row.find_all("th") for row in rows]
    if len(rows) == 2 and len(cells[0]) == len(cells[1]) and not _text(cells[1][-1]):
        for upper, lower in zip(*cells, strict=True):
            upper.string = _text(lower) or _text(upper)
        rows.pop().decompose()
    for tag in table.select("thead tr, thead th"):
        tag.attrs = {"scope": "col"} if tag.name == "th" else {}
    return cells[0] if len(rows) == 1 else []


def _dress_column(column: Sequence[Tag]) -> None:
    """Mark a column of numbers, long texts and hashes; the first cell is the head."""
    said = [text for text in map(_text, column[1:]) if text.lower() not in BLANKS]
    is_number = bool(said) and all(re.fullmatch(SHOWN_NUMBER, text, re.IGNORECASE) for text in said)
    look = "number" if is_number else "long" if any(len(text) > LONG_CELL for text in said) else ""
    for cell in column:
        text = _text(cell)
        cell.attrs = {name: value for name, value in cell.attrs.items() if name == "scope"}
        cell.attrs |= {"class": look} if look else {}
        if text == "NaN":
            cell.string = ""
        if HASH.fullmatch(text):
            cell["title"], cell.string = text, text[:HEX_DIGITS]


def _link_row(page: BeautifulSoup, row: Mapping[str, Tag], links: Links) -> None:
    """Lead the cells of a row to the record of its run, or to the list of its experiment's runs."""
    said = {name: _text(row[name]) for name in ("experiment", "reference", "seed") if name in row}
    experiment, reference = said.get("experiment"), said.get("reference")
    seed = int(said["seed"]) if said.get("seed", "").isdigit() else None
    if experiment not in links or (seed is not None and seed not in links[experiment]):
        return
    place = f"row-{experiment}"
    if seed is None and not page.find(id=place):
        row["experiment"].find_parent("tr")["id"] = place  # the list of runs leads back here
    names = [name for name in (experiment, reference) if name in links]
    source = f"from the records of {' and '.join(name if seed is None else run_name(name, seed) for name in names)}"
    for column, cell in row.items():
        target = names[-1] if column == "reference" else experiment
        look = {"class": "source name"} if column in said else {"class": "source", "tabindex": "-1"}
        link = page.new_tag("a", attrs={"href": links[target].get(seed, f"#runs-{target}"), "title": source, **look})
        if _text(cell) and not cell.find("a"):
            link.extend(list(cell.contents))
            cell.append(link)


def _text(cell: Tag) -> str:
    return cell.get_text(strip=True)


def _heading_before(tag: Tag) -> str:
    return "".join(map(_text, tag.find_all_previous(["h1", "h2", "h3"], limit=1)))
