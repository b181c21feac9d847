"""Options that several commands share."""

import argparse
import os
import re
from pathlib import Path

from lungmtl.study import RunConfig, plan


def add_planned(parser: argparse.ArgumentParser) -> None:
    """Options of a command that takes a study's params file."""
    parser.add_argument("params", type=Path, help="the study's params file")
    parser.add_argument("--seeds", default="", help='seeds instead of the file\'s, e.g. "0 1 2"')
    parser.add_argument("--results-dir", type=Path, help="folder of all studies instead of the file's")
    parser.add_argument("--cache-dir", type=Path, help="folder of cohorts and prepared scans instead of the file's")


def add_cores(parser: argparse.ArgumentParser) -> None:
    """How many cores a study has."""
    parser.add_argument("--cores", type=int, default=n_cores(), help="CPU cores to use at a time, %(default)s")


def cores(options: argparse.Namespace) -> int:
    """The cores given; raises a ValueError below 1, for which a workflow engine would wait for ever."""
    if options.cores < 1:
        raise ValueError(f"`--cores` must be at least 1. Found {options.cores}.")
    return options.cores


def planned(params: Path, options: argparse.Namespace) -> list[RunConfig]:
    """Runs of a study's params file under these options."""
    return plan.plan_runs(params, seeds=seeds(options.seeds), places=places(options))


def seeds(text: str) -> list[int] | None:
    """Seeds from text such as "0 1 2"; None when blank."""
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"\d+", word) for word in words):
        raise ValueError(f'Seeds must be whole numbers, e.g. "0 1 2". Found {text!r}.')
    return [int(word) for word in words] or None


def places(options: argparse.Namespace) -> dict[str, str]:
    """Folders that the options name, absolute."""
    given = {"results_dir": options.results_dir, "cache_dir": options.cache_dir}
    return {name: str(path.resolve()) for name, path in given.items() if path is not None}


def n_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
