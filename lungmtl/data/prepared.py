"""Prepared scans: every scan of a cohort to one file in the cache, and a report of what became of each."""

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lungmtl.data.images import digest, is_current, place_of, reason, stamp
from lungmtl.data.masks import mask_state, masks_of, own_lungs
from lungmtl.data.preparation import Preparation, prepared_folder
from lungmtl.data.reading import read_volume
from lungmtl.data.tensor import prepare_scan
from lungmtl.data.volume import Technique
from lungmtl.files import replacing, sha256, write
from lungmtl.words import number_of
from lungmtl.workers import run_apart

_logger = logging.getLogger(__name__)
SCANS_PER_WORKER = 32  # a process takes as long to start as some 30 phantom scans take to prepare
MEASURES = ("slice_mm", "pixel_mm", "lung_volume_l", "cropped_fraction")
REPORT_COLUMNS = ("scan", "status", "reason", *MEASURES, *Technique._fields, "seconds")


def prepare_cohort(
    frame: pd.DataFrame,
    root: str | Path,
    preparation: Preparation,
    *,
    cache_dir: str | Path,
    workers: int = 1,
    progress: bool = True,
) -> tuple[Path, pd.DataFrame]:
    """Prepare every scan of a cohort that is not prepared yet; one file per scan, and a report.

    A file is kept while it is as it was written, and its image and mask have the number of files, bytes and date that
    they had then (where an image was written again, its bytes count); its folder is named by settings, code and
    `root`. A scan that cannot be used is reported with its reason, which names no path, and never stops the others,
    even if it ends its worker: later calls then report it so, too, until its image changes or the file that the reason
    names is removed.

    Args:
        frame: Columns `scan`, `image` and, for scans with own masks, `mask`; rows with a reason in `excluded` are
            left out.
        root: Folder that `image` and `mask` are relative to.
        preparation: Grid and window.
        cache_dir: Folder for prepared scans of all cohorts.
    Returns:
        The folder with `<scan>.npy`, and the report: `scan`, `status` (ok or failed), `reason`, `slice_mm` (from
        slice to slice), `pixel_mm` (the larger of y and x), `lung_volume_l`, `cropped_fraction` (share of the lungs
        outside the grid) and `seconds` (NaN where kept from an earlier call).
    Raises:
        RuntimeError: If workers cannot be started.
    """
    root = Path(root).resolve()
    folder = prepared_folder(preparation, cache_dir, root)
    folder.mkdir(parents=True, exist_ok=True)
    used = frame[frame["excluded"].fillna("") == ""] if "excluded" in frame else frame
    images = zip(used["scan"], used["image"], masks_of(used, root), strict=True)
    jobs = [(scan, str(place_of(root, image)), str(folder), preparation, mask) for scan, image, mask in images]
    rows = {}
    with tqdm(total=len(jobs), desc="preparing", unit="scan", disable=not progress) as bar:
        for row in _run_jobs(jobs, workers):
            rows[row["scan"]] = row
            bar.update()
    report = pd.DataFrame([rows[job[0]] for job in jobs], columns=list(REPORT_COLUMNS))
    _warn_of(report)
    return folder, report


