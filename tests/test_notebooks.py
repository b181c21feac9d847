"""Every notebook, found by glob, is stored clean and short, and no tracked file names a folder of one machine."""

import ast
import re
import subprocess
from pathlib import Path

import nbformat
import papermill
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_CODE_LINES = 15
MAX_DEF_LINES = 5
FORBIDDEN = ("!pip", "%pip", "sys.path", "%autoreload", "%load_ext", "os.chdir", "%cd")
CHECKED = "nbval-check-output"
# folders of one machine at the start of a path, and Windows drives; a relative path or a URL is neither
MACHINE_PATH = re.compile(r"""(?<![\w.\-/})~])/(home|root|Users|work|data|mnt|scratch|tmp)/|(?<!\w)[A-Za-z]:\\\w""")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str = "code") -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def code(cell: nbformat.NotebookNode) -> ast.Module:
    return ast.parse(cell.source)


def nodes(path: Path, *kinds: type[ast.AST]) -> list[ast.AST]:
    return [node for cell in cells(path) for node in ast.walk(code(cell)) if isinstance(node, kinds)]


def text_files() -> list[Path]:
    """Files that git tracks or would track, without those that are no text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_notebooks_are_found():
    assert NOTEBOOKS


@each_notebook
def test_notebook_is_valid_and_its_cells_have_ids(path):
    notebook = nbformat.read(path, as_version=4)

    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"


@each_notebook
def test_only_checked_cells_store_outputs_and_counts(path):
    stored = [cell for cell in cells(path) if cell.outputs or cell.execution_count is not None]

    assert [cell.source for cell in stored if CHECKED not in tags(cell)] == []


@each_notebook
def test_checked_cells_store_printed_text_and_a_count(path):
    checked = [cell for cell in cells(path) if CHECKED in tags(cell)]

    assert [cell.source for cell in checked if not cell.outputs or cell.execution_count is None] == []
    assert {output.output_type for cell in checked for output in cell.outputs} <= {"stream"}


@each_notebook
def test_notebook_opens_with_its_title(path):
    first = nbformat.read(path, as_version=4).cells[0]

    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")


@each_notebook
def test_parameters_are_one_cell_of_commented_literals(path):
    tagged = [cell for cell in cells(path) if "parameters" in tags(cell)]
    assert len(tagged) == 1

    body = code(tagged[0]).body
    lines = tagged[0].source.splitlines()

    assert all(isinstance(node, ast.Assign) and len(node.targets) == 1 for node in body)
    assert [ast.literal_eval(node.value) for node in body]  # raises on anything but a literal
    assert [lines[node.lineno - 1] for node in body if "  # " not in lines[node.lineno - 1]] == []


@each_notebook
def test_papermill_finds_every_parameter(path):
    tagged = next(cell for cell in cells(path) if "parameters" in tags(cell))

    assert list(papermill.inspect_notebook(str(path))) == [node.targets[0].id for node in code(tagged).body]


@each_notebook
def test_imports_stand_in_the_first_code_cell_alone(path):
    later = [node for cell in cells(path)[1:] for node in ast.walk(code(cell))]

    assert [ast.unparse(node) for node in later if isinstance(node, ast.Import | ast.ImportFrom)] == []


@each_notebook
def test_code_cells_are_short(path):
    lines = {cell.source: len([line for line in cell.source.splitlines() if line.strip()]) for cell in cells(path)}
    allowed = [cell.source for cell in cells(path) if "parameters" in tags(cell)]  # one line per field

    assert [source for source, n_lines in lines.items() if n_lines > MAX_CODE_LINES and source not in allowed] == []


@each_notebook
def test_nothing_long_is_defined_in_a_notebook(path):
    functions = nodes(path, ast.FunctionDef, ast.AsyncFunctionDef)

    assert nodes(path, ast.ClassDef) == []
    assert [node.name for node in functions if node.end_lineno - node.lineno + 1 > MAX_DEF_LINES] == []


@each_notebook
def test_notebook_leaves_the_environment_alone(path):
    sources = "\n".join(cell.source for cell in cells(path))

    assert [word for word in FORBIDDEN if word in sources] == []


@each_notebook
def test_code_is_explained_before_it_runs(path):
    kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
    runs = max(len(run) for run in re.findall("c+", "".join("c" if kind == "code" else "m" for kind in kinds)))

    assert runs <= 3  # imports, parameters and config may stand together


def test_no_tracked_file_names_a_folder_of_one_machine():
    found = {
        path.relative_to(ROOT).as_posix(): match.group()
        for path in text_files()
        for match in MACHINE_PATH.finditer(path.read_text(encoding="utf-8", errors="ignore"))
    }

    assert found == {}


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work", "data", "mnt", "scratch", "tmp"])
@pytest.mark.parametrize("before", ['"', "'", "=", " ", ":", ""])
def test_machine_path_is_recognised(before, folder):
    assert MACHINE_PATH.search(f"{before}/{folder}/x")


def test_windows_path_is_recognised():
    assert MACHINE_PATH.search("open('C:" + "\\Users')")


@pytest.mark.parametrize("text", ["../data/a", "tests/data/a", "https://idc.org/data/a", "{root}/data/", "a/work/b"])
def test_relative_path_is_no_machine_path(text):
    assert not MACHINE_PATH.search(text)
