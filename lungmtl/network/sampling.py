"""Samplers: which scans form the batches of an epoch; all samplers yield the same number of batches.

A policy weights losses, which has no effect on a task without a label in the batch. Where every scan is labelled for
few tasks, batches can be drawn by label instead; a scan may then occur twice in an epoch, and another one not at all.
To add a sampler write its class here, its line in `SAMPLER_CLASSES` and its name in `SAMPLERS` (settings.py).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lungmtl.policies import Policy, Progress


class Natural(Sampler[list[int]]):
    """Every scan once in random order, regardless of labels: the batches of `DataLoader(shuffle=True, drop_last=True)`.

    Args:
        scans: The training scans; samplers that draw by label need its `known`, bool (N, T).
        batch_size: Scans per batch.
        generator: Draws the batches; may be shared, since the sampler's state contains its state.
        focus: For `Focus`: the policy whose task in focus the batches follow.
    Raises:
        ValueError: If a sampler that draws by label finds no label of a task.
    """

    def __init__(self, scans: Dataset, batch_size: int, generator: torch.Generator, *, focus: Policy | None = None):
        self.n_scans, self.batch_size, self.generator, self.focus = len(scans), batch_size, generator, focus
        self.epoch, self.position, self._drawn_from, self._resumed_at = 0, 0, None, None
        self.ahead: list[int] = []  # the batch after the one given last, in the same epoch
        self._prepare(scans)

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return self.n_scans // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of an epoch, or the rest of it after `load_state_dict`."""
        if self._resumed_at is None:
            self._drawn_from = self.generator.get_state()
        self.generator.set_state(self._drawn_from)
        batches = self._draw()
        if self._resumed_at is not None:
            self.generator.set_state(self._resumed_at)
            self._resumed_at = None
        while self.position < len(self):
            self.position += 1
            self.ahead = batches[self.position] if self.position < len(self) else []
            yield batches[self.position - 1]
        torch.randperm(self.n_scans, generator=self.generator)  # torch's sampler draws this, too: same bits
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Epoch, number of batches yielded, and the generator's state before the epoch was drawn and now."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "drawn_from": self._drawn_from,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`; takes effect when the next iteration starts."""
        self.epoch, self.position, self._drawn_from = state["epoch"], state["position"], state["drawn_from"]
        self._resumed_at = state["generator"] if self.position else None
        self.generator.set_state(state["generator"])

    def _prepare(self, scans: Dataset) -> None:
        """Read once what the sampler needs of the scans."""

    def _draw(self) -> list[list[int]]:
        order = torch.randperm(self.n_scans, generator=self.generator).tolist()
        return [order[start : start + self.batch_size] for start in range(0, self.n_scans, self.batch_size)]


class _ByLabel(Natural):
    """Batches from one queue of labelled scans per task, each in random order and refilled when empty."""

    def _prepare(self, scans: Dataset) -> None:
        self.known: Tensor = scans.known  # (N, T)
        counts = self.known.sum(dim=0)
        if not counts.all():
            raise ValueError(f"A sampler must find labelled scans of every task. Found {counts.tolist()}.")
        self.shares = counts / counts.sum()  # (T,)

    def _draw(self) -> list[list[int]]:
        everything = torch.ones(self.n_scans, dtype=torch.bool)
        self.queues = [_Queue(known.nonzero()[:, 0], self.generator) for known in (*self.known.T, everything)]
        return [self._batch(index) for index in range(len(self))]

    def _batch(self, index: int) -> list[int]:
        """Batch number `index` of the epoch."""
        raise NotImplementedError


class Each(_ByLabel):
    """Random scans, except that the last places of a batch go to tasks that would have no label in it."""

    def _prepare(self, scans: Dataset) -> None:
        super()._prepare(scans)
        n_tasks = self.known.shape[1]
        if n_tasks > self.batch_size:
            raise ValueError(f"A batch must hold a scan of each of {n_tasks} tasks. Found {self.batch_size} scans.")

    def _batch(self, index: int) -> list[int]:
        batch: list[int] = []
        while len(batch) < self.batch_size:
            missing = (~self.known[batch].any(dim=0)).nonzero()[:, 0].tolist()
            is_last_chance = len(missing) == self.batch_size - len(batch)
            self.queues[missing[0] if is_last_chance else -1].add_to(batch, 1)
        return batch


class Turns(_ByLabel):
    """Every batch from the scans labelled for one task; the tasks take turns in proportion to their labelled scans."""

    def _draw(self) -> list[list[int]]:
        self.owed = torch.zeros(len(self.shares))
        return super()._draw()

    def _batch(self, index: int) -> list[int]:
        self.owed += self.shares
        task = int(self.owed.argmax())
        self.owed[task] -= 1
        return self.queues[task].add_to([], self.batch_size)


class Focus(_ByLabel):
    """Every batch from the scans labelled for the task in focus: Periodic Focusing by scans instead of weights."""

    def _batch(self, index: int) -> list[int]:
        step = self.epoch * len(self) + index
        task = self.focus(Progress(step, step + 1, self.epoch, self.epoch + 1)).focus
        return self.queues[self.focus.tasks.index(task) if task else -1].add_to([], self.batch_size)


class _Queue:
    """Endless queue of scans, shuffled anew after every pass."""

    def __init__(self, scans: Tensor, generator: torch.Generator):
        self.scans, self.generator = scans, generator
        self.waiting: list[int] = []

    def add_to(self, batch: list[int], n: int) -> list[int]:
        """Add `n` scans to the batch; none occurs twice unless the batch is larger than the queue."""
        while n:
            if not self.waiting:
                self.waiting = self.scans[torch.randperm(len(self.scans), generator=self.generator)].tolist()
            scan = self.waiting.pop()
            if scan not in batch or len(batch) >= len(self.scans):
                batch.append(scan)
                n -= 1
        return batch


SAMPLER_CLASSES = {"natural": Natural, "each": Each, "turns": Turns, "focus": Focus}


def sampler(name: str, focus: Policy | None) -> Callable[[Dataset, int, torch.Generator], Natural]:
    """The sampler of this name in a params file, still to be called with scans, batch size and generator."""
    return functools.partial(SAMPLER_CLASSES[name], focus=focus)
