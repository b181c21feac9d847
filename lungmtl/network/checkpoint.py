"""Checkpoints: the full state of training, written periodically, from which an interrupted run resumes bit for bit.

A checkpoint is a safetensors file, with everything that is not a tensor as JSON in its metadata. Its name ends in the
number of steps and a hash of its bytes, so that a damaged file is detected and the previous one used.
"""

import copy
import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lungmtl.files import sha256, write
from lungmtl.network.sampling import Natural
from lungmtl.policies import Policy

GENERATIONS = 2
HASH_LENGTH = 16
HELD = ("model", "optimiser", "schedule", "policy", "sampler")  # have a state_dict of their own
SHARED_PARTS = ("model", "optimiser", "schedule", "sampler")  # between runs, whose policies have no state until then
PLAIN_FIELDS = ("steps", "history", "kept", "best_score", "epoch", "seen", "seconds", "n_scheduled")
_logger = logging.getLogger(__name__)


@dataclasses.dataclass
class State:
    """State of training: everything that the next step depends on, except settings and scans.

    Attributes:
        sampler: Draws the batches; its state includes the generator, which augmentation uses as well.
        renew: Creates the optimiser and learning rate schedule for a number of steps.
        steps, history: Rows so far.
        kept, best_score: Selected epoch and its weights so far, and its score.
        epoch, seen, seconds: Current epoch, its batches' (logits, target, known) and its duration so far.
    """

    model: nn.Module
    policy: Policy
    sampler: Natural
    renew: Callable[[int], tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]
    n_scheduled: int
    steps: list[dict] = dataclasses.field(default_factory=list)
    history: list[dict] = dataclasses.field(default_factory=list)
    kept: tuple[int, dict[str, Tensor]] = (0, {})
    best_score: float = -math.inf
    epoch: int = 0
    seen: list[tuple[Tensor, Tensor, Tensor]] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __post_init__(self):
        self.restart(self.n_scheduled)

    def restart(self, n_steps: int) -> None:
        """Start with a fresh optimiser and a learning rate schedule of `n_steps` steps."""
        self.n_scheduled, (self.optimiser, self.schedule) = n_steps, self.renew(n_steps)

    def keep_better(self, score: float) -> None:
        """Keep the model of the current epoch if its score is above that of the kept one, or none is kept yet."""
        if score > self.best_score or not self.kept[1]:
            self.kept, self.best_score = (self.epoch, copy.deepcopy(self.model.state_dict())), score

    def end_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.seen, self.seconds = self.epoch + 1, [], 0.0

    def state_dict(self) -> dict[str, Any]:
        """The full state as plain values and tensors."""
        held = {name: getattr(self, name).state_dict() for name in HELD}
        drawn = {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
        return held | drawn | {name: getattr(self, name) for name in PLAIN_FIELDS}

    def load_state_dict(self, state: Mapping[str, Any], *, names: Sequence[str] = HELD) -> None:
        """Restore what `state_dict` returned; of the `HELD` objects only those in `names`."""
        self.restart(state["n_scheduled"])
        for name in names:
            getattr(self, name).load_state_dict(state[name])
        for parameter, moments in self.optimiser.state.items():  # same memory layout as before, for the same bits
            for name, value in moments.items():
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        for name in PLAIN_FIELDS:
            setattr(self, name, state[name])
        torch.set_rng_state(state["torch"])
        for device, drawn in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
            torch.cuda.set_rng_state(drawn, device)


class Checkpoints:
    """The last two checkpoints of a run, and the one that it shares with runs that start identically.

    Args:
        prefix: Path prefix of the files, e.g. `<folder>/checkpoint.<key>`; empty = none is written.
        minutes: Minutes between checkpoints; 0 = one after every step.
        carried: Counts outside the state that are stored with it; updated by `resume`.
        shared: Path prefix of the shared checkpoint; empty = none.
        share_at: Number of shared steps, from the number of all steps.
    """

    def __init__(
        self,
        prefix: str = "",
        *,
        minutes: float = 0.0,
        carried: dict[str, int] | None = None,
        shared: str = "",
        share_at: Callable[[int], int] | None = None,
    ):
        self.prefix, self.seconds, self._last = prefix, 60 * minutes, time.monotonic()
        self.carried = {} if carried is None else carried
        self.shared, self.share_at = shared, share_at

    def keep(self, state: State) -> None:
        """Write a checkpoint if one is due, and remove outdated ones."""
        if self.shared and len(state.steps) == self.share_at(state.n_scheduled) and not _files(self.shared):
            self._write(self.shared, state)
        if self.prefix and time.monotonic() - self._last >= self.seconds:
            self._write(self.prefix, state)
            for old in _files(self.prefix)[:-GENERATIONS]:
                old.unlink()
            self._last = time.monotonic()

    def resume(self, state: State) -> bool:
        """Load the latest intact checkpoint into a new state; returns whether there is one."""
        own = _files(self.prefix)
        for path in (*reversed(own), *_files(self.shared)):
            if path.name.split(".")[-2] == sha256(path)[:HASH_LENGTH]:
                found = unpacked(path)
                state.load_state_dict(found["training"], names=HELD if path in own else SHARED_PARTS)
                self.carried.update(found["carried"])
                return True
            _logger.warning("A checkpoint is damaged: the previous one is used. Found %s.", path.name)
            path.unlink()
        return False

    def _write(self, prefix: str, state: State) -> None:
        content = packed({"training": state.state_dict(), "carried": self.carried})
        code = hashlib.sha256(content).hexdigest()[:HASH_LENGTH]
        write(f"{prefix}.{len(state.steps):09d}.{code}.safetensors", content)


def _files(prefix: str) -> list[Path]:
    """Checkpoints with this prefix, oldest first."""
    place = Path(prefix)
    return sorted(place.parent.glob(f"{place.name}.*.safetensors")) if prefix else []


def packed(state: Mapping[str, Any]) -> bytes:
    """Serialise a state, a tree of plain values and tensors, as the bytes of a safetensors file."""
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_tree(state, tensors))
    return save(tensors, metadata={"state": tree})


def unpacked(path: Path) -> dict[str, Any]:
    """Read the state in a file; tensors are on the CPU."""
    with safe_open(path, framework="pt") as file:
        return _grown(json.loads(file.metadata()["state"]), file.get_tensor)


def _tree(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A state as JSON: tensors become their names, mappings lists of pairs, since their keys may be numbers."""
    if isinstance(value, Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, Mapping):
        return {"items": [[name, _tree(item, tensors)] for name, item in value.items()]}
    items = [_tree(item, tensors) for item in value] if isinstance(value, list | tuple) else value
    return {"tuple": items} if isinstance(value, tuple) else items


def _grown(tree: Any, tensor: Callable[[str], Tensor]) -> Any:
    if isinstance(tree, list):
        return [_grown(item, tensor) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "items":
        return {name: _grown(item, tensor) for name, item in content}
    return tensor(content) if kind == "tensor" else tuple(_grown(item, tensor) for item in content)
