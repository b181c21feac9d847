"""What a policy is asked and what it answers: a `Step` in, a `Decision` out.

A policy is asked once per optimiser step; the total loss of that step is `sum(weight * loss)` over the tasks. So the
weights reach heads and attention maps as well as what tasks share, for every policy alike. It knows nothing of model,
optimiser, loader or config and needs nothing but Python, so it serves any training loop;
`notebooks/04_policies.ipynb` shows one.

There are three kinds. A schedule follows from the progress alone (`schedules.py`), a loss rule from the losses too
(`losses.py`), a gradient rule from the gradients (`gradients.py`, `borrowed.py`) or from a step that is tried
(`bilevel.py`). They compose: ITW takes any policy as its warm-up, and PFLP focuses on top of any, by multiplying the
weights that the inner policy has found.

A policy weighs task losses, never labels, so it also works where each scan is labelled for one task only: give it
the mean loss over the scans whose label is known, 0 for a task without any in this batch, and which those are.
Schedules then give their weights as ever; rules leave these tasks out of the step, with weight 0 (`rules.py`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training stands: `step` and `epoch` count from 0, up to `n_steps` - 1 and `n_epochs` - 1."""

    step: int
    n_steps: int
    epoch: int
    n_epochs: int

    def __post_init__(self):
        require(0 <= self.step < self.n_steps, "`step` must be inside 0 .. n_steps - 1", self)
        require(0 <= self.epoch < self.n_epochs, "`epoch` must be inside 0 .. n_epochs - 1", self)


@dataclasses.dataclass(frozen=True)
class Step(Progress):
    """Progress, and what this batch has shown; T tasks, in the policy's order.

    Attributes:
        losses: Mean loss of every task, (T,), detached; 0 where `known` is False.
        known: Whether the batch has a label of the task, (T,) bool; empty = of every task.
        gramian: Products of the tasks' gradients with each other, (T, T), where `gradients_at` asks for them, else
            None; zeros where `known` is False. `lungmtl.policies.gramian` computes it.
        ahead: Tries a step with given weights, (T,), and returns the slopes, (T,), of the central loss of another
            training batch by them. It costs nothing unless it is called; `lungmtl.policies.look_ahead` computes it.
    """

    losses: Any = ()
    known: Any = ()
    gramian: Any = None
    ahead: Callable[[Sequence[float]], Sequence[float]] | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """The weights of one step, in task order, and why.

    `phase` is any text, such as balanced, focus or transfer; `focus` names a task in focus, if there is one. With
    `restart` the loop begins this step with a fresh optimiser and learning rate schedule.
    """

    weights: tuple[float, ...]
    phase: str
    focus: str = ""
    restart: bool = dataclasses.field(default=False, repr=False)


class Policy:
    """Base of all policies; a subclass is a frozen dataclass that has `tasks`, `base` and `__call__`.

    Attributes:
        is_schedule: Whether the weights follow from the progress alone.
        needs_gradients: "features" (at the last shared features), "parameters" (at the shared parameters) or "".
        tasks: Names, the central task first.
        base: The experiment's own weights, those of the innermost policy.
    """

    is_schedule: ClassVar[bool] = True
    needs_gradients: ClassVar[str] = ""
    tasks: Sequence[str]
    base: Sequence[float]

    def __call__(self, step: Progress) -> Decision:
        """Weights of this step; policies that follow from progress alone may be asked with a `Progress`."""
        raise NotImplementedError

    def gradients_at(self, step: Progress) -> str:
        """Where this step's gradients are needed: `needs_gradients`, or "" in a step that does without."""
        return self.needs_gradients

    def state_dict(self) -> dict[str, Any]:
        """What this policy has learnt so far, a copy, in JSON's own types; empty for a schedule."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            ValueError: If there is a value that this policy does not have, or one is missing.
        """
        require(not state, f"The state of {type(self).__name__} must be empty", dict(state))


@dataclasses.dataclass(frozen=True)
class Wrapper(Policy):
    """A policy that acts on another one's decisions: same tasks, base weights, gradients and state as `before`."""

    before: Policy

    @property
    def is_schedule(self) -> bool:
        """Whether `before` is."""
        return self.before.is_schedule

    @property
    def needs_gradients(self) -> str:
        """Where `before` needs gradients."""
        return self.before.needs_gradients

    def gradients_at(self, step: Progress) -> str:
        """Where `before` needs this step's gradients."""
        return self.before.gradients_at(step)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task names."""
        return self.before.tasks

    @property
    def base(self) -> tuple[float, ...]:
        """Base weights, those of the innermost policy."""
        return self.before.base

    def state_dict(self) -> dict[str, Any]:
        """State of `before`."""
        return {"before": self.before.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand `before` its state."""
        require(set(state) == {"before"}, "The state of a wrapping policy must be that of `before`", dict(state))
        self.before.load_state_dict(state["before"])


def products(weights: Sequence[float], factors: Sequence[float]) -> tuple[float, ...]:
    """Weight times factor, task by task."""
    return tuple(weight * factor for weight, factor in zip(weights, factors, strict=True))


def require(holds: object, requirement: str, found: object) -> None:
    """Raise a ValueError that names requirement and finding, unless it holds."""
    if not holds:
        raise ValueError(f"{requirement}. Found {found!r}.")
