"""Images of a cohort table: where they lie, whether they changed, and reasons that name a scan instead of a path."""

import os
from pathlib import Path


def place_of(root: str | Path, image: str) -> Path:
    """Absolute path of an image, without `..`, of which `root` is the table's folder; links are not followed."""
    return Path(os.path.normpath(os.path.join(os.path.abspath(root), image)))


def stamp(image: Path) -> list[int]:
    """Number of files, bytes and latest change (ns) of an image; changes with it. [0, 0, 0] if it is not there."""
    try:
        files = list(os.scandir(image)) if image.is_dir() else []
        stats = [image.stat(), *(file.stat() for file in files)]
    except OSError:
        return [0, 0, 0]
    return [len(files) or 1, sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


def is_current(file: Path, image: Path) -> bool:
    """Whether a file was written after the last change of an image, which is there."""
    return 0 < stamp(image)[2] < file.stat().st_mtime_ns


def reason(error: BaseException | str, image: str | Path, scan: str) -> str:
    """Text of an error without the image's path, which may name a patient."""
    return (str(error) or type(error).__name__).replace(str(image), f"scan {scan}")
