"""Code keys: a hash of the code that an entry can execute, from the syntax trees of all definitions that it reaches.

The unit is a top-level definition of a module (function, class, constant), so a new module or a change in a function
that the entry does not reach leaves the key unchanged; comments, docstrings and layout never count. A name that is
looked up at run time in one of the `LOOKUPS` is an entry of its own, which the caller adds. Versions of libraries are
not part of a key; a run's record names them.
"""

import ast
import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lungmtl.files import PROJECT, existing

LOOKUPS = (("lungmtl.policies.catalogue", "POLICIES"), ("lungmtl.network.settings", "NETWORKS"))
KEY_LENGTH = 16


class Place(NamedTuple):
    """A definition in a module of the package; without a name, the whole module."""

    module: str
    name: str = ""


def key(*parts: str) -> str:
    """Hash of texts, `KEY_LENGTH` hex digits."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


@functools.cache
def code_key(*entries: Place, without: tuple[str, ...] = ()) -> str:
    """Hash of the code of all definitions that the entries reach.

    Args:
        entries: Where execution begins.
        without: Prefixes of dotted module names that are not followed.
    Raises:
        ValueError: If an entry does not exist.
    """
    reached = _reached(list(entries), without)
    return key(*(part for place in sorted(reached) for part in (*place, _module(place.module).code(place.name))))


def notebook_key(notebook: Path, *entries: Place, without: tuple[str, ...] = ()) -> str:
    """`code_key` of what a notebook's cells and the other entries reach, and of the cells without the parameters.

    Raises:
        FileNotFoundError: If the notebook does not exist.
    """
    text = existing(notebook, "A study's notebook").read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    cells = ["".join(cell["source"]) for cell in cells if "parameters" not in cell["metadata"].get("tags", [])]
    return _cells_key("\n".join(cells), entries, without)


@functools.cache
def _cells_key(source: str, entries: tuple[Place, ...], without: tuple[str, ...]) -> str:
    used = _Module("", _parsed(source))
    found = {place for node in used.tree.body for place in used.references(node) if place.module}
    return key(bare(source), code_key(*sorted(found), *entries, without=without))


def bare(source: str) -> str:
    """Source without comments, docstrings and layout."""
    return ast.dump(_parsed(source))


def _parsed(source: str) -> ast.Module:
    """Syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return tree


def _reached(waiting: list[Place], without: tuple[str, ...]) -> set[Place]:
    reached: set[Place] = set()
    while waiting:
        place = waiting.pop()
        if place in reached or place in LOOKUPS or place.module.startswith(without or ("-",)):
            continue
        reached.add(place)
        module = _module(place.module)
        names = [place.name] if place.name else list(module.definitions)
        if place.name and place.name not in module.definitions:
            raise ValueError(f"An entry of a key must be in the package. Found {place.name} in {place.module}.")
        waiting += [found for name in names for node in module.definitions[name] for found in module.references(node)]
        waiting += [found for node in module.loose for found in module.references(node)]
    return reached


class _Module:
    """Definitions and imports of one file; `loose` statements are neither, and run when the module is imported."""

    def __init__(self, name: str, tree: ast.Module) -> None:
        self.name, self.tree = name, tree
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.imported = {name: place for node in ast.walk(tree) for name, place in _imports(node)}
        self.loose: list[ast.stmt] = []
        for node in tree.body:
            names = list(_defined(node))
            for one in names:
                self.definitions.setdefault(one, []).append(node)
            if not names and not isinstance(node, ast.Import | ast.ImportFrom) and not _is_text(node):
                self.loose.append(node)

    def code(self, name: str) -> str:
        """Bare code of a definition, or of the whole module, with what runs at its import."""
        nodes = self.definitions[name] if name else self.tree.body
        return "\n".join(map(ast.dump, [*nodes, *self.loose]))

    @functools.cache  # noqa: B019, modules live as long as the process
    def references(self, node: ast.AST) -> frozenset[Place]:
        """Definitions of the package that a statement refers to."""
        parts = list(ast.walk(node))
        dotted = [self._dotted(part) for part in parts if isinstance(part, ast.Attribute)]
        named = [self._named(part.id) for part in parts if isinstance(part, ast.Name)]
        return frozenset([*filter(None, dotted), *(place for place in named if place and place.name)])

    def _named(self, name: str) -> Place | None:
        if name in self.definitions:
            return Place(self.name, name)
        return _home(self.imported[name]) if name in self.imported else None

    def _dotted(self, node: ast.Attribute) -> Place | None:
        place = self._named(node.value.id) if isinstance(node.value, ast.Name) else None
        return _home(Place(place.module, node.attr)) if place and not place.name else None


@functools.cache
def _home(place: Place) -> Place | None:
    """Where a module's name is defined: there or in a module that it imports from; or the name is a submodule."""
    inner = f"{place.module}.{place.name}"
    if _file(inner):
        return Place(inner)
    if not _file(place.module):
        return None
    module = _module(place.module)
    if place.name in _offered(module):
        home, is_module = _offered(module)[place.name]
        return Place(home) if is_module else _home(Place(home, place.name))
    if place.name in module.definitions:
        return place
    return _home(module.imported[place.name]) if place.name in module.imported else None


@functools.cache
def _offered(module: _Module) -> dict[str, tuple[str, bool]]:
    """Names of a room's `exports`: the module that defines each, and whether the name is that module itself."""
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    rooms = [call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "exports"]
    items = [(file.value, node) for room in rooms for file, node in zip(room.keys, room.values, strict=True) if file]
    names = [(file, part.value) for file, node in items for part in ast.walk(node) if isinstance(part, ast.Constant)]
    return {name: (f"{module.name}.{file}", name == file) for file, name in names}


def _imports(node: ast.AST) -> Iterable[tuple[str, Place]]:
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lungmtl":
        return [(alias.asname or alias.name, Place(node.module, alias.name)) for alias in node.names]
    return []


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets: Sequence[ast.expr] = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@functools.cache
def _file(module: str) -> Path | None:
    path = PROJECT.joinpath(*module.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found and module.split(".")[0] == "lungmtl" else None


@functools.cache
def _module(name: str) -> _Module:
    file = _file(name)
    if file is None:
        raise ValueError(f"An entry of a key must be in the package. Found {name}.")
    return _Module(name, _parsed(file.read_text(encoding="utf-8")))
