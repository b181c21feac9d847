"""A bilevel rule: weights that lower the central loss of another batch after the step that they give."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from lungmtl.policies.contract import require
from lungmtl.policies.losses import Learnt
from lungmtl.policies.rules import Seen, is_positive, plain


@dataclasses.dataclass(frozen=True)
class AutoLambda(Learnt):
    """Auto-lambda: every task's weight descends the central loss of another batch, seen after a virtual step.

    The upper level uses another batch of the training scans, as the paper's own trainings do: validation scans select
    and test scans judge, so no policy may learn from them. Its slopes are the paper's finite difference (`look_ahead`),
    for a virtual step of plain gradient descent, where AdamW takes the real one. Written from the paper alone.

    Args:
        learning_rate: Of the weights, by Adam. chosen by us, for a thousand steps: the paper trains for many more.
        initial: First weight of every task; third party: 0.1 in public implementations.
    Source: Liu et al. 2022, section 4, arXiv 2202.03091. Weights below 0 are set to 0: chosen by us.
    """

    _: dataclasses.KW_ONLY
    learning_rate: float = 0.003
    initial: float = 0.1

    def __post_init__(self):
        require(is_positive(self.initial), "`initial` must be positive", self.initial)
        super().__post_init__()

    def start(self) -> dict[str, Any]:
        """`initial` for every task."""
        return super().start() | {"learnt": [self.initial] * len(self.tasks)}

    def weigh(self, seen: Seen) -> Sequence[float]:
        """The weights, moved down their slopes; they stay where the other batch has no label of the central task.

        Raises:
            ValueError: If the step has no `ahead`, or its slopes are not finite.
        """
        ahead, learnt = seen.step.ahead, self.state["learnt"]
        require(ahead is not None, "AutoLambda must be given `ahead`, which tries a step", ahead)
        tried = [learnt[row] * weight if row in seen.rows else 0.0 for row, weight in enumerate(self.weights)]
        slopes = plain(ahead(tried))
        require(all(map(math.isfinite, slopes)), "The slopes that AutoLambda is given must be finite", slopes)
        if any(slopes):
            self.learn(seen.rows, [self.weights[row] * slopes[row] for row in seen.rows])
            learnt[:] = [max(0.0, weight) for weight in learnt]
        return [learnt[row] for row in seen.rows]
