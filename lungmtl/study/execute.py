"""Execute notebooks with papermill; the only module that imports it."""

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

from lungmtl.files import existing, write
from lungmtl.study.parameters import parameter_names, refuse_unknown
from lungmtl.study.plan import NOTEBOOKS, RunError
from lungmtl.study.record import PATHS

PAPERMILL_PATHS = ("input_path", "output_path")  # in the metadata of an executed notebook
PAPERMILL_LINES = ("Input Notebook:", "Output Notebook:", "Working directory:")  # in its log
PROGRESS_START = "epoch "  # output lines with this prefix are shown while the notebook runs
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

    The kernel uses IPC sockets in a private folder, because kernels that start together can race for TCP ports.

    Args:
        notebook: The notebook; not changed.
        out: Where the executed notebook is written, cell by cell.
        parameters: Every name must be in the notebook's parameters cell.
        log: Text log, overwritten: the notebook's output, and the traceback if it fails.
        name: Prefix of the progress lines.
        environment: Variables set for the kernel, before its first import.
    Raises:
        ValueError: If a parameter is unknown to the notebook.
        FileNotFoundError: If the notebook does not exist.
        RunError: If a cell raises or the kernel dies.
    """
    with (
        tempfile.TemporaryDirectory(prefix="lungmtl-") as private,
        _variables(environment or {}),
        _text_log(log, _folders(parameters)),
        contextlib.closing(_ProgressLines(name)) as lines,
    ):
        refuse_unknown(parameters, parameter_names(existing(notebook, "A notebook")), notebook.name)
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
                extra_arguments=[f"--log-level={logging.CRITICAL}"],  # hide the kernel's messages at shutdown
                config=kernel,
            )
        except PapermillExecutionError as error:
            logging.getLogger("papermill").error("%s", error)
            raise RunError(f"{name} failed with {error.ename}: {error.evalue}\n  log: {log}") from error
        except DeadKernelError as error:
            logging.getLogger("papermill").error("The kernel died.")
            reason = "its kernel died, perhaps out of memory"
            raise RunError(f"{name} failed: {reason}\n  log: {log}") from error
        finally:
            _drop_folders(out, _folders(parameters))


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
    handler.addFilter(lambda record: _clean(record, folders))
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
    """Folders of the absolute paths among the parameters, longest first; they may name people."""
    places = [Path(parameters[name]) for name in PATHS if parameters.get(name)]
    return sorted({f"{place.parent}/" for place in places if place.is_absolute()}, key=len, reverse=True)


def _drop_folders(executed: Path, folders: Sequence[str]) -> None:
    """Remove folders, which may name people, from an executed notebook."""
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


def _clean(record: logging.LogRecord, folders: Sequence[str]) -> bool:
    """End a line of papermill's log in one newline and drop its folders; False for a line about paths alone."""
    text = record.getMessage().rstrip("\n") + "\n"
    record.msg, record.args = _without(folders, text), None
    return not text.startswith(PAPERMILL_LINES)


class _ProgressLines:
    """Text stream for a notebook's stdout that logs its complete progress lines under a name."""

    def __init__(self, name: str):
        self.name = name
        self.rest = ""

    def write(self, text: str) -> None:
        """Log the complete lines that report progress."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            if line.startswith(PROGRESS_START):
                _logger.info("%-9s  %s", self.name, line)

    def flush(self) -> None:
        """Do nothing: only an incomplete line is buffered."""

    def close(self) -> None:
        """Complete the last line."""
        self.write("\n")
