"""The one training loop: batches, weighted losses, the epoch that is kept, prediction.

A run is steered by its arguments alone: the same seed on the same machine gives the same bits. bf16 autocast with
channels_last_3d memory is two to three times as fast as the ordinary float32 on processors that have it
(`python -m benchmarks.training`).

Sources: AdamW after Loshchilov and Hutter 2019, arXiv 1711.05101. All settings are chosen by us and the same for every
experiment.
"""

import dataclasses
import functools
import logging
import math
import operator
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.checkpoint import Checkpoints, State
from lungmtl.network.device import forward, keep_memory, pick_device
from lungmtl.network.held import Held
from lungmtl.network.losses import task_losses
from lungmtl.network.others import OtherBatches
from lungmtl.network.sampling import Natural
from lungmtl.network.settings import Training
from lungmtl.policies import Decision, Policy, Progress, Step, gramian

MAX_GRADIENT_NORM = 100.0  # a safety net: a lower limit would level the loss scales that the policies set
DECAY = 0.25  # final fraction of the steps with a falling learning rate; before it ITW's stage learns at full rate
logger = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """What training leaves: `model` holds the weights of `best_epoch`."""

    model: nn.Module
    steps: pd.DataFrame  # one row per optimiser step, columns as `_step_row` gives them
    history: pd.DataFrame  # epoch, split, task, loss, auc, seconds
    best_epoch: int


