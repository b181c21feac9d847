"""A study: params files to runs, and each run's notebook executed once; the only importer of papermill.

The state of a run comes from its directory alone. `record.json` says that it is complete; a copy under a name that
holds the run's key says for which notebook, parameters, code and cohort, and outlives a workflow engine that deletes
a rule's outputs before it starts the rule. A lock on the directory keeps two processes from computing the same run.
"""

import ast
import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from lungmtl import records, report
from lungmtl.config import STUDY_KEYS, RunConfig, read_params

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "notebooks"  # where every notebook runs, and what relative paths in params start from
EXPERIMENT_NOTEBOOK = "02_experiment.ipynb"
COMPARISON_NOTEBOOK = "03_comparison.ipynb"
REPORT_FILE = "report.html"  # the executed comparison for readers, in the study's folder
COMPARISON_TABLE = "tables/auc.csv"  # what a finished comparison has written, in the study's folder

EXECUTED_FILE = "notebook.ipynb"
LOG_FILE = "run.log"
LOCK_FILE = "run.lock"
KEPT_PREFIX = "complete."  # complete.<key>.json in a run directory

PLACES = ("results_dir", "cache_dir")  # say where things lie, not what they are: no part of a key
SHARED = (  # every run of a study works on the same scans, prepared in the same way
    *("study", *PLACES, "cohort", "phantom_scans", "phantom_seed", "phantom_label_noise"),
    *("split_fractions", "split_seed", "spacing_mm", "shape", "window_hu"),
)
CODE_AROUND_RUNS = (  # modules that compute nothing that a run records
    *(
        "__main__.py",
        "attention.py",
        "checks.py",
        "cli.py",
        "figures.py",
        "nlst.py",
        "report.py",
        "study.py",
        "tables.py",
    ),
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PAPERMILL_PATHS = ("input_path", "output_path")  # in the metadata of an executed notebook
PAPERMILL_LINES = ("Input Notebook:", "Output Notebook:", "Working directory:")  # in its log
PROGRESS_START = "epoch "  # lines of a notebook that begin so are shown while it runs
GPU_POLL_S = 2.0
KEY_LENGTH = 16

_logger = logging.getLogger(__name__)


class RunError(RuntimeError):
    """A notebook that did not come to its end; the message names its log."""


class Count(NamedTuple):
    """How far a study is."""

    done: int
    n_runs: int


def plan(
    params: str | Path, *, seeds: Sequence[int] | None = None, places: Mapping[str, str] | None = None
) -> list[RunConfig]:
    """Expand a study's params file into its runs, seed by seed, experiments in the file's order.

    A run's parameters are RunConfig's defaults, then the study's file, then the experiment's, which wins; then the
    seed. The experiment's file is `<study>/<experiment>.yaml` or `table2/<experiment>.yaml` beside the study's, or the
    project's. A variant, `<base>.<change>`, has the base's parameters where its own file says nothing.

    Args:
        params: File with the lists `experiments` and `seeds` and any fields of RunConfig.
        seeds: Taken instead of the file's.
        places: `results_dir` and `cache_dir` to take instead of the file's.
    Raises:
        ValueError: If a name or value is wrong, or two runs would not share their cohort and preparation.
        FileNotFoundError: If a file is missing.
    """
    path = Path(params)
    settings = {"study": path.stem} | _read_existing(path, "A study's params file") | dict(places or {})
    lists = {name: settings.pop(name, None) for name in STUDY_KEYS}
    experiments = _checked_list(lists["experiments"], "experiments", str, path)
    seeds = _checked_list(lists["seeds"] if seeds is None else list(seeds), "seeds", int, path)
    _check_settings(settings, path)
    runs = [_config(settings, name, seed, path) for seed in seeds for name in experiments]
    _check_shared(runs, path)
    return runs


def study_dir(config: RunConfig) -> Path:
    """Absolute folder of a run's study."""
    return (NOTEBOOKS / config.results_dir).resolve() / config.study


def run_dir(config: RunConfig) -> Path:
    """Absolute folder of a run."""
    return study_dir(config) / "runs" / name_of(config)


def name_of(config: RunConfig) -> str:
    """Name of a run in its study, e.g. `ITW3-s0`."""
    return records.run_name(config.experiment, config.seed)


def count(runs: Sequence[RunConfig]) -> Count:
    """How many of these runs are complete."""
    return Count(sum((run_dir(config) / records.RECORD_FILE).is_file() for config in runs), len(runs))


def incomplete(runs: Sequence[RunConfig]) -> list[RunConfig]:
    """The runs without a record."""
    return [config for config in runs if not (run_dir(config) / records.RECORD_FILE).is_file()]


def settings_key(config: RunConfig, *, notebook: str = EXPERIMENT_NOTEBOOK) -> str:
    """Hash of all that decides a run but the cohort: the notebook's cells, the parameters and the package's code.

    Comments and docstrings of the package, outputs of the notebook and the `PLACES` do not count.
    """
    parameters = {name: value for name, value in config.to_dict().items() if name not in PLACES}
    return _hash(_cells(NOTEBOOKS / notebook), json.dumps(parameters, sort_keys=True), code_version(CODE_AROUND_RUNS))


def run_key(config: RunConfig, *, cohort: Path) -> str:
    """`settings_key` and the cohort table: under an equal key a complete run stays as it is.

    Raises:
        FileNotFoundError: If there is no cohort table.
    """
    if not cohort.is_file():
        raise FileNotFoundError(f"A run must have its cohort table. Found none at {cohort}.")
    return _hash(settings_key(config), hashlib.sha256(cohort.read_bytes()).hexdigest())


def comparison_key(runs: Sequence[RunConfig]) -> str:
    """Hash of all that decides the comparison but the records: its notebook, the code and the names of the runs."""
    code = code_version(("__main__.py", "cli.py", "study.py"))
    page = (PROJECT / "lungmtl" / report.TEMPLATE).read_text(encoding="utf-8")
    return _hash(_cells(NOTEBOOKS / COMPARISON_NOTEBOOK), code, page, *(name_of(config) for config in runs))


def code_version(without: Sequence[str] = ()) -> str:
    """Hash of the package's code, blind to comments, docstrings and layout."""
    files = [file for file in sorted((PROJECT / "lungmtl").glob("*.py")) if file.name not in without]
    return _hash(*(part for file in files for part in (file.name, _bare_code(file.read_text(encoding="utf-8")))))


def run(config: RunConfig, *, cohort: Path) -> bool:
    """Execute one run's notebook into its directory, unless it is complete under the same key.

    Waits while another process computes the same run, e.g. one left over by a workflow that was killed.

    Args:
        config: The run.
        cohort: Table of the cohort; part of the key.
    Returns:
        True if the notebook was executed, False if the record was there.
    Raises:
        RunError: If the notebook failed or wrote no record; the executed notebook and the log stay.
    """
    folder = run_dir(config)
    folder.mkdir(parents=True, exist_ok=True)
    name = name_of(config)
    with locked(folder / LOCK_FILE, f"{name} is being computed by another process: waiting for it."):
        key = run_key(config, cohort=cohort)
        if _restore(folder, key):
            return False
        _clear(folder)
        with one_gpu() as gpu:
            limits = dict.fromkeys(THREAD_VARIABLES, str(config.threads))
            execute(
                NOTEBOOKS / EXPERIMENT_NOTEBOOK,
                folder / EXECUTED_FILE,
                config.to_dict(),
                log=folder / LOG_FILE,
                name=name,
                environment=limits | gpu,
            )
        if not (folder / records.RECORD_FILE).is_file():
            raise RunError(f"A run must write a {records.RECORD_FILE}. Found none of {name}; log: {folder / LOG_FILE}")
        shutil.copyfile(folder / records.RECORD_FILE, folder / f"{KEPT_PREFIX}{key}.json")
    return True


def compare(runs: Sequence[RunConfig]) -> Path:
    """Execute the comparison notebook over the records of these runs and write its page; returns the folder."""
    folder = study_dir(runs[0])
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    parameters = {
        "study": runs[0].study,
        "results_dir": runs[0].results_dir,
        "experiments": list(dict.fromkeys(config.experiment for config in runs)),
        "seeds": list(dict.fromkeys(config.seed for config in runs)),
    }
    execute(
        NOTEBOOKS / COMPARISON_NOTEBOOK,
        folder / "logs" / COMPARISON_NOTEBOOK,
        parameters,
        log=folder / "logs" / "comparison.log",
        name="comparison",
    )
    links = report.record_links(folder, [name_of(config) for config in runs])
    report.write_html(
        folder / "logs" / COMPARISON_NOTEBOOK, folder / REPORT_FILE, title=f"Study {runs[0].study}", links=links
    )
    return folder


def execute(
    notebook: Path,
    out: Path,
    parameters: Mapping[str, Any],
    *,
    log: Path,
    name: str,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Execute a notebook with papermill, in the notebooks' folder and in a kernel of this Python environment.

    The kernel talks over IPC sockets in a private folder: kernels that start side by side can race for TCP ports.

    Args:
        notebook: The notebook; not changed.
        out: Where the executed notebook is written, cell by cell.
        parameters: Every name must stand in the notebook's parameters cell.
        log: Text log, made anew: what the notebook prints, and the traceback if it fails.
        name: Stands before the lines shown while it runs.
        environment: Variables set for the kernel, before its first import.
    Raises:
        ValueError: If the notebook has no such parameter.
        FileNotFoundError: If there is no such notebook.
        RunError: If a cell raises or the kernel dies.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lungmtl-") as private,
        _variables(environment or {}),
        _text_log(log),
        contextlib.closing(_ProgressLines(name)) as lines,
    ):
        _check_parameters(notebook, parameters)
        kernel = Config()
        kernel.KernelManager.transport = "ipc"
        kernel.KernelManager.connection_file = str(Path(private) / "kernel.json")
        try:
            papermill.execute_notebook(
                str(notebook),
                str(out),
                dict(parameters),
                kernel_name="python3",
                cwd=str(NOTEBOOKS),
                progress_bar=False,
                log_output=True,
                stdout_file=lines,
                extra_arguments=[f"--log-level={logging.CRITICAL}"],  # the kernel's own talk at its shutdown
                config=kernel,
            )
        except PapermillExecutionError as error:
            logging.getLogger("papermill").error("%s", error)
            raise RunError(f"{name} failed with {error.ename}: {error.evalue}\n  log: {log}") from error
        except DeadKernelError as error:
            logging.getLogger("papermill").error("The kernel died.")
            reason = "its kernel died, as when memory runs out"
            raise RunError(f"{name} failed: {reason}\n  log: {log}") from error
        finally:
            _drop_folders(out)


@contextlib.contextmanager
def locked(path: Path, message: str) -> Iterator[int]:
    """Hold an exclusive lock on a file, and say `message` if another process has it; yields the descriptor.

    The system frees the lock when the last process that has the descriptor ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if not _try_lock(file.fileno()):
            _logger.info(message)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


@contextlib.contextmanager
def one_gpu() -> Iterator[dict[str, str]]:
    """Hold a free NVIDIA GPU, waiting for one; yields the variables that show a kernel this device alone.

    Yields nothing to set without a GPU, or where CUDA_VISIBLE_DEVICES is set already, as a cluster does. The variable
    LUNGMTL_RUNS_PER_GPU lets several runs share a device.
    """
    devices = [] if "CUDA_VISIBLE_DEVICES" in os.environ else _gpus()
    if not devices:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        yield {"CUDA_VISIBLE_DEVICES": _free_gpu(devices, stack)}


def _read_existing(path: Path, what: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{what} must exist. Found none at {path.resolve()}.")
    return read_params(path)


def _checked_list(values: Any, name: str, kind: type, path: Path) -> list[Any]:
    proper = isinstance(values, list) and values and all(type(value) is kind for value in values)
    if not proper or len(set(values)) < len(values):
        raise ValueError(f"`{name}` must be a list of different {kind.__name__} values. Found {values!r} in {path}.")
    return values


def _check_settings(settings: Mapping[str, Any], path: Path) -> None:
    for name in ("experiment", "seed"):
        if name in settings:
            raise ValueError(f"A study's file must list `{name}s`. Found `{name}` in {path}.")
    try:
        RunConfig.from_mapping(settings)
    except ValueError as error:
        raise ValueError(f"{error} In {path}.") from error


def _config(settings: Mapping[str, Any], experiment: str, seed: int, path: Path) -> RunConfig:
    file = _experiment_file(experiment, path)
    own = _read_existing(file, f"The params file of experiment {experiment}")
    if own.get("experiment", experiment) != experiment:
        raise ValueError(f"`experiment` must be the file's name. Found {own['experiment']!r} in {file}.")
    try:
        return RunConfig.from_mapping({**settings, **_base(experiment, path), **own, "seed": seed})
    except ValueError as error:
        raise ValueError(f"{error} In {path.name} with {file.name}.") from error


def _experiment_file(experiment: str, path: Path) -> Path:
    folders = [path.parent / path.stem, path.parent / "table2", PROJECT / "params" / "table2"]
    files = [folder / f"{experiment}.yaml" for folder in folders]
    return next((file for file in files if file.is_file()), files[-1])


def _base(experiment: str, path: Path) -> dict[str, Any]:
    """Parameters that a variant such as `ITW2.start0.5` takes from the experiment before its first dot."""
    file = _experiment_file(experiment.partition(".")[0], path)
    base = read_params(file) if "." in experiment and file.is_file() else {}
    return base | {"experiment": experiment}


def _check_shared(runs: Sequence[RunConfig], path: Path) -> None:
    for name in SHARED:
        for config in runs:
            value, first = getattr(config, name), getattr(runs[0], name)
            if value != first:
                raise ValueError(
                    f"`{name}` must be the same for every run of a study. Found {value!r} in {config.experiment} and "
                    f"{first!r} in {runs[0].experiment} of {path}."
                )


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    if not notebook.is_file():
        raise FileNotFoundError(f"A notebook must exist to be executed. Found none at {notebook}.")
    unknown = sorted(set(parameters) - _parameter_names(notebook))
    if unknown:
        raise ValueError(
            f"A parameter must stand in the parameters cell of the notebook. Found {', '.join(unknown)}, unknown to "
            f"{notebook.name}."
        )


def _parameter_names(notebook: Path) -> set[str]:
    """Names assigned in the parameters cell; papermill's own reader passes over lines with "=" in their comment."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    nodes = [node for source in sources for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def _restore(folder: Path, key: str) -> bool:
    """Put the record back from its copy under this key; False if the run is not complete under it."""
    kept = folder / f"{KEPT_PREFIX}{key}.json"
    others = [folder / file for file in records.FILES if file != records.RECORD_FILE]
    if not all(path.is_file() for path in (kept, *others)):
        return False
    beside = folder / f"{records.RECORD_FILE}.partial"
    shutil.copyfile(kept, beside)
    os.replace(beside, folder / records.RECORD_FILE)
    return True


def _clear(folder: Path) -> None:
    """Remove what says that the run is complete, and what another run left there."""
    names = (*reversed(records.FILES), EXECUTED_FILE, LOG_FILE)
    for path in (*folder.glob(f"{KEPT_PREFIX}*.json"), *folder.glob("*.partial"), *(folder / name for name in names)):
        path.unlink(missing_ok=True)


def _cells(notebook: Path) -> str:
    if not notebook.is_file():
        raise FileNotFoundError(f"A study must have its notebook. Found none at {notebook}.")
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _bare_code(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if is_documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:KEY_LENGTH]


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _text_log(path: Path) -> Iterator[None]:
    logger = logging.getLogger("papermill")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    handler.terminator = ""
    handler.addFilter(_is_no_folder)
    handler.addFilter(_ends_in_one_newline)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


def _drop_folders(executed: Path) -> None:
    """Take papermill's paths, which may name people, out of an executed notebook."""
    if not executed.is_file():
        return
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    for name in PAPERMILL_PATHS:
        notebook["metadata"].get("papermill", {}).pop(name, None)
    beside = executed.with_name(executed.name + ".partial")
    beside.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, executed)


