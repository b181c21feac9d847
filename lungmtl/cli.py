"""Command line, `lungmtl study | plan | report | check | ...`: each command is imported when it is called.

`study`, `plan` and `report` take a study's params file (`make study` and `make report` call them); `check`, `prepare`,
`verify` and `advise` take a cohort table or such a file; the sources, `nlst`, `cohort` and `sample`, write a cohort
table from real CT; `when` makes a map; the workflow's rules call `phantom`, `prepare`, `run` and `compare`.
Exit status: 0 done, 1 a run failed or `check` or `verify` found something wrong, 2 bad input, 130 interrupted.
"""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from lungmtl import __version__

COMMANDS = {  # name -> module that has `add_NAME(parser)` and `NAME(options)`, and help
    "study": ("commands.study", "run a whole study through Snakemake, then print its result"),
    "plan": ("commands.plan", "show what a study would do, why, and how long it would take"),
    "report": ("commands.study", "compare the runs that are complete, then print the result"),
    "check": ("commands.cohort", "check a cohort table and all its images"),
    "prepare": ("commands.cohort", "prepare the scans of a cohort that are not prepared yet"),
    "verify": ("commands.cohort", "verify that images and prepared scans are present and intact"),
    "advise": ("commands.advise", "place a cohort on the map of when sharing helps"),
    "nlst": ("sources.nlst", "make the cohort table of NLST from its official tables"),
    "cohort": ("sources.cohort", "make a cohort table from any label tables and images"),
    "sample": ("sources.sample", "fetch a real chest CT and write a cohort table of one row"),
    "when": ("commands.when", "map when sharing helps, on vectors in place of scans"),
    "phantom": ("commands.study", "workflow rule: generate the phantom cohort"),
    "run": ("commands.study", "workflow rule: execute one run"),
    "compare": ("commands.study", "workflow rule: execute the comparison"),
}
BAD_INPUT = 2

_logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    parser, parts = _parsers()
    name = next((word for word in words[:end] if not word.startswith("-")), "")
    if name not in parts:
        parser.parse_args(words[:end])  # exits with an error, the help or the version
        parser.error("a COMMAND is required")
    module = importlib.import_module(f"lungmtl.{COMMANDS[name][0]}")
    getattr(module, f"add_{name}")(parts[name])
    parts[name].description = getattr(module, name).__doc__
    options = parser.parse_args(words[:end])
    options.snakemake = words[end + 1 :]
    return _status(getattr(module, name), options)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Report a usage error in one line, without the usage text."""
        self.exit(BAD_INPUT, f"{self.prog}: error: {message}\n")


def _status(command: object, options: argparse.Namespace) -> int:
    from lungmtl.study import STARTED, plan

    try:
        return command(options)
    except (ValueError, OSError) as error:  # bad input, a disk that is full, a folder that cannot be written
        _logger.error("error: %s", getattr(error, "shown", error))  # includes paths, which no file may contain
        return BAD_INPUT
    except plan.RunError as error:
        _logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        if STARTED not in os.environ:  # a study's main process reports it
            _logger.error("\nInterrupted. Run the same command again to resume.")
        return 130


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(prog="lungmtl", description="Run a study, or one part of it.")
    parser.add_argument("--version", action="version", version=f"lungmtl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    return parser, {name: commands.add_parser(name, help=text) for name, (_, text) in COMMANDS.items()}
