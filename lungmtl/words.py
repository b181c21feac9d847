"""Words that rooms share: tasks, counts and differences as readers see them."""

import math
from collections.abc import Callable
from typing import Any

OTHER = "other"  # what a header says and is not known: it is not said again, as it may be any text, a name too


def number_of(count: float, what: str) -> str:
    """A count of things: 1 scan, 2 scans."""
    return f"{count:.0f} {what}" if count == 1 else f"{count:.0f} {what}s"


def some_of(n: int, n_all: int, what: str, *, said: Callable[[int], str] = str) -> str:
    """Some of all things, 4 of 10 runs, or all 10 runs, the one run; `said` writes a count."""
    return f"the one {what}" if n_all == 1 else f"{'all' if n == n_all else f'{said(n)} of'} {said(n_all)} {what}s"


def task_label(task: str) -> str:
    """A task's name for readers: lung_cancer -> lung cancer, copd -> COPD."""
    return "COPD" if task == "copd" else task.replace("_", " ")


def p_text(p: float) -> str:
    """A p value or a probability; blank where it is unknown."""
    return "" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def shown_difference(row: Any) -> str:
    """A difference with its interval, from a row that has `difference`, `low` and `high`."""
    return f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]".replace("-", "\N{MINUS SIGN}")


def seeds_of(frame: Any) -> str:
    """Number of seeds, from the column n_seeds of a frame: 5 seeds, or 3 to 5 seeds."""
    low, high = int(frame["n_seeds"].min()), int(frame["n_seeds"].max())
    return f"{low} to {high} seeds" if low != high else number_of(low, "seed")


def interval_names(frame: Any) -> str:
    """Names in the column interval of a frame, joined by or."""
    return " or ".join(sorted(set(frame["interval"])))
