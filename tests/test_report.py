import base64
import functools
import io
import re
import time
from pathlib import Path
from urllib.parse import unquote

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from lungmtl.figures.style import new_figure
from lungmtl.report.methods_section import methods, policies
from lungmtl.report.page import record_links, write_html
from lungmtl.report.protocol_section import deviations, protocol
from lungmtl.study.collection import collect
from lungmtl.study.plan import question
from lungmtl.study.record import RECORD_FILE, read_record
from lungmtl.words import task_label

ROOT = Path(__file__).parents[1]
STUDY = "phantom-full"
RUNS = ["STL-s0", "STL-s1", "ITW3-s0", "ITW3-s1"]
PHONE_PX, DESKTOP_PX, WIDE_PX, PAPER_PX = 390, 1280, 1440, 688  # A4 less margins of 14 mm, at 96 px per inch
PAGE_PX = 949  # height of US letter, the shorter sheet, less the same margins
PROTOCOL = """---
studies:
  phantom-full:
    written: before results
    experiments: [STL, MTL, MTL0, MTL1, MTL2, MTL3, MTL4, ITW1, ITW2, ITW3]
    seeds: [0, 1, 2, 3, 4]
    references: [STL, MTL]
    task: lung_cancer
    selection: last
    margin: 0.02
  other:
    seeds: [7]
  third: {}
---
# Protocol

For every study.

## other

Of the other study.

## third, other

Of two others.

## phantom-full, third

## phantom-full

The hypothesis.

### Family

The family.
"""


def shown(data, **metadata):
    return v4.new_output("display_data", data, metadata=metadata)


def output(value):
    """What a notebook stores of a frame, a figure or Markdown."""
    if isinstance(value, pd.DataFrame):
        return shown({"text/html": value._repr_html_(), "text/plain": "a frame"})
    if isinstance(value, str):
        return shown({"text/markdown": value})
    png, metadata = value._repr_png_()
    data = {"image/png": base64.b64encode(png).decode(), "text/plain": "a figure"}
    return shown(data, **{"image/png": metadata})


def wide_figure():
    figure, axes = new_figure(width_in=10, height_in=3)
    axes[0, 0].plot([0, 1], [0, 1])
    return figure


def comparisons():
    rows = [("ITW3", "STL", 0.9, "0.86 [0.82, 0.89]"), ("STL", "MTL", 10.0, "0.7 [0.6, 0.8]"), ("X", "STL", np.nan, "")]
    frame = pd.DataFrame(rows, columns=["experiment", "reference", "p", "AUC"])
    return frame.assign(**{f"a long name of a column {i}": i for i in range(12)})


def executed(cells):
    """An executed notebook: text becomes prose, everything else the output of a code cell."""
    made = []
    for cell in cells:
        if isinstance(cell, str):
            made.append(v4.new_markdown_cell(cell))
        else:
            made.append(v4.new_code_cell("secret_code()", outputs=[cell], execution_count=1))
    return v4.new_notebook(cells=made)


def write_page(folder, cells):
    nbformat.write(executed(cells), folder / "executed.ipynb")
    links = record_links(folder)
    return write_html(folder / "executed.ipynb", folder / "report.html", title="Study trial", links=links)


def read_page(folder, cells):
    return BeautifulSoup(write_page(folder, cells).read_text(encoding="utf-8"), "html.parser")


def make_cells():
    per_run = pd.DataFrame({"experiment": ["STL", "STL", "STL"], "seed": [0, 1, 9], "auc": [0.8, 0.7, 0.6]})
    by_name = per_run.groupby("experiment")["auc"].agg(["min", "max"])
    long_lines = v4.new_output("stream", name="stdout", text="word " * 60)
    return [
        "# A question\n\nProse with a [source](https://arxiv.org/abs/1912.07167) and [a file](nowhere.ipynb).",
        "## First part\n\nWhat is looked for.",
        *(output(wide_figure()), output(comparisons()), long_lines),
        "## Second part",
        *(output(per_run), output(by_name), output(pd.DataFrame({"scan": [], "excluded": []}))),
        *(output(comparisons()[["p"]].iloc[:1]), output(methods(runs_of_study()))),
    ]


