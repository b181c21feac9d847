"""The machine of a run: commit, versions, processor, memory; and one free GPU."""

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lungmtl.files import PROJECT, try_lock

GIT_TIMEOUT_S = 20
RECORD_COPY = "LUNGMTL_RECORD_COPY"  # environment variable: path of a copy of the record, hidden from the engine
CHECKPOINTS = "LUNGMTL_CHECKPOINTS"  # environment variable: path prefix of a run's checkpoints
SHARED_START = "LUNGMTL_SHARED"  # environment variable: path prefix of the checkpoint that runs share
GPU_POLL_S = 2.0


def environment(*, threads: int, precision: str) -> dict[str, Any]:
    """Describe the machine and the software of this process, without any path.

    Args:
        threads: CPU threads of the run.
        precision: The precision in use, bf16 or fp32.
    Returns:
        Keys of `SECTIONS["environment"]` in `study.record`, and `peak_memory_mb`; commit is "unknown" without git,
            gpu and cudnn "" without a CUDA device.
    """
    import torch  # takes seconds to import, and only a run needs it here

    commit = _git("rev-parse", "HEAD") if _git("rev-parse", "--show-toplevel") == str(PROJECT) else ""
    changes = _git("status", "--porcelain", "--", ".", ":!results") if commit else ""
    return {
        "commit": commit or "unknown",
        "dirty": bool(changes),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": _cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "cudnn": str(torch.backends.cudnn.version() or "") if torch.cuda.is_available() else "",
        "threads": threads,
        "precision": precision,
        "peak_memory_mb": peak_memory_mb(),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB (of 10^6 bytes), one decimal."""
    unit_bytes = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6, 1)


@contextlib.contextmanager
def one_gpu() -> Iterator[dict[str, str]]:
    """Wait for a free NVIDIA GPU and hold it; yields the variables that make it the only visible one.

    Yields an empty mapping without a GPU, or if CUDA_VISIBLE_DEVICES is already set, as on a cluster. The variable
    LUNGMTL_RUNS_PER_GPU lets several runs share a device.
    """
    devices = [] if "CUDA_VISIBLE_DEVICES" in os.environ else _gpus()
    if not devices:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        yield {"CUDA_VISIBLE_DEVICES": _free_gpu(devices, stack)}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=GIT_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):  # git is missing, or hangs on a slow disk
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, encoding="utf-8", check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def _free_gpu(devices: Sequence[str], stack: contextlib.ExitStack) -> str:
    n_slots = int(os.environ.get("LUNGMTL_RUNS_PER_GPU", "1"))
    while True:
        for slot in range(n_slots):
            for device in devices:
                path = Path(tempfile.gettempdir()) / f"lungmtl-{os.getuid()}-{device}-{slot}.lock"
                file = stack.enter_context(path.open("a", encoding="utf-8"))
                if try_lock(file.fileno()):
                    return device
                file.close()
        time.sleep(GPU_POLL_S)
