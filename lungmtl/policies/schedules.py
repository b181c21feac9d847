"""Schedules: weights that follow from the progress alone (BW, PFLP, ITW).

They nest, the outer one acting on the inner one's weights: `ITW(PFLP(BW(tasks, weights)))`. The inner one may be a rule
as well, `ITW(PFLP(UW))`, and then the weights follow from more. A focus on a task that few batches label is a step of
mostly suppressed losses, so choose a period of many batches there.

Sources: Yang et al. 2020, Table 2, arXiv 1912.07167 (BW, PFLP, ITW and the factor 0.1 of PFLP). The order of focus
and its 20 steps are those of a third party's re-use (so-hyeun/BRET). When ITW switches, and to which weights, is
not published: chosen by us.
"""

import dataclasses
import math
import random
from collections.abc import Sequence

from lungmtl.policies.contract import Decision, Policy, Progress, Wrapper, products, require


@dataclasses.dataclass(frozen=True)
class BW(Policy):
    """Balanced Weights: the base weights at every step.

    Args:
        tasks: Different names, the central task first.
        weights: One base weight per task, at least 0 and not all 0.
    Raises:
        ValueError: If names repeat, or the weights are negative, all 0, or not one per task.
    Source: Yang et al. 2020, Table 2, arXiv 1912.07167.
    """

    tasks: Sequence[str]
    weights: Sequence[float]

    def __post_init__(self):
        object.__setattr__(self, "tasks", tuple(self.tasks))
        object.__setattr__(self, "weights", tuple(float(weight) for weight in self.weights))
        require(self.tasks and len(set(self.tasks)) == len(self.tasks), "`tasks` must be different names", self.tasks)
        one_each = len(self.weights) == len(self.tasks)
        require(one_each, f"`weights` must be one per task, {len(self.tasks)} in all", self.weights)
        in_range = all(0 <= weight < math.inf for weight in self.weights) and sum(self.weights) > 0
        require(in_range, "`weights` must be at least 0, finite, and not all 0", self.weights)

    @property
    def base(self) -> tuple[float, ...]:
        """The weights themselves."""
        return self.weights

    def __call__(self, step: Progress) -> Decision:
        """The base weights, whatever the progress."""
        return Decision(self.weights, "balanced")


