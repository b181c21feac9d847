"""Files of voxels that the text header of an MHD or NRRD image names: one, a list, or a pattern with numbers.

Sources: MetaIO's and NRRD's descriptions of their formats, https://itk.org/Wiki/MetaIO and
https://teem.sourceforge.net/nrrd/format.html.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

TEXT_HEAD_BYTES = (1 << 16, 1 << 24)  # of a text header: nearly all are shorter than the first
_META = re.compile(rb"(?ims)^\s*ElementDataFile\s*[=:][ \t]*([^\r\n]*)(.*)")
_NRRD = re.compile(rb"(?ims)^data ?file\s*:[ \t]*([^\r\n]*)(.*)")
DETACHED = {".mha": _META, ".mhd": _META, ".nrrd": _NRRD, ".nhdr": _NRRD}  # where a header names files of voxels
MAX_FILES = 10_000  # that a pattern may name
PATTERN = re.compile(r"[^%]*%0?\d?d[^%]*")


def first_bytes(file: Path, count: int) -> bytes:
    """The first bytes of a file."""
    with file.open("rb") as stream:
        return stream.read(count)


def detached(image: Path) -> list[Path]:
    """Files of voxels that a text header names; the root folder stands for a pattern that cannot be followed."""
    rule = DETACHED.get(image.suffix.lower())
    if rule is None or not image.is_file():
        return []
    for count in TEXT_HEAD_BYTES:
        head = first_bytes(image, count)
        head = re.split(rb"\r?\n\r?\n", head, maxsplit=1)[0] if rule is _NRRD else head
        if found := rule.search(head):
            first, *others = [os.fsdecode(line.strip()) for line in (found[1], *found[2].splitlines())]
            return [image.parent / name for name in _named(first, others)]
        if len(head) < count:
            break
    return []


def _named(first: str, others: Sequence[str]) -> list[str]:
    """File names that a header gives: none, one, a list with a line for each, or a pattern with its numbers."""
    if first.upper() == "LOCAL":
        return []
    if first.upper().startswith("LIST"):  # a number may follow; MetaIO takes any word that begins so for it
        return [name for name in (*others, "" if re.fullmatch(r"LIST( \d+)?", first.upper()) else first) if name]
    if "%" not in first:
        return [first]
    pattern, *numbers = first.split()
    if not PATTERN.fullmatch(pattern) or not 2 <= len(numbers) <= 4 or not all(n.isdecimal() for n in numbers):
        return ["/"]
    start, stop, step = [*map(int, numbers[:3]), 1][:3]
    return [pattern % number for number in range(start, stop + 1, max(1, step))[:MAX_FILES]]
