"""Checks of a cohort: every scan read, measured, drawn and judged.

Nothing that is written here names a patient or a folder: a scan is known by its name in the cohort table, and of an
image's header only its geometry and the fields of `Technique` are used.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from lungmtl.data.air import pool_l
from lungmtl.data.cohort import exclude_failed, included, numbers_of
from lungmtl.data.images import place_of, reason, stamp
from lungmtl.data.inventory import leak_notes, mix, shared
from lungmtl.data.labels import cooccurrence, label_table
from lungmtl.data.lungs import Lungs
from lungmtl.data.masks import mask_state, masks_of, own_lungs
from lungmtl.data.plausibility import air_hu, hu_scale, remarks, scaled_text, tissue_off_hu
from lungmtl.data.reading import read_volume
from lungmtl.data.region import find_region
from lungmtl.data.splits import blank_figures
from lungmtl.data.thumbnails import THUMBNAILS, thumbnail, thumbnail_file
from lungmtl.data.volume import Technique, Volume
from lungmtl.files import write
from lungmtl.keys import Place, code_key
from lungmtl.tables import write_csv
from lungmtl.workers import run_jobs

CHECKED_ENTRY = Place("lungmtl.data.checks", "check_file")  # what the check of a scan executes
CHECKED_FILE = "scans.csv"
JOURNAL = "checked.jsonl"  # one line per scan, written as it is checked: what a later call goes on from
CHECK_MEASURES = (
    *("n_slices", "n_rows", "n_columns", "slice_mm", "pixel_mm", "length_mm"),
    *("hu_min", "hu_p01", "hu_p05", "hu_p50", "hu_p95", "hu_p99", "hu_max"),
    *("lung_volume_l", "lung_p05", "lung_p50", "lung_p95", "lung_z_mm", "lung_y_mm", "lung_x_mm"),
    *("below_mm", "above_mm", "below_cm2", "above_cm2"),
    *("left_l", "right_l", "front_right", "gas_l", "dark_l", "cut_cm2", "air_hu", "tissue_off_hu", "scale", "left_out"),
)
HU_PERCENTILES = (1, 5, 50, 95, 99)
LUNG_PERCENTILES = (5, 50, 95)
BYTES_PER_WORKER = 64e6  # chosen by us: images that take as long to check as a process takes to start


class Checked(NamedTuple):
    """What `check_cohort` found."""

    scans: pd.DataFrame  # scan, verdict (ok, look, failed), reason, the CHECK_MEASURES and the fields of Technique
    labels: pd.DataFrame  # split (all of them first), task, n, positives, unknown, share, low, high
    cooccurrence: pd.DataFrame  # task by task: share of the row's scans that also have the column's diagnosis
    mix: pd.DataFrame  # what, value, and the number of scans in all and in every split
    shared: pd.DataFrame  # what is shared (patient, image or voxels), scans, n_scans, n_patients, splits, leaks
    notes: list[str]  # sentences: what leaks, and which figures of a study would stay blank


def check_cohort(
    frame: pd.DataFrame,
    root: str | Path,
    *,
    out: str | Path,
    tasks: Sequence[str],
    workers: int = 1,
    progress: bool = True,
) -> Checked:
    """Check every scan and the cohort, and write all tables and a thumbnail per scan.

    Args:
        frame: A cohort as `read_cohort` gives it; rows with a reason in `excluded` are left out.
        root: Folder that `image` is relative to.
        out: Folder for the tables; a scan whose image did not change since an earlier call is not read again.
        tasks: Diagnosis columns.
    Raises:
        RuntimeError: If a worker was killed; the next call goes on from there.
    """
    out = Path(out)
    scans = check_scans(frame, root, out=out, workers=workers, progress=progress)
    used = included(exclude_failed(frame, scans))
    shares = label_table(used, tasks=tasks)
    groups = shared(included(frame), scans, root)
    together, notes = cooccurrence(used, tasks=tasks), [*leak_notes(groups), *blank_figures(used, tasks=tasks)]
    checked = Checked(scans.drop(columns="voxels"), shares, together, mix(used, scans), groups, notes)
    for name in ("scans", "labels", "mix", "shared"):
        write_csv(getattr(checked, name), out / f"{name}.csv")
    write_csv(together, out / "cooccurrence.csv", index_label="of the scans with")
    return checked


def check_scans(
    frame: pd.DataFrame, root: str | Path, *, out: str | Path, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Read and measure every scan, and draw its thumbnail; a scan that cannot be used never stops the others.

    A killed call loses only the scans in progress. Arguments as of `check_cohort`; of `frame` it takes the columns
    `scan`, `image`, `excluded` and, if there, `n_slices`.

    Returns:
        One row per scan, in the table's order: `scan`, `verdict` (ok, failed, or look: usable, but worth a look),
        `reason`, the CHECK_MEASURES, the fields of `Technique` and `voxels`, a hash of the HU; NaN where not known.
    """
    used, out = included(frame), Path(out)
    images = {scan: place_of(root, image) for scan, image in zip(used["scan"], used["image"], strict=True)}
    (out / THUMBNAILS).mkdir(parents=True, exist_ok=True)
    masks = dict(zip(used["scan"], masks_of(used, root), strict=True))
    stamps = {scan: [*stamp(image), mask_state(masks[scan])] for scan, image in images.items()}
    rows = _kept(out, stamps)
    write(out / JOURNAL, "".join(json.dumps(row) + "\n" for row in rows.values()))
    left = [scan for scan in images if scan not in rows]
    todo = [(scan, str(images[scan]), str(thumbnail_file(out, scan)), masks[scan]) for scan in left]
    n_bytes = sum(stamps[scan][1] for scan in left)
    results = run_jobs(check_file, todo, workers=min(workers, len(todo), int(n_bytes / BYTES_PER_WORKER)))
    with (
        (out / JOURNAL).open("a", encoding="utf-8") as journal,
        tqdm(total=len(images), initial=len(rows), desc="checking", unit="scan", disable=not progress) as bar,
    ):
        for row in results:
            rows[row["scan"]] = row | {"stamp": stamps[row["scan"]], "code": code_key(CHECKED_ENTRY)}
            print(json.dumps(rows[row["scan"]]), file=journal, flush=True)
            bar.update()
    columns = ["scan", "status", "reason", *CHECK_MEASURES, *Technique._fields, "voxels"]
    return _judged(pd.DataFrame([rows[scan] for scan in images]).reindex(columns=columns), used)


