"""Other batches of the training scans, on which a bilevel policy tries a step."""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.func import functional_call

from lungmtl.network.augmentation import Augmentation
from lungmtl.network.device import forward
from lungmtl.network.held import Held
from lungmtl.network.losses import task_losses
from lungmtl.policies import look_ahead


@dataclasses.dataclass(frozen=True)
class OtherBatches:
    """One batch per step, drawn from seed and step, so that neither the loop's draws nor a stop can change it.

    It is as large as the loop's own and augmented in the same way; now and then they share a scan.

    Attributes:
        draw_batch: Makes a batch of what is held and the places in it.
    """

    model: nn.Module
    held: Held
    draw_batch: Callable[[Tensor, Tensor], Tensor]
    batch_size: int
    positive_weight: Tensor | None
    precision: str
    seed: int

    def draw(self, step: int) -> list[Tensor]:
        """Volumes, targets and known flags."""
        draws = random.Random(f"{self.seed}, other batch of step {step}")
        rows = draws.sample(range(len(self.held.scans)), self.batch_size)
        volumes, place, target, known = self.held.batch(rows)
        is_augmented = isinstance(self.draw_batch, Augmentation)
        draw_batch = self.draw_batch.seeded(draws.getrandbits(63)) if is_augmented else self.draw_batch
        return [draw_batch(volumes, place), target, known]

    def ahead(
        self, losses: Tensor, batch: Sequence[Tensor], *, step: int, rate: float
    ) -> Callable[[Sequence[float]], list[float]]:
        """`Step.ahead` of a batch, (volume, target, known), whose losses, (T,), have their graph.

        Every pass here normalises with the statistics of its own batch and leaves the running ones as they are.
        """
        parameters = dict(self.model.named_parameters())

        def there(tried: Mapping[str, Tensor]) -> Tensor:
            """Central loss of the other batch."""
            return self._losses(tried, self.draw(step), self.precision)[0]

        here = functools.partial(self._losses, batch=batch, precision="fp32")
        return functools.partial(look_ahead, parameters, losses, rate=rate, here=here, there=there)

    def _losses(self, parameters: Mapping[str, Tensor], batch: Sequence[Tensor], precision: str) -> Tensor:
        """Task losses (T,) of a batch from parameters."""
        volume, target, known = batch
        held = {**parameters, **{name: value.clone() for name, value in self.model.named_buffers()}}
        held = {f"model.{name}": value for name, value in held.items()}
        logits = functional_call(_Logits(self.model), held, (volume, precision))
        return task_losses(logits, target, known, positive_weight=self.positive_weight)


class _Logits(nn.Module):
    """`forward`, as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, volume: Tensor, precision: str) -> Tensor:
        """Volumes (B, 1, Z, Y, X) to logits (B, T)."""
        return forward(self.model, volume, precision)[0]
