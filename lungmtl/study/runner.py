"""Execute the runs and the comparison of a study, each once per key.

A lock on a run's folder keeps two processes from computing the same run.
"""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from lungmtl.files import locked, remove_leftovers, sha256, write
from lungmtl.keys import key
from lungmtl.study import plan
from lungmtl.study.condition import CHECKPOINT_PREFIX, KEPT_PREFIX, Condition, condition, kept, restore, to_do
from lungmtl.study.config import RunConfig
from lungmtl.study.machine import CHECKPOINTS, RECORD_COPY, SHARED_START, one_gpu

EXECUTED_FILE = "notebook.ipynb"
LOG_FILE = "run.log"
LOCK_FILE = "run.lock"
NOTE_FILE = "preparation.json"  # in the study's folder: cache folder and grid of its prepared scans
COMPARED_FILE = "logs/comparison.key"  # in the study's folder: hash of the tables and of the records behind them
SHARED_FOLDER = "shared"  # in the study's folder, while its runs are computed: shared checkpoints
PAGE_FILE = "report.html"  # the executed comparison for readers, in the study's folder
_logger = logging.getLogger(__name__)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def execute_run(config: RunConfig, *, cohort: Path) -> bool:
    """Execute one run's notebook into its directory, unless it is complete under the same key.

    Waits while another process computes the same run, e.g. one that outlived a killed workflow.

    Args:
        config: The run.
        cohort: Table of the cohort; part of the key.
    Returns:
        True if the notebook was executed, False if the run was complete.
    Raises:
        plan.RunError: If the notebook failed or wrote no record; the executed notebook and the log are kept.
    """
    from lungmtl.study.execute import execute_notebook  # papermill takes a second to import

    folder, name = plan.run_dir(config), plan.name_of(config)
    with locked(folder / LOCK_FILE, f"{name} is being computed by another process: waiting for it."):
        code = plan.run_key(config, cohort=cohort)
        if condition(config, cohort=cohort).kind == "complete":
            restore(config, cohort=cohort)
            return False
        _clear(folder, code)
        with one_gpu() as gpu:
            limits = dict.fromkeys(THREAD_VARIABLES, str(config.threads))
            execute_notebook(
                plan.NOTEBOOKS / plan.EXPERIMENT_NOTEBOOK,
                folder / EXECUTED_FILE,
                config.to_dict(),
                log=folder / LOG_FILE,
                name=name,
                environment={**limits, **gpu, **_variables(config, cohort)},
            )
        if not restore(config, cohort=cohort):  # a workflow engine may just have deleted the record to rerun
            found = f"Found none of {name}; log: {folder / LOG_FILE}"
            raise plan.RunError(f"A run must write a {plan.RECORD_FILE}. {found}")
        _clear_checkpoints(folder)
    return True


def compare_runs(runs: Sequence[RunConfig], *, question: str = "") -> Path:
    """Execute the comparison notebook over the records of these runs and write its page; returns the folder.

    `question` is the page's heading; empty = the notebook's own.
    """
    from lungmtl.report import record_links, write_html
    from lungmtl.study.execute import execute_notebook

    folder = plan.study_dir(runs[0])
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    parameters = {
        "study": runs[0].study,
        "results_dir": runs[0].results_dir,
        "experiments": list(dict.fromkeys(config.experiment for config in runs)),
        "seeds": list(dict.fromkeys(config.seed for config in runs)),
    }
    made_from = _made_from(runs)
    executed = folder / "logs" / plan.COMPARISON_NOTEBOOK
    source, log = plan.NOTEBOOKS / plan.COMPARISON_NOTEBOOK, folder / "logs" / "comparison.log"
    execute_notebook(source, executed, parameters, log=log, name="comparison")
    links = record_links(folder, [plan.name_of(config) for config in runs])
    said = {"title": f"Study {runs[0].study}", "heading": question, "links": links, "is_phantom": not runs[0].cohort}
    write_html(executed, folder / PAGE_FILE, **said)
    write(folder / COMPARED_FILE, _compared_key(folder, made_from))
    if not to_do(runs):
        shutil.rmtree(folder / SHARED_FOLDER, ignore_errors=True)
    return folder


