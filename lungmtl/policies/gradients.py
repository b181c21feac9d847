"""Gradient rules of our own, from the papers: weights that follow from the Gramian; they need nothing but Python.

The first task is the central one. In a batch without a label of it, rules that serve it have nothing to compare with:
GCS and OLAUX then leave the auxiliary tasks the weights that they have. `borrowed.py` has the rules of TorchJD.

Letters: g a task's gradient, l its loss, K tasks with a label in the batch.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lungmtl.policies.contract import require
from lungmtl.policies.rules import TINY, GradientRule, Seen, adam, adam_start, is_positive


@dataclasses.dataclass(frozen=True)
class GCS(GradientRule):
    """Gradient cosine similarity: an auxiliary task counts where its gradient does not oppose the central one.

    Args:
        weighted: Weigh by the cosine instead of 1, where it is positive.
    Source: Du et al. 2018, section 3, arXiv 1812.02224.
    """

    _: dataclasses.KW_ONLY
    weighted: bool = False

    def weigh(self, seen: Seen) -> Sequence[float]:
        """1 for the central task, 0 or 1 (or the cosine) for the others."""
        found = cosines(seen)
        gates = found if self.weighted else [float(cosine >= 0) for cosine in found]
        return [1.0, *(max(0.0, gate) for gate in gates[1:])] if found else [1.0] * len(seen.rows)


@dataclasses.dataclass(frozen=True)
class OLAUX(GradientRule):
    """Online learning of auxiliary weights: those rise whose gradients have agreed with the central one of late.

    The paper takes the products of the gradients; we take their cosines, as third parties do, so that the learning rate
    means the same at features and parameters.

    Args:
        learning_rate: How much a sum of cosines of 1 adds to a weight. chosen by us.
        horizon: Steps between changes of the weights.
    Source: Lin et al. 2019, algorithm 1 (5 steps), Adaptive Auxiliary Task Weighting, NeurIPS.
    """

    _: dataclasses.KW_ONLY
    learning_rate: float = 0.1
    horizon: int = 5

    def __post_init__(self):
        super().__post_init__()
        require(is_positive(self.learning_rate), "`learning_rate` must be positive", self.learning_rate)
        require(self.horizon >= 1 and self.horizon % 1 == 0, "`horizon` must be 1, 2, 3 ...", self.horizon)

    def start(self) -> dict[str, Any]:
        """Weights of 1, and no cosines yet."""
        return {"weights": [1.0] * len(self.tasks), "cosines": [0.0] * len(self.tasks), "count": 0}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """The weights so far; every `horizon` steps with a central label they move by the cosines since."""
        state = self.state
        weights = [state["weights"][row] for row in seen.rows]
        found = cosines(seen)
        for row, cosine in list(zip(seen.rows, found, strict=False))[1:]:
            state["cosines"][row] += cosine
        state["count"] += bool(found)
        if state["count"] == self.horizon:
            pairs = zip(state["weights"], state["cosines"], strict=True)
            moved = [max(0.0, weight + self.learning_rate * cosine) for weight, cosine in pairs]
            state.update(self.start() | {"weights": moved})
        return weights


@dataclasses.dataclass(frozen=True)
class GradNorm(GradientRule):
    """Gradient normalisation: weights are learnt so that all tasks train at similar rates.

    Adam moves them, and their sum stays the number of tasks. The loss that rates are measured against is the first of
    each task that is seen.

    Args:
        alpha: How strongly a task that lags behind is pulled, at least 0.
        learning_rate: Of the weights.
    Source: Chen et al. 2018, algorithm 1 (1.5 and 0.025), arXiv 1711.02257.
    """

    _: dataclasses.KW_ONLY
    alpha: float = 1.5
    learning_rate: float = 0.025

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.alpha < math.inf, "`alpha` must be at least 0", self.alpha)
        require(is_positive(self.learning_rate), "`learning_rate` must be positive", self.learning_rate)

    def start(self) -> dict[str, Any]:
        """Weights of 1, no loss yet."""
        n_tasks = len(self.tasks)
        return {"weights": [1.0] * n_tasks, "first": [None] * n_tasks, "adam": adam_start(n_tasks)}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """The weights so far; then each moves down the slope of sum |w |g| - target|."""
        state, norms = self.state, [math.sqrt(seen.gramian[k][k]) for k in range(len(seen.rows))]
        weights = [state["weights"][row] for row in seen.rows]
        targets = self._targets(seen, weights, norms)
        for row, norm, weight, target in zip(seen.rows, norms, weights, targets, strict=True):
            slope = norm * ((weight * norm > target) - (weight * norm < target))
            moved = state["weights"][row] - adam(state["adam"], row, slope, self.learning_rate)
            state["weights"][row] = max(moved, TINY)
        total = sum(state["weights"])
        state["weights"] = [weight * len(self.tasks) / total for weight in state["weights"]]
        return weights

    def _targets(self, seen: Seen, weights: Sequence[float], norms: Sequence[float]) -> list[float]:
        """Mean weighted norm times each task's share of the first loss that is left, over their mean, to `alpha`."""
        for row, loss in zip(seen.rows, seen.losses, strict=True):
            self.state["first"][row] = self.state["first"][row] or max(loss, TINY)
        rates = [loss / self.state["first"][row] for row, loss in zip(seen.rows, seen.losses, strict=True)]
        mean_rate = max(sum(rates) / len(rates), TINY)
        mean = sum(weight * norm for weight, norm in zip(weights, norms, strict=True)) / len(norms)
        return [mean * (rate / mean_rate) ** self.alpha for rate in rates]


@dataclasses.dataclass(frozen=True)
class DBMTL(GradientRule):
    """Dual balancing: of the logarithms of the losses, with gradients all as long as the longest.

    Without the paper's moving average of gradients (its beta is 0 here): weights act on gradients of this step alone.

    Source: Lin et al. 2023, algorithm 1, arXiv 2308.12029.
    """

    def weigh(self, seen: Seen) -> Sequence[float]:
        """The longest norm of g / l, over |g|."""
        norms = [math.sqrt(seen.gramian[k][k]) for k in range(len(seen.rows))]
        longest = max(norm / max(loss, TINY) for norm, loss in zip(norms, seen.losses, strict=True))
        return [longest / norm for norm in norms]


def cosines(seen: Seen) -> list[float]:
    """Cosine of every gradient with the central one, (K,); empty where that takes no part."""
    if seen.rows[0] != 0:
        return []
    norms = [math.sqrt(seen.gramian[k][k]) for k in range(len(seen.rows))]
    return [product / (norms[0] * norm) for product, norm in zip(seen.gramian[0], norms, strict=True)]
