"""The workflow: run a study through Snakemake, and show its progress."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lungmtl.files import PROJECT, existing, locked
from lungmtl.study import plan
from lungmtl.study.condition import to_do
from lungmtl.study.config import RunConfig
from lungmtl.study.estimate import duration, remaining_s
from lungmtl.study.runner import LOG_FILE, unfinished
from lungmtl.words import number_of

SNAKEFILE = PROJECT / "workflow" / "Snakefile"
PROFILES = PROJECT / "workflow" / "profiles"
TALKING = ("-m", "snakemake")
SILENT = (  # Snakemake has no option that keeps this one line back
    "-c",
    "from snakemake import cli; cli.print = lambda text, **to: text.startswith('Using profile') or print(text, **to);"
    "cli.main()",
)
BAR_WIDTH = 20
WATCH_EVERY_S = 10.0
STARTED = "LUNGMTL_STUDY"  # environment variable of a running study: its start (s) and number of parallel runs

_logger = logging.getLogger(__name__)


def run_study(
    runs: Sequence[RunConfig],
    settings: Mapping[str, str],
    *,
    profile: str,
    cores: int,
    options: Sequence[str],
    verbose: bool = False,
) -> bool:
    """Run a whole study through Snakemake unless it is up to date; returns whether it is complete.

    Args:
        runs: The runs of the study.
        settings: Settings of the Snakefile: `params`, `seeds` and `plan.PLACES`.
        profile: Name of one of the project's profiles, or a folder with a profile.
        cores: CPU cores to use.
        options: Further Snakemake options; with any, Snakemake is called even if the study is up to date.
        verbose: Whether to show Snakemake's own messages.
    Raises:
        ValueError: If a path contains braces, which Snakemake reads as wildcards.
        FileNotFoundError: If the profile or the cohort does not exist.
    """
    folder = plan.study_dir(runs[0])
    place = str(_checked_profile(profile))
    _check(runs, settings)
    with locked(folder / "study.lock", "This study is already running: waiting for it.") as lock:
        _logger.info("%s  study %s in %s", progress_bar(runs), runs[0].study, folder)
        waiting = unfinished(runs)
        if not options and not waiting:
            return _conclude(runs, status=0, is_new=False)
        before = _stamp(folder)
        command = _command(folder, settings, cores, TALKING if verbose else SILENT)
        if any((folder / ".snakemake" / "locks").glob("*")):  # left by a Snakemake that was killed: we hold the lock
            _call([*command[0], "--unlock", "--quiet", "all", *command[1]], lock)
        stale = [name for name in waiting if (folder / name).is_file()]  # Snakemake may regard them as done
        quiet = [] if verbose or "--quiet" in options else ["--quiet", "all"]
        how = ["--profile", place, *quiet, *options, *(["--forcerun", *stale] if stale else [])]
        n_elsewhere = _n_elsewhere(Path(place))
        started = json.dumps([time.time(), n_elsewhere or max(1, cores // runs[0].threads)])
        watch = _watch(runs, started) if n_elsewhere else None
        status = _call([*command[0], *how, *command[1]], lock, {STARTED: started}, watch)
    return _conclude(runs, status=status, is_new=before != _stamp(folder))


def progress_bar(runs: Sequence[RunConfig], started: str = "") -> str:
    """Bar of complete runs; while a study runs, also its elapsed and remaining time.

    `started` is what the environment variable STARTED says to the processes of a study.
    """
    n_runs, waiting = len(runs), to_do(runs)
    done = n_runs - len(waiting)
    filled = BAR_WIDTH * done // n_runs
    bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {done}/{number_of(n_runs, 'run')}"
    started = started or os.environ.get(STARTED, "")
    if not started:
        return bar
    began, slots = json.loads(started)
    left = remaining_s(runs, waiting, since=began, slots=slots)
    bar += f"  {duration(time.time() - began)} so far"
    return f"{bar}, about {duration(left)} to go, then the comparison" if left else bar


def _checked_profile(profile: str) -> Path:
    place = next((path for path in (PROFILES / profile, Path(profile).resolve()) if path.is_dir()), None)
    if place is None:
        names = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise FileNotFoundError(f"`--profile` must be one of {names}, or a folder with a profile. Found {profile!r}.")
    return place


def _n_elsewhere(profile: Path) -> int:
    """How many jobs a profile runs side by side on other machines, as on a cluster; 0 = its runs are processes here."""
    settings = {}
    for path in sorted(profile.glob("config*.y*ml")):
        settings |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return int(settings.get("jobs", 1)) if settings.get("executor", "local") != "local" else 0


def _watch(runs: Sequence[RunConfig], started: str) -> Callable[[], None]:
    """A function that logs the bar if a run was completed since its last call: runs elsewhere cannot log here."""
    before = _completed_ns(runs)

    def tell() -> None:
        """Log what was completed since the last call."""
        now = _completed_ns(runs)
        done = [name for name, stamp in now.items() if before.get(name) != stamp]
        before.update(now)
        if done:
            _logger.info("%s  %s done", progress_bar(runs, started), ", ".join(done))

    return tell


def _completed_ns(runs: Sequence[RunConfig]) -> dict[str, int]:
    """When every run that has a record wrote it."""
    paths = {plan.name_of(config): plan.run_dir(config) / plan.RECORD_FILE for config in runs}
    return {name: path.stat().st_mtime_ns for name, path in paths.items() if path.is_file()}


def _check(runs: Sequence[RunConfig], settings: Mapping[str, str]) -> None:
    cohort = plan.cohort_path(runs[0])
    if runs[0].cohort:
        existing(cohort, "The cohort table of a study")
    for path in (settings["params"], cohort, plan.study_dir(runs[0])):
        if set("{}") & set(str(path)):
            raise ValueError(f"A study's paths must have no braces, which Snakemake reads as wildcards. Found {path}.")


def _command(folder: Path, settings: Mapping[str, str], cores: int, how: Sequence[str]) -> tuple[list[str], list[str]]:
    """Beginning and end of Snakemake's command line; `how` Python starts it."""
    command = [sys.executable, *how, "--snakefile", str(SNAKEFILE), "--directory", str(folder)]
    config = [f"{name}={_quoted(value)}" for name, value in settings.items()]
    return [*command, "--cores", str(cores)], ["--config", *config]


