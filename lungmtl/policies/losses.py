"""Loss rules: weights that follow from the losses of the steps so far; they need nothing but Python.

The total loss of a step is linear in the task losses, so a rule that minimises another function of them gives that
function's derivatives as weights; what it learns itself has an optimiser of its own, with its slopes in closed form.
Formulas are those of the papers; TorchJD's and LibMTL's are what the tests hold them against.

Letters: l a task's loss, K tasks with a label in the batch.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lungmtl.policies.contract import require
from lungmtl.policies.rules import TINY, Rule, Seen, adam, adam_start, drawn, is_positive


@dataclasses.dataclass(frozen=True)
class RLW(Rule):
    """Random Loss Weighting: the softmax of normal draws, anew in every step.

    Args:
        seed: Of the draws.
    Source: Lin et al. 2022, section 3, arXiv 2111.10603.
    """

    _: dataclasses.KW_ONLY
    seed: int = 0

    def weigh(self, seen: Seen) -> Sequence[float]:
        """Positive weights that sum to 1."""
        random = drawn(self.seed, seen.step)
        draws = [random.gauss(0, 1) for _ in self.tasks]
        return softmax([draws[row] for row in seen.rows])


@dataclasses.dataclass(frozen=True)
class GeometricMean(Rule):
    """Geometric mean of the losses: all fall by the same share.

    Source: Chennupati et al. 2019, section 3.2, arXiv 1904.08492.
    """

    def weigh(self, seen: Seen) -> Sequence[float]:
        """The mean's derivatives, mean / (K l)."""
        losses = [max(loss, TINY) for loss in seen.losses]
        mean = math.exp(sum(map(math.log, losses)) / len(losses))
        return [mean / (len(losses) * loss) for loss in losses]


@dataclasses.dataclass(frozen=True)
class Learnt(Rule):
    """Base of rules that learn one number per task, with Adam, each task in the steps that have a label of it.

    Args:
        learning_rate: Of these numbers.
    """

    _: dataclasses.KW_ONLY
    learning_rate: float = 0.01  # chosen by us: a thousand steps at the network's own 0.001 would hardly move them

    def __post_init__(self):
        super().__post_init__()
        require(is_positive(self.learning_rate), "`learning_rate` must be positive", self.learning_rate)

    def start(self) -> dict[str, Any]:
        """Zeros."""
        return {"learnt": [0.0] * len(self.tasks), "adam": adam_start(len(self.tasks))}

    def learn(self, rows: Sequence[int], slopes: Sequence[float], *, weight_decay: float = 0.0) -> None:
        """One step of Adam down these slopes."""
        learnt = self.state["learnt"]
        for row, slope in zip(rows, slopes, strict=True):
            learnt[row] -= adam(self.state["adam"], row, slope + weight_decay * learnt[row], self.learning_rate)


@dataclasses.dataclass(frozen=True)
class UW(Learnt):
    """Uncertainty Weighting: each task learns a log variance s; the loss is exp(-s) l / 2 + s / 2.

    Source: Kendall et al. 2018, equation 10 with s = log of the variance, arXiv 1705.07115.
    """

    def weigh(self, seen: Seen) -> Sequence[float]:
        """exp(-s) / 2; then s moves down its slope (1 - exp(-s) l) / 2."""
        weights = [math.exp(-self.state["learnt"][row]) / 2 for row in seen.rows]
        self.learn(seen.rows, [0.5 - weight * loss for weight, loss in zip(weights, seen.losses, strict=True)])
        return weights


@dataclasses.dataclass(frozen=True)
class IMTLL(Learnt):
    """Impartial multi-task learning, loss balance: each task learns a log scale s; the loss is exp(s) l - s.

    Source: Liu et al. 2021, section 3.2, openreview IMPnRXEWpvr.
    """

    def weigh(self, seen: Seen) -> Sequence[float]:
        """exp(s); then s moves down its slope exp(s) l - 1."""
        weights = [math.exp(self.state["learnt"][row]) for row in seen.rows]
        self.learn(seen.rows, [weight * loss - 1 for weight, loss in zip(weights, seen.losses, strict=True)])
        return weights


