"""A table's rows as text; what is no table of comma-separated UTF-8 is refused with the way to make one of it."""

import csv
import io
from pathlib import Path

from lungmtl.tables import unguard

WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # how xlsx and ods begin, and xls
UTF16 = (b"\xff\xfe", b"\xfe\xff")
SEPARATORS = {";": "semicolons", "\t": "tabs"}  # what spreadsheets write instead of commas
HEAD_BYTES = 1 << 16  # enough for a comma of the header
SAVE = "save it as CSV UTF-8, separated by commas"


def check_csv(path: Path, what: str, *, n_bytes: int = HEAD_BYTES) -> bytes:
    """Read so many first bytes of a csv file, all where -1; `what` it is starts the error.

    Raises:
        ValueError: If it is a workbook, in UTF-16, or not separated by commas, with what to do.
    """
    with path.open("rb") as stream:
        head = stream.read(n_bytes)
    if head.startswith(WORKBOOKS):
        raise ValueError(f"{what} must be a csv table. Found a workbook, {path}: {SAVE}.")
    if head.startswith(UTF16) or b"\0" in head:
        raise ValueError(f"{what} must be a csv table in UTF-8. Found UTF-16 in {path}: {SAVE}.")
    first = head.split(b"\n", 1)[0]
    for separator, name in SEPARATORS.items():
        if separator.encode() in first and b"," not in first:
            raise ValueError(f"{what} must have cells separated by commas. Found {name} in {path}: {SAVE}.")
    return head


def read_rows(path: str | Path) -> list[list[str]]:
    """Read every cell of a csv file as stripped text, the header first; rows without text are left out.

    Raises:
        FileNotFoundError: If there is nothing at `path`.
        ValueError: If it is a folder, a workbook, empty, or not comma-separated UTF-8; the text says what to do.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"A cohort must be a csv table. Found a folder, {path}: name the table in it.")
    if not path.is_file():
        raise FileNotFoundError(f"A cohort must be an existing csv file. Found nothing at {path.absolute()}.")
    rows = _parsed(check_csv(path, "A cohort", n_bytes=-1), path)
    if not rows:
        raise ValueError(f"A cohort must have a header and a row per scan. Found an empty file, {path}.")
    return rows


def _parsed(content: bytes, path: Path) -> list[list[str]]:
    try:
        stream = io.StringIO(content.decode("utf-8-sig"), newline="")
        return [
            cells for row in csv.reader(stream, strict=True) if any(cells := [unguard(cell.strip()) for cell in row])
        ]
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{content[error.start]:02x} in row {row}"
        raise ValueError(f"A cohort must be a csv table in UTF-8. Found {found} of {path}: {SAVE}.") from error
    except csv.Error as error:
        raise ValueError(f"A cohort must be a csv table in UTF-8. Found in {path}: {error}") from error