def make_folder(folder):
    for name in RUNS:
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / RECORD_FILE).write_text("{}", encoding="utf-8")
    (folder / "runs" / "STL-s2").mkdir()
    return folder


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "trial")


@pytest.fixture(scope="module")
def report_path(tmp_path_factory):
    return write_page(make_folder(tmp_path_factory.mktemp("study") / "trial"), make_cells())


@pytest.fixture(scope="module")
def page(report_path):
    return BeautifulSoup(report_path.read_text(encoding="utf-8"), "html.parser")


def table_with(page, column):
    return next(table for table in page.find_all("table") if column in heads_of(table))


def heads_of(table):
    return [head.get_text() for head in table.select("thead th")]


@functools.cache
def runs_of_study():
    return collect(ROOT / "results" / STUDY).runs


@pytest.fixture(scope="module")
def runs():
    return runs_of_study()


def test_page_shows_no_code_and_no_prompt(page):
    assert "secret_code" not in page.get_text()
    assert not page.select(".input, .prompt, .input_area")
    assert "In [" not in page.get_text()


def test_page_loads_nothing_and_forbids_loading(page):
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    loading = [tag[name] for name in ("src", "srcset", "data", "poster") for tag in page.find_all(attrs={name: True})]
    styles = " ".join(tag.get_text() for tag in page.find_all("style"))
    text = re.sub(r"data:image/png;base64,[^\"]*", "", str(page))
    addresses = re.findall(r"https?://[^\s\"'<>)]*", text)

    assert policy.startswith("default-src 'none';")
    assert loading
    assert all(address.startswith("data:") for address in loading)
    assert [link["href"] for link in page.find_all("link")] == ["data:,"]
    assert "url(" not in styles
    assert "@import" not in styles
    assert addresses == ["https://arxiv.org/abs/1912.07167"]  # the citation, which waits for a click


def test_figure_is_embedded_and_named_after_its_section(page):
    image = page.select_one("figure img")

    assert base64.b64decode(image["src"].partition("base64,")[2]).startswith(b"\x89PNG")
    assert image["alt"] == "Figure 1: First part"  # it says nothing of its own


def test_picture_in_a_table_keeps_its_name_and_is_no_figure(folder):
    picture = f'<img alt="coronal slice" src="data:image/png;base64,{base64.b64encode(b"x").decode()}">'
    table = pd.DataFrame({"scan": ["a"], "picture": [picture]}).to_html(escape=False, index=False)
    page = read_page(folder, [shown({"text/html": table}), output(wide_figure())])

    assert [image["alt"] for image in page.find_all("img")] == ["coronal slice", "Figure 1: "]
    assert page.select("td img")
    assert not page.select("td figure")


@pytest.mark.parametrize("text", ['<img src="https://host.example/a.png">', '<iframe src="data:text/html,a"></iframe>'])
def test_notebook_that_would_load_something_is_refused(folder, text):
    with pytest.raises(ValueError, match=r"must load nothing\. Found <"):
        write_page(folder, [text])


def test_notebook_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Found none at .*gone\.ipynb"):
        write_html(tmp_path / "gone.ipynb", tmp_path / "report.html", title="")


def test_same_notebook_gives_the_same_bytes(folder):
    cells = make_cells()

    assert write_page(folder, cells).read_bytes() == write_page(folder, cells).read_bytes()


def test_links_lead_to_files_and_places_that_are_there(report_path, page):
    addresses = {link["href"] for link in page.select("a:not(.csv)")} - {"https://arxiv.org/abs/1912.07167"}
    names = {tag["id"] for tag in page.find_all(id=True)}

    assert {address for address in addresses if address.startswith("runs/")} == {f"runs/{n}/record.json" for n in RUNS}
    assert "nowhere.ipynb" not in addresses
    for address in addresses:
        assert address[1:] in names if address.startswith("#") else (report_path.parent / address).is_file()


def test_every_section_is_in_the_contents(page):
    entries = [(link["href"], link.get_text()) for link in page.select("nav a")]

    assert entries == [("#first-part", "First part"), ("#second-part", "Second part"), ("#records", "Run records")]


