"""What every weighting policy costs, and how far gradients at features speak for those at parameters.

`python -m benchmarks.policies [--size 64] [--batch 8] [--pairs 5]` times a training step of every policy in turn with a
plain one in the same process, in processor time where there is no GPU, so that what else the machine does touches both
alike, and prints the median ratios of time and of what the step takes of memory at its peak.

`python -m benchmarks.policies --agreement params/phantom.yaml [--steps 80] [--output FOLDER]` trains with equal weights
on a study's phantoms instead, which it makes if they are not there, and prints cosines and weights from both kinds of
gradients, as two tables that it writes into FOLDER, too.
"""

import argparse
import ctypes
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, StackDataset

from lungmtl.experiments import TASKS
from lungmtl.files import write
from lungmtl.network import (
    OtherBatches,
    build_network,
    forward,
    pick_device,
    positive_weights,
    resolve_precision,
    task_losses,
)
from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.held import Held
from lungmtl.network.training import MAX_GRADIENT_NORM
from lungmtl.policies import POLICIES, Policy, Seen, Step, Weighting, build, gramian
from lungmtl.study import datasets, gather, plan

PLAIN = "BW"
PLACES = ("features", "parameters")
LEARNING_RATE = 1e-4
COMPARED = ("MGDA", "PCGrad", "IMTLG", "AlignedMTL", "ConFIG", "UPGrad", "FairGrad", "PCD", "GCS", "DBMTL")


class Batch(NamedTuple):
    """Scans and labels."""

    volume: Tensor  # (B, 1, Z, Y, X)
    target: Tensor  # (B, T)
    known: Tensor  # (B, T)


