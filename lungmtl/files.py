"""Files: atomic writes, hashes, locks; a killed process leaves either the old file or the new one."""

import contextlib
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # root of the repository
_logger = logging.getLogger(__name__)


def existing(path: str | Path, what: str) -> Path:
    """The path of a file that must exist; `what` it is starts the error.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} must exist. Found {'a folder' if path.is_dir() else 'none'} at {path}.")
    return path


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix; it replaces `path` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write(path: str | Path, content: str | bytes) -> Path:
    """Write a text (UTF-8) or bytes atomically, creating parent folders; returns the path."""
    with replacing(path) as beside:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
    return Path(path)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed processes."""
    for path in folder.glob(".[0-9]*-*"):
        path.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes, 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, message: str) -> Iterator[int]:
    """Hold an exclusive lock on a file, logging `message` if another process holds it; yields the descriptor.

    The system releases the lock when the last process with the descriptor ends, even if it is killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if not try_lock(file.fileno()):
            _logger.info(message)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def try_lock(descriptor: int) -> bool:
    """Lock an open file without waiting; returns False if another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
