"""The command `plan`: what a study would do, why and how long, without doing it."""

import argparse

from lungmtl.commands.options import add_planned, n_cores, planned
from lungmtl.study import outlook


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Options of `plan`."""
    add_planned(parser)
    parser.add_argument("--cores", type=int, default=n_cores(), help="CPU cores to use at a time, %(default)s")


def plan(options: argparse.Namespace) -> int:
    """Draw what `study` would do now, why, and how long it would take; nothing is done."""
    print(outlook.draw(planned(options.params, options), cores=options.cores))
    return 0