def test_every_cell_of_an_experiment_leads_to_its_runs(page):
    rows = table_with(page, "reference").select("tbody tr")
    targets = [{link["href"] for link in row.find_all("a")} for row in rows]
    counts = [(len(row.find_all("a")), sum(bool(cell.get_text()) for cell in row.find_all("td"))) for row in rows]

    assert targets == [{"#runs-ITW3", "#runs-STL"}, {"#runs-STL"}, set()]  # no run of MTL or X is there
    assert all(n_links == n_cells for n_links, n_cells in counts[:2])
    assert rows[0].find_all("a")[2]["title"] == "from the records of ITW3 and STL"


def test_row_with_a_seed_leads_to_its_record_or_nowhere(page):
    rows = table_with(page, "seed").select("tbody tr")
    targets = [{link["href"] for link in row.find_all("a")} for row in rows]

    assert targets == [{"runs/STL-s0/record.json"}, {"runs/STL-s1/record.json"}, set()]


def test_only_runs_asked_for_are_linked_and_in_their_order(folder):
    links = record_links(folder, ["STL-s1", "ITW3-s0", "STL-s0", "STL-s2", "MTL-s0"])

    assert list(links) == ["STL", "ITW3"]
    assert links["STL"] == {0: "runs/STL-s0/record.json", 1: "runs/STL-s1/record.json"}


def test_tables_have_one_row_of_heads_and_no_row_numbers(page):
    assert heads_of(table_with(page, "seed")) == ["experiment", "seed", "auc"]
    assert heads_of(table_with(page, "min")) == ["experiment", "min", "max"]
    assert all(len(table.select("thead tr")) == 1 for table in page.find_all("table"))
    assert all(head["scope"] == "col" for head in page.select("thead th"))


def test_tables_of_several_rows_sort_and_scroll_in_their_own_box(page):
    tables = page.find_all("table")
    n_rows = [len(table.select("tbody tr")) for table in tables]

    assert ["sortable" in table.get("class", []) for table in tables] == [n > 1 for n in n_rows]
    assert all("table" in table.parent["class"] for table in tables)
    assert table_with(page, "excluded").find("td").get_text() == "no rows"
    assert "function sort(" in page.find("script").get_text()


def test_columns_of_numbers_stand_right(page):
    heads = {head.get_text(): head.get("class") for head in table_with(page, "reference").select("thead th")}

    assert [heads[name] for name in ("experiment", "p", "AUC")] == [None, ["number"], ["number"]]


def test_only_a_column_with_a_long_text_may_break_its_lines(folder):
    texts = pd.DataFrame({"policy": ["short", "word " * 20], "sha256": ["0123456789abcdef" * 4, "short"]})
    with pd.option_context("display.max_colwidth", None):
        page = read_page(folder, [output(texts)])

    assert [cell.get("class") for cell in page.select("td")] == [["long"], None] * 2


def test_hash_is_shown_by_its_first_digits(folder):
    page = read_page(folder, [output(pd.DataFrame({"commit": ["0123456789" * 4], "value": [np.nan]}))])

    cell, blank = page.select("td")

    assert (cell.get_text(), cell["title"]) == ("0123456789", "0123456789" * 4)
    assert blank.get_text() == ""


def test_printed_paths_into_the_folder_become_links(folder):
    lines = "../results/trial/runs/STL-s0/record.json\n../results/trial/runs/STL-s1/record.json\n"
    other = "../results/trial/runs/STL-s2/record.json\n../results/trial/runs/STL-s3/record.json\n"
    page = read_page(folder, [v4.new_output("stream", name="stdout", text=text) for text in (lines, other)])

    linked, plain = page.find_all("pre")

    assert [link["href"] for link in linked.find_all("a")] == ["runs/STL-s0/record.json", "runs/STL-s1/record.json"]
    assert plain.find("a") is None


def test_figure_says_what_it_shows(folder):
    figure = wide_figure()
    figure.alt = "AUC from 0.6 to 0.9."

    assert read_page(folder, [output(figure)]).select_one("figure img")["alt"] == "Figure 1: AUC from 0.6 to 0.9."


def test_heading_is_the_question_where_there_is_one(folder):
    nbformat.write(executed(["# A notebook"]), folder / "executed.ipynb")
    pages = [
        write_html(folder / "executed.ipynb", folder / "report.html", title="", heading=heading).read_text(
            encoding="utf-8"
        )
        for heading in ("Does it help?", "")
    ]

    assert [BeautifulSoup(text, "html.parser").h1.get_text() for text in pages] == ["Does it help?", "A notebook"]