def check_file(job: tuple) -> dict:
    """Check one scan; one that cannot be used becomes a row with its reason, and what was measured before."""
    scan, image, thumbnail_file, mask = job
    row = {"scan": scan, "status": "ok", "reason": ""}
    Path(thumbnail_file).unlink(missing_ok=True)
    try:
        volume = read_volume(image)
        row |= _voxel_measures(volume) | volume.technique._asdict()
        row["scale"] = hu_scale(volume.hu[:, ::2, ::2])
        lungs = None
        try:
            lungs, found = find_shown(volume, own_lungs(mask, image, scan) if mask else None)
            row |= found
        finally:  # a thumbnail shows what a scan is that holds no lungs
            write(Path(thumbnail_file), thumbnail(volume, lungs))
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        cause = f"{scaled_text(row['scale'])} " if row.get("scale", math.nan) > 0 else ""
        row |= {"status": "failed", "reason": cause + reason(error)}
    return row


def _voxel_measures(volume: Volume) -> dict:
    hu = volume.hu[:, ::2, ::2]  # every fourth voxel tells the percentiles, and faster
    slice_mm, pixel_mm = volume.spacing_mm[0], max(volume.spacing_mm[1:])
    return {
        **dict(zip(("n_slices", "n_rows", "n_columns"), volume.hu.shape, strict=True)),
        **{"slice_mm": round(slice_mm, 3), "pixel_mm": round(pixel_mm, 3)},
        "length_mm": round(volume.hu.shape[0] * slice_mm, 1),
        **{"hu_min": int(volume.hu.min()), **_percentiles("hu", hu, HU_PERCENTILES), "hu_max": int(volume.hu.max())},
        "voxels": hashlib.blake2b(np.ascontiguousarray(volume.hu), digest_size=12).hexdigest(),
    }