def fit(
    model: nn.Module,
    train_set: Dataset,
    validation_set: Dataset,
    *,
    policy: Policy,
    training: Training,
    positive_weight: Tensor | None,
    precision: str,
    seed: int,
    sampler: Callable[[Dataset, int, torch.Generator], Natural] = Natural,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Train a network under a weighting policy and keep one epoch by one rule.

    Longer than other functions, so that the order of a step, which sets the bits, is read in one place.

    Args:
        model: As `Network` says; trained in place, on the GPU where there is one.
        train_set, validation_set: Items (volume (1, Z, Y, X), target (T,), known (T,)).
        policy: Its tasks are the model's, in the same order.
        training: The same for every experiment.
        positive_weight: Weight of a positive scan per task, (T,), or None.
        precision: bf16 or fp32.
        seed: Seeds batch order and augmentation.
        sampler: Makes the batches of every epoch.
        checkpoints: From which an interrupted training goes on; none are written if not given.
    Returns:
        The model with the weights of the kept epoch, the steps, the history and that epoch.
    Raises:
        ValueError: If tasks differ, fewer than one full batch is there, the grid is too small for bf16 on a CPU, or
            the loss stops being finite.
    """
    _check(model, train_set, policy, training)
    keep_memory()
    device = pick_device()
    model.to(device, memory_format=torch.channels_last_3d)
    generator = torch.Generator().manual_seed(seed)
    batches = sampler(train_set, training.batch_size, generator)
    dtype = torch.bfloat16 if precision == "bf16" else None
    held = Held(train_set, device, dtype=dtype, arranged=columns if training.augment else None)
    held_out = Held(validation_set, device, dtype=dtype)
    draw_batch = operator.getitem
    if training.augment:
        draw_batch = Augmentation(train_set[0][0].shape[1:], generator, seed=seed, dtype=held.dtype, device=device)
    n_steps = training.epochs * len(batches)
    checkpoints = checkpoints or Checkpoints()
    state = State(model, policy, batches, functools.partial(_optimiser, model, training=training), n_steps)
    if checkpoints.resume(state):
        logger.info("epoch %d/%d  goes on after step %d", state.epoch + 1, training.epochs, len(state.steps))
    positive_weight = None if positive_weight is None else positive_weight.to(device)
    others = OtherBatches(model, held, draw_batch, training.batch_size, positive_weight, precision, seed)
    logger.info(_epoch_head(training.epochs, model.tasks))
    for epoch in range(state.epoch, training.epochs):
        start = time.perf_counter() - state.seconds
        model.train()
        for index in batches:
            volumes, place, target, known = held.batch(index, batches.ahead)
            volume = draw_batch(volumes, place)
            logits, features = forward(model, volume, precision)
            losses = task_losses(logits, target, known, positive_weight=positive_weight)  # (T,)
            step, rate = len(state.steps), state.schedule.get_last_lr()[0]
            progress = Progress(step, n_steps, epoch, training.epochs)
            asked = _step(progress, model, policy, losses, known.any(dim=0), features)
            ahead = others.ahead(losses, (volume, target, known), step=step, rate=rate)
            decision = policy(dataclasses.replace(asked, ahead=ahead))
            if decision.restart:
                state.restart(n_steps - step)
            loss = (losses * losses.new_tensor(decision.weights)).sum()
            _update(model, loss, state.optimiser, state.schedule, step=step)
            state.steps.append(_step_row(step, epoch, decision, losses, loss, model.tasks, known))
            state.seen.append((logits.detach().cpu(), target.cpu(), known.cpu()))
            state.seconds = time.perf_counter() - start
            checkpoints.keep(state)
        trained = _epoch_rows("train", epoch, state.seen, model.tasks, positive_weight, state.seconds)
        checked = _check_epoch(epoch, model, held_out.in_order(training.batch_size), precision, positive_weight)
        state.history += trained + checked
        state.keep_better(checked[0]["auc"] if training.selection == "best_auc" else epoch)
        logger.info(_epoch_line(epoch, training.epochs, trained, checked))
        state.end_epoch()
    model.load_state_dict(state.kept[1])
    return Fitted(model, pd.DataFrame(state.steps), pd.DataFrame(state.history), state.kept[0])


def predict(model: nn.Module, scans: Dataset, *, batch_size: int, precision: str) -> np.ndarray:
    """Probability of every task for every scan, in the order of `scans`: float64 (N, T)."""
    logits, _, _ = _outputs(model, DataLoader(scans, batch_size), precision)
    return torch.sigmoid(logits.double()).numpy()


def _check(model: nn.Module, train_set: Dataset, policy: Policy, training: Training) -> None:
    if tuple(policy.tasks) != tuple(model.tasks):
        raise ValueError(f"Policy and model must have the same tasks. Found {policy.tasks} and {model.tasks}.")
    if len(train_set) < training.batch_size:
        raise ValueError(f"Training must fill one batch of {training.batch_size}. Found {len(train_set)} scans.")
    if training.selection not in ("best_auc", "last"):
        raise ValueError(f"`selection` must be best_auc or last. Found {training.selection!r}.")


def _step(
    progress: Progress, model: nn.Module, policy: Policy, losses: Tensor, known: Tensor, features: Tensor
) -> Step:
    """What the policy is asked with; gradients only if it needs them."""
    places = {"features": lambda: [features], "parameters": lambda: list(model.shared_parameters()), "": None}
    at = policy.gradients_at(progress)
    if at not in places:
        raise ValueError(f"`gradients_at` must be features, parameters or blank. Found {at!r}.")
    products = gramian(losses, places[at](), known=known) if at else None  # (T, T)
    return Step(**dataclasses.asdict(progress), losses=losses.detach(), known=known, gramian=products)


def _optimiser(
    model: nn.Module, n_steps: int, training: Training
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(
        model.parameters(), training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    rate = functools.partial(learning_rate_share, n_steps=n_steps, warmup=training.warmup)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, rate)


def learning_rate_share(step: int | np.ndarray, *, n_steps: int | np.ndarray, warmup: float) -> float | np.ndarray:
    """Share of the peak learning rate: rise, plateau, fall; of many trainings at a time with arrays."""
    rise = (step + 1) / (warmup * n_steps + 1)
    fall = (n_steps - step) / (DECAY * n_steps)
    return np.minimum(1.0, np.minimum(rise, fall))


def _update(
    model: nn.Module,
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    step: int,
) -> None:
    if not torch.isfinite(loss):
        raise ValueError(f"The loss must stay finite. Found {loss.item()} in step {step}.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM, foreach=True)
    optimiser.step()
    schedule.step()


@torch.inference_mode()
def _outputs(model: nn.Module, scans: Iterable[Sequence[Tensor]], precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and known flags of all batches (volume, target, known), (N, T) each, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    batches = [
        (forward(model, volume.to(device), precision)[0].cpu(), target.cpu(), known.cpu())
        for volume, target, known in scans
    ]
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def _step_row(
    step: int, epoch: int, decision: Decision, losses: Tensor, loss: Tensor, tasks: Sequence[str], known: Tensor
) -> dict:
    """`mean_weight` is over all tasks, those among them that have no label in the batch, not `n_known`, as 0."""
    has_label = known.any(dim=0).tolist()  # (T,)
    weights = {f"weight_{task}": weight for task, weight in zip(tasks, decision.weights, strict=True)}
    values = torch.where(known.any(dim=0), losses.detach(), torch.nan).tolist()  # blank where nothing was known
    in_force = [weight * is_known for weight, is_known in zip(decision.weights, has_label, strict=True)]
    row = {"step": step, "epoch": epoch, "phase": decision.phase, "focus": decision.focus}
    return (
        row
        | weights
        | {f"loss_{task}": value for task, value in zip(tasks, values, strict=True)}
        | {"loss": loss.item(), "mean_weight": sum(in_force) / len(in_force), "n_known": sum(has_label)}
    )


def _check_epoch(
    epoch: int,
    model: nn.Module,
    scans: Iterable[Sequence[Tensor]],
    precision: str,
    positive_weight: Tensor | None,
) -> list[dict]:
    """Rows of the validation scans after an epoch."""
    start = time.perf_counter()
    outputs = [_outputs(model, scans, precision)]
    return _epoch_rows("validation", epoch, outputs, model.tasks, positive_weight, time.perf_counter() - start)


def _epoch_rows(
    split: str, epoch: int, outputs: list, tasks: Sequence[str], positive_weight: Tensor | None, seconds: float
) -> list[dict]:
    logits, target, known = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    weight = None if positive_weight is None else positive_weight.cpu()
    losses = task_losses(logits, target, known, positive_weight=weight).tolist()
    aucs = [_auc(target[:, t], logits[:, t], known[:, t]) for t in range(len(tasks))]
    return [
        {"epoch": epoch, "split": split, "task": task, "loss": loss, "auc": auc, "seconds": seconds}
        for task, loss, auc in zip(tasks, losses, aucs, strict=True)
    ]


def _auc(target: Tensor, logits: Tensor, known: Tensor) -> float:
    """AUC among known labels; NaN where only one class is known, which a small epoch may meet."""
    target, logits = target[known].numpy(), logits[known].numpy()
    return float(roc_auc_score(target, logits)) if len(np.unique(target)) == 2 else math.nan


def _epoch_head(epochs: int, tasks: Sequence[str]) -> str:
    """Task names over the AUCs of `_epoch_line`."""
    names = " ".join(f"{task:>4}" for task in tasks)
    return f"epoch {'':{2 * len(str(epochs)) + 1}}  {'':12}  {'':17}  AUC {names}"


def _epoch_line(epoch: int, epochs: int, training: list[dict], checked: list[dict]) -> str:
    means = [sum(row["loss"] for row in rows) / len(rows) for rows in (training, checked)]
    loss = [f"{mean:6.{3 if mean < 99.9995 else 0}f}" for mean in means]  # as wide up to a million
    aucs = " ".join(f"{row['auc']:{max(4, len(row['task']))}.2f}" for row in checked)
    seconds = training[0]["seconds"] + checked[0]["seconds"]
    losses = f"train {loss[0]}  validation {loss[1]}"
    return f"epoch {epoch + 1:{len(str(epochs))}}/{epochs}  {losses}  AUC {aucs}  {seconds:.1f} s"