def test_tags_keep_text_from_the_page_fold_sections_and_frame_the_answer(folder):
    notebook = executed(["# Q", "kept back", "told", "shown below", output("**Yes.**"), "## A", "in A", "## B", "in B"])
    tags = {1: "off-page", 2: "if-shown", 3: "if-shown", 4: "answer", 5: "collapsed"}
    for i, tag in tags.items():
        notebook.cells[i].metadata["tags"] = [tag]
    nbformat.write(notebook, folder / "executed.ipynb")
    text = write_html(folder / "executed.ipynb", folder / "report.html", title="").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")

    assert "kept back" not in page.get_text()
    assert "told" not in page.get_text()  # no code cell that shows something follows
    assert "shown below" in page.get_text()
    assert page.select_one(".answer").get_text().strip() == "Yes."
    assert page.select_one("details.section").get_text().split() == ["A", "in", "A"]


def test_every_table_downloads_as_csv_from_the_page_alone(page):
    link = table_with(page, "seed").find_parent("div").find_next("a", class_="csv")

    assert link["download"] == "second-part.csv"
    assert unquote(link["href"].partition(",")[2]).splitlines() == [
        "experiment,seed,auc",
        "STL,0,0.8",
        "STL,1,0.7",
        "STL,9,0.6",
    ]


def test_list_of_runs_leads_back_to_the_first_row_of_an_experiment(page):
    back = {link["href"]: page.find(id=link["href"][1:]) for link in page.select(".records a.back")}

    assert list(back) == ["#row-STL", "#row-ITW3"] or list(back) == ["#row-ITW3", "#row-STL"]
    assert back["#row-ITW3"].td.get_text() == "ITW3"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("# a: Does it help? Ten experiments.", "Does it help?"),
        ("# a-b.c: Does PFLP (0.1) help?\nstudy: x", "Does PFLP (0.1) help?"),
        ("# a: The study of all.", ""),
        ("study: x", ""),
    ],
)
def test_question_is_that_of_the_params_file(tmp_path, line, found):
    (tmp_path / "a.yaml").write_text(line, encoding="utf-8")

    assert question(tmp_path / "a.yaml") == found


@pytest.mark.parametrize("name", ["01_cohort", "03_comparison"])
def test_prose_of_a_notebook_that_becomes_a_report_has_no_formulas(name):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")

    assert not re.search(r"\$[^$\n]+\$|\\\(|\\\[|\\begin", prose)  # the page has no typesetter


def test_methods_say_the_numbers_of_the_records(runs):
    text = methods(runs)
    record = read_record(ROOT / "results" / STUDY / "runs" / "ITW3-s0")
    cross = " \u00d7 "
    config, counts, environment = record["config"], record["cohort"]["counts"], record["environment"]

    for split in ("train", "validation", "test"):
        scans = counts[split]["lung_cancer"]
        assert f"{scans['n'] + scans['unknown']} {split}" in text
    for task in record["tasks"]:
        cells = [f"{counts[split][task]['positives']} of {counts[split][task]['n']}" for split in counts]
        assert f"| {task_label(task)} | {' | '.join(cells)} |" in text
    for part in (
        f"({config['width']} channels",
        f"peak learning rate {config['learning_rate']}",
        f"weight decay {config['weight_decay']}",
        f"batches of {config['batch_size']} scans, {config['epochs']} epochs",
        f"epoch kept: {record['selection']['rule']}",
        f"counted from 1: {record['selection']['epoch'] + 1}",
        f"grid of {cross.join(map(str, config['shape']))} (z, y, x)",
        f"voxels of {cross.join(f'{size:g}' for size in config['spacing_mm'])} mm",
        f"phantom seed {config['phantom_seed']}",
        f"PFLP period {config['pflp_period']}; PFLP unit {config['pflp_unit']}",
        f"ITW start {config['itw_start']}; ITW factor {config['itw_factor']}",
        record["cohort"]["sha256"][:10],
        environment["commit"][:10],
        *(environment[name] for name in ("python", "torch", "numpy", "cpu")),
        f"threads: {environment['threads']}",
        f"precision: {environment['precision']}",
        f"{len(runs)} runs; seeds 0, 1, 2, 3, 4 of STL, MTL, MTL0",
        f"{runs[['seconds_prepare', 'seconds_train', 'seconds_evaluate']].sum().sum() / 3600:.2f} hours",
    ):
        assert part in text


