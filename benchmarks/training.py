"""Training as the study runs it against the ordinary way, step by step in turn in one process, and where its time goes.

`python -m benchmarks.training [--size 64 48 72] [--batch 8] [--threads 1]` prints the shares of augmentation with
loading, forward pass, backward pass, optimiser and validation (a quarter as many scans as in training, once an epoch),
and volumes per second. The ordinary way is float32 with channels first, volumes moved by `grid_sample` and served by
DataLoader workers. Absolute times depend on what else the machine does, the ratio far less.
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, StackDataset

from lungmtl.experiments import TASKS
from lungmtl.network.augmentation import Augmentation, columns
from lungmtl.network.device import forward, keep_memory, pick_device, resolve_precision
from lungmtl.network.held import Held
from lungmtl.network.losses import task_losses
from lungmtl.network.model import MultiTaskNet

N_BATCHES = 4  # of distinct scans
VALIDATION = 0.25  # scans per training scan, as in the reference study


def main() -> None:
    """Time both ways in turn and print shares and volumes per second."""
    options = _options()
    torch.set_num_threads(options.threads)
    keep_memory()
    torch.manual_seed(0)
    device = pick_device()
    auto = resolve_precision("auto", shape=options.size)
    scans = _scans(N_BATCHES * options.batch, options.size)
    ways = {"lungmtl": _ours(scans, options, auto, device), "ordinary": _ordinary(scans, options, device)}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(options.steps + 2):  # the first two warm up
        for name, step in ways.items():
            spent[name].append(step())
    print(f"{torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}, {options.threads} thread(s), {auto}")
    print(f"{options.batch} x {options.size}, width {options.width}, median of {options.steps} steps")
    for name, steps in spent.items():
        parts = {part: statistics.median(step[part] for step in steps[2:]) for part in steps[0]}
        total = sum(parts.values())
        shares = "  ".join(f"{part} {100 * seconds / total:.0f} %" for part, seconds in parts.items())
        print(f"{name:9s} {options.batch / total:7.1f} volumes/s   {shares}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=[64, 48, 72])
    for name, default in {"threads": 1, "batch": 8, "width": 8, "steps": 15, "workers": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def _scans(n: int, size: list[int]) -> Dataset:
    volume = torch.rand(n, 1, *size).half() * (torch.rand(n, 1, *size) < 0.5)
    return StackDataset(volume, torch.zeros(n, len(TASKS)), torch.ones(n, len(TASKS), dtype=torch.bool))


def _ours(
    scans: Dataset, options: argparse.Namespace, precision: str, device: torch.device
) -> Callable[[], dict[str, float]]:
    """A step as `fit` makes it."""
    held, held_out = (
        Held(scans, device, dtype=torch.bfloat16 if precision == "bf16" else None, arranged=arranged)
        for arranged in (columns, None)
    )
    generator = torch.Generator().manual_seed(0)
    augmented = Augmentation(options.size, generator, seed=0, dtype=held.dtype, device=device)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Augmented volumes, target and known."""
        for order in iter(lambda: torch.randperm(len(scans), generator=generator), None):
            for index in order.split(options.batch):
                volumes, place, target, known = held.batch(index.tolist())
                yield augmented(volumes, place), target, known

    model = MultiTaskNet(TASKS, width=options.width).to(device, memory_format=torch.channels_last_3d)
    checked = itertools.chain.from_iterable(held_out.in_order(options.batch) for _ in itertools.count())
    return _step(model, functools.partial(_logits, precision=precision), batches(), checked, fused=True)


def _ordinary(scans: Dataset, options: argparse.Namespace, device: torch.device) -> Callable[[], dict[str, float]]:
    """A step of float32 with channels first."""
    loaders = [
        DataLoader(scans, options.batch, shuffle=shuffle, num_workers=options.workers) for shuffle in (True, False)
    ]
    repeated = [itertools.chain.from_iterable(loader for _ in itertools.count()) for loader in loaders]
    moved = ((_moved(volume.float().to(device)), target, known) for volume, target, known in repeated[0])
    plain = ((volume.float().to(device), target, known) for volume, target, known in repeated[1])
    model = MultiTaskNet(TASKS, width=options.width).to(device)
    return _step(model, lambda model, volume: model(volume)[0], moved, plain, fused=False)


def _logits(model: nn.Module, volume: Tensor, *, precision: str) -> Tensor:
    return forward(model, volume, precision)[0]


def _moved(volume: Tensor) -> Tensor:
    """Rotated, scaled, mirrored and shifted in space, with noise in the lungs."""
    motion = torch.eye(3, 4).repeat(len(volume), 1, 1) + 0.05 * torch.randn(len(volume), 3, 4)
    grid = functional.affine_grid(motion.to(volume.device), volume.shape, align_corners=False)
    moved = functional.grid_sample(volume, grid, align_corners=False)
    return (moved + 0.01 * torch.randn_like(moved) * (moved > 0)).clamp(0, 1)


def _step(
    model: nn.Module,
    logits: Callable[[nn.Module, Tensor], Tensor],
    batches: Iterator[tuple[Tensor, Tensor, Tensor]],
    checked: Iterator[tuple[Tensor, Tensor, Tensor]],
    *,
    fused: bool,
) -> Callable[[], dict[str, float]]:
    """Seconds of the parts of a step, the validation that falls to it among them."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, fused=fused)

    def step() -> dict[str, float]:
        """Take it."""
        model.train()
        times = [_now()]
        volume, target, known = next(batches)
        times.append(_now())
        loss = task_losses(logits(model, volume), target.to(volume.device), known.to(volume.device)).sum()
        times.append(_now())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        times.append(_now())
        nn.utils.clip_grad_norm_(model.parameters(), 100.0, foreach=fused)
        optimiser.step()
        times.append(_now())
        model.eval()
        with torch.inference_mode():
            logits(model, next(checked)[0])
        times.append(_now())
        parts = [after - before for before, after in itertools.pairwise(times)]
        parts[-1] *= VALIDATION
        return dict(zip(("augmentation", "forward", "backward", "optimiser", "validation"), parts, strict=True))

    return step


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
