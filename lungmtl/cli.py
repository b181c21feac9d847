"""Command line, `python -m lungmtl study | report | cohort | prepare | run | compare | nlst | sample`: thin.

`study` and `report` are for people (`make study`, `make report`); `nlst` and `sample` make a cohort table of real CT;
the workflow's rules call the other four.
Exit status: 0 done, 1 a run failed, 2 bad input. Modules that take seconds to import are imported where they are used.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lungmtl import records, study
from lungmtl.config import RunConfig

SNAKEFILE = study.PROJECT / "workflow" / "Snakefile"
PROFILES = study.PROJECT / "workflow" / "profiles"
REPORT_FILE = "preparation.csv"  # in the study's folder: what became of every scan
BAR_WIDTH = 20
BAD_INPUT = 2

_logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    words = list(sys.argv[1:] if arguments is None else arguments)
    end = words.index("--") if "--" in words else len(words)
    options = _parser().parse_args(words[:end])
    options.snakemake = words[end + 1 :]
    try:
        if "params" not in options:
            return options.command(options)
        runs = study.plan(options.params, seeds=seeds(options.seeds), places=_places(options))
        return options.command(options, runs)
    except (ValueError, FileNotFoundError) as error:
        _logger.error("error: %s", error)
        return BAD_INPUT
    except study.RunError as error:
        _logger.error("%s", error)
        return 1
    except KeyboardInterrupt:
        _logger.error("Interrupted. The same command goes on from here.")
        return 130


def cohort_path(config: RunConfig) -> Path:
    """Absolute path of the cohort table of a run: the one given, or the phantom's place in the cache."""
    if config.cohort:
        return (study.NOTEBOOKS / config.cohort).resolve()
    from lungmtl import phantom

    return phantom.cohort_dir(cache_dir(config), **_phantom_settings(config)) / "cohort.csv"


def cache_dir(config: RunConfig) -> Path:
    """Absolute folder of phantom cohorts and prepared scans."""
    return (study.NOTEBOOKS / config.cache_dir).resolve()


