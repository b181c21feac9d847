"""A training step as the study runs it against the ordinary way, timed in turn in one process.

`python -m benchmarks.training [--threads 1] [--size 64] [--batch 8]` prints the median of each and the ratio. The
ordinary way is float32 with channels first; the study's is bf16 autocast with channels_last_3d. Absolute times depend
on what else the machine does, the ratio far less: the two ways take turns step by step.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor

from lungmtl.experiments import TASKS
from lungmtl.network.device import pick_device, resolve_precision
from lungmtl.network.losses import task_losses
from lungmtl.network.model import MultiTaskNet

WAYS = {
    "float32, channels first": (torch.contiguous_format, False),
    "float32, channels last": (torch.channels_last_3d, False),
    "bf16, channels last": (torch.channels_last_3d, True),
}
ORDINARY = "float32, channels first"


def main() -> None:
    """Time every way in turn and print medians and ratios."""
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = pick_device()
    volume = torch.rand(options.batch, 1, *[options.size] * 3, device=device)
    networks = {way: MultiTaskNet(TASKS, width=options.width).to(device, memory_format=WAYS[way][0]) for way in WAYS}
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.steps + 2):  # the first two warm up
        for way, network in networks.items():
            seconds[way].append(_step(network, volume.contiguous(memory_format=WAYS[way][0]), bf16=WAYS[way][1]))
    auto = resolve_precision("auto", shape=[options.size] * 3)
    print(f"{_device_name(device)}, {options.threads} thread(s), auto precision {auto}")
    print(f"{options.batch} x {options.size}^3, width {options.width}, median of {options.steps} steps")
    ordinary = statistics.median(seconds[ORDINARY][2:])
    for way, values in seconds.items():
        median = statistics.median(values[2:])
        print(f"{way:26s} {median * 1000:8.1f} ms   {ordinary / median:5.2f} x")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"threads": 1, "size": 64, "batch": 8, "width": 8, "steps": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def _step(network: MultiTaskNet, volume: Tensor, *, bf16: bool) -> float:
    """Seconds of one forward and backward pass."""
    target = torch.zeros(len(volume), len(network.tasks), device=volume.device)
    _wait(volume.device)
    start = time.perf_counter()
    with torch.autocast(volume.device.type, dtype=torch.bfloat16, enabled=bf16):
        logits, _ = network(volume)
    network.zero_grad(set_to_none=True)
    task_losses(logits, target, torch.ones_like(target, dtype=torch.bool)).sum().backward()
    _wait(volume.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
