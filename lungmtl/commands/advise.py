"""Command `advise`: a cohort's counts and labels, its place on the map of when sharing helps, what to expect there."""

import argparse
import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lungmtl import data
from lungmtl.commands.cohort import N_SHOWN, add_table, read_usable, source
from lungmtl.commands.options import at_least_one
from lungmtl.experiments import AXES
from lungmtl.files import PROJECT, write
from lungmtl.study import RunConfig, plan, run_pilot
from lungmtl.tables import write_csv
from lungmtl.when import KEPT, Place, beyond, expected, relatedness_of

N_SEEDS = 3  # trainings of a pilot, and as many with shuffled labels
MAPS = ("when", "when-rivals")  # studies whose contrasts are the map


def add_advise(parser: argparse.ArgumentParser) -> None:
    """Options of `advise`."""
    add_table(parser)
    parser.add_argument("--map-dir", type=Path, default=PROJECT / "results", help="folder of the map's studies")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--relatedness", type=_share, help="of the tasks, if you assume a value; else all from 0 to 1")
    given.add_argument("--pilot", type=at_least_one, metavar="STEPS", help=f"estimate it by {2 * N_SEEDS} short runs")


def advise(options: argparse.Namespace) -> int:
    """Say what the map of when sharing helps predicts of each policy on a cohort, or why it does not reach it."""
    config, tasks, table, _, _ = source(options)
    changes = {"cohort": str(table), "cache_dir": str(plan.cache_dir(config)), "tasks": tasks}
    config = dataclasses.replace(config, weights=[1.0] * len(tasks), **changes)
    frame = data.included(data.check_splits(read_usable(config, table, tasks), **config.splitting))
    frame = data.labelled(frame, config.labelling, central=tasks[0])
    contrasts = _table(options.map_dir, "contrasts").fillna({"arm": ""})
    place = _place(frame, config)
    found = {"counts": data.counts(frame, tasks=tasks), "place": dataclasses.asdict(place)}
    _print_labels(frame, tasks)
    found["beyond"] = beyond(place, contrasts)
    reached = f"The map reaches {place.n_scans:,} training scans and {place.n_steps:,} steps."
    n_tasks = f"It was made with four auxiliary tasks; this cohort has {len(tasks) - 1}."
    print("", *(found["beyond"] or [f"{reached} {n_tasks}"]), sep="\n")
    advice = pd.DataFrame()
    if not found["beyond"]:
        found["relatedness"] = _relatedness(options, config, data.odds_ratios(frame, tasks=tasks))
        advice = expected(contrasts, place, found["relatedness"])
        _print_advice(advice, found["relatedness"])
    if options.out:
        write_csv(advice, options.out / "advice.csv", float_format="%.6g")
        print(f"Report: {write(options.out / 'advice.json', json.dumps(found, indent=2) + chr(10))}")
    return 0


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"a number from 0 to 1 is required. Found {text!r}")
    return value


def _table(folder: Path, name: str) -> pd.DataFrame:
    """A table of the map, of all its studies that have it."""
    files = [folder / study / "tables" / f"{name}.csv" for study in MAPS]
    if not files[0].is_file():
        raise FileNotFoundError(f"The map's tables must exist (`lungmtl when params/when.yaml`). Found no {files[0]}.")
    parts = pd.concat([pd.read_csv(file) for file in files if file.is_file()], ignore_index=True)
    keys = [key for key in ("arm", *AXES, "experiment", "reference") if key in parts]
    return parts.drop_duplicates(keys) if name == "contrasts" else parts


def _place(frame: pd.DataFrame, config: RunConfig) -> Place:
    labels = frame.loc[frame["split"] == "train", config.tasks]
    n_known = labels.notna().sum(axis=1)
    positives = labels.mean()
    return Place(
        n_scans=len(labels),
        n_steps=config.epochs * (len(labels) // config.batch_size),
        shares=positives.where(positives < 0.5, 1 - positives).round(4).to_dict(),
        known=float(n_known.mean() / len(config.tasks)),
        one_known=float((n_known == 1).mean()),
    )


def _relatedness(options: argparse.Namespace, config: RunConfig, ratios: pd.DataFrame) -> tuple[float, float]:
    """From, to: as given, by a pilot, or anything."""
    if options.relatedness is not None:
        return options.relatedness, options.relatedness
    if options.pilot is None:
        return 0.0, 1.0
    logger = logging.getLogger("lungmtl.network")
    level = logger.level
    logger.setLevel(logging.WARNING)  # no line per epoch
    try:
        found = run_pilot(config, n_steps=options.pilot, n_seeds=N_SEEDS)
    finally:
        logger.setLevel(level)
    ratio = found["agreement"] / found["shuffled"]
    chances = relatedness_of(ratio, _table(options.map_dir, "pilot"))
    said = ", ".join(f"{level:.2g}: {chance:.0%}" for level, chance in chances.items())
    print(f"Pilot: auxiliary gradients agree with the central one {ratio:.1f} times as much as with shuffled labels.")
    print(f"Probability of each relatedness, by vector worlds: {said}. The pilot is not validated on CT.")
    kept = chances.index[chances >= KEPT]
    if ((ratios["low"] > 1) | (ratios["high"] < 1)).any():
        print("Correlated labels (odds ratios above) can give this ratio without relatedness, so 0 stays in the range.")
        return 0.0, float(kept.max())
    return float(kept.min()), float(kept.max())


def _print_labels(frame: pd.DataFrame, tasks: Sequence[str]) -> None:
    counts = data.counts(frame, tasks=tasks)
    shown = {split: {task: f"{one['positives']} of {one['n']}" for task, one in by_task.items()}
             for split, by_task in counts.items()}  # fmt: skip
    print(f"Positive of known labels:\n{pd.DataFrame(shown).to_string()}")
    together = data.known_together(frame[frame["split"] == "train"], tasks=tasks)
    alone = sum(n for names, n in together.items() if "+" not in names and names != "(none)")
    print(f"\nLabels known together (training scans; {alone / together.sum():.0%} have one label only):")
    print("\n".join(f"  {n:>6,}  {names}" for names, n in together.head(N_SHOWN).items()))
    ratios = data.odds_ratios(frame, tasks=tasks)
    if len(ratios):
        print(f"\nOdds ratios with {tasks[0]}:")
    for row in ratios.itertuples():
        print(f"  {row.task}: {row.odds_ratio:.2f} [{row.low:.2f}, {row.high:.2f}] in {row.n:,} scans")


def _print_advice(advice: pd.DataFrame, relatedness: tuple[float, float]) -> None:
    def span(low: float, high: float, form: str) -> str:
        """One number, or two where they differ."""
        texts = [f"{value:{form}}" for value in (low, high)]
        return texts[0] if texts[0] == texts[1] else " to ".join(texts)

    print(f"Expected differences of test AUC at relatedness {span(*relatedness, '.2g')}, with the 95 % interval")
    print("for one more cohort like the map's and the probability that the difference is above 0:")
    for row in advice.itertuples():
        difference = span(row.difference_low, row.difference_high, "+.3f")
        chance = span(row.chance_low, row.chance_high, ".0%")
        ends = f"[{row.low:+.3f}, {row.high:+.3f}]"
        print(f"  {row.kind:40} minus {row.reference:13} {difference:16} {ends}  {chance:11} {row.reading}")
    print("The map was made with vectors in place of scans: it says where to look, not what CT will show.")
