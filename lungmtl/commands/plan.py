"""The command `plan`: what a study would do, why and how long, without doing it."""

import argparse

from lungmtl.commands.options import add_cores, add_planned, planned
from lungmtl.study import outlook


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Options of `plan`."""
    add_planned(parser)
    add_cores(parser)


def plan(options: argparse.Namespace) -> int:
    """Draw what `study` would do now, why, and how long it would take; nothing is done."""
    print(outlook.draw(planned(options.params, options), cores=options.cores))
    return 0
