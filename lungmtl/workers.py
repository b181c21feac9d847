"""Worker processes: parallel jobs, each of which may kill its process without affecting the others."""

import faulthandler
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from threadpoolctl import threadpool_limits

Job = Callable[[tuple], dict]  # defined at module level, so that a new process can import it
PARENT_POLL_S = 1.0
JOB_LIMIT_S = 600.0  # chosen by us: 400 times the duration of a real scan


def run_jobs(function: Job, jobs: Sequence[tuple], *, workers: int) -> Iterator[dict]:
    """Yield the result of every job as it finishes: by `run_apart`, or in this process with fewer than two workers.

    Raises:
        RuntimeError: If a job killed its worker twice, or exceeded JOB_LIMIT_S.
    """
    if workers < 2:
        yield from map(function, jobs)
    else:
        yield from run_apart(function, jobs, workers=workers, lost=_stop)


def _stop(job: tuple, found: str) -> dict:
    raise RuntimeError(f"Every job must be completed; call again to resume. Found {found}, job {job[0]}.")


def run_apart(
    function: Job,
    jobs: Sequence[tuple],
    *,
    workers: int,
    lost: Callable[[tuple, str], dict],
    limit_s: float = JOB_LIMIT_S,
) -> Iterator[dict]:
    """Yield the result of every job as it finishes, from processes that may die without affecting each other.

    A worker that dies is replaced, and its job retried once after all others. Workers are spawned (a fork would copy
    torch's threads), compute with one thread each, and end when the parent process ends, even if that was killed.

    Args:
        lost: Returns the result of a job that killed its worker twice or timed out, from the job and the reason.
        limit_s: Timeout of a job in seconds; its worker then exits.
    Raises:
        RuntimeError: If a worker cannot be started.
    """
    waiting = deque((job, False) for job in jobs)
    running: dict[Future, tuple] = {}
    idle: list[ProcessPoolExecutor] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                worker = idle.pop() if idle else _worker()
                with suppress(BrokenProcessPool):  # it was killed while idle
                    future = worker.submit(_limited, function, waiting[0][0], limit_s)
                    running[future] = (worker, *waiting.popleft(), time.monotonic())
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                worker, job, is_second, start = running.pop(future)
                if not isinstance(future.exception(), BrokenProcessPool):
                    idle.append(worker)
                    yield future.result()
                    continue
                idle.append(_checked_worker())
                if time.monotonic() - start >= limit_s:
                    yield lost(job, f"no end after {limit_s:.0f} s")
                elif is_second:
                    yield lost(job, "its process dead, twice")
                else:
                    waiting.append((job, True))
    finally:
        for worker in [*idle, *(entry[0] for entry in running.values())]:
            worker.shutdown(cancel_futures=True)


def _worker() -> ProcessPoolExecutor:
    """A pool of one process: if it dies, its job is known."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


def _checked_worker() -> ProcessPoolExecutor:
    worker = _worker()
    try:
        worker.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise RuntimeError("A worker must start. Found it dead before its first job.") from error
    return worker


def _limited(function: Job, job: tuple, limit_s: float) -> dict:
    """Run a job in a worker; after `limit_s` print a traceback and exit, even from inside a C library."""
    faulthandler.dump_traceback_later(limit_s, exit=True)
    try:
        return function(job)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _start_worker() -> None:
    names = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    os.environ.update(dict.fromkeys(names, "1"))  # for libraries that are not loaded yet, such as torch and ITK
    threadpool_limits(1)  # for loaded libraries; two workers that each use all cores are twice as slow
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)