def test_methods_span_the_counts_of_training_sets(runs):
    column = "cohort_counts_train_lung_cancer_positives"
    counts = runs[column].where(runs["seed"] > 0, 7)

    assert f"| lung cancer | 7 to {counts.max():.0f} of {runs['cohort_counts_train_lung_cancer_n'].iloc[0]} |" in (
        methods(runs.assign(**{column: counts}))
    )
    assert "| lung cancer | not recorded of" in methods(runs.drop(columns=column))


def in_words(runs):
    return methods(runs).replace("\u00a0", " ")  # weights stay on one line


def test_methods_show_what_tells_experiments_apart(runs):
    lines = in_words(runs).splitlines()

    assert "| experiment | policy | tasks |" in lines
    assert "| MTL0 | Periodic Focusing; weights 3 : 0.01 : 0.01 : 0.01 : 0.01 | all 5 |" in lines
    assert "| STL | single task; weight 3 | lung cancer |" in lines


def test_setting_of_a_policy_shows_only_where_an_experiment_has_it(runs):
    settings = runs["policy_settings"].copy()
    for i in runs.index[runs["experiment"] == "MTL3"]:
        settings[i] = settings[i] | {"PFLP": settings[i]["PFLP"] | {"period": 40, "shuffle_seed": i % 2}}

    lines = in_words(runs.assign(policy_settings=settings)).splitlines()

    focus = "Periodic Focusing in random order; weights 3 : 3 : 3 : 3 : 3"
    assert "| experiment | policy | tasks | PFLP period | PFLP shuffle seed |" in lines
    assert f"| MTL3 | {focus} | all 5 | 40 | 1 (3 runs), 0 (2 runs) |" in lines
    assert "| MTL | balanced weights; weights 3 : 3 : 3 : 3 : 3 | all 5 |  |  |" in lines


TRANSFER = {"start": 0.55, "factor": 0.01, "central": "lung_cancer", "restart": False}
WEIGHTS = {"BW": {"weights": [3, 1, 1, 1, 1]}}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (WEIGHTS, "fixed weights"),
        ({"BW": {"weights": [3, 3, 3, 3, 3]}}, "balanced weights"),
        ({"PFLP": {"period": 20}} | WEIGHTS, "Periodic Focusing"),
        ({"ITW": TRANSFER} | WEIGHTS, "fixed weights, then Internal-Transfer Weighting from 55 % of the steps"),
        (
            {"ITW": TRANSFER, "PFLP": {"period": 20}} | WEIGHTS,
            "Periodic Focusing, then Internal-Transfer Weighting from 55 % of the steps",
        ),
        (
            {"ITW": TRANSFER | {"start": 0.0}} | WEIGHTS,
            "Internal-Transfer Weighting from the first step instead of fixed weights",
        ),
        (
            {"PFLP": {"keep_mean": True, "unit": "epoch", "shuffle_seed": 0, "factor": 0.0}} | WEIGHTS,
            "Periodic Focusing with the mean weight kept by the epoch in random order with the other weights \u00d7 0",
        ),
        (
            {"PFLP": {"keep_mean": False, "unit": "step", "shuffle_seed": None, "factor": 0.1}} | WEIGHTS,
            "Periodic Focusing",
        ),
        (
            {"ITW": TRANSFER | {"factor": 0.0, "restart": True}} | WEIGHTS,
            "fixed weights, then Internal-Transfer Weighting (auxiliary weights \u00d7 0, fresh optimiser) "
            "from 55 % of the steps",
        ),
        (
            {"ITW": TRANSFER, "PFLP": {"period": 20}, "Sum": {"weights": [3, 1, 1, 1, 1]}},
            "Periodic Focusing over Sum, then Internal-Transfer Weighting from 55 % of the steps",
        ),
        (
            {"ITW": TRANSFER, "Alone": {}} | WEIGHTS,
            "the central task alone in fixed weights, then Internal-Transfer Weighting from 55 % of the steps",
        ),
        ({"Loud": {"gain": 2.0, "tasks": ["a", "b"], "map": {"a": 1}}} | WEIGHTS, None),
        ({"Sum": {}} | WEIGHTS, "Sum over fixed weights"),
        ({"PFLP": {}, "RLW": {"seed": True} | WEIGHTS["BW"]}, "Periodic Focusing over RLW"),
    ],
)
def test_every_experiment_has_its_policy_in_words(runs, settings, words):
    changed = runs["policy_settings"].mask(runs["experiment"] == "ITW3", pd.Series([settings] * len(runs)))

    text = in_words(runs.assign(policy_settings=changed))

    words = words or "Loud (gain 2, tasks a, b, map {'a': 1}) over fixed weights"
    weights = "3 : 3 : 3 : 3 : 3" if words == "balanced weights" else "3 : 1 : 1 : 1 : 1"
    assert f"| ITW3 | {words}; weights {weights} | all 5 |" in text


