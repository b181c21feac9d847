"""Notebooks executed by papermill, whose only importer this is."""

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from lungmtl.files import write
from lungmtl.study.parameters import parameter_names, refuse_unknown
from lungmtl.study.plan import NOTEBOOKS, RunError
from lungmtl.study.record import PATHS

PAPERMILL_PATHS = ("input_path", "output_path")  # in the metadata of an executed notebook
PAPERMILL_LINES = ("Input Notebook:", "Output Notebook:", "Working directory:")  # in its log
PROGRESS_START = "epoch "  # lines of a notebook that begin so are shown while it runs
_logger = logging.getLogger(__name__)


def execute_notebook(
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
        _text_log(log, _folders(parameters)),
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
            _drop_folders(out, _folders(parameters))


def _check_parameters(notebook: Path, parameters: Mapping[str, Any]) -> None:
    if not notebook.is_file():
        raise FileNotFoundError(f"A notebook must exist to be executed. Found none at {notebook}.")
    refuse_unknown(parameters, parameter_names(notebook), notebook.name)


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
def _text_log(path: Path, folders: Sequence[str]) -> Iterator[None]:
    logger = logging.getLogger("papermill")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", datefmt="%H:%M:%S"))
    handler.terminator = ""
    handler.addFilter(_is_no_folder)
    handler.addFilter(_ends_in_one_newline)
    handler.addFilter(lambda record: _drop_from(record, folders))
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


def _folders(parameters: Mapping[str, Any]) -> list[str]:
    """Folders of the paths among parameters, as text: they may name people."""
    places = [Path(parameters[name]) for name in PATHS if parameters.get(name)]
    return sorted({f"{place.parent}/" for place in places if place.is_absolute()}, key=len, reverse=True)


def _drop_folders(executed: Path, folders: Sequence[str]) -> None:
    """Take paths, which may name people, out of an executed notebook."""
    if not executed.is_file():
        return
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    for name in PAPERMILL_PATHS:
        notebook["metadata"].get("papermill", {}).pop(name, None)
    write(executed, _without(folders, json.dumps(notebook, indent=1, ensure_ascii=False)) + "\n")


def _without(folders: Sequence[str], text: str) -> str:
    for folder in folders:
        text = text.replace(folder, "")
    return text


def _drop_from(record: logging.LogRecord, folders: Sequence[str]) -> bool:
    record.msg = _without(folders, record.msg)
    return True


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
