"""The one training loop: batches, augmentation, weighted losses, the epoch that is kept, prediction.

A run is steered by its arguments alone: the same seed on the same machine gives the same bits. bf16 autocast with
channels_last_3d memory is two to three times as fast as the ordinary float32 on processors that have it
(`python -m benchmarks.training`).

Sources: AdamW after Loshchilov and Hutter 2019, arXiv 1711.05101. All settings are chosen by us and the same for every
experiment.
"""

import copy
import logging
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from lungmtl.model import REDUCTION, task_losses
from lungmtl.policies import Decision, Policy, Progress

# chosen by us: what a scanner and a patient's position vary, small against what a disease changes
MAX_SHIFT_FRACTION = 0.05  # of the grid, along each axis
MAX_ROTATION_DEG = 8.0  # about the body's long axis
MAX_SCALE = 0.06
MAX_NOISE = 0.015  # standard deviation on the [0, 1] scale
MAX_GRADIENT_NORM = 100.0  # a safety net: a lower limit would level the loss scales that the policies set
DECAY = 0.25  # final fraction of the steps with a falling learning rate; before it ITW's stage learns at full rate

MIN_BF16_VOXELS = 2 * REDUCTION + 1  # along every axis, on a CPU; `_forward` says why

logger = logging.getLogger(__name__)


class Fitted(NamedTuple):
    """What training leaves: `model` holds the weights of `best_epoch`."""

    model: nn.Module
    steps: pd.DataFrame  # step, epoch, phase, focus, weight_<task>, loss_<task>, loss; one row per optimiser step
    history: pd.DataFrame  # epoch, split, task, loss, auc, seconds
    best_epoch: int