def test_labels_and_batches_are_told_where_experiments_differ_in_them(runs):
    labels = runs["experiment"].map(lambda name: "all" if name == "STL" else "disjoint")
    arms = runs.assign(config_labels=labels, config_sampler="natural")
    ends = {name: text.rpartition("; ")[2] for name, text in policies(arms).items()}
    assert (ends["STL"], ends["ITW3"]) == ("labels all", "labels disjoint")
    assert not any("labels" in text for text in policies(runs).values())


def test_policy_without_weights_of_its_own_shows_those_of_the_experiment(runs):
    text = in_words(runs.assign(policy_settings=[{"Own": {}}] * len(runs)))

    assert "| MTL2 | Own; weights 3 : 1 : 1 : 1 : 1 | all 5 |" in text


def test_experiment_that_differs_from_no_other_has_its_policy_alone(runs):
    lines = in_words(runs[runs["experiment"] == "STL"]).splitlines()

    assert lines[lines.index("| experiment | policy |") :][:3] == [
        "| experiment | policy |",
        "|---|---|",
        "| STL | single task; weight 3 |",
    ]


def test_methods_say_what_old_records_lack_and_where_runs_differ(runs):
    machines = ["bf16"] * 40 + ["fp32"] * 10
    lacking = ["config_width", "cohort_counts_test_lung_cancer_unknown", "cohort_counts_test_asthma_n"]
    text = methods(runs.drop(columns=lacking).assign(environment_precision=machines))

    assert "(not recorded channels" in text
    assert "160 validation, not recorded test" in text
    assert "210 of not recorded" in text
    assert "precision: bf16 (40 runs), fp32 (10 runs)" in text
    assert "nan" not in text.lower()


def test_methods_name_no_path_of_a_cohort(runs):
    text = methods(runs.assign(config_cohort=str(Path("somewhere").absolute() / "cohort.csv")))

    assert "chest CTs of a cohort table: 640 train" in text
    assert "somewhere" not in text
    assert "phantom" not in text


def test_protocol_shows_one_study_below_the_page_headings():
    text = protocol(PROTOCOL, STUDY)

    assert re.findall(r"^#+ .*", text, flags=re.MULTILINE) == [
        "### phantom-full, third",
        "### phantom-full",
        "#### Family",
    ]
    assert "For every study." in text
    assert "other" not in text
    assert "- seeds: 0, 1, 2, 3, 4\n" in text