def _is_no_folder(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(PAPERMILL_LINES)


def _ends_in_one_newline(record: logging.LogRecord) -> bool:
    record.msg, record.args = record.getMessage().rstrip("\n") + "\n", None
    return True


class _ProgressLines:
    """A text file for a notebook's stdout that hands whole progress lines to the log, named."""

    def __init__(self, name: str):
        self.name = name
        self.rest = ""

    def write(self, text: str) -> None:
        """Show the whole lines of the text that tell of progress."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.startswith(PROGRESS_START):
                _logger.info("%-9s  %s", self.name, line)

    def flush(self) -> None:
        """Nothing waits but an unfinished line."""

    def close(self) -> None:
        """End an unfinished line."""
        self.write("\n")


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False)
    return listed.stdout.split() if listed.returncode == 0 else []


def _free_gpu(devices: Sequence[str], stack: contextlib.ExitStack) -> str:
    n_slots = int(os.environ.get("LUNGMTL_RUNS_PER_GPU", "1"))
    while True:
        for slot in range(n_slots):
            for device in devices:
                path = Path(tempfile.gettempdir()) / f"lungmtl-{os.getuid()}-{device}-{slot}.lock"
                file = stack.enter_context(path.open("a"))
                if _try_lock(file.fileno()):
                    return device
                file.close()
        time.sleep(GPU_POLL_S)
