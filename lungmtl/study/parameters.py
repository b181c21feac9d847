"""Parameters of notebooks: the names that a cell assigns, and injected ones that a notebook does not have."""

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INJECTED = "# Parameters"  # how papermill begins the cell that it adds


def parameter_names(notebook: Path) -> set[str]:
    """Names assigned in the parameters cell; papermill's own reader passes over lines with "=" in their comment."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _assigned("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))


def check_injected(namespace: Mapping[str, Any]) -> None:
    """Refuse parameters that a hand-started papermill injected and no cell before has; papermill only warns.

    Args:
        namespace: Names of the notebook, `globals()`; its `In` holds the sources of the cells executed so far.
    Raises:
        ValueError: Naming them.
    """
    executed = namespace.get("In", ())
    known = _assigned(source for source in executed if not source.lstrip().startswith(INJECTED))
    injected = _assigned(source for source in executed if source.lstrip().startswith(INJECTED))
    refuse_unknown(injected, known, "the notebook")


def refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a ValueError that lists the names which are not known."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"A parameter must stand in the parameters cell of the notebook. Found {', '.join(unknown)}, unknown to "
            f"{where}."
        )


def _assigned(sources: Iterable[str]) -> set[str]:
    nodes = [node for source in sources for node in _statements(source) if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:  # a magic or a command line, which assigns no parameter
        return []
