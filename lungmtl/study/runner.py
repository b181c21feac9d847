"""Runs and comparisons of a study, each executed once under its key.

The state of a run comes from its folder alone. `record.json` says that it is complete; a copy under a name that
holds the run's key says for which notebook, parameters, code and cohort, and outlives a workflow engine that deletes
a rule's outputs before it starts the rule. A lock on the folder keeps two processes from computing the same run.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lungmtl.files import locked, remove_leftovers, sha256, write
from lungmtl.keys import key
from lungmtl.study import plan
from lungmtl.study.config import RunConfig
from lungmtl.study.machine import RECORD_COPY, one_gpu

EXECUTED_FILE = "notebook.ipynb"
LOG_FILE = "run.log"
LOCK_FILE = "run.lock"
KEPT_PREFIX = "complete."  # complete.<key>.json in a run's folder
NOTE_FILE = "preparation.json"  # in the study's folder: where in the cache its scans are, and on which grid
COMPARED_FILE = "logs/comparison.key"  # in the study's folder: what the tables were made from
PAGE_FILE = "report.html"  # the executed comparison for readers, in the study's folder
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def execute_run(config: RunConfig, *, cohort: Path) -> bool:
    """Execute one run's notebook into its directory, unless it is complete under the same key.

    Waits while another process computes the same run, e.g. one left over by a workflow that was killed.

    Args:
        config: The run.
        cohort: Table of the cohort; part of the key.
    Returns:
        True if the notebook was executed, False if the record was there.
    Raises:
        plan.RunError: If the notebook failed or wrote no record; the executed notebook and the log stay.
    """
    from lungmtl.study.execute import execute_notebook  # papermill takes a second to import

    folder, name = plan.run_dir(config), plan.name_of(config)
    with locked(folder / LOCK_FILE, f"{name} is being computed by another process: waiting for it."):
        code = plan.run_key(config, cohort=cohort)
        if _is_complete(folder, code):
            write(folder / plan.RECORD_FILE, _kept(folder, code).read_bytes())
            return False
        _clear(folder)
        with one_gpu() as gpu:
            limits = dict.fromkeys(THREAD_VARIABLES, str(config.threads))
            execute_notebook(
                plan.NOTEBOOKS / plan.EXPERIMENT_NOTEBOOK,
                folder / EXECUTED_FILE,
                config.to_dict(),
                log=folder / LOG_FILE,
                name=name,
                environment={**limits, **gpu, RECORD_COPY: str(_kept(folder, code))},
            )
        _keep(folder, code, name)
    return True


def compare_runs(runs: Sequence[RunConfig], *, question: str = "") -> Path:
    """Execute the comparison notebook over the records of these runs and write its page; returns the folder.

    `question` heads the page; empty = the notebook's own.
    """
    from lungmtl.report import record_links, write_html
    from lungmtl.study.execute import execute_notebook

    folder = plan.study_dir(runs[0])
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    compared = _compared_key(runs)
    parameters = {
        "study": runs[0].study,
        "results_dir": runs[0].results_dir,
        "experiments": list(dict.fromkeys(config.experiment for config in runs)),
        "seeds": list(dict.fromkeys(config.seed for config in runs)),
    }
    executed = folder / "logs" / plan.COMPARISON_NOTEBOOK
    source, log = plan.NOTEBOOKS / plan.COMPARISON_NOTEBOOK, folder / "logs" / "comparison.log"
    execute_notebook(source, executed, parameters, log=log, name="comparison")
    links = record_links(folder, [plan.name_of(config) for config in runs])
    write_html(executed, folder / PAGE_FILE, title=f"Study {runs[0].study}", heading=question, links=links)
    write(folder / COMPARED_FILE, compared)
    return folder


def is_up_to_date(runs: Sequence[RunConfig]) -> bool:
    """Whether a study is complete under its present keys: cohort, preparation, every run and the comparison.

    If not, the workflow engine finds out what has to be done.
    """
    folder, cohort = plan.study_dir(runs[0]), plan.cohort_path(runs[0])
    there = [folder / name for name in (NOTE_FILE, COMPARED_FILE, plan.COMPARISON_TABLE, PAGE_FILE)]
    if not all(path.is_file() for path in (cohort, *there)):
        return False
    note = json.loads((folder / NOTE_FILE).read_text(encoding="utf-8"))
    is_prepared = plan.cache_dir(runs[0]) / note["folder"] == plan.prepared_dir(runs[0])
    complete = (_is_complete(plan.run_dir(run), plan.run_key(run, cohort=cohort)) for run in runs)
    recorded = all((plan.run_dir(run) / plan.RECORD_FILE).is_file() for run in runs)
    is_compared = (folder / COMPARED_FILE).read_text(encoding="utf-8") == _compared_key(runs)
    return is_prepared and is_compared and recorded and all(complete)


def _compared_key(runs: Sequence[RunConfig]) -> str:
    """Key of a comparison and of the records that it reads; runs without one count, too."""
    files = [plan.run_dir(config) / plan.RECORD_FILE for config in runs]
    return key(plan.comparison_key(runs), *(sha256(file) if file.is_file() else "" for file in files))


def _kept(folder: Path, code: str) -> Path:
    return folder / f"{KEPT_PREFIX}{code}.json"


def _keep(folder: Path, code: str, name: str) -> None:
    """Have the record under both its names, even if a workflow engine has just deleted it to start the run anew."""
    record, kept = folder / plan.RECORD_FILE, _kept(folder, code)
    if not kept.is_file() and not record.is_file():
        raise plan.RunError(f"A run must write a {record.name}. Found none of {name}; log: {folder / LOG_FILE}")
    text = (kept if kept.is_file() else record).read_bytes()
    write(kept, text)
    write(record, text)


def _is_complete(folder: Path, code: str) -> bool:
    return all(path.is_file() for path in (_kept(folder, code), *(folder / name for name in plan.FILES[:-1])))


def _clear(folder: Path) -> None:
    """Remove what says that the run is complete, and what another run left there."""
    names = (*reversed(plan.FILES), EXECUTED_FILE, LOG_FILE)
    for path in (*folder.glob(f"{KEPT_PREFIX}*.json"), *(folder / name for name in names)):
        path.unlink(missing_ok=True)
    remove_leftovers(folder)