def seed_everything(seed: int) -> None:
    """Seed torch and make its algorithms deterministic: the only global seeding; called once by a notebook."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)


def pick_device() -> torch.device:
    """The first GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str, *, shape: Sequence[int]) -> str:
    """Turn `auto` into bf16 where the device in use computes a grid of this shape natively and rightly, else fp32.

    Args:
        precision: auto, bf16 or fp32.
        shape: Voxels of the model's grid, (z, y, x).
    Raises:
        ValueError: If `precision` is not auto, bf16 or fp32.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"`precision` must be auto, bf16 or fp32. Found {precision!r}.")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() and min(shape) >= MIN_BF16_VOXELS else "fp32"


def fit(
    model: nn.Module,
    train_set: Dataset,
    validation_set: Dataset,
    *,
    policy: Policy,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup: float,
    positive_weight: Tensor | None,
    augment: bool,
    selection: str,
    restart_at_transfer: bool = False,
    precision: str,
    seed: int,
) -> Fitted:
    """Train a network under a weighting policy and keep one epoch by one rule.

    Args:
        model: A MultiTaskNet; trained in place, on the GPU where there is one.
        train_set, validation_set: Items (volume (1, Z, Y, X), target (T,), known (T,)).
        policy: Progress to weights per task; its tasks are the model's, in the same order.
        epochs: Passes over the training scans; the last batch is dropped where it is not full.
        batch_size: Scans per optimiser step.
        learning_rate: Peak of the schedule: linear rise over `warmup` of the steps, constant, linear fall to 0 over
            the last quarter.
        weight_decay: Of AdamW.
        warmup: Fraction of all steps, in [0, 1).
        positive_weight: Weight of a positive scan per task, (T,), or None.
        augment: Flip, shift, rotate, scale and noise, in training only.
        selection: best_auc = highest validation AUC of the first task, the earliest of equals; last = last epoch.
        restart_at_transfer: Begin the policy's final stage with a fresh optimiser and schedule, as fine-tuning does.
        precision: bf16 or fp32.
        seed: Seeds batch order and augmentation.
    Returns:
        The model with the weights of the kept epoch, the steps, the history and that epoch.
    Raises:
        ValueError: If tasks differ, fewer than one full batch is there, the grid is too small for bf16 on a CPU, or
            the loss stops being finite.
    """
    _check(model, train_set, policy, batch_size, selection)
    device = pick_device()
    model.to(device, memory_format=torch.channels_last_3d)
    generator = torch.Generator().manual_seed(seed)
    loader = DataLoader(train_set, batch_size, shuffle=True, drop_last=True, generator=generator)
    n_steps = epochs * len(loader)
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "warmup": warmup}
    optimiser, schedule = _optimiser(model, n_steps, **rates)
    positive_weight = None if positive_weight is None else positive_weight.to(device)
    steps, history, kept, best_score = [], [], (0, {}), -math.inf
    for epoch in range(epochs):
        start = time.perf_counter()
        model.train()
        seen = []
        for volume, target, known in loader:
            volume = _augmented(volume, generator) if augment else volume
            volume, target, known = (tensor.to(device) for tensor in (volume, target, known))
            logits = _forward(model, volume, precision)
            losses = task_losses(logits, target, known, positive_weight=positive_weight)  # (T,)
            decision = policy(Progress(step=len(steps), n_steps=n_steps, epoch=epoch, n_epochs=epochs))
            if restart_at_transfer and decision.phase == "transfer" and (not steps or steps[-1]["phase"] != "transfer"):
                optimiser, schedule = _optimiser(model, n_steps - len(steps), **rates)
            loss = (losses * losses.new_tensor(decision.weights)).sum()
            _update(model, loss, optimiser, schedule, step=len(steps))
            steps.append(_step_row(len(steps), epoch, decision, losses, loss, model.tasks, known))
            seen.append((logits.detach().cpu(), target.cpu(), known.cpu()))
        training = _epoch_rows("train", epoch, seen, model.tasks, positive_weight, time.perf_counter() - start)
        start = time.perf_counter()
        outputs = [_outputs(model, validation_set, batch_size, precision)]
        checked = _epoch_rows("validation", epoch, outputs, model.tasks, positive_weight, time.perf_counter() - start)
        history += training + checked
        score = checked[0]["auc"] if selection == "best_auc" else epoch
        if score > best_score or not kept[1]:
            kept, best_score = (epoch, copy.deepcopy(model.state_dict())), score
        logger.info(_epoch_line(epoch, epochs, training, checked))
    model.load_state_dict(kept[1])
    return Fitted(model, pd.DataFrame(steps), pd.DataFrame(history), kept[0])


def predict(model: nn.Module, scans: Dataset, *, batch_size: int, precision: str) -> np.ndarray:
    """Probability of every task for every scan, in the order of `scans`: float64 (N, T)."""
    logits, _, _ = _outputs(model, scans, batch_size, precision)
    return torch.sigmoid(logits.double()).numpy()


def _check(model: nn.Module, train_set: Dataset, policy: Policy, batch_size: int, selection: str) -> None:
    if tuple(policy.tasks) != tuple(model.tasks):
        raise ValueError(f"Policy and model must have the same tasks. Found {policy.tasks} and {model.tasks}.")
    if len(train_set) < batch_size:
        raise ValueError(f"Training must fill one batch of {batch_size}. Found {len(train_set)} scans.")
    if selection not in ("best_auc", "last"):
        raise ValueError(f"`selection` must be best_auc or last. Found {selection!r}.")


def _optimiser(
    model: nn.Module, n_steps: int, *, learning_rate: float, weight_decay: float, warmup: float
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimiser = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=weight_decay)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, n_steps, warmup))


def _rate(step: int, n_steps: int, warmup: float) -> float:
    """Share of the peak learning rate: rise, plateau, fall."""
    rise = (step + 1) / (warmup * n_steps + 1)
    fall = (n_steps - step) / (DECAY * n_steps)
    return min(1.0, rise, fall)


def _forward(model: nn.Module, volume: Tensor, precision: str) -> Tensor:
    """Logits (B, T) of volumes (B, 1, Z, Y, X).

    Raises:
        ValueError: If a grid is too small for bf16 on a CPU. There oneDNN 3.12 (torch 2.13) computes the weight
            gradient of a 3 x 3 x 3 convolution over 2 slices wrongly: the source pointer ends one slice too far, in
            memory of anything, even NaN. Strided ones over 1 row or column fail too; 3 feature voxels are right.
            Source: `compute_od_loop_common` in oneDNN's jit_avx512_core_bf16_conv_kernel.cpp.
    """
    if precision == "bf16" and volume.device.type == "cpu" and min(volume.shape[2:]) < MIN_BF16_VOXELS:
        least, found = MIN_BF16_VOXELS, tuple(volume.shape[2:])
        raise ValueError(f"bf16 on a CPU must have at least {least} voxels along every axis. Found {found}: use fp32.")
    volume = volume.contiguous(memory_format=torch.channels_last_3d)
    with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return model(volume)[0]


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
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
    schedule.step()


@torch.inference_mode()
def _outputs(model: nn.Module, scans: Dataset, batch_size: int, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, targets and known flags of all scans, (N, T) each, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    batches = []
    for volume, target, known in DataLoader(scans, batch_size):
        batches.append((_forward(model, volume.to(device), precision).cpu(), target, known))
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def _augmented(volume: Tensor, generator: torch.Generator) -> Tensor:
    """Flip left-right, shift, rotate about the long axis, scale in plane, add noise inside the lungs: same shape."""
    n, _, n_z, _, _ = volume.shape

    def draw(limit: float) -> Tensor:
        return (2 * torch.rand(n, generator=generator) - 1) * limit

    angle, scale = torch.deg2rad(draw(MAX_ROTATION_DEG)), 1 + draw(MAX_SCALE)
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    ratio = volume.shape[3] / volume.shape[4]  # affine_grid's unit is half an axis: y and x differ in length
    rows = [
        torch.stack([flip * scale * angle.cos(), -scale * angle.sin() * ratio, draw(2 * MAX_SHIFT_FRACTION)], dim=1),
        torch.stack([flip * scale * angle.sin() / ratio, scale * angle.cos(), draw(2 * MAX_SHIFT_FRACTION)], dim=1),
    ]
    planes = volume[:, 0]  # (B, Z, Y, X): every slice moves alike, so Z can be the channels of a picture
    grid = functional.affine_grid(torch.stack(rows, dim=1), planes.shape, align_corners=False)
    moved = functional.grid_sample(planes, grid, align_corners=False)
    shifts = draw(MAX_SHIFT_FRACTION * n_z).round().long().tolist()
    for k, shift in enumerate(shifts):
        moved[k] = _shifted(moved[k], shift)
    noise = torch.randn(moved.shape, generator=generator).mul_(draw(MAX_NOISE).abs()[:, None, None, None])
    return noise.mul_(moved > 0).add_(moved).clamp_(0, 1)[:, None]


def _shifted(planes: Tensor, shift: int) -> Tensor:
    """Move along the first axis by whole voxels, air coming in."""
    moved = torch.roll(planes, shift, dims=0)
    if shift:
        moved[slice(0, shift) if shift > 0 else slice(shift, None)] = 0
    return moved


def _step_row(
    step: int, epoch: int, decision: Decision, losses: Tensor, loss: Tensor, tasks: Sequence[str], known: Tensor
) -> dict:
    weights = {f"weight_{task}": weight for task, weight in zip(tasks, decision.weights, strict=True)}
    values = torch.where(known.any(dim=0), losses.detach(), torch.nan).tolist()  # blank where nothing was known
    row = {"step": step, "epoch": epoch, "phase": decision.phase, "focus": decision.focus}
    return (
        row
        | weights
        | {f"loss_{task}": value for task, value in zip(tasks, values, strict=True)}
        | {"loss": loss.item()}
    )


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


def _epoch_line(epoch: int, epochs: int, training: list[dict], checked: list[dict]) -> str:
    loss = [sum(row["loss"] for row in rows) / len(rows) for rows in (training, checked)]
    aucs = " ".join(f"{row['auc']:.2f}" for row in checked)
    seconds = training[0]["seconds"] + checked[0]["seconds"]
    return f"epoch {epoch + 1}/{epochs}  train {loss[0]:.3f}  validation {loss[1]:.3f}  AUC {aucs}  {seconds:.1f} s"