def test_runs_as_planned_show_no_deviation(runs):
    text = deviations(PROTOCOL, runs, references=["STL", "MTL"], margin=0.02)

    assert text.startswith("None found in 50 runs")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (lambda runs: runs[runs["run"] != "ITW3-s4"], "- Planned and missing: ITW3-s4."),
        (lambda runs: runs.replace({"experiment": {"MTL4": "MTL9"}}), "Not planned: MTL9-s0, MTL9-s1"),
        (lambda runs: runs.assign(selection_rule="best_auc"), "- `selection` is best_auc in 50 runs, planned last."),
        (lambda runs: runs.assign(tasks=[["copd"]] * 50), "- `task` is copd in 50 runs, planned lung_cancer."),
        (lambda runs: runs.assign(environment_dirty=[True] * 3 + [False] * 47), "- 3 runs were computed with unc"),
        (lambda runs: runs.assign(environment_commit="unknown"), "- The commit of 50 runs is unknown."),
        (
            lambda runs: runs.assign(environment_commit=["a"] * 45 + ["b"] * 5),
            "different commits: a (45 runs), b (5 runs).",
        ),
        (lambda runs: runs.assign(environment_gpu=["", "T4"] * 25), "- The runs come from different GPUs: none (25 r"),
        (
            lambda runs: runs.assign(environment_precision=["fp32", "bf16"] * 25),
            "- The runs come from different precisions: fp32",
        ),
    ],
)
def test_deviation_of_the_runs_is_found(runs, changed, expected):
    text = deviations(PROTOCOL, changed(runs))

    assert expected in text
    assert all(line.startswith("- ") for line in text.splitlines())


def test_deviation_of_the_comparison_and_a_late_protocol_are_found(runs):
    late = PROTOCOL.replace("before results", "after results")

    assert deviations(late, runs, references=["STL"], margin=0.05).splitlines() == [
        "- The protocol was written after results.",
        "- `references` is STL in the comparison, planned STL, MTL.",
        "- `margin` is 0.05 in the comparison, planned 0.02.",
    ]


def test_study_without_a_protocol_is_said_to_have_none(runs):
    unplanned = runs.assign(study="trial")

    assert "does not name the study `trial`" in deviations(PROTOCOL, unplanned)
    assert protocol(PROTOCOL, "trial") == deviations(PROTOCOL, unplanned)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Protocol\n", r"must begin with YAML"),
        ("---\nstudies: [a]\n---\n", r"`studies` of a protocol must map names of studies"),
        ("---\nstudies: {a: {sedes: [1]}}\n---\n", r"Found sedes\."),
    ],
)
def test_file_that_is_no_protocol_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        protocol(text, "a")


@pytest.mark.parametrize("width_px", [PHONE_PX, DESKTOP_PX])
def test_page_fits_the_screen_and_asks_no_host(browser, report_path, width_px):
    browser.requested.clear()

    browser.open(report_path, width_px=width_px)
    pixels = plt.imread(io.BytesIO(browser.picture()))

    assert browser.value("document.documentElement.scrollWidth") <= width_px
    assert browser.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert browser.value("[...document.images].every(image => image.offsetWidth <= image.parentElement.clientWidth)")
    assert pixels.shape[1] == width_px
    assert 0 < (pixels[..., :3].mean(axis=-1) < 0.5).mean() < 0.5  # dark words on light paper
    assert [address for address in browser.requested if not address.startswith("data:")] == [report_path.as_uri()]


def test_wide_table_and_full_figure_scroll_in_their_own_box_on_a_phone(browser, report_path):
    browser.open(report_path, width_px=PHONE_PX)

    browser.value("document.querySelector('figure img').click()")
    scrolling = "[...document.querySelectorAll('.table, figure')].map(box => box.scrollWidth > box.clientWidth)"

    assert browser.value(scrolling)[:2] == [True, True]
    assert browser.value("document.documentElement.scrollWidth") <= PHONE_PX


def test_click_on_a_head_sorts_up_down_and_back(browser, folder):
    values = ["0.86 [0.82, 0.89]", "", "-0.1", "1e-3", "10", "9.5 %"]
    frame = pd.DataFrame({"policy": ["B2", "B10", "a", "", "C", "D"], "value": values})
    browser.open(write_page(folder, [output(frame)]), width_px=DESKTOP_PX)
    column = "[...document.querySelectorAll('tbody tr')].map(row => row.cells[{}].textContent.trim())"
    states = "[...document.querySelectorAll('th')].map(head => head.getAttribute('aria-sort'))"

    seen = []
    for _ in range(3):
        browser.value("document.querySelectorAll('th button')[1].click()")
        seen.append((browser.value(column.format(1)), browser.value(states)[1]))
    browser.value("document.querySelectorAll('th button')[0].click()")

    assert seen == [
        (["-0.1", "1e-3", "0.86 [0.82, 0.89]", "9.5 %", "10", ""], "ascending"),
        (["10", "9.5 %", "0.86 [0.82, 0.89]", "1e-3", "-0.1", ""], "descending"),
        (values, "none"),
    ]
    assert browser.value(column.format(0)) == ["a", "B2", "B10", "C", "D", ""]
    assert browser.value(states) == ["ascending", "none"]


