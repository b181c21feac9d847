"""Rules: policies that look at the losses or gradients of a step, and what all of them share.

Here alone a task without a label in the batch leaves the step: `weigh` never sees it, and its weight is 0. A rule acts
on the losses times their base weights, so that base weights of 1 give a method as its paper has it. Whatever a rule
learns or averages lies in its state, plain numbers per task, which `state_dict` copies; what it draws follows from seed
and step.
"""

import copy
import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lungmtl.policies.contract import Decision, Progress, Step, require
from lungmtl.policies.schedules import BW

TINY = 1e-8  # keeps logarithms and quotients of losses and gradients finite


class Seen(NamedTuple):
    """What `weigh` is given; K tasks, those that take part in this step.

    Attributes:
        rows: Their places among all tasks, (K,).
        losses: Their losses times base weights, (K,).
        gramian: Products of the gradients of these losses, (K, K); empty for a loss rule.
        step: The step that was asked, with its progress.
    """

    rows: list[int]
    losses: list[float]
    gramian: list[list[float]]
    step: Step


@dataclasses.dataclass(frozen=True)
class Rule(BW):
    """Base of loss rules; a subclass has `weigh`, and `start` if it learns.

    A weight below 0 is set to 0: it would train the task's own head away from its labels. chosen by us; authors who let
    weights act on shared parameters alone need no such limit.
    """

    is_schedule = False

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "state", self.start())

    def start(self) -> dict[str, Any]:
        """State before the first step, in JSON's own types."""
        return {}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """Factors on the base weights of the tasks in `seen`, (K,)."""
        raise NotImplementedError

    def __call__(self, step: Step) -> Decision:
        """Weights of this step; a task without a label, or with a base weight of 0, takes no part and has 0.

        Raises:
            ValueError: If there are not as many losses or values of `known` as tasks, or a loss is not finite.
        """
        losses, name = plain(getattr(step, "losses", ())), type(self).__name__
        require(len(losses) == len(self.tasks), f"{name} must be given one loss per task, {len(self.tasks)}", losses)
        require(all(map(math.isfinite, losses)), f"The losses that {name} is given must be finite", losses)
        known = plain(step.known) or [True] * len(losses)
        one_each = len(known) == len(losses) and all(is_known in (True, False) for is_known in known)
        require(one_each, f"`known` that {name} is given must be one value per task, {len(self.tasks)}", known)
        rows = [row for row, is_known in enumerate(known) if is_known and self.weights[row] > 0]
        weights = [0.0] * len(losses)
        factors = self.factors(Seen(rows, [self.weights[row] * losses[row] for row in rows], [], step))
        for row, factor in zip(rows, factors, strict=True):
            weights[row] = self.weights[row] * max(0.0, float(factor))
        return Decision(tuple(weights), name)

    def factors(self, seen: Seen) -> Sequence[float]:
        """`weigh`, unless no task has a label."""
        return self.weigh(seen) if seen.rows else []

    def state_dict(self) -> dict[str, Any]:
        """A copy of the state."""
        return copy.deepcopy(self.state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a copy of such a state."""
        same = set(state) == set(self.state)
        require(same, f"The state of {type(self).__name__} must have {sorted(self.state)}", sorted(state))
        self.state.update(copy.deepcopy(dict(state)))


@dataclasses.dataclass(frozen=True)
class GradientRule(Rule):
    """Base of gradient rules.

    A task whose gradient is exactly 0 keeps its base weight and does not take part, since it moves nothing shared;
    among the others it would stop every rule that looks for a step which improves all tasks.

    Args:
        at: features (the last shared ones) or parameters (all shared ones, about three times the price).
    """

    _: dataclasses.KW_ONLY
    at: str = "features"

    def __post_init__(self):
        super().__post_init__()
        require(self.at in ("features", "parameters"), "`at` must be features or parameters", self.at)

    @property
    def needs_gradients(self) -> str:
        """`at`."""
        return self.at

    def factors(self, seen: Seen) -> Sequence[float]:
        """`weigh` among the tasks that have a gradient.

        Raises:
            ValueError: If the step has no Gramian, or one that is not finite.
        """
        products, wanted = seen.step.gramian, f"{type(self).__name__} must be given the Gramian at the shared {self.at}"
        require(products is not None, wanted, products)
        products = plain(products)
        require(all(math.isfinite(products[row][row]) for row in seen.rows), f"{wanted}, all finite", products)
        moving = [k for k, row in enumerate(seen.rows) if products[row][row] > 0]
        rows = [seen.rows[k] for k in moving]
        base = self.weights
        gramian = [[base[i] * products[i][j] * base[j] for j in rows] for i in rows]
        found = self.weigh(Seen(rows, [seen.losses[k] for k in moving], gramian, seen.step)) if rows else []
        factors = [1.0] * len(seen.rows)
        for k, factor in zip(moving, found, strict=True):
            factors[k] = factor
        return factors


def plain(values: Any) -> list:
    """A tensor, an array or a sequence as a list of numbers."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def is_positive(value: float) -> bool:
    """Whether this is a positive, finite number."""
    return 0 < value < math.inf


def drawn(seed: int, step: Progress) -> random.Random:
    """Random numbers of one step: the same for the same seed and step, whatever was drawn before."""
    return random.Random(f"{seed}, step {step.step}")


def adam(state: dict[str, list[float]], row: int, slope: float, learning_rate: float) -> float:
    """How far Adam moves a learnt number down this slope.

    Args:
        state: `first`, `second` and `count`, one number per task each; changed.
        row: Which task.
        slope: Derivative of what is minimised.
        learning_rate: Step at the start.
    Source: Kingma and Ba 2015, algorithm 1, arXiv 1412.6980, with its defaults 0.9, 0.999 and 1e-8.
    """
    state["count"][row] += 1
    state["first"][row] += 0.1 * (slope - state["first"][row])
    state["second"][row] += 0.001 * (slope**2 - state["second"][row])
    first = state["first"][row] / (1 - 0.9 ** state["count"][row])
    second = state["second"][row] / (1 - 0.999 ** state["count"][row])
    return learning_rate * first / (second**0.5 + 1e-8)


def adam_start(n_tasks: int) -> dict[str, list[float]]:
    """State of `adam` before its first step."""
    return {"first": [0.0] * n_tasks, "second": [0.0] * n_tasks, "count": [0] * n_tasks}