def _run_jobs(jobs: Sequence[tuple], workers: int) -> Iterator[dict]:
    """Yield a report row per job, in the order in which they finish."""
    present = {entry.name for folder in {job[2] for job in jobs} for entry in os.scandir(folder)}
    kept = {job[0]: _kept(job, present) for job in jobs}
    yield from filter(None, kept.values())
    todo = [job for job in jobs if kept[job[0]] is None]
    workers = min(workers, len(todo) // SCANS_PER_WORKER)
    if workers < 2 and not any(_marker(job[0], job[2]).name in present for job in todo):
        yield from map(_prepare_job, todo)
    else:  # also a single one where a scan may have ended the process that prepared it
        yield from run_apart(_prepare_job, todo, workers=max(1, workers), lost=_lost)


def _kept(job: tuple, present: set[str]) -> dict | None:
    """Report row of a scan that was prepared or given up since its images changed, else None; `present`: file names."""
    scan, image, folder, _, mask = job
    tensor, marker = Path(folder) / f"{scan}.npy", _marker(scan, folder)
    try:
        if tensor.name in present and is_current(tensor, Path(image)):
            measured = json.loads(tensor.with_suffix(".json").read_text(encoding="utf-8"))
            then = (measured["mask"], measured["tensor_sha256"])
            if then == (mask_state(mask), sha256(tensor)) and _is_same(Path(image), measured):
                return {"scan": scan, "status": "ok", "reason": "", **measured, "seconds": math.nan}
        if marker.name in present and all(is_current(marker, Path(path)) for path in (image, mask or image)):
            text = marker.read_text(encoding="utf-8")
            return _failed(scan, text, math.nan) if text else None
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # not as it was written: prepared anew
        return None
    return None


def _is_same(image: Path, measured: dict) -> bool:
    """Whether an image is as it was; its bytes decide where it was written again with its size and date kept."""
    *now, changed = stamp(image)
    *then, changed_then = measured["image_stamp"]
    return now == then and (changed == changed_then or digest(image) == measured["image_digest"])


def _marker(scan: str, folder: str) -> Path:
    """File that is there while a scan is prepared; one left behind tells that the process was ended, or the reason."""
    return Path(folder) / f".{scan}.begun"


def _lost(job: tuple, found: str) -> dict:
    """Give up a scan for this call and later ones, so that all runs of a study use the same scans."""
    scan, _, folder, *_ = job
    marker = _marker(scan, folder)
    (Path(folder) / f"{scan}.npy").unlink(missing_ok=True)
    again = f"Remove {marker.name}, next to the prepared scans, to try again."
    text = f"The scan could not be prepared. Found {found}, in scan {scan}. {again}"
    write(marker, text)
    return _failed(scan, text, math.nan)


def _failed(scan: str, text: str, seconds: float) -> dict:
    return {"scan": scan, "status": "failed", "reason": text, "seconds": seconds}


def _prepare_job(job: tuple) -> dict:
    """Prepare one scan and write it; a scan that cannot be used becomes a row with its reason."""
    scan, _, folder, *_ = job
    marker = _marker(scan, folder)
    marker.write_bytes(b"")  # not `touch`: it may hold an old reason
    start = time.perf_counter()
    try:
        measured = prepare_file(*job)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        (Path(folder) / f"{scan}.npy").unlink(missing_ok=True)
        return _failed(scan, reason(error), time.perf_counter() - start)
    finally:
        marker.unlink(missing_ok=True)
    return {"scan": scan, "status": "ok", "reason": "", **measured, "seconds": time.perf_counter() - start}


def prepare_file(scan: str, image: str, folder: str, preparation: Preparation, mask: str = "") -> dict[str, float]:
    """Read, prepare and write one scan, seen through its own mask if it has one.

    Returns:
        What the report says of it, and the hashes that `verify` compares.
    """
    states = {"image_stamp": stamp(Path(image)), "mask": mask_state(mask)}
    volume = read_volume(image)
    prepared = prepare_scan(volume, preparation, own_lungs(mask, image, scan) if mask else None)
    found = (volume.spacing_mm[0], max(volume.spacing_mm[1:]), prepared.lung_volume_l, prepared.cropped_fraction)
    technique = {name: None if value != value else value for name, value in volume.technique._asdict().items()}
    measured = dict(zip(MEASURES, found, strict=True)) | technique | states | {"image_digest": digest(Path(image))}
    with replacing(Path(folder) / f"{scan}.npy") as beside:
        np.save(beside, prepared.tensor, allow_pickle=False)
        measured["tensor_sha256"] = sha256(beside)
        write(Path(folder) / f"{scan}.json", json.dumps(measured))
    return measured


def _warn_of(report: pd.DataFrame) -> None:
    failed = report[report["status"] == "failed"]
    if len(failed):
        first = failed.iloc[0]
        text = "%d of %s cannot be used, first %s: %s"
        _logger.warning(text, len(failed), number_of(len(report), "scan"), first["scan"], first["reason"])
    cut = report[report["cropped_fraction"] > 0.01]
    if len(cut):
        text = "over 1 %% of what the network should see lies outside the grid in %d of %s"
        _logger.warning(text, len(cut), number_of(len(report), "scan"))