@dataclasses.dataclass(frozen=True)
class PFLP(Wrapper):
    """Periodic Focusing Learning Policy: tasks take turns in focus, the others' weights are multiplied by `factor`.

    Over one cycle (every turn of `order` once) this lowers the mean weight of a task that has one of K turns to
    (1 + (K - 1) factor) / K of its base, 0.28 for five tasks: the loss scale falls too. `keep_mean` is the control
    (chosen by us): each task's weights are divided by that share, so that its mean over a cycle is its base
    weight. Where every task has equally many turns this is one common divisor, and the ratios inside a step
    stay those of PFLP.

    Args:
        before: Any policy, on whose weights the focus acts. What a gradient rule promises (no conflict, equal
            projections) holds for its own weights, before the focus.
        factor: Multiplies the weight of every task not in focus, the central one included; inside [0, 1].
        period: Length of one focus, in `unit`, at least 1.
        unit: step or epoch.
        order: Tasks in order of focus; a task may have several turns or none, and "" is a turn of nobody. Empty = order
            of `tasks`.
        keep_mean: Rescale, per task, to the base's mean over a cycle.
        shuffle_seed: Seeds a new random order of the turns in every cycle; None = always `order`. chosen by us: a
            control for the order of focus.
    Raises:
        ValueError: If a value is outside its range, `order` names an unknown task, or `keep_mean` meets a task whose
            weight would always be 0.
    Source: Yang et al. 2020, Table 2, arXiv 1912.07167.
    """

    _: dataclasses.KW_ONLY
    factor: float = 0.1
    period: int = 20
    unit: str = "step"
    order: Sequence[str] = ()
    keep_mean: bool = False
    shuffle_seed: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "order", tuple(self.order) or self.tasks)
        require(0 <= self.factor <= 1, "`factor` must be inside [0, 1]", self.factor)
        require(self.period >= 1 and self.period % 1 == 0, "`period` must be 1, 2, 3 ...", self.period)
        require(self.unit in ("step", "epoch"), "`unit` must be step or epoch", self.unit)
        require(set(self.order) <= {*self.tasks, ""}, f"`order` must be names from {self.tasks}", self.order)
        require(
            not self.keep_mean or min(self._shares()) > 0,
            "`keep_mean` must have a turn or a factor above 0 for every task",
            f"order {self.order} and factor {self.factor}",
        )

    def __call__(self, step: Progress) -> Decision:
        """The weights of `before`, those of the tasks out of focus multiplied by `factor`."""
        count = step.step if self.unit == "step" else step.epoch
        cycle, turn = divmod(count // self.period, len(self.order))
        focus = self._turns(cycle)[turn]
        shares = self._shares() if self.keep_mean else [1.0] * len(self.tasks)
        factors = [(1.0 if task == focus else self.factor) / s for task, s in zip(self.tasks, shares, strict=True)]
        inner = self.before(step)
        return Decision(products(inner.weights, factors), "focus", focus, restart=inner.restart)

    def _turns(self, cycle: int) -> Sequence[str]:
        if self.shuffle_seed is None:
            return self.order
        return random.Random(f"{self.shuffle_seed}, cycle {cycle}").sample(self.order, len(self.order))

    def _shares(self) -> list[float]:
        """Mean over a cycle of each task's factor: (turns + (K - turns) factor) / K."""
        turns = [self.order.count(task) / len(self.order) for task in self.tasks]
        return [turn + (1 - turn) * self.factor for turn in turns]


@dataclasses.dataclass(frozen=True)
class Alone(Wrapper):
    """The central task alone: the weights of `before`, those of all other tasks 0; base weights stay for a later stage.

    chosen by us: ITW(Alone) is the control for the warm-up of ITW.

    Args:
        before: Balanced weights, or any policy.
    """

    def __call__(self, step: Progress) -> Decision:
        """The decision of `before` with the first weight alone."""
        decision = self.before(step)
        weights = (decision.weights[0], *[0.0] * (len(self.tasks) - 1))
        return dataclasses.replace(decision, weights=weights, phase="alone")


@dataclasses.dataclass(frozen=True)
class ITW(Wrapper):
    """Internal-Transfer Weighting: warm up with `before`, then train on the central task for the final stage.

    The final stage starts at `first_step(n_steps)`. From there focus is off: the central task has its base weight,
    the auxiliary tasks their base weights times `factor`.

    Args:
        before: Policy of the warm-up: BW or PFLP over BW in the paper, here any; in the final stage it is not asked.
        start: Fraction of all steps that the warm-up takes, inside [0, 1); 0 = no warm-up. chosen by us: not
            published.
        factor: Multiplies the auxiliary base weights in the final stage; inside [0, 1]. chosen by us: not published.
        central: The task to transfer to; empty = the first.
        restart: Begin the final stage with a fresh optimiser and learning rate schedule, as fine-tuning does.
    Raises:
        ValueError: If `start` or `factor` is outside its range, or `central` is not a task.
    Source: Yang et al. 2020, Table 2, arXiv 1912.07167.
    """

    _: dataclasses.KW_ONLY
    start: float = 0.6
    factor: float = 0.01
    central: str = ""
    restart: bool = False

    def __post_init__(self):
        object.__setattr__(self, "central", self.central or self.tasks[0])
        require(0 <= self.start < 1, "`start` of ITW must be inside [0, 1)", self.start)
        require(0 <= self.factor <= 1, "`factor` must be inside [0, 1]", self.factor)
        require(self.central in self.tasks, f"`central` must be a name from {self.tasks}", self.central)

    def first_step(self, n_steps: int) -> int:
        """First step of the final stage: the first with at least `start` of all steps before it.

        That is `start * n_steps` rounded up; in runs too short for that, the last step, so that there always is one.
        """
        return min(math.ceil(self.start * n_steps - 1e-9), n_steps - 1)  # 0.55 * 100 is 55.00000000000001

    def __call__(self, step: Progress) -> Decision:
        """The decision of `before`, or in the final stage the base weights with the auxiliary ones suppressed."""
        first = self.first_step(step.n_steps)
        if step.step < first:
            return self.before(step)
        factors = [1.0 if task == self.central else self.factor for task in self.tasks]
        return Decision(products(self.base, factors), "transfer", restart=self.restart and step.step == first)

    def gradients_at(self, step: Progress) -> str:
        """Where `before` needs gradients; nowhere in the final stage."""
        return self.before.gradients_at(step) if step.step < self.first_step(step.n_steps) else ""
