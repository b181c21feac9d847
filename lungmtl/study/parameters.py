"""Parameters of notebooks: names that a notebook assigns, and injected names that it does not know."""

import ast
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INJECTED = "# Parameters"  # first line of the cell that papermill adds


def parameter_names(notebook: Path) -> set[str]:
    """Names assigned in the parameters cell; papermill's own reader skips lines with "=" in their comment."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return _assigned("".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", []))


def check_injected(namespace: Mapping[str, Any]) -> None:
    """Refuse injected parameters that no other executed cell assigns, about which papermill only warns.

    Args:
        namespace: Names of the notebook, `globals()`; its `In` holds the sources of the cells executed so far.
    Raises:
        ValueError: If there are any; it names them.
    """
    executed = namespace.get("In", ())
    known = _assigned(source for source in executed if not source.lstrip().startswith(INJECTED))
    injected = _assigned(source for source in executed if source.lstrip().startswith(INJECTED))
    refuse_unknown(injected, known, "the notebook")


def refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise a ValueError that lists the unknown names, if there are any."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(
            f"A parameter must be in the parameters cell of the notebook. Found {', '.join(unknown)}, unknown to "
            f"{where}."
        )


def _assigned(sources: Iterable[str]) -> set[str]:
    nodes = [node for source in sources for node in _statements(source) if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError:  # an IPython magic or shell command, which assigns no parameter
        return []
