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
    parser.add_argument("--results-dir", type=folder, help="folder of all studies instead of the file's")
    parser.add_argument("--cache-dir", type=folder, help="folder of cohorts and prepared scans instead of the file's")
    add_allow_outside(parser)


def add_allow_outside(parser: argparse.ArgumentParser) -> None:
    """The option that lets a table name images elsewhere, as `allow_outside` in a params file does."""
    parser.add_argument("--allow-outside", action="store_true", help="the table may name images outside its folder")


def add_count(parser: argparse.ArgumentParser, option: str, what: str) -> None:
    """An option for a number; with fewer cores than 1 the workflow engine would wait forever."""
    parser.add_argument(option, type=at_least_one, default=n_cores(), help=f"{what}, default %(default)s")


def folder(text: str) -> Path:
    """A folder, which need not exist, for argparse."""
    path = Path(text)
    there = next(place for place in (path, *path.parents) if place.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"a folder is required. Found a file, {there}")
    return path


def at_least_one(text: str) -> int:
    """A whole number of 1 or more, for argparse."""
    if not re.fullmatch(r"0*[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is required. Found {text!r}")
    return int(text)


def planned(params: Path, options: argparse.Namespace) -> list[RunConfig]:
    """Runs of a study's params file under these options."""
    return plan.plan_runs(params, seeds=seeds(options.seeds), places=places(options))


def seeds(text: str) -> list[int] | None:
    """Seeds from text such as "0 1 2"; None when blank."""
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"\d+", word) for word in words):
        raise ValueError(f'Seeds must be whole numbers, e.g. "0 1 2". Found {text!r}.')
    return [int(word) for word in words] or None


def places(options: argparse.Namespace) -> dict[str, str | bool]:
    """The `plan.PLACES` that are given as options; folders are absolute."""
    given = {"results_dir": options.results_dir, "cache_dir": options.cache_dir}
    folders = {name: str(path.resolve()) for name, path in given.items() if path is not None}
    return folders | ({"allow_outside": True} if options.allow_outside else {})


def n_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
