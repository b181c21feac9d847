"""Lazy rooms: a module is imported when one of its names is first used (PEP 562)."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exports(room: str, modules: Mapping[str, Sequence[str]]) -> tuple[Callable[[str], Any], Callable, list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a room.

    Args:
        room: Its dotted name.
        modules: Module of the room to its public names; the module's own name is the module itself.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        """Import the module of a name and return the name; AttributeError if the room does not export it."""
        if name not in homes:
            raise AttributeError(f"{room} has no {name}; it has {', '.join(sorted(homes))}.")
        module = importlib.import_module(f"{room}.{homes[name]}")
        return module if name == homes[name] else getattr(module, name)

    return find, lambda: sorted(homes), sorted(homes)
