"""Commands on a cohort: `check`, `prepare` and `verify`, of a table or of a study's params file."""

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungmtl import data
from lungmtl.commands.options import add_allow_outside, add_count, folder, places, planned
from lungmtl.files import PROJECT, locked, write
from lungmtl.sources import read_truth
from lungmtl.study import FLOW_FILE, NOTE_FILE, PAGE_FILE, READINGS_FILE, RunConfig, plan, write_scans
from lungmtl.tables import write_csv
from lungmtl.words import number_of

CHECK_NOTEBOOK = "01_cohort.ipynb"
PAGE_LOG = "report.log"  # only if the page could not be made
OF_PAGE = ("allow_outside", "split_fractions", "split_seed", "batch_size", "spacing_mm", "shape", "window_hu", "region")
N_SHOWN = 10  # reasons and problems printed at the end


class Source(NamedTuple):
    """The cohort that a command works on."""

    config: RunConfig  # grid, split and cache
    tasks: list[str]  # of all runs
    table: Path
    folder: Path  # of the report
    is_study: bool


def source(options: argparse.Namespace) -> Source:
    """The cohort table given and its settings, or those of a study's params file.

    Raises:
        ValueError: If a setting is out of range, or a grid is given together with a params file.
    """
    given = {name: getattr(options, name, None) for name in ("spacing_mm", "shape", "window_hu", "region")}
    given = {name: value for name, value in given.items() if value is not None}
    if options.source.suffix.lower() in (".yaml", ".yml"):
        if given:
            raise ValueError(f"The grid must come from the params file. Found {', '.join(given)} next to it.")
        runs = planned(options.source, options)
        return Source(runs[0], plan.tasks_of(runs), plan.cohort_path(runs[0]), plan.study_dir(runs[0]), is_study=True)
    runs = planned(options.study, options) if options.study else [RunConfig.from_mapping(places(options))]
    table = options.source.absolute()
    out = (options.out or table.parent / f"{table.stem}-check").absolute()
    config = RunConfig.from_mapping(runs[0].to_dict() | given)
    return Source(config, plan.tasks_of(runs), table, out, is_study=False)


