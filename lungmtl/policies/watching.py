"""Watching: balanced weights that note how far the gradients of a training agree, for pilots."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lungmtl.policies.gradients import cosines
from lungmtl.policies.rules import GradientRule, Seen


@dataclasses.dataclass(frozen=True)
class Watching(GradientRule):
    """Base weights as they are; the state sums the cosines of every gradient with the central one."""

    def start(self) -> dict[str, Any]:
        """No step yet."""
        return {"sum": [0.0] * len(self.tasks), "count": [0] * len(self.tasks)}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """1 for every task."""
        for row, cosine in zip(seen.rows, cosines(seen), strict=False):
            self.state["sum"][row] += cosine
            self.state["count"][row] += 1
        return [1.0] * len(seen.rows)


def agreement(watched: Sequence[Watching]) -> float:
    """Mean over trainings and auxiliary tasks of the size of a task's mean cosine, whose sign does not count.

    A task that reads the central signs the other way round is related, too. NaN where no batch had both labels.
    """
    pairs = [pair for policy in watched for pair in list(zip(*policy.state.values(), strict=True))[1:]]
    means = [abs(total / count) for total, count in pairs if count]
    return sum(means) / len(means) if means else math.nan