@dataclasses.dataclass(frozen=True)
class FAMO(Learnt):
    """Fast Adaptive Multitask Optimization: tasks whose loss fell less get more weight.

    How far a loss fell is seen in the next step's batch. The paper runs the same batch a second time, a forward pass
    more, which would also move batch norm's statistics a second time; the price of ours is that it sees the difference
    between two batches, too.

    Args:
        weight_decay: Pulls the logits back to 0.
    Source: Liu et al. 2023, algorithm 1, arXiv 2306.03792.
    """

    _: dataclasses.KW_ONLY
    learning_rate: float = 0.025
    weight_decay: float = 0.001

    def start(self) -> dict[str, Any]:
        """Zeros, and no losses of a step before."""
        return super().start() | {"before": [None] * len(self.tasks)}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """c z / l with z the softmax of the learnt logits, so that the weights sum to 1."""
        losses = [max(loss, TINY) for loss in seen.losses]
        self._look_back(seen.rows, losses)
        self.state["before"] = [None] * len(self.tasks)
        for row, loss in zip(seen.rows, losses, strict=True):
            self.state["before"][row] = loss
        shares = softmax([self.state["learnt"][row] for row in seen.rows])
        scaled = [share / loss for share, loss in zip(shares, losses, strict=True)]
        return [weight / sum(scaled) for weight in scaled]

    def _look_back(self, rows: Sequence[int], losses: Sequence[float]) -> None:
        """Learn from the tasks that had a label in the step before, too."""
        before = self.state["before"]
        both = [(row, math.log(before[row] / loss)) for row, loss in zip(rows, losses, strict=True) if before[row]]
        if both:
            shares = softmax([self.state["learnt"][row] for row, _ in both])
            mean = sum(share * fall for share, (_, fall) in zip(shares, both, strict=True))
            slopes = [share * (fall - mean) for share, (_, fall) in zip(shares, both, strict=True)]
            self.learn([row for row, _ in both], slopes, weight_decay=self.weight_decay)


@dataclasses.dataclass(frozen=True)
class DWA(Rule):
    """Dynamic Weight Average: tasks whose mean loss fell less from one epoch to the next get more weight.

    A task that had no label in one of the last two epochs counts as one whose loss stayed.

    Args:
        temperature: The higher, the more alike the weights.
    Source: Liu et al. 2019, section 3.2, arXiv 1803.10704.
    """

    _: dataclasses.KW_ONLY
    temperature: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        require(is_positive(self.temperature), "`temperature` must be positive", self.temperature)

    def start(self) -> dict[str, Any]:
        """No epoch yet: sums and counts of this one, means of the last and of the one before."""
        n_tasks = len(self.tasks)
        means = {"last": [None] * n_tasks, "before": [None] * n_tasks}
        return {"epoch": 0, "sum": [0.0] * n_tasks, "count": [0] * n_tasks, **means}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """Weights that sum to K: the softmax of each task's mean loss, last epoch over the one before."""
        state = self.state
        if seen.step.epoch > state["epoch"]:
            self._turn(seen.step.epoch)
        for row, loss in zip(seen.rows, seen.losses, strict=True):
            state["sum"][row] += loss
            state["count"][row] += 1
        pairs = [(state["last"][row], state["before"][row]) for row in seen.rows]
        rates = [last / max(before, TINY) if last is not None and before is not None else 1.0 for last, before in pairs]
        return [len(rates) * share for share in softmax([rate / self.temperature for rate in rates])]

    def _turn(self, epoch: int) -> None:
        sums = zip(self.state["sum"], self.state["count"], strict=True)
        means = [total / count if count else None for total, count in sums]
        self.state.update(self.start() | {"epoch": epoch, "last": means, "before": self.state["last"]})


def softmax(values: Sequence[float]) -> list[float]:
    """Positive shares that sum to 1."""
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]
