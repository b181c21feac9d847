"""Command line, `python -m lungmtl study | report | check | prepare | verify | nlst | sample | ...`: thin.

`study` and `report` are for people (`make study`, `make report`); `check`, `prepare` and `verify` take a cohort table
(or a study's params file); `nlst` and `sample` make such a table of real CT; the workflow's rules call `cohort`,
`prepare`, `run` and `compare`.
Exit status: 0 done, 1 a run failed, or `check` or `verify` found something wrong, 2 bad input.
Modules that take seconds to import are imported where they are used.
"""

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungmtl import records, study
from lungmtl.config import RunConfig

SNAKEFILE = study.PROJECT / "workflow" / "Snakefile"
PROFILES = study.PROJECT / "workflow" / "profiles"
REPORT_FILE = "preparation.csv"  # in the study's folder, or the table's: what became of every scan
NOTE_FILE = "preparation.json"  # beside it: where in the cache the scans are, and on which grid
CHECK_NOTEBOOK = "01_cohort.ipynb"
PAGE_FILE = "report.html"
PAGE_LOG = "report.log"  # only where the page could not be made
N_SHOWN = 10  # reasons and problems printed at the end
PROBLEMS_TABLE = "tables/problems.csv"  # runs that the comparison left out, and why
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
        return options.command(options, _plan(options.params, options))
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
    folder = study.compare(runs)
    _print_results(folder)
    return int(_log_problems(folder))


def make_cohort(options: argparse.Namespace, runs: list[RunConfig]) -> int:
    """Generate the phantom cohort, unless it is there."""
    from lungmtl import phantom

    folder = cohort_path(runs[0]).parent
    with study.locked(folder.with_suffix(".lock"), "Another process generates this cohort: waiting for it."):
        phantom.make_cohort(folder, **_phantom_settings(runs[0]), workers=options.workers)
    return 0


class Source(NamedTuple):
    """A cohort that a command is asked to work on."""

    config: RunConfig  # grid, split, tasks and cache
    table: Path
    folder: Path  # of what is reported


def source(options: argparse.Namespace) -> Source:
    """The cohort table given and its settings, or those of a study's params file.

    Raises:
        ValueError: If a setting is out of range, or a grid is given beside a params file.
    """
    given = {name: getattr(options, name, None) for name in ("spacing_mm", "shape", "window_hu")}
    given = {name: value for name, value in given.items() if value is not None}
    if not _is_table(options.source):
        if given:
            raise ValueError(f"The grid must come from the params file. Found {', '.join(given)} beside it.")
        config = _plan(options.source, options)[0]
        return Source(config, cohort_path(config), study.study_dir(config))
    config = _plan(options.study, options)[0] if options.study else RunConfig.from_mapping(_places(options))
    table = options.source.absolute()
    folder = (options.out or table.parent / f"{table.stem}-check").absolute()
    return Source(RunConfig.from_mapping(config.to_dict() | given), table, folder)


def check(options: argparse.Namespace) -> int:
    """Check a cohort table and every image of it: tables, thumbnails and a page, beside the table."""
    from lungmtl import checks

    config, table, folder = source(options)
    frame = _read_table(options, config)
    frame, notes = checks.split(frame, fractions=config.split_fractions, seed=config.split_seed)
    with study.locked(folder / ".check.lock", "Another process checks this cohort: waiting for it."):
        checked = checks.check_cohort(
            frame, table.parent, out=folder, tasks=config.tasks, workers=options.workers, progress=_is_terminal()
        )
        _print_verdicts(checked.scans, [*notes, *checked.notes])
        if options.page:
            _write_page(config, table, folder, allow_outside=options.allow_outside)
    print(f"Report: {folder / (PAGE_FILE if options.page else checks.SCANS_FILE)}")
    return int((checked.scans["verdict"] == "failed").any() or checked.shared["leaks"].any())


def prepare(options: argparse.Namespace) -> int:
    """Prepare every scan of a cohort that is not prepared yet; write what became of each."""
    from lungmtl import checks, cohort, volumes

    config, table, folder = source(options)
    frame = _read_table(options, config) if _is_table(options.source) else _read_of_study(options, table)
    with study.locked(cache_dir(config) / "prepare.lock", "Another process prepares scans: waiting for it."):
        prepared, outcome = volumes.prepare_cohort(
            frame,
            table.parent,
            cache_dir=cache_dir(config),
            spacing_mm=config.spacing_mm,
            shape=config.shape,
            window_hu=config.window_hu,
            workers=options.workers,
        )
    folder.mkdir(parents=True, exist_ok=True)
    outcome = checks.without_folders(outcome, frame, table.parent)
    outcome.to_csv(folder / REPORT_FILE, index=False)
    if not _is_table(options.source):
        records.write_scans(folder, cohort.attributes(cohort.included(frame), _truth(table)))
    grid = {name: getattr(config, name) for name in ("spacing_mm", "shape", "window_hu")}
    place = os.path.relpath(prepared, cache_dir(config))
    (folder / NOTE_FILE).write_text(json.dumps({"folder": place, **grid}, indent=2) + "\n", encoding="utf-8")
    _print_prepared(outcome, folder / REPORT_FILE)
    return 0


