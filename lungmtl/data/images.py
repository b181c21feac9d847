"""Images of a cohort table: the files that they consist of, whether these changed, and reasons without their names."""

import functools
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lungmtl.data.detached import detached
from lungmtl.data.volume import ScanError

MAX_DEPTH = 3  # levels of folders below an image's own, as archives lay out patients, studies and series
BLOCK_BYTES = 1 << 18


def place_of(root: str | Path, image: str) -> Path:
    """Absolute path of an image, without `..`, of which `root` is the table's folder; links are not followed."""
    return Path(os.path.normpath(os.path.join(os.path.abspath(root), image)))


def parts_of(image: Path) -> list[Path]:
    """Files that an image consists of: its own, those that its header names, or those in and below its folder."""
    if image.is_dir():
        return [Path(entry.path) for entry in _entries(image) if entry.is_file()]
    return [image, *detached(image)]


def outside(images: Sequence[Path], root: str | Path) -> list[str]:
    """Where each image leaves a folder, by its own path, a link, or what its header names; "" where it does not."""
    real = functools.cache(os.path.realpath)  # of folders: many images share theirs
    home = os.path.join(real(root), "")

    def elsewhere(path: Path) -> str:
        """Where a path, or what it links to, lies; blank if it is inside."""
        place = os.path.realpath(path) if path.is_symlink() else os.path.join(real(path.parent), path.name)
        return "" if place.startswith(home) else place

    def first_outside(image: Path) -> str:
        """As `elsewhere`, of an image or else of one of its files."""
        if place := elsewhere(image):
            return place
        links = (Path(entry.path) for entry in _entries(image) if entry.is_symlink()) if image.is_dir() else ()
        return next(filter(None, map(elsewhere, (*links, *detached(image)))), "")

    return [first_outside(image) for image in images]


def stamp(image: Path) -> list[int]:
    """Number of files, bytes, latest date and latest change (ns) of an image; zeros if it is not there.

    A date can be set back, as by copying an older file; a change cannot, but also a copy of the same file is one.
    """
    try:
        others = _entries(image) if image.is_dir() else detached(image)
        stats = [image.stat(), *(other.stat() for other in others)]
    except OSError:
        return [0, 0, 0, 0]
    dates = (max(getattr(stat, name) for stat in stats) for name in ("st_mtime_ns", "st_ctime_ns"))
    return [len(stats[1:]) or 1, sum(stat.st_size for stat in stats), *dates]


def digest(image: Path) -> str:
    """Number of bytes and checksum (CRC-32) of an image's files, and of their names where it has several.

    A change of up to four bytes in a row is always found. SHA-256 would take as long as an eighth of preparing a scan.
    """
    checksum, n_bytes, block = 0, 0, memoryview(bytearray(BLOCK_BYTES))
    for part in parts_of(image):
        if part != image:
            checksum = zlib.crc32(os.fsencode(os.path.relpath(part, image)), checksum)
        with part.open("rb", buffering=0) as stream:
            while count := stream.readinto(block):
                checksum, n_bytes = zlib.crc32(block[:count], checksum), n_bytes + count
    return f"{n_bytes}-{checksum:08x}"


def is_current(file: Path, image: Path) -> bool:
    """Whether a file was written after the last change of an image, which is there."""
    return 0 < stamp(image)[2] < file.stat().st_mtime_ns


def reason(error: BaseException) -> str:
    """What of an error may be written down, the one way into any output: libraries and systems name paths and texts."""
    if isinstance(error, ScanError):
        return str(error)
    found = "none" if isinstance(error, FileNotFoundError) else f"a failure ({type(error).__name__})"
    return f"An image must exist and be readable. Found {found}."


def _entries(folder: str | Path, depth: int = MAX_DEPTH) -> Iterator[os.DirEntry]:
    """What lies in a folder, and so many levels below it, by name; hidden ones are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name[0] != ".":
            yield entry
            if depth and entry.is_dir():
                yield from _entries(entry.path, depth - 1)
