"""Rooms import only what their layer knows, offer their names in one place, and do no work when they are imported."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lungmtl"
FILES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = sorted([*ROOT.glob("benchmarks/*.py"), ROOT / "workflow" / "Snakefile"])
MAX_LINES = 300

# room, or module without a room -> those of the package that it may import; all may use `lazy`
LAYERS = {
    "lazy": set(),
    "files": set(),
    "keys": {"files"},
    "workers": set(),
    "experiments": set(),
    "tables": {"files"},
    "words": set(),
    "policies": set(),
    "evidence": set(),
    "network": {"files", "policies"},
    "data": {"experiments", "files", "keys", "tables", "words", "workers"},
    "when": {"evidence", "experiments", "files", "keys", "network", "policies", "tables", "workers"},
    "sources": {"data", "experiments", "files", "tables", "words", "workers"},
    "comparison": {"evidence", "experiments", "words"},
    "figures": {"experiments", "words"},
    "report": {"experiments", "files", "tables", "words"},
    "study": {
        *("files", "keys", "experiments", "policies", "network", "data", "sources", "evidence", "comparison", "report"),
        *("tables", "words"),
    },
    "commands": {"comparison", "data", "experiments", "files", "report", "sources", "study", "tables", "when", "words"},
    "cli": {"study"},
    "__init__": set(),
    "__main__": {"cli"},
}
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
WITH_TORCH = tuple(f"policies/{name}.py" for name in ("ahead", "borrowed", "gramians"))  # imported on request alone
WITHOUT_TORCH = (
    *("policies", "evidence", "comparison", "figures", "report", "commands", "files", "keys", "lazy", "tables"),
)
MODULE_LEVEL = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
each_room = pytest.mark.parametrize("room", ROOMS)


def room_of(path: Path) -> str:
    """Room of a file, or the module's own name where it has none."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
    return names


def own(path: Path) -> set[tuple[str, ...]]:
    """Parts of the names of the package that a file imports, `lungmtl` left out."""
    return {tuple(name.split(".")[1:]) for name in imports(path) if name.startswith("lungmtl.")}


def top_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def is_docstring_or_main(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'")


def test_every_room_has_its_layer():
    assert {room_of(path) for path in FILES} == set(LAYERS)
    assert set(ROOMS) == {room_of(path) for path in FILES if path.parent != PACKAGE}


@each_file
def test_a_room_imports_only_what_its_layer_knows(path):
    others = {name[0] for name in own(path)} - {room_of(path), "lazy", "__version__"}
    assert others <= LAYERS[room_of(path)]


@each_file
def test_nobody_reaches_past_what_a_room_offers(path):
    for room, *rest in own(path):
        if room in ROOMS and room != room_of(path) and room != "commands":
            offered = importlib.import_module(f"lungmtl.{room}").__all__
            assert len(rest) <= 1, f"{room}.{'.'.join(rest)} is inside the room"
            assert set(rest) <= set(offered)


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_use_what_rooms_offer(path):
    text = path.read_text(encoding="utf-8")
    for room in set(ROOMS) - {"commands"}:
        offered = set(importlib.import_module(f"lungmtl.{room}").__all__)
        if re.search(rf"from lungmtl import [^\"]*\b{room}\b", text):
            assert set(re.findall(rf"(?<![\w./]){room}\.([A-Za-z]\w*)", text)) <= offered
        for names in re.findall(rf"from lungmtl\.{room} import ([^\"\\]+)", text):
            assert {name.strip() for name in names.split(",")} <= offered


@pytest.mark.parametrize("room", sorted(set(ROOMS) - {"commands"}))
def test_every_name_that_a_room_offers_is_there(room):
    module = importlib.import_module(f"lungmtl.{room}")
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []
    with pytest.raises(AttributeError, match=f"lungmtl.{room} has no nothing"):
        module.nothing  # noqa: B018


@each_file
def test_imports_are_absolute(path):
    assert not [name for name in imports(path) if name.startswith(".")]


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != "__main__"], ids=str)
def test_importing_does_no_work(path):
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    working = [node for node in statements if not isinstance(node, MODULE_LEVEL) and not is_docstring_or_main(node)]
    assert [ast.unparse(node) for node in working] == []


@each_file
def test_these_rooms_work_without_torch(path):
    if room_of(path) in WITHOUT_TORCH and path.relative_to(PACKAGE).as_posix() not in WITH_TORCH:
        assert "torch" not in top_packages(path)


def test_papermill_is_imported_in_one_place_alone():
    found = [path.relative_to(PACKAGE).as_posix() for path in FILES if "papermill" in top_packages(path)]
    assert found == ["study/execute.py"]


def test_the_workflow_imports_the_plan_alone():
    text = (ROOT / "workflow" / "Snakefile").read_text(encoding="utf-8")
    assert re.findall(r"^(?:from|import) (lungmtl.*)$", text, re.MULTILINE) == ["lungmtl.study import plan"]


@pytest.mark.parametrize("module", ["lungmtl.study.plan", "lungmtl.cli", "lungmtl.commands.study"])
def test_the_way_to_the_work_is_short(module):
    command = [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"]
    loaded = set(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.split())
    assert not {"torch", "papermill", "snakemake", "matplotlib", "pandas", "SimpleITK", "scipy"} & loaded


@each_file
def test_a_file_has_one_subject_and_few_lines(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", [*FILES, *PROGRAMS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_file_opens_with_a_docstring_of_one_sentence(path):
    text = path.read_text(encoding="utf-8")
    found = re.match(r'"""(.*)', text)
    assert found
    assert found[1].partition('"""')[0].endswith(".")


@pytest.mark.parametrize("folder", ["lungmtl", "benchmarks", "tests"])
def test_texts_are_read_and_written_as_utf_8_whatever_the_locale(folder):
    calls = [
        (path, node)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    texts = [(path, node) for path, node in calls if node.func.attr in ("read_text", "write_text")]
    assert texts
    unsaid = [(path.name, node.lineno) for path, node in texts if "encoding" not in {key.arg for key in node.keywords}]
    assert not unsaid


def test_a_constant_has_one_meaning():
    """No two modules give one name to different constants, or the same constant twice."""
    homes: dict[str, list[str]] = {}
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for name in (target.id for target in targets if isinstance(target, ast.Name) and target.id.isupper()):
                homes.setdefault(name, []).append(path.relative_to(PACKAGE).as_posix())
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}