def _truth(table: Path) -> pd.DataFrame | None:
    """What the generator of a phantom cohort knows of its scans; None of any other."""
    path = table.parent / "truth.csv"
    return pd.read_csv(path, dtype={"scan": str}) if path.is_file() else None


def verify(options: argparse.Namespace) -> int:
    """Verify that all images are there with the slices the table says, and that what was prepared is whole."""
    from lungmtl import checks, cohort, nlst

    config, table, folder = source(options)
    frame = _read_table(options, config)
    wanted = frame[(frame["excluded"] == "") | frame["excluded"].str.startswith(nlst.DOWNLOAD)]
    problems = checks.verify_images(wanted, table.parent)
    summary = f"{len(wanted)} images, {len(frame) - len(wanted)} excluded by the table"
    if (folder / NOTE_FILE).is_file():
        note = json.loads((folder / NOTE_FILE).read_text(encoding="utf-8"))
        outcome = pd.read_csv(folder / REPORT_FILE, dtype={"scan": str})
        failed = set(outcome.loc[outcome["status"] == "failed", "scan"])
        used = cohort.included(frame)
        used = used[~used["scan"].isin(failed)]
        place = cache_dir(config) / note["folder"]
        problems += checks.verify_prepared(used, table.parent, place, shape=note["shape"], progress=_is_terminal())
        summary += f"; {len(used)} prepared scans, {len(failed)} that could not be prepared"
    print("\n".join(problems) or "Everything is there and whole.")
    print(f"verified {summary}: {len(problems)} problems")
    return int(bool(problems))


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
    _log_problems(study.compare(runs))
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
        "run": run,
        "compare": compare,
    }.items():
        part = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        part.set_defaults(command=command)
        part.add_argument("params", type=Path, help="the study's params file")
        part.add_argument("--seeds", default="", help='seeds instead of the file\'s, e.g. "0 1 2"')
        part.add_argument("--results-dir", type=Path, help="folder of all studies instead of the file's")
        part.add_argument("--cache-dir", type=Path, help="folder of cohorts and prepared scans instead of the file's")
        if name == "cohort":
            part.add_argument("--workers", type=int, default=_n_cores(), help="processes")
        if name == "run":
            part.add_argument("--run", required=True, help="name of the run, e.g. ITW3-s0")
        if name == "study":
            part.add_argument("--cores", type=int, default=_n_cores(), help="CPU cores to use at a time")
            part.add_argument("--profile", default="local", help="local, slurm, or a folder with a Snakemake profile")
            part.epilog = "Options after -- go to Snakemake, e.g. -- --dry-run"
    for command in (check, prepare, verify):
        _add_table(commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__), command)
    _add_nlst(commands.add_parser("nlst", help=nlst_cohort.__doc__, description=nlst_cohort.__doc__))
    part = commands.add_parser("sample", help=sample.__doc__, description=sample.__doc__)
    part.set_defaults(command=sample)
    part.add_argument("folder", type=Path, help="where the scan and its table go")
    return parser


def _add_table(part: argparse.ArgumentParser, command: Callable[[argparse.Namespace], int]) -> None:
    part.set_defaults(command=command, seeds="", results_dir=None)
    part.add_argument("source", type=Path, metavar="TABLE", help="cohort.csv, or a study's params file")
    part.add_argument("--params", dest="study", type=Path, help="with cohort.csv: settings from a study's params file")
    part.add_argument("--out", type=Path, help="folder of the report; <table>-check beside the table if not given")
    part.add_argument("--cache-dir", type=Path, help="folder of prepared scans")
    part.add_argument("--allow-outside", action="store_true", help="the table may name images outside its folder")
    if command is not verify:
        part.add_argument("--workers", type=int, default=_n_cores(), help="processes, %(default)s")
    if command is check:
        part.add_argument("--no-page", dest="page", action="store_false", help="tables and thumbnails alone, no page")
    if command is prepare:
        defaults = RunConfig()
        part.add_argument("--seeds", default="", help="with a params file, of the study")
        part.add_argument("--results-dir", type=Path, help="with a params file: folder of all studies")
        part.add_argument("--spacing-mm", type=float, nargs=3, help=f"voxel size, z y x; {defaults.spacing_mm}")
        part.add_argument("--shape", type=int, nargs=3, help=f"voxels, z y x; {defaults.shape}")
        part.add_argument("--window-hu", type=float, nargs=2, help=f"HU mapped to 0 and 1; {defaults.window_hu}")


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


