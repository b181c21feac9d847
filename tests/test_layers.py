"""Modules import only what their layer knows, and importing them does no work."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {path.stem: path for path in sorted((ROOT / "lungmtl").glob("*.py")) if path.stem != "__init__"}
PROGRAMS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("workflow/*.py")])

# module -> modules of the package that it may import; `config` for its constants, but for study and cli
LAYERS = {
    "config": set(),
    "dicom": set(),
    "reading": {"dicom"},
    "volumes": {"reading"},
    "phantom": {"config", "volumes"},
    "cohort": {"config", "volumes"},
    "nlst": {"config", "volumes"},
    "checks": {"cohort", "config", "reading", "volumes"},
    "report": {"records"},
    "model": set(),
    "policies": set(),
    "train": {"model", "policies"},
    "metrics": set(),
    "tables": {"metrics"},
    "figures": set(),
    "records": {"config"},
    "study": {"config", "records", "report"},
    "cli": set(MODULES) - {"cli", "__main__"},
    "__main__": {"cli"},
}
WITHOUT_TORCH = ("config", "policies", "metrics", "report", "tables", "figures")
RUNCONFIG_READERS = ("config", "study", "cli")
MODULE_LEVEL = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.FunctionDef, ast.ClassDef)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module}.{alias.name}" for alias in node.names}
    return names


def own_modules(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("lungmtl.")} & set(MODULES)


def top_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def is_docstring_or_main(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'")


def test_every_module_has_its_layer():
    assert set(MODULES) <= set(LAYERS)


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_what_its_layer_knows(module):
    assert own_modules(MODULES[module]) <= LAYERS[module]


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_absolute(module):
    assert not [name for name in imports(MODULES[module]) if name.startswith(".")]


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__main__"}))
def test_importing_does_no_work(module):
    statements = ast.parse(MODULES[module].read_text(encoding="utf-8")).body

    working = [node for node in statements if not isinstance(node, MODULE_LEVEL) and not is_docstring_or_main(node)]

    assert [ast.unparse(node) for node in working] == []


@pytest.mark.parametrize("module", sorted(set(WITHOUT_TORCH) & set(MODULES)))
def test_policies_and_metrics_work_without_torch(module):
    assert "torch" not in top_packages(MODULES[module])


def test_papermill_is_imported_by_study_alone():
    assert [name for name, path in MODULES.items() if "papermill" in top_packages(path)] == ["study"]


def test_config_stops_at_the_notebook():
    readers = [name for name, path in MODULES.items() if "RunConfig" in path.read_text(encoding="utf-8")]

    assert set(readers) <= set(RUNCONFIG_READERS)


@pytest.mark.parametrize("path", [*MODULES.values(), *PROGRAMS], ids=lambda path: path.name)
def test_python_file_opens_with_a_docstring_of_one_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""

    assert docstring.partition("\n")[0].endswith(".")
