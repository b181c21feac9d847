"""The workflow: Snakemake over the runs of a study, and how far it is."""

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lungmtl.files import PROJECT, locked
from lungmtl.study import plan
from lungmtl.study.config import RunConfig
from lungmtl.study.runner import LOG_FILE, is_up_to_date

SNAKEFILE = PROJECT / "workflow" / "Snakefile"
PROFILES = PROJECT / "workflow" / "profiles"
BAR_WIDTH = 20

_logger = logging.getLogger(__name__)


def run_study(
    runs: Sequence[RunConfig], settings: Mapping[str, str], *, profile: str, cores: int, options: Sequence[str]
) -> bool:
    """Run a whole study through Snakemake, unless it is up to date; whether it is complete in the end.

    Args:
        runs: The runs of the study.
        settings: What the Snakefile plans them from: `params`, `seeds` and places.
        profile: Name of a profile of the project, or a folder with one.
        cores: CPU cores to use at a time.
        options: Further options of Snakemake; with any it is always called.
    """
    folder = plan.study_dir(runs[0])
    with locked(folder / "study.lock", "This study is running already: waiting for it.") as lock:
        _logger.info("%s  study %s in %s", progress_bar(runs), runs[0].study, folder)
        if not options and is_up_to_date(runs):
            return _conclude(runs, status=0, is_new=False)
        before = _stamp(folder)
        command = _command(folder, settings, profile, cores)
        if any((folder / ".snakemake" / "locks").glob("*")):  # left by a Snakemake that was killed: we hold the lock
            _call([*command[0], "--unlock", "--quiet", "all", *command[1]], lock)
        status = _call([*command[0], *options, *command[1]], lock)
    return _conclude(runs, status=status, is_new=before != _stamp(folder))


def progress_bar(runs: Sequence[RunConfig]) -> str:
    """How many runs are complete, as a bar."""
    done, n_runs = plan.count(runs)
    filled = BAR_WIDTH * done // n_runs
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{n_runs} runs"


def _command(folder: Path, settings: Mapping[str, str], profile: str, cores: int) -> tuple[list[str], list[str]]:
    """Beginning and end of Snakemake's command line."""
    place = PROFILES / profile
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(folder)]
    command += ["--profile", str(place if place.is_dir() else Path(profile).resolve()), "--cores", str(cores)]
    return command, ["--config", *(f"{name}={value!r}" for name, value in settings.items())]


def _call(command: Sequence[str], lock: int) -> int:
    """Run Snakemake in the study's folder; it inherits the lock, so that it keeps it if this process is killed."""
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, pass_fds=(lock,), env={**os.environ, "PYTHONPATH": path})
    try:
        return process.wait()
    except KeyboardInterrupt:  # Ctrl-C reached Snakemake too, which ends its jobs first
        process.wait()
        raise


def _conclude(runs: Sequence[RunConfig], *, status: int, is_new: bool) -> bool:
    name, bar = runs[0].study, progress_bar(runs)
    if status:
        _logger.error("%s  Study %s is not complete.", bar, name)
        for config in plan.incomplete(runs):
            log = plan.run_dir(config) / LOG_FILE
            _logger.error("  %s has no record; %s", plan.name_of(config), log if log.is_file() else "not started")
        return False
    if plan.incomplete(runs):  # as after a dry run
        outcome = "is not complete."
    else:
        outcome = "is complete." if is_new else "is up to date: there was nothing to do."
    _logger.info("%s  Study %s %s", bar, name, outcome)
    return True


def _stamp(folder: Path) -> int:
    table = folder / plan.COMPARISON_TABLE
    return table.stat().st_mtime_ns if table.is_file() else 0