def add_check(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    add_table(parser)
    add_count(parser, "--workers", "worker processes")
    parser.add_argument("--no-page", dest="page", action="store_false", help="write tables and thumbnails, but no page")


def check(options: argparse.Namespace) -> int:
    """Check a cohort table and all its images; write tables, thumbnails and a page next to the table."""
    config, tasks, table, out, is_study = source(options)
    if is_study:  # the study's own page and scans.csv are one folder up
        out = (options.out or out / "check").absolute()
    frame, rules = read_usable(config, table, tasks), config.splitting | {"tasks": tasks}
    with locked(out / ".check.lock", "Another process is checking this cohort: waiting for it."):
        split, _ = data.judge_splits(frame, **rules)
        how = {"workers": options.workers, "progress": sys.stderr.isatty()}
        checked = data.check_cohort(split, table.parent, out=out, tasks=tasks, **how)
        stops = [*map(" ".join, data.missing_images(frame, table)[:N_SHOWN])]
        stops += filter(None, [" ".join(data.judge_splits(frame, **rules, failed=checked.scans)[1])])
        notes = [*checked.notes, *(f"A study would stop: {text}" for text in stops)]
        _print_verdicts(checked.scans, frame["excluded"], notes)
        if options.page:
            _write_page(config, tasks, table, out, frame["image"])
    print(f"Report: {out / (PAGE_FILE if options.page else data.CHECKED_FILE)}")
    return int((checked.scans["verdict"] == "failed").any() or checked.shared["leaks"].any() or bool(stops))


def add_prepare(parser: argparse.ArgumentParser) -> None:
    """Options of `prepare`."""
    defaults = RunConfig()
    add_table(parser)
    add_count(parser, "--workers", "worker processes")
    parser.add_argument("--seeds", default="", help="with a params file: seeds of the study")
    parser.add_argument("--results-dir", type=folder, help="with a params file: folder of all studies")
    parser.add_argument("--spacing-mm", type=float, nargs=3, help=f"voxel size, z y x; {defaults.spacing_mm}")
    parser.add_argument("--shape", type=int, nargs=3, help=f"voxels, z y x; {defaults.shape}")
    parser.add_argument("--window-hu", type=float, nargs=2, help=f"HU mapped to 0 and 1; {defaults.window_hu}")
    parser.add_argument("--region", choices=("tight", "wide"), help=f"what the network sees; {defaults.region}")


def prepare(options: argparse.Namespace) -> int:
    """Prepare the scans of a cohort that are not prepared yet; write the outcome of every scan."""
    config, tasks, table, out, is_study = source(options)
    if is_study and options.out:
        raise ValueError(f"A study's tables must be in its own folder. Found `--out {options.out}` with a params file.")
    frame, rules = read_usable(config, table, tasks, is_study=is_study), config.splitting | {"tasks": tasks}
    split = data.check_splits(frame, **rules) if is_study else frame
    with locked(plan.cache_dir(config) / "prepare.lock", "Another process is preparing scans: waiting for it."):
        how = {"cache_dir": plan.cache_dir(config), "workers": options.workers}
        prepared, outcome = data.prepare_cohort(frame, table.parent, config.preparation, **how)
    if is_study:
        truth = _truth(table)
        write_scans(out, data.attributes(data.included(frame), truth, outcome))
        if truth is not None:
            write_csv(read_truth(truth), out / READINGS_FILE, float_format="%.6g")
        write_csv(data.patient_flow(split, outcome, task=tasks[0], n_sets=config.training_sets), out / FLOW_FILE)
    note = {"folder": os.path.relpath(prepared, plan.cache_dir(config)), **config.preparation.to_dict()}
    write(out / NOTE_FILE, json.dumps(note, indent=2) + "\n")
    write_csv(outcome, out / plan.PREPARATION_FILE)
    _print_prepared(outcome, out / plan.PREPARATION_FILE)
    if missing := data.missing_images(frame, table)[:N_SHOWN]:
        print("\n".join(map(" ".join, missing)))
    if is_study:
        data.check_splits(frame, **rules, failed=outcome)
    return 0


def refuse(runs: Sequence[RunConfig]) -> None:
    """Refuse a study that would stop because of its cohort, before its workflow starts.

    Raises:
        ValueError: If the table is invalid, or `data.judge_splits` finds a reason to stop.
        FileNotFoundError: If the table or an image is missing.
    """
    tasks = plan.tasks_of(runs)
    frame = read_usable(runs[0], plan.cohort_path(runs[0]), tasks, is_study=True)
    data.check_splits(frame, **runs[0].splitting | {"tasks": tasks})


def add_verify(parser: argparse.ArgumentParser) -> None:
    """Options of `verify`."""
    add_table(parser)


def verify(options: argparse.Namespace) -> int:
    """Verify that all images are present, with the table's number of slices, and that prepared scans are intact."""
    config, tasks, table, out, _ = source(options)
    out = options.out.absolute() if options.out else out
    frame = read_table(config, table, tasks)
    wanted = frame[(frame["excluded"] == "") | frame["excluded"].str.startswith(data.DOWNLOAD)]
    problems = data.verify_images(wanted, table.parent)
    summary = f"{number_of(len(wanted), 'image')}, {len(frame) - len(wanted)} excluded by the table"
    if (out / NOTE_FILE).is_file():
        note = json.loads((out / NOTE_FILE).read_text(encoding="utf-8"))
        outcome = pd.read_csv(out / plan.PREPARATION_FILE, dtype={"scan": str})
        failed = set(outcome.loc[outcome["status"] == "failed", "scan"])
        used = data.included(frame)
        used = used[~used["scan"].isin(failed)]
        place = plan.cache_dir(config) / note["folder"]
        problems += data.verify_prepared(used, table.parent, place, shape=note["shape"], progress=sys.stderr.isatty())
        summary += f"; {number_of(len(used), 'prepared scan')}, {len(failed)} that could not be prepared"
    elif options.out:
        problems.append(f"`--out` must be a folder that `prepare` wrote to. Found no {NOTE_FILE} in {out}.")
    print("\n".join(problems) or "Everything is present and intact.")
    print(f"verified {summary}: {number_of(len(problems), 'problem')}")
    return int(bool(problems))


def add_table(parser: argparse.ArgumentParser) -> None:
    """Options that name a cohort."""
    parser.set_defaults(seeds="", results_dir=None)
    parser.add_argument("source", type=Path, metavar="TABLE", help="cohort.csv, or a study's params file")
    settings = "with cohort.csv: settings from a study's params file"
    parser.add_argument("--params", dest="study", type=Path, help=settings)
    parser.add_argument("--out", type=folder, help="folder of the report; <table>-check next to the table if not given")
    parser.add_argument("--cache-dir", type=folder, help="folder of prepared scans")
    add_allow_outside(parser)


def read_table(config: RunConfig, table: Path, tasks: Sequence[str], *, is_study: bool = False) -> pd.DataFrame:
    """Read the table; a missing image is an error only for a study, other commands list it."""
    return data.read_cohort(table, tasks=tasks, allow_outside=config.allow_outside, allow_missing=not is_study)


def read_usable(config: RunConfig, table: Path, tasks: Sequence[str], *, is_study: bool = False) -> pd.DataFrame:
    """As `read_table`.

    Raises:
        ValueError: Also if the table excludes every scan.
    """
    frame = read_table(config, table, tasks, is_study=is_study)
    if data.included(frame).empty:
        must = "A cohort must have a scan that is not excluded"
        raise ValueError(f"{must}. Found {_excluded(frame['excluded'])}, in {table}.")
    return frame


def _excluded(reasons: pd.Series) -> str:
    """How many scans a table excludes; blank for none."""
    n_excluded, n_open = (reasons != "").sum(), reasons.str.startswith(data.DOWNLOAD).sum()
    still = f", {n_open} of them still to be downloaded" if n_open else ""
    return f"{number_of(n_excluded, 'scan')} excluded by the table{still}" if n_excluded else ""


def _truth(table: Path) -> pd.DataFrame | None:
    """The generator's ground truth of a phantom cohort; None for any other cohort."""
    path = table.parent / "truth.csv"
    truth = pd.read_csv(path, dtype={"scan": str}) if path.is_file() else pd.DataFrame()
    return truth if {"scan", "diameter_mm", "noise_hu"} <= set(truth) else None


def _print_prepared(outcome: pd.DataFrame, path: Path) -> None:
    failed = outcome[outcome["status"] == "failed"]
    n_scans = number_of(len(outcome), "scan")
    print(f"{len(outcome) - len(failed)} of {n_scans} prepared, {len(failed)} failed.")
    for row in failed.head(N_SHOWN).itertuples():
        print(f"  {row.scan}: {row.reason}")
    print(f"Outcome of every scan: {path}")


def _print_verdicts(scans: pd.DataFrame, excluded: pd.Series, notes: Sequence[str]) -> None:
    counts = [f"{(scans['verdict'] == verdict).sum()} {verdict}" for verdict in ("ok", "look", "failed")]
    left_out = _excluded(excluded)
    print(f"{number_of(len(scans), 'scan')}: {', '.join(counts)}{f'; {left_out}' if left_out else ''}")
    unusual = scans[scans["verdict"] != "ok"].groupby(["verdict", "reason"], sort=False)["scan"].agg(["first", "size"])
    unusual = unusual.sort_index(level="verdict", sort_remaining=False, kind="stable")
    for (verdict, reason), (first, n_scans) in unusual.head(N_SHOWN).iterrows():
        others = f" and {number_of(n_scans - 1, 'other')}" if n_scans > 1 else ""
        print(f"  {verdict:6}  {first}{others}: {reason}")
    if len(unusual) > N_SHOWN:
        print(f"  ... and {number_of(unusual['size'][N_SHOWN:].sum(), 'scan')} more")
    print("\n".join(notes) or "Nothing was found that would stop a study.")


def _write_page(config: RunConfig, tasks: Sequence[str], table: Path, out: Path, images: Sequence[str]) -> None:
    """Execute the cohort notebook on the checked cohort and make its page; drop the notebook, which contains paths."""
    from lungmtl.report import write_html  # papermill and nbconvert take two seconds to import
    from lungmtl.study import execute_notebook

    parameters = {"cohort": str(table), "check_dir": str(out), "tasks": list(tasks)}
    parameters |= {"cache_dir": str(plan.cache_dir(config))} | {name: getattr(config, name) for name in OF_PAGE}
    with tempfile.TemporaryDirectory(prefix="lungmtl-") as place:
        executed, log = Path(place) / CHECK_NOTEBOOK, Path(place) / PAGE_LOG
        try:
            execute_notebook(plan.NOTEBOOKS / CHECK_NOTEBOOK, executed, parameters, log=log, name="check")
        except plan.RunError as error:
            folders = {str(out): "REPORT", str(table.parent): "TABLE", str(PROJECT): "PROJECT", place: "TMP"}
            places = [os.path.normpath(table.parent / image) for image in images if image]
            write(out / PAGE_LOG, _without_places(log.read_text(encoding="utf-8"), folders, places))
            raise plan.RunError(f"The page cannot be made; log: {out / PAGE_LOG}") from error
        is_phantom = _truth(table) is not None
        write_html(executed, out / PAGE_FILE, title="Check of a cohort", is_phantom=is_phantom)


def _without_places(text: str, folders: Mapping[str, str], images: Sequence[str]) -> str:
    """A log without the places of images, all that lies in them, and of folders, whose names may be a patient's."""
    for image in sorted(set(images), key=len, reverse=True):
        text = re.sub(rf"{re.escape(image)}[^'\"\n]*", "IMAGE", text)
    for place, name in folders.items():
        text = text.replace(place, name)
    return text