def main() -> None:
    """Print one table or the other."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.agreement:
        print_agreement(options.agreement, n_steps=options.steps, output=options.output)
    else:
        print_costs(options)


def print_costs(options: argparse.Namespace) -> None:
    """Median ratio to a plain step, and extra memory, of every policy that can run here."""
    device = pick_device()
    precision = resolve_precision("auto", shape=[options.size] * 3)
    volume = torch.rand(options.batch, 1, *[options.size] * 3, device=device)
    target = (torch.rand(options.batch, len(TASKS), device=device) < 0.5).float()
    batch = Batch(volume, target, torch.ones_like(target, dtype=torch.bool))
    network = build_network("attention", TASKS, width=options.width)
    network.to(device, memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, fused=True)
    others = other_batches(network, batch, precision)

    def measured(policy: Policy) -> tuple[float, float]:
        return _measured(lambda: train_step(network, optimiser, policy, batch, others), device)

    print(f"{options.batch} x {options.size}^3, width {options.width}, {precision}, {device.type}")
    print(f"{'policy':28s} {'time':>6s} {'memory':>7s}   median of {options.pairs} pairs, against a plain step")
    plain = build(_weighting(PLAIN))
    measured(plain)  # warms up
    for spelling in spellings(options.only):
        policy = build(_weighting(spelling))
        try:
            measured(policy)
        except ImportError as error:
            print(f"{spelling:28s} left out: {error}")
            continue
        pairs = [(measured(policy), measured(plain)) for _ in range(options.pairs)]
        times, memories = (statistics.median(one[k] / other[k] for one, other in pairs) for k in (0, 1))
        print(f"{spelling:28s} {times:6.2f} {memories:7.2f}", flush=True)


def spellings(only: str) -> Iterator[str]:
    """Every policy, those with gradients at both places, and two that are composed; or those named."""
    if only:
        yield from only.split(";")
        return
    for name in POLICIES:
        yield name
        if build(_weighting(name)).needs_gradients:
            yield f"{name}(at='parameters')"
    yield from ("ITW(PFLP)", "ITW(PFLP(UW))")


def other_batches(network: nn.Module, batch: Batch, precision: str) -> OtherBatches:
    """Augmented batches of the same scans, as large, on which `AutoLambda` tries a step."""
    device = batch.volume.device
    dtype = torch.bfloat16 if precision == "bf16" else None
    held = Held(StackDataset(*(part.cpu() for part in batch)), device, dtype=dtype, arranged=columns)
    moved = Augmentation(batch.volume.shape[2:], torch.Generator(), seed=0, dtype=held.dtype, device=device)
    return OtherBatches(network, held, moved, len(batch.volume), None, precision, seed=0)


def train_step(
    network: nn.Module, optimiser: torch.optim.Optimizer, policy: Policy, batch: Batch, others: OtherBatches
) -> None:
    """One optimiser step, as `lungmtl.network.fit` takes it."""
    logits, features = forward(network, batch.volume, others.precision)
    losses = task_losses(logits, batch.target, batch.known)
    known = batch.known.any(dim=0)
    ahead = others.ahead(losses, batch, step=0, rate=LEARNING_RATE)
    step = Step(0, 100, 0, 1, losses=losses.detach(), known=known, ahead=ahead)
    if at := policy.gradients_at(step):
        places = {"features": [features], "parameters": list(network.shared_parameters())}
        step = dataclasses.replace(step, gramian=gramian(losses, places[at], known=known))
    loss = (losses * losses.new_tensor(policy(step).weights)).sum()
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM, foreach=True)
    optimiser.step()


def print_agreement(params: str, *, n_steps: int, output: Path | None) -> None:
    """Cosines to the central gradient and weights, from gradients at the features and at the parameters."""
    config = next(run for run in plan.plan_runs(params) if len(run.tasks) > 1)
    config = dataclasses.replace(config, cache_dir=str(plan.cache_dir(config)))
    train = datasets(config, gather(config))["train"]
    device, precision = pick_device(), resolve_precision(config.precision, shape=config.shape)
    network = build_network(config.network, config.tasks, width=config.width)
    network.to(device, memory_format=torch.channels_last_3d)
    optimiser = torch.optim.AdamW(network.parameters(), config.learning_rate)
    weight = positive_weights(train.target, train.known).to(device)
    loader = DataLoader(train, config.batch_size, shuffle=True, drop_last=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    found = []  # one pair of Gramians and the losses per step
    for _, (volume, target, known) in zip(range(n_steps), batches, strict=False):
        logits, features = forward(network, volume.to(device), precision)
        losses = task_losses(logits, target.to(device), known.to(device), positive_weight=weight)
        places = ([features], list(network.shared_parameters()))
        found.append((*(gramian(losses, place) for place in places), losses.detach().tolist()))
        optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimiser.step()
    print(f"{Path(params).name}: {n_steps} steps of {config.batch_size} scans, {precision}; {', '.join(config.tasks)}")
    for name, table in {
        "cosines": cosine_table(found, config.tasks),
        "weights": weight_table(found, config.tasks),
    }.items():
        print(f"\n{name}\n{table.round(3).to_string(index=False)}")
        if output:
            write(output / f"{name}.csv", table.round(4).to_csv(index=False))


def cosine_table(found: list, tasks: list[str]) -> pd.DataFrame:
    """Cosines to the central gradient at both places: mean of every auxiliary task, and how the places go together."""
    features, parameters = (torch.stack([_cosines(step[k]) for step in found]) for k in (0, 1))  # (steps, T - 1)
    half, rows = len(found) // 2, []
    for name, part in (("first half", slice(0, half)), ("second half", slice(half, None)), ("all", slice(None))):
        both = [features[part], parameters[part]]
        together = torch.corrcoef(torch.stack([values.flatten() for values in both]))[0, 1].item()
        same = (both[0].sign() == both[1].sign()).double().mean().item()
        for place, values in zip(PLACES, both, strict=True):
            means = dict(zip(tasks[1:], values.mean(dim=0).tolist(), strict=True))
            rows.append({"steps": name, "at": place, **means, "correlation": together, "same_sign": same})
    return pd.DataFrame(rows)


def weight_table(found: list, tasks: list[str]) -> pd.DataFrame:
    """Per rule and place: mean weights as shares of their sum, share set to 0, and share of a step that moves."""
    rows = []
    for name in COMPARED:
        shares, below = zip(*(_shares(name, found, place, tasks) for place in (0, 1)), strict=True)
        moved = ((shares[0] - shares[1]).abs().sum(dim=1).mean() / 2).item()
        for place, values, negative in zip(PLACES, shares, below, strict=True):
            means = dict(zip(tasks, values.mean(dim=0).tolist(), strict=True))
            rows.append({"policy": name, "at": place, **means, "below_0": negative, "moved": moved})
    return pd.DataFrame(rows)


def _shares(name: str, found: list, place: int, tasks: list[str]) -> tuple[Tensor, float]:
    """A rule's weights as shares, (steps, T), and how many would have been below 0."""
    rule, second = (build(Weighting(tasks=tasks, weights=[1.0] * len(tasks), policy=name)) for _ in range(2))
    asked = [Step(k, len(found), 0, 1, losses=step[2], gramian=step[place]) for k, step in enumerate(found)]
    raw = [second.weigh(Seen(list(range(len(tasks))), step[2], step[place].tolist(), asked[0])) for step in found]
    weights = torch.tensor([rule(step).weights for step in asked], dtype=torch.float64)
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-12), torch.tensor(raw).lt(0).double().mean().item()


def _cosines(products: Tensor) -> Tensor:
    lengths = products.diagonal().sqrt()
    return products[0, 1:] / (lengths[0] * lengths[1:])


def _weighting(spelling: str) -> Weighting:
    return Weighting(tasks=TASKS, weights=[1.0] * len(TASKS), policy=spelling)


def _measured(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds, and bytes at the peak above those before."""
    before = _reset_peak(device)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start, _peak(device) - before


def _reset_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL(None).malloc_trim(0)  # Linux: what is free goes back
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # and the peak starts anew
    return _kilobytes("VmRSS")


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else _kilobytes("VmHWM")


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"threads": 1, "size": 64, "batch": 8, "width": 8, "pairs": 5, "steps": 80}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", default="", help="policies to time, spelled, with ; between them")
    parser.add_argument("--agreement", default="", metavar="PARAMS", help="a study's params file")
    parser.add_argument("--output", type=Path, help="folder for the two tables of --agreement")
    return parser.parse_args()


if __name__ == "__main__":
    main()
