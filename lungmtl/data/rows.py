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


def check_csv(path: Path, what: str) -> None:
    """Refuse a file whose first bytes are not comma-separated UTF-8, with the way to make it so; `what` it is.

    Raises:
        ValueError: If it is a workbook, in UTF-16, or separated by something else.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    if head.startswith(WORKBOOKS):
        raise ValueError(f"{what} must be a csv table. Found a workbook, {path}: {SAVE}.")
    if head.startswith(UTF16) or b"\0" in head:
        raise ValueError(f"{what} must be a csv table in UTF-8. Found UTF-16 in {path}: {SAVE}.")
    first = head.decode("utf-8-sig", errors="replace").splitlines()[:1]
    for separator, name in SEPARATORS.items():
        if any(separator in line and "," not in line for line in first):
            raise ValueError(f"{what} must have cells separated by commas. Found {name} in {path}: {SAVE}.")


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
    content = path.read_bytes()
    if content.startswith(WORKBOOKS):
        raise ValueError(f"A cohort must be a csv table. Found a workbook, {path}: {SAVE}.")
    if content.startswith(UTF16) or b"\0" in content:
        raise ValueError(f"A cohort must be a csv table in UTF-8. Found UTF-16 in {path}: {SAVE}.")
    rows = _parsed(content, path)
    if not rows:
        raise ValueError(f"A cohort must have a header and a row per scan. Found an empty file, {path}.")
    for separator, name in SEPARATORS.items():
        if len(rows[0]) == 1 and separator in rows[0][0]:
            raise ValueError(f"A cohort's cells must be separated by commas. Found {name} in {path}: {SAVE}.")
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