def _quoted(value: Any) -> Any:
    """A text as YAML in single quotes, in which backslashes are literal."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else value


def _call(
    command: Sequence[str],
    lock: int,
    variables: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
) -> int:
    """Run Snakemake in the study's folder; it inherits the lock and so holds it even if this process is killed.

    `watch` is called again and again until it ends.
    """
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, pass_fds=(lock,), env={**os.environ, **(variables or {}), "PYTHONPATH": path})
    try:
        while watch:
            try:
                return process.wait(WATCH_EVERY_S)
            except subprocess.TimeoutExpired:
                watch()
        return process.wait()
    except KeyboardInterrupt:  # Ctrl-C reached Snakemake too, which ends its jobs first
        process.wait()
        raise


def _conclude(runs: Sequence[RunConfig], *, status: int, is_new: bool) -> bool:
    name, bar, waiting = runs[0].study, progress_bar(runs), to_do(runs)
    if status:
        _logger.error("%s  Study %s is not complete.", bar, name)
        for config in runs:
            if plan.name_of(config) in waiting:
                log = plan.run_dir(config) / LOG_FILE
                _logger.error("  %s is not done; %s", plan.name_of(config), log if log.is_file() else "not started")
        logs = sorted((plan.study_dir(runs[0]) / ".snakemake" / "log").glob("*.log"))
        _logger.error("  Snakemake's own log: %s; with -v it is shown", logs[-1] if logs else "none")
        return False
    done = "is complete." if is_new else "is up to date: there was nothing to do."
    is_partial = waiting or not _stamp(plan.study_dir(runs[0]))  # as after a dry run
    outcome = "is not complete." if is_partial else done
    _logger.info("%s  Study %s %s", bar, name, outcome)
    return True


def _stamp(folder: Path) -> int:
    table = folder / plan.COMPARISON_TABLE
    return table.stat().st_mtime_ns if table.is_file() else 0