def test_heads_can_be_reached_and_pressed_by_the_keyboard(browser, report_path):
    browser.open(report_path, width_px=DESKTOP_PX)

    browser.value("document.querySelector('th button').focus()")
    enter = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, **enter)

    assert browser.value("document.activeElement.parentElement.getAttribute('aria-sort')") == "ascending"


OVERFLOWING = """[...document.querySelectorAll('{}')].filter(box => box.scrollWidth > box.clientWidth)
    .map(box => box.getAttribute('aria-label'))"""
CUT = """[...document.querySelectorAll('table.stacked td')]
    .filter(cell => /settled|higher|lower|equivalent/.test(cell.textContent))
    .filter(cell => {{ const box = cell.getBoundingClientRect(); return box.left < 0 || box.right > {} }}).length"""
SMALL = """[...document.querySelectorAll('th button, summary, nav a, .records a, a.csv, a.name, pre a')]
    .map(tag => tag.getBoundingClientRect()).filter(box => box.height && Math.min(box.height, box.width) < 24).length"""


def report_of(study):
    return ROOT / "results" / study / "report.html"


@pytest.mark.parametrize("study", ["confirm-related", "phantom-full", "sensitivity"])
def test_committed_report_shows_answer_and_forest_first_and_every_table_whole(browser, study):
    browser.open(report_of(study), width_px=WIDE_PX)
    browser.value("document.querySelectorAll('details').forEach(box => { box.open = false })")
    places = "['.answer', 'figure img'].map(name => document.querySelector(name).getBoundingClientRect())"
    answer, forest = browser.value(f"{places}.map(box => [box.top, box.bottom])")

    assert answer[1] < 450  # all of the answer, and the upper half of the forest plot, on 900 lines
    assert forest[0] < 700
    browser.unfold()
    assert browser.value(OVERFLOWING.format(".table")) == []
    assert browser.value("document.documentElement.scrollWidth") <= WIDE_PX


def test_committed_report_keeps_its_verdicts_on_a_phone(browser):
    browser.open(report_of(STUDY), width_px=PHONE_PX)

    assert browser.value("document.querySelectorAll('table.stacked').length") >= 2
    assert browser.value(OVERFLOWING.format(".table:has(table.stacked)")) == []
    assert browser.value(CUT.format(PHONE_PX)) == 0
    assert browser.value("document.documentElement.scrollWidth") <= PHONE_PX
    browser.unfold()
    assert browser.value(SMALL) == 0


def test_committed_report_fits_the_paper(browser):
    browser.open(report_of(STUDY), width_px=PAPER_PX, media="print")
    browser.unfold()

    assert browser.value("document.querySelector('figure').getBoundingClientRect().bottom") <= PAGE_PX
    rights = "[...document.querySelectorAll('main table, main figure')].map(tag => tag.getBoundingClientRect().right)"
    assert max(browser.value(rights)) <= PAPER_PX
    assert set(
        browser.value("[...document.querySelectorAll('td')].map(cell => getComputedStyle(cell).overflowWrap)")
    ) == {"normal"}


def test_link_into_a_folded_section_opens_it(browser, report_path):
    browser.open(report_path, width_px=DESKTOP_PX)
    browser.value("document.querySelector('a[href=\"#runs-STL\"]').click()")
    time.sleep(0.1)

    assert browser.value("document.getElementById('runs-STL').closest('details').open")


def test_page_prints_without_a_cut(browser, report_path):
    browser.open(report_path, width_px=PAPER_PX, media="print")
    boxes = "[...document.querySelectorAll('main *')].map(tag => tag.getBoundingClientRect().right)"
    clipped = "[...document.querySelectorAll('.table, figure, pre')].map(tag => getComputedStyle(tag).overflowX)"

    size = {"paperWidth": 8.27, "paperHeight": 11.69}
    pdf = base64.b64decode(browser.call("Page.printToPDF", **size)["data"])

    assert max(browser.value(boxes)) <= PAPER_PX
    assert set(browser.value(clipped)) == {"visible"}
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 0
