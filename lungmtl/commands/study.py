"""Commands on a study: `study`, `report`, and the workflow's `phantom`, `run` and `compare`."""

import argparse
import logging
from pathlib import Path

from lungmtl.commands.options import add_count, add_planned, places, planned, seeds
from lungmtl.files import locked
from lungmtl.study import PAGE_FILE, compare_runs, execute_run, mend, plan, progress_bar, run_study
from lungmtl.words import number_of

PROBLEMS_TABLE = "tables/problems.csv"  # runs that the comparison left out, and why

_logger = logging.getLogger(__name__)


def add_study(parser: argparse.ArgumentParser) -> None:
    """Options of `study`."""
    add_planned(parser)
    add_count(parser, "--cores", "CPU cores to use")
    parser.add_argument("--profile", default="local", help="local, slurm, or a folder with a Snakemake profile")
    parser.add_argument("-v", "--verbose", action="store_true", help="show Snakemake's own messages")
    parser.epilog = "Options after -- go to Snakemake, e.g. -- --dry-run"


def study(options: argparse.Namespace) -> int:
    """Run the whole study through Snakemake, then print its result."""
    runs = planned(options.params, options)
    settings = {"params": str(options.params.resolve()), **places(options)}
    if options.seeds:
        settings["seeds"] = " ".join(map(str, seeds(options.seeds)))
    if runs[0].cohort and plan.incomplete(runs) and not options.snakemake:
        from lungmtl.commands.cohort import refuse

        refuse(runs)
    how = {"profile": options.profile, "cores": options.cores, "verbose": options.verbose}
    done, folder = run_study(runs, settings, options=options.snakemake, **how), plan.study_dir(runs[0])
    if done and not plan.incomplete(runs) and (folder / plan.COMPARISON_TABLE).is_file():
        _print_results(folder)
    return int(not done)


add_report = add_planned


def report(options: argparse.Namespace) -> int:
    """Compare the runs that are complete, then print the result."""
    runs = planned(options.params, options)
    mend(runs)
    missing = [plan.name_of(config) for config in plan.incomplete(runs)]
    if missing:
        _logger.info("Without %s: not complete.", ", ".join(missing))
    folder = compare_runs(runs, question=plan.question(options.params))
    _print_results(folder)
    return int(_log_problems(folder))


def add_phantom(parser: argparse.ArgumentParser) -> None:
    """Options of `phantom`."""
    add_planned(parser)
    add_count(parser, "--workers", "worker processes")


def phantom(options: argparse.Namespace) -> int:
    """Generate the phantom cohort, unless it exists."""
    from lungmtl import sources

    config = planned(options.params, options)[0]
    folder = plan.cohort_path(config).parent
    with locked(folder.with_suffix(".lock"), "Another process is generating this cohort: waiting for it."):
        sources.phantom.make_cohort(folder, config.phantom, workers=options.workers)
    return 0


def add_run(parser: argparse.ArgumentParser) -> None:
    """Options of `run`."""
    add_planned(parser)
    parser.add_argument("--run", required=True, help="name of the run, e.g. ITW3-s0")


def run(options: argparse.Namespace) -> int:
    """Execute one run of the study, then show the study's progress."""
    runs = planned(options.params, options)
    config = next((config for config in runs if plan.name_of(config) == options.run), None)
    if config is None:
        names = ", ".join(plan.name_of(config) for config in runs)
        raise ValueError(f"`--run` must be one of {names}. Found {options.run}.")
    outcome = "was already complete"
    if execute_run(config, cohort=plan.cohort_path(config)):
        from lungmtl.study import read_record

        outcome = f"done in {sum(read_record(plan.run_dir(config))['seconds'].values()):.0f} s"
    _logger.info("%s  %s %s", progress_bar(runs), options.run, outcome)
    return 0


add_compare = add_planned


def compare(options: argparse.Namespace) -> int:
    """Execute the comparison notebook over the study's records."""
    runs = planned(options.params, options)
    _logger.info("comparison of %s: tables and figures", number_of(len(runs) - len(plan.incomplete(runs)), "run"))
    _log_problems(compare_runs(runs, question=plan.question(options.params)))
    return 0


def _print_results(folder: Path) -> None:
    """Print the answer, that to the contrasts fixed beforehand if there are any; its table, and the report's path."""
    import pandas as pd

    from lungmtl.comparison import FLAT_RISE, format_result
    from lungmtl.report import answer, budget, confirmed

    aucs, comparisons = (pd.read_csv(folder / "tables" / f"{name}.csv") for name in ("auc", "comparisons"))
    comparisons["verdict"] = comparisons["verdict"].fillna("")  # blank where there is no difference
    said = answer(comparisons, task=aucs["task"].iloc[0])
    if (folder / "tables" / "confirm.csv").is_file():
        fixed, learning = (pd.read_csv(folder / "tables" / f"{name}.csv") for name in ("confirm", "learning"))
        learning["is_flat"] = learning["is_flat"].fillna("")
        said = confirmed(fixed, budget=budget(learning, flat_rise=FLAT_RISE)) or said
    print(f"\n{said}\n\n{format_result(aucs, comparisons)}\n")
    print(f"Report: {folder / PAGE_FILE}")


def _log_problems(folder: Path) -> bool:
    """Log what the comparison left out or could not compute; returns True if it left out a run."""
    import pandas as pd

    path = folder / PROBLEMS_TABLE
    problems = pd.read_csv(path, dtype=str, keep_default_na=False) if path.is_file() else pd.DataFrame({"run": []})
    for row in problems.itertuples():
        _logger.error("%s: %s", row.run or "comparison", row.problem)
    return bool((problems["run"] != "").any())
