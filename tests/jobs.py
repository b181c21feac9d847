"""Jobs that go wrong, for the tests of workers; a worker imports this module, so it is a light one."""

import os
import time
from pathlib import Path

from lungmtl.data.prepared import _marker, _prepare_job

prepare_one = _prepare_job  # the tests replace it


def die_of_b(job: tuple) -> dict:
    """Prepare a scan, but end the process at scan b, as a crash in a C library does."""
    if job[0] == "b":
        _marker(job[0], job[2]).touch()
        os._exit(1)
    return prepare_one(job)


def die_of_b_once(job: tuple) -> dict:
    """Prepare a scan, but end the process at scan b the first time."""
    flag = Path(job[2]).parent / "died"
    if job[0] == "b" and not flag.exists():
        flag.touch()
        os._exit(1)
    return prepare_one(job)


def refuse(*_) -> dict:
    """Raise: nothing is to be called."""
    raise AssertionError("nothing is to be called")


def wait_long_at_b(job: str) -> str:
    """Sleep at job b, longer than any test."""
    time.sleep(120 if job == "b" else 0)
    return job


def n_threads(_: int) -> dict:
    """Threads that ITK and the libraries for linear algebra take in this process."""
    import SimpleITK as sitk  # noqa: N813
    from threadpoolctl import threadpool_info

    pools = {pool["num_threads"] for pool in threadpool_info()}
    return {"itk": sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(), "pools": max(pools, default=1)}