def _plan(params: Path, options: argparse.Namespace) -> list[RunConfig]:
    return study.plan(params, seeds=seeds(options.seeds), places=_places(options))


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


def _log_problems(folder: Path) -> bool:
    """Log what the comparison left out or could not compute; True if that is a run."""
    path = folder / PROBLEMS_TABLE
    problems = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame({"run": []})
    for row in problems.itertuples():
        _logger.error("%s: %s", row.run or "comparison", row.problem)
    return bool((problems["run"] != "").any())


def _outcome(config: RunConfig) -> str:
    record = records.read_record(study.run_dir(config))
    return f"done in {sum(record['seconds'].values()):.0f} s"


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _read_table(options: argparse.Namespace, config: RunConfig) -> pd.DataFrame:
    """Read the table given; an image that is missing is left to the command to list."""
    from lungmtl import cohort

    table = source(options).table
    return cohort.read_cohort(table, tasks=config.tasks, allow_outside=options.allow_outside, allow_missing=True)


def _read_of_study(options: argparse.Namespace, table: Path) -> pd.DataFrame:
    """Read a study's cohort and check that every split has both classes of every task."""
    from lungmtl import cohort

    runs = _plan(options.source, options)
    frame = cohort.read_cohort(table)
    frame = cohort.assign_splits(frame, fractions=runs[0].split_fractions, seed=runs[0].split_seed)
    cohort.check_splits(frame, tasks=list(dict.fromkeys(task for run in runs for task in run.tasks)))
    return frame


def _print_prepared(outcome: pd.DataFrame, path: Path) -> None:
    failed = outcome[outcome["status"] == "failed"]
    print(f"{len(outcome) - len(failed)} of {len(outcome)} scans are prepared, {len(failed)} failed.")
    for row in failed.head(N_SHOWN).itertuples():
        print(f"  {row.scan}: {row.reason}")
    print(f"What became of every scan: {path}")


def _print_verdicts(scans: pd.DataFrame, notes: Sequence[str]) -> None:
    counts = [f"{(scans['verdict'] == verdict).sum()} {verdict}" for verdict in ("ok", "look", "failed")]
    unusual = scans[scans["verdict"] != "ok"].sort_values("verdict", kind="stable")
    print(f"{len(scans)} scans: {', '.join(counts)}")
    for row in unusual.head(N_SHOWN).itertuples():
        print(f"  {row.verdict:6}  {row.scan}: {row.reason}")
    if len(unusual) > N_SHOWN:
        print(f"  ... and {len(unusual) - N_SHOWN} more")
    print("\n".join(notes) or "Nothing is in the way of a study.")


def _write_page(config: RunConfig, table: Path, folder: Path, *, allow_outside: bool) -> None:
    """Execute the cohort notebook on what was checked, and make a page of it; the executed notebook names paths."""
    from lungmtl import report

    names = ("split_fractions", "split_seed", "tasks", "spacing_mm", "shape", "window_hu")
    parameters = {"cohort": str(table), "check_dir": str(folder), "allow_outside": allow_outside}
    parameters |= {"cache_dir": str(cache_dir(config)), **{name: getattr(config, name) for name in names}}
    with tempfile.TemporaryDirectory(prefix="lungmtl-") as place:
        executed, log = Path(place) / CHECK_NOTEBOOK, Path(place) / PAGE_LOG
        try:
            study.execute(study.NOTEBOOKS / CHECK_NOTEBOOK, executed, parameters, log=log, name="check")
        except study.RunError as error:
            text = log.read_text(encoding="utf-8")
            for path, name in ((table.parent, "TABLE"), (folder, "REPORT"), (study.PROJECT, "PROJECT"), (place, "TMP")):
                text = text.replace(str(path), name)
            (folder / PAGE_LOG).write_text(text, encoding="utf-8")
            raise study.RunError(f"The page cannot be made; log: {folder / PAGE_LOG}") from error
        report.write_html(executed, folder / PAGE_FILE, title="Check of a cohort")


def _bar(count: study.Count) -> str:
    filled = BAR_WIDTH * count.done // count.n_runs
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {count.done}/{count.n_runs} runs"
