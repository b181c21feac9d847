"""Command `plan`: what a study would do, why, and how long it would take."""

import argparse

from lungmtl.commands.options import add_count, add_planned, planned
from lungmtl.study import outlook


def add_plan(parser: argparse.ArgumentParser) -> None:
    """Options of `plan`."""
    add_planned(parser)
    add_count(parser, "--cores", "CPU cores to use")


def plan(options: argparse.Namespace) -> int:
    """Show what `study` would do now, why, and how long it would take, without doing it."""
    print(outlook.draw(planned(options.params, options), cores=options.cores))
    return 0
