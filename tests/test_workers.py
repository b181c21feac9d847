"""Workers: each may die alone, none outlives the process that started it."""

import subprocess
import sys
import time
from pathlib import Path

import jobs
import pytest

from lungmtl.workers import run_apart


def test_a_job_without_end_is_lost_and_the_others_are_done():
    found = run_apart(jobs.wait_long_at_b, list("abc"), workers=1, lost=lambda job, why: (job, why), limit_s=1.0)
    assert sorted(map(str, found)) == ["('b', 'no end after 1 s')", "a", "c"]


def test_an_error_of_a_job_reaches_the_caller():
    with pytest.raises(AssertionError, match="nothing is to be called"):
        list(run_apart(jobs.refuse, [1], workers=1, lost=jobs.refuse))


def test_workers_that_cannot_start_are_reported(monkeypatch):
    monkeypatch.setattr("lungmtl.workers._start_worker", jobs.refuse)
    with pytest.raises(RuntimeError, match=r"A worker must start. Found it dead before its first job"):
        list(run_apart(jobs.wait_long_at_b, list("ac"), workers=1, lost=jobs.refuse))


def test_a_worker_computes_with_one_thread(monkeypatch):
    monkeypatch.delenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", raising=False)
    found = list(run_apart(jobs.n_threads, [0], workers=1, lost=jobs.refuse))
    assert found == [{"itk": 1, "pools": 1}]


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from lungmtl.workers import run_jobs\n"
        "def job(folder):\n"
        "    (pathlib.Path(folder) / str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(run_jobs(job, [sys.argv[1]] * 2, workers=2))\n",
        encoding="utf-8",
    )
    started = tmp_path / "started"
    started.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(started)])
    _wait_until(lambda: len(list(started.iterdir())) == 2)
    parent.kill()
    parent.wait()
    _wait_until(lambda: not any(_is_running(int(file.name)) for file in started.iterdir()))


def _wait_until(holds, *, limit_s=60):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def _is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