def run_study(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Run the whole study through Snakemake, then print its table and figures."""
    folder = study.study_dir(runs[0])
    with study.locked(folder / "study.lock", "This study is running already: waiting for it.") as lock:
        _announce(runs)
        before = _stamp(folder)
        if any((folder / ".snakemake" / "locks").glob("*")):  # left by a Snakemake that was killed: we hold the lock
            _snakemake(options, folder, ["--unlock", "--quiet", "all"], lock)
        status = _snakemake(options, folder, options.snakemake, lock)
    return _conclude(runs, status, is_new=before != _stamp(folder))


def report(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Compare the runs that are complete, however many, then print table and figures."""
    missing = [study.name_of(config) for config in study.incomplete(runs)]
    if missing:
        _logger.info("Without %s: not complete.", ", ".join(missing))
    _print_results(study.compare(runs))
    return 0


def make_cohort(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Generate the phantom cohort, unless it is there."""
    from lungmtl import phantom

    folder = cohort_path(runs[0]).parent
    with study.locked(folder.with_suffix(".lock"), "Another process generates this cohort: waiting for it."):
        phantom.make_cohort(folder, **_phantom_settings(runs[0]), workers=options.workers)
    return 0


def prepare(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Check the cohort and prepare every scan that is not prepared yet; write what became of each."""
    from lungmtl import cohort, volumes

    config, table = runs[0], cohort_path(runs[0])
    frame = cohort.assign_splits(cohort.read_cohort(table), fractions=config.split_fractions, seed=config.split_seed)
    cohort.check_splits(frame, tasks=list(dict.fromkeys(task for run in runs for task in run.tasks)))
    with study.locked(cache_dir(config) / "prepare.lock", "Another process prepares scans: waiting for it."):
        _, outcome = volumes.prepare_cohort(
            frame,
            table.parent,
            cache_dir=cache_dir(config),
            spacing_mm=config.spacing_mm,
            shape=config.shape,
            window_hu=config.window_hu,
            workers=options.workers,
        )
    folder = study.study_dir(config)
    folder.mkdir(parents=True, exist_ok=True)
    outcome.to_csv(folder / REPORT_FILE, index=False)
    n_failed = int((outcome["status"] == "failed").sum())
    if n_failed:
        _logger.warning("%d of %d scans cannot be used: %s", n_failed, len(outcome), folder / REPORT_FILE)
    return 0


def run(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Execute one run of the study, and say how far the study is."""
    config = next((config for config in runs if study.name_of(config) == options.run), None)
    if config is None:
        names = ", ".join(study.name_of(config) for config in runs)
        raise ValueError(f"`--run` must be one of {names}. Found {options.run}.")
    is_new = study.run(config, cohort=cohort_path(config))
    _logger.info("%s  %s %s", _bar(study.count(runs)), options.run, _outcome(config) if is_new else "was complete")
    return 0


def compare(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Execute the comparison notebook over the study's records."""
    _logger.info("comparison of %d runs: tables and figures", study.count(runs).done)
    study.compare(runs)
    return 0


def nlst_cohort(options: argparse.Namespace) -> int:
    """Make the cohort table of NLST from the official tables, and the manifest of what is still to be downloaded."""
    from lungmtl import cohort, nlst

    if options.manifest and options.index is None:
        raise ValueError("`--manifest` must come with `--index`. Found it alone.")
    people = nlst.read_participants(options.participants, screen=options.round)
    abnormalities = nlst.read_abnormalities(options.abnormalities) if options.abnormalities else None
    has_index = options.index is not None
    series = nlst.read_index(options.index or None) if has_index else nlst.read_headers(options.images)
    chosen = nlst.choose_series(
        series,
        screen=options.round,
        kernels=options.kernels,
        max_thickness_mm=options.max_thickness_mm,
        slices=options.slices,
    )
    rows = nlst.add_labels(
        chosen,
        people,
        abnormalities,
        screen=options.round,
        horizon_years=options.horizon_years,
        asthma=options.asthma,
        emphysema=options.emphysema,
    )
    if options.patients:
        rows = nlst.draw(rows, n_patients=options.patients, seed=options.seed)
    if options.split:
        rows = cohort.assign_splits(rows, fractions=nlst.SPLIT_FRACTIONS, seed=options.seed)
    rows = nlst.locate(rows, options.images, root=options.out.absolute().parent)
    counts = nlst.write_cohort(rows, options.out, facts=nlst.facts(vars(options), people))
    _logger.info("%s: %s", options.out.name, json.dumps(counts, indent=2))
    if options.manifest:
        n_series = nlst.write_manifest(rows, options.images, options.manifest)
        _logger.info("%s: %d series to download", options.manifest.name, n_series)
    return 0


def sample(options: argparse.Namespace) -> int:
    """Fetch a real chest CT (LIDC-IDRI-0001, DICOM, 35 MB) and write a cohort table of one row beside it."""
    from lungmtl import nlst

    print(nlst.fetch_sample(options.folder))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lungmtl", description="Run a study, or one part of it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in {
        "study": run_study,
        "report": report,
        "cohort": make_cohort,
        "prepare": prepare,
        "run": run,
        "compare": compare,
    }.items():
        part = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        part.set_defaults(command=command)
        part.add_argument("params", type=Path, help="the study's params file")
        part.add_argument("--seeds", default="", help='seeds instead of the file\'s, e.g. "0 1 2"')
        part.add_argument("--results-dir", type=Path, help="folder of all studies instead of the file's")
        part.add_argument("--cache-dir", type=Path, help="folder of cohorts and prepared scans instead of the file's")
        if name in ("cohort", "prepare"):
            part.add_argument("--workers", type=int, default=_n_cores(), help="processes")
        if name == "run":
            part.add_argument("--run", required=True, help="name of the run, e.g. ITW3-s0")
        if name == "study":
            part.add_argument("--cores", type=int, default=_n_cores(), help="CPU cores to use at a time")
            part.add_argument("--profile", default="local", help="local, slurm, or a folder with a Snakemake profile")
            part.epilog = "Options after -- go to Snakemake, e.g. -- --dry-run"
    _add_nlst(commands.add_parser("nlst", help=nlst_cohort.__doc__, description=nlst_cohort.__doc__))
    part = commands.add_parser("sample", help=sample.__doc__, description=sample.__doc__)
    part.set_defaults(command=sample)
    part.add_argument("folder", type=Path, help="where the scan and its table go")
    return parser


def _add_nlst(part: argparse.ArgumentParser) -> None:
    from lungmtl import nlst

    part.set_defaults(command=nlst_cohort)
    part.add_argument("--participants", type=Path, required=True, help="CDAS's Participant table, or IDC's nlst_prsn")
    part.add_argument("--abnormalities", type=Path, help="CDAS's CT abnormalities, or IDC's nlst_ctab")
    part.add_argument("--images", type=Path, required=True, help="folder of the DICOM series, in the table's folder")
    part.add_argument("--out", type=Path, required=True, help="cohort.csv; a json file beside it says how it was made")
    part.add_argument("--index", nargs="?", const="", help="choose from the IDC index, not from what is there")
    part.add_argument("--manifest", type=Path, help="with --index: what is still to be downloaded, for s5cmd")
    part.add_argument("--round", type=int, choices=range(3), default=0, help="screening round of the scans")
    part.add_argument("--kernels", nargs="+", default=list(nlst.SOFT_KERNELS), help="kernels that fit, or any")
    part.add_argument("--max-thickness-mm", type=float, default=nlst.MAX_THICKNESS_MM, help="of a slice, %(default)s")
    part.add_argument("--slices", type=int, nargs=2, default=list(nlst.SLICES), help="fewest and most, %(default)s")
    part.add_argument("--horizon-years", type=float, default=nlst.HORIZON_YEARS, help="lung cancer within, %(default)s")
    part.add_argument("--asthma", choices=nlst.ASTHMA, default="either", help="diagnosed when, %(default)s")
    part.add_argument("--emphysema", choices=nlst.EMPHYSEMA, default="report", help="said by whom, %(default)s")
    part.add_argument("--patients", type=int, help="draw so many, with all lung cancers; all patients if not given")
    part.add_argument("--seed", type=int, default=0, help="seeds the draw and the split")
    part.add_argument("--no-split", dest="split", action="store_false", help="leave the split to the study")


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def seeds(text: str) -> list[int] | None:
    """Seeds from text such as "0 1 2"; None when blank."""
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"\d+", word) for word in words):
        raise ValueError(f'Seeds must be whole numbers, e.g. "0 1 2". Found {text!r}.')
    return [int(word) for word in words] or None


def _places(options: argparse.Namespace) -> dict[str, str]:
    given = {"results_dir": options.results_dir, "cache_dir": options.cache_dir}
    return {name: str(path.resolve()) for name, path in given.items() if path is not None}


def _phantom_settings(config: RunConfig) -> dict[str, int | float]:
    names = ("n_train", "n_validation", "n_test")
    counts = dict(zip(names, config.phantom_scans, strict=True))
    return {**counts, "seed": config.phantom_seed, "label_noise": config.phantom_label_noise}


def _snakemake(options: argparse.Namespace, folder: Path, extra: Sequence[str], lock: int) -> int:
    """Run Snakemake in the study's folder; it inherits the lock, so that it keeps it if this process is killed."""
    profile = PROFILES / options.profile
    seeds_given = {"seeds": options.seeds} if options.seeds else {}
    settings = {"params": options.params.resolve(), **seeds_given, **_places(options)}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(folder)]
    command += ["--profile", str(profile if profile.is_dir() else Path(options.profile).resolve())]
    command += ["--cores", str(options.cores), *extra]
    command += ["--config", *(f"{name}={str(value)!r}" for name, value in settings.items())]
    path = os.pathsep.join([str(study.PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(command, pass_fds=(lock,), env={**os.environ, "PYTHONPATH": path})
    try:
        return process.wait()
    except KeyboardInterrupt:  # Ctrl-C reached Snakemake too, which ends its jobs first
        process.wait()
        raise


def _announce(runs: list[RunConfig]) -> None:
    count = study.count(runs)
    _logger.info("%s  study %s in %s", _bar(count), runs[0].study, study.study_dir(runs[0]))


def _conclude(runs: list[RunConfig], status: int, *, is_new: bool) -> int:
    name, count = runs[0].study, study.count(runs)
    if status:
        _logger.error("%s  Study %s is not complete.", _bar(count), name)
        for config in study.incomplete(runs):
            log = study.run_dir(config) / study.LOG_FILE
            _logger.error("  %s has no record; %s", study.name_of(config), log if log.is_file() else "not started")
        return 1
    outcome = "is complete." if is_new else "is up to date: there was nothing to do."
    _logger.info("%s  Study %s %s", _bar(count), name, outcome)
    _print_results(study.study_dir(runs[0]))
    return 0


def _stamp(folder: Path) -> int:
    table = folder / study.COMPARISON_TABLE
    return table.stat().st_mtime_ns if table.is_file() else 0


def _print_results(folder: Path) -> None:
    from lungmtl import tables

    aucs = pd.read_csv(folder / study.COMPARISON_TABLE)
    print(f"\n{tables.format_table(aucs)}\n")
    print("\n".join(str(path) for part in ("tables", "figures") for path in sorted((folder / part).glob("*"))))


def _outcome(config: RunConfig) -> str:
    record = records.read_record(study.run_dir(config))
    return f"done in {sum(record['seconds'].values()):.0f} s"


def _bar(count: study.Count) -> str:
    filled = BAR_WIDTH * count.done // count.n_runs
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {count.done}/{count.n_runs} runs"