def is_prepared(config: RunConfig) -> bool:
    """Whether the scans of a study were prepared under its current key."""
    try:
        note = json.loads((plan.study_dir(config) / NOTE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # none yet, or a damaged one
        return False
    return plan.cache_dir(config) / note["folder"] == plan.prepared_dir(config)


def is_compared(runs: Sequence[RunConfig]) -> bool:
    """Whether the tables of a study were made from the current records and are unchanged since."""
    folder = plan.study_dir(runs[0])
    compared = folder / COMPARED_FILE
    return compared.is_file() and compared.read_text(encoding="utf-8") == _compared_key(folder, _made_from(runs))


def unfinished(runs: Sequence[RunConfig]) -> list[str]:
    """Files of a study's folder that are missing or outdated: preparation, records, comparison."""
    files = [] if plan.cohort_path(runs[0]).is_file() and is_prepared(runs[0]) else [plan.PREPARATION_FILE]
    files += [f"runs/{name}/{plan.RECORD_FILE}" for name in mend(runs)]
    return files if is_compared(runs) else [*files, plan.COMPARISON_TABLE]


def mend(runs: Sequence[RunConfig]) -> dict[str, Condition]:
    """Restore missing or damaged records of complete runs, warn of damaged runs, and return the runs to do."""
    waiting = to_do(runs)
    for name, found in waiting.items():
        if found.kind == "damaged":
            _logger.warning("%s is damaged: %s. The study will compute it again.", name, found.reason)
    for config in runs:
        if plan.name_of(config) not in waiting:
            restore(config, cohort=plan.cohort_path(config))
    return waiting


def _made_from(runs: Sequence[RunConfig]) -> str:
    """Hash of a comparison's key and its records; a missing record counts as empty."""
    return key(plan.comparison_key(runs), *_hashes(plan.run_dir(config) / plan.RECORD_FILE for config in runs))


def _compared_key(folder: Path, made_from: str) -> str:
    """Hash of a comparison's inputs and outputs."""
    return key(made_from, *_hashes((folder / plan.COMPARISON_TABLE, folder / PAGE_FILE)))


def _hashes(files: Iterable[Path]) -> list[str]:
    return [sha256(file) if file.is_file() else "" for file in files]


def _variables(config: RunConfig, cohort: Path) -> dict[str, str]:
    """Environment variables of a run: paths of its record's copy, its checkpoints and the shared checkpoint."""
    folder, code = plan.run_dir(config), plan.run_key(config, cohort=cohort)
    first = plan.shared_key(config, cohort=cohort)
    places = {RECORD_COPY: kept(folder, code), CHECKPOINTS: folder / f"{CHECKPOINT_PREFIX}{code}"}
    places |= {SHARED_START: plan.study_dir(config) / SHARED_FOLDER / first} if first else {}
    return {name: str(place) for name, place in places.items()}


def _clear_checkpoints(folder: Path, *, but: str = "") -> None:
    """Remove the checkpoints of all keys but one."""
    for path in folder.glob(f"{CHECKPOINT_PREFIX}*"):
        if path.name.split(".")[1] != but:
            path.unlink(missing_ok=True)


def _clear(folder: Path, code: str) -> None:
    """Remove the marks of a complete run, and the files of a run with another key."""
    _clear_checkpoints(folder, but=code)
    names = (*reversed(plan.FILES), EXECUTED_FILE, LOG_FILE)
    for path in (*folder.glob(f"{KEPT_PREFIX}*.json"), *(folder / name for name in names)):
        path.unlink(missing_ok=True)
    remove_leftovers(folder)