def find_shown(volume: Volume, own: Lungs | None) -> tuple[np.ndarray, dict]:
    """The lungs that a check shows, bool (Z, Y, X): their air, or an own mask; and their measures.

    Raises:
        ScanError: If it is not a chest.
    """
    region = find_region(volume)
    lungs = region.lungs.whole(volume)
    hu = volume.hu[:, ::2, ::2]
    found = {"air_hu": air_hu(hu, lungs[:, ::2, ::2]), "tissue_off_hu": tissue_off_hu(hu), "left_out": 0.0}
    found["dark_l"] = round(pool_l(volume, region), 3)
    names = ("left_l", "right_l", "front_right", "gas_l", "cut_cm2")
    found |= {name: round(float(getattr(region, name)), 3) for name in names}
    if own is not None:
        shown = own.whole(volume)
        found["left_out"] = round(1 - np.count_nonzero(lungs & shown) / np.count_nonzero(lungs), 3)
        lungs = shown
    return lungs, found | _lung_measures(volume, lungs)


def _lung_measures(volume: Volume, lungs: np.ndarray) -> dict:
    """Volume, HU and box of the lungs, and how far they end from the first and the last slice."""
    litres = float(np.count_nonzero(lungs)) * math.prod(volume.spacing_mm) * 1e-6
    ends = [lungs.any(axis=tuple({0, 1, 2} - {axis})).nonzero()[0][[0, -1]] for axis in range(3)]
    box_mm = [float((last - first + 1) * mm) for (first, last), mm in zip(ends, volume.spacing_mm, strict=True)]
    slice_mm, n_slices = volume.spacing_mm[0], volume.hu.shape[0]
    pixel_cm2 = volume.spacing_mm[1] * volume.spacing_mm[2] / 100
    areas_cm2 = [round(float(np.count_nonzero(lungs[z])) * pixel_cm2, 1) for z in ends[0]]
    return {
        "lung_volume_l": round(litres, 3),
        **_percentiles("lung", volume.hu[lungs], LUNG_PERCENTILES),
        **{f"lung_{axis}_mm": round(mm, 1) for axis, mm in zip("zyx", box_mm, strict=True)},
        "below_mm": round(float(ends[0][0] * slice_mm), 1),
        "above_mm": round(float((n_slices - 1 - ends[0][1]) * slice_mm), 1),
        **dict(zip(("below_cm2", "above_cm2"), areas_cm2, strict=True)),
    }


def _percentiles(name: str, hu: np.ndarray, percentiles: Sequence[int]) -> dict[str, int]:
    values = np.percentile(hu, percentiles).round().astype(int).tolist()
    return {f"{name}_p{p:02d}": value for p, value in zip(percentiles, values, strict=True)}


def _judged(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Turn status into verdict: a scan that was read may still be worth a look."""
    pairs = zip(rows.itertuples(), numbers_of(frame, "n_slices"), strict=True)
    texts = [" ".join(remarks(row, n_wanted)) if row.status == "ok" else "" for row, n_wanted in pairs]
    looks = pd.Series(texts, index=rows.index, dtype=str)
    rows = rows.rename(columns={"status": "verdict"})
    verdict, reasons = (rows[name].mask(looks != "", to) for name, to in (("verdict", "look"), ("reason", looks)))
    rows = rows.assign(verdict=verdict, reason=reasons)
    counts = [name for name in CHECK_MEASURES if name.startswith(("n_", "hu_", "lung_p"))]
    return rows.astype(dict.fromkeys(counts, "Int64"))


def _kept(out: Path, stamps: dict[str, list[int]]) -> dict[str, dict]:
    """Rows of earlier calls whose image and code are the same and whose thumbnail is there."""
    code, rows = code_key(CHECKED_ENTRY), {}
    for row in _journal(out / JOURNAL):
        scan = row.get("scan", "")
        is_same = row.get("code") == code and row.get("stamp") == stamps.get(scan) and row["stamp"][0] > 0
        if is_same and ("voxels" not in row or thumbnail_file(out, scan).is_file()):
            rows[scan] = row
    return rows


def _journal(path: Path) -> Iterator[dict]:
    """Lines of the journal; one that was cut off when a call was killed is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            if isinstance(row := json.loads(line), dict):
                yield row
