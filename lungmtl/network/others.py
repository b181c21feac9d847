"""Other batches of the training scans, on which a bilevel policy tries a step."""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import Dataset, default_collate

from lungmtl.network.augmentation import augmented
from lungmtl.network.device import forward
from lungmtl.network.losses import task_losses
from lungmtl.network.settings import Training
from lungmtl.policies import look_ahead


@dataclasses.dataclass(frozen=True)
class OtherBatches:
    """One batch per step, drawn from seed and step, so that neither the loop's draws nor a stop can change it.

    It is as large as the loop's own and augmented in the same way; now and then they share a scan.
    """

    model: nn.Module
    scans: Dataset
    training: Training
    positive_weight: Tensor | None
    precision: str
    seed: int

    def draw(self, step: int) -> list[Tensor]:
        """Volumes, targets and known flags."""
        draws = random.Random(f"{self.seed}, other batch of step {step}")
        rows = draws.sample(range(len(self.scans)), self.training.batch_size)
        volume, target, known = default_collate([self.scans[row] for row in rows])
        generator = torch.Generator().manual_seed(draws.getrandbits(63))
        return [augmented(volume, generator) if self.training.augment else volume, target, known]

    def ahead(
        self, losses: Tensor, batch: Sequence[Tensor], *, step: int, rate: float
    ) -> Callable[[Sequence[float]], list[float]]:
        """`Step.ahead` of a batch, (volume, target, known), whose losses, (T,), have their graph.

        Every pass here normalises with the statistics of its own batch and leaves the running ones as they are.
        """
        parameters = dict(self.model.named_parameters())

        def there(tried: Mapping[str, Tensor]) -> Tensor:
            """Central loss of the other batch."""
            other = [part.to(losses.device) for part in self.draw(step)]
            return self._losses(tried, other, self.precision)[0]

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
        return forward(self.model, volume, precision)[0]
