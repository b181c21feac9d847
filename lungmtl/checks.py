"""Checks of a cohort: every scan read, measured and drawn, and what the table as a whole can have wrong.

Arrays and spacing are (z, y, x), oriented LPS as `reading` returns them. Nothing that is written here names a patient
or a folder: a scan is known by its name in the cohort table, and of an image's header only its geometry is used.
"""

import base64
import hashlib
import html
import io
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813
from PIL import Image
from scipy import ndimage
from tqdm import tqdm

from lungmtl import reading, volumes
from lungmtl.reading import Volume, read_volume

SCANS_FILE = "scans.csv"
JOURNAL = "checked.jsonl"  # one line per scan, written as it is checked: what a later call goes on from
THUMBNAILS = "thumbnails"
MEASURES = (
    *("n_slices", "n_rows", "n_columns", "slice_mm", "pixel_mm", "length_mm"),
    *("hu_min", "hu_p01", "hu_p05", "hu_p50", "hu_p95", "hu_p99", "hu_max"),
    *("lung_volume_l", "lung_p05", "lung_p50", "lung_p95", "lung_z_mm", "lung_y_mm", "lung_x_mm"),
    *("below_mm", "above_mm"),
)
PERCENTILES = (0, 1, 5, 50, 95, 99, 100)
LUNG_PERCENTILES = (5, 50, 95)
SIDE_COLUMNS = ("kernel", "thickness_mm", "manufacturer", "round")  # of the table, where it has them; `mix` counts them
ALL = "all"  # in place of a split

# chosen by us: what is usable and still worth a look
MAX_LUNGS_L = 9.0  # total lung capacity is seldom more
LUNG_HU = (-960, -500)  # the lungs' median; outside it the HU may have a wrong offset, or the mask is wrong
MAX_SLICE_MM = 5.0  # a nodule of 8 mm is in one slice or two

THUMBNAIL_MM = 2.5  # a pixel
THUMBNAIL_PIXELS = 144  # of one view, each way: 360 mm
THUMBNAIL_HU = (-1100, 300)
GREYS = 40  # few, so that the file is small
OUTLINE_RGB = (255, 140, 0)
BYTES_PER_WORKER = 64e6  # chosen by us: images that take as long to check as a process takes to start


class Checked(NamedTuple):
    """What `check_cohort` found."""

    scans: pd.DataFrame  # scan, verdict (ok, look, failed), reason and the MEASURES
    labels: pd.DataFrame  # split (all of them first), task, n, positives, unknown, share, low, high
    cooccurrence: pd.DataFrame  # task by task: share of the row's scans that also have the column's diagnosis
    mix: pd.DataFrame  # what, value, and the number of scans in all and in every split
    shared: pd.DataFrame  # what is shared (patient, image or voxels), scans, n_scans, n_patients, splits, leaks
    notes: list[str]  # sentences: what stands in the way of a study with this table


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
        frame: A cohort as `cohort.read_cohort` gives it; rows with a reason in `excluded` are left out.
        root: Folder that `image` is relative to.
        out: Folder for the tables; a scan whose image did not change since an earlier call is not read again.
        tasks: Diagnosis columns.
        workers: Processes.
        progress: Whether to show a bar.
    Raises:
        RuntimeError: If a worker process was killed; the next call goes on from there.
    """
    from lungmtl import cohort  # brings torch, which the processes that check scans do without

    out = Path(out)
    scans = check_scans(frame, root, out=out, workers=workers, progress=progress)
    used = cohort.included(without_failed(frame, scans))
    shares = label_table(used, tasks=tasks)
    groups = shared(cohort.included(frame), scans, root)
    checked = Checked(
        scans.drop(columns="voxels"),
        shares,
        cohort.cooccurrence(used, tasks=tasks),
        mix(used, scans),
        groups,
        [*_leak_notes(groups), *_class_notes(shares)],
    )
    for name in ("scans", "labels", "cooccurrence", "mix", "shared"):
        has_index = name == "cooccurrence"
        text = getattr(checked, name).to_csv(index=has_index, index_label="of the scans with" if has_index else None)
        _write(out / f"{name}.csv", text.encode())
    return checked


def check_scans(
    frame: pd.DataFrame, root: str | Path, *, out: str | Path, workers: int = 1, progress: bool = True
) -> pd.DataFrame:
    """Read and measure every scan, and draw its thumbnail; a scan that cannot be used never stops the others.

    Args:
        frame: Columns `scan`, `image` and, if known, `n_slices`; rows with a reason in `excluded` are left out.
        root: Folder that `image` is relative to.
        out: Folder for what is found; a killed call loses only the scans under way.
        workers: Processes.
        progress: Whether to show a bar.
    Returns:
        One row per scan, in the table's order: `scan`, `verdict` (ok, failed, or look: usable, but worth a look),
        `reason`, the MEASURES and `voxels`, a hash of the HU; NaN where not known.
    """
    used = frame[frame["excluded"] == ""]
    images = {scan: _place(root, image) for scan, image in zip(used["scan"], used["image"], strict=True)}
    out = Path(out)
    (out / THUMBNAILS).mkdir(parents=True, exist_ok=True)
    stamps = {scan: _stamp(image) for scan, image in images.items()}
    rows = _kept(out, stamps)
    _write(out / JOURNAL, "".join(_line(row) for row in rows.values()).encode())
    todo = [(scan, str(image), str(_thumbnail_file(out, scan))) for scan, image in images.items() if scan not in rows]
    n_bytes = sum(stamps[scan][1] for scan, *_ in todo)
    results = volumes.run_jobs(_check_job, todo, workers=min(workers, len(todo), int(n_bytes / BYTES_PER_WORKER)))
    with (
        (out / JOURNAL).open("a", encoding="utf-8") as journal,
        tqdm(total=len(images), initial=len(rows), desc="checking", unit="scan", disable=not progress) as bar,
    ):
        for row in results:
            rows[row["scan"]] = row | {"stamp": stamps[row["scan"]], "code": _code()}
            journal.write(_line(rows[row["scan"]]))
            journal.flush()
            bar.update()
    found = pd.DataFrame([rows[scan] for scan in images]).reindex(
        columns=["scan", "status", "reason", *MEASURES, "voxels"]
    )
    return _judged(found, used)


def without_failed(frame: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Exclude the scans whose verdict is `failed`, with the reason; a new frame."""
    from lungmtl import cohort

    return cohort.exclude_failed(frame, scans.assign(status=scans["verdict"].replace("look", "ok")))


def without_folders(report: pd.DataFrame, frame: pd.DataFrame, root: str | Path) -> pd.DataFrame:
    """Name the scan instead of its image's path in the reasons of a preparation report; a new frame.

    Args:
        report: Columns `scan`, `status` and, where a scan failed, `reason`.
        frame: Columns `scan` and `image`.
        root: Folder that `image` is relative to.
    """
    failed = report[report["status"] == "failed"]
    images = frame.drop_duplicates("scan").set_index("scan")["image"] if len(failed) else {}
    reasons = {
        row.Index: reason(row.reason, Path(root).resolve() / images[row.scan], row.scan) for row in failed.itertuples()
    }
    return report.assign(reason=pd.Series(reasons, dtype=object).reindex(report.index).fillna(""))


def split(frame: pd.DataFrame, *, fractions: Sequence[float], seed: int) -> tuple[pd.DataFrame, list[str]]:
    """Split a cohort by patient; where it is too small for that, leave the rest unsplit and say why.

    Returns:
        A new frame, and the reason as a sentence if there is one.
    """
    from lungmtl import cohort

    try:
        return cohort.assign_splits(frame, fractions=fractions, seed=seed), []
    except ValueError as error:
        return frame, [str(error)]


# ---------------------------------------------------------------- one scan


def _check_job(job: tuple) -> dict:
    """Check one scan; one that cannot be used becomes a row with its reason, and what was measured before."""
    scan, image, thumbnail_file = job
    row = {"scan": scan, "status": "ok", "reason": ""}
    Path(thumbnail_file).unlink(missing_ok=True)
    try:
        volume = read_volume(image)
        row |= _voxel_measures(volume)
        try:
            lungs = volumes.lung_mask(volume)
            row |= _lung_measures(volume, lungs)
        finally:  # a thumbnail shows what a scan is that holds no lungs
            _write(Path(thumbnail_file), thumbnail(volume, lungs if "lung_volume_l" in row else None))
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        row |= {"status": "failed", "reason": reason(error, image, scan)}
    return row


def reason(error: BaseException | str, image: str | Path, scan: str) -> str:
    """Text of an error without the image's path, which may name a patient."""
    text = str(error) or type(error).__name__
    return text.replace(str(image), f"scan {scan}")


def _voxel_measures(volume: Volume) -> dict:
    hu = volume.hu[:, ::2, ::2]  # every fourth voxel tells the percentiles, and faster
    names = [f"hu_p{p:02d}" for p in PERCENTILES[1:-1]]
    sizes = dict(zip(("n_slices", "n_rows", "n_columns"), volume.hu.shape, strict=True))
    values = dict(zip(names, np.percentile(hu, PERCENTILES[1:-1]).round().astype(int).tolist(), strict=True))
    spacing_mm = {"slice_mm": volume.spacing_mm[0], "pixel_mm": max(volume.spacing_mm[1:])}
    return {
        **sizes,
        **{name: round(value, 3) for name, value in spacing_mm.items()},
        "length_mm": round(volume.hu.shape[0] * volume.spacing_mm[0], 1),
        **{"hu_min": int(volume.hu.min()), **values, "hu_max": int(volume.hu.max())},
        "voxels": hashlib.blake2b(np.ascontiguousarray(volume.hu), digest_size=12).hexdigest(),
    }


def _lung_measures(volume: Volume, lungs: np.ndarray) -> dict:
    """Volume, HU and box of the lungs, and how far they end from the first and the last slice."""
    litres = float(np.count_nonzero(lungs)) * math.prod(volume.spacing_mm) * 1e-6
    inside = np.percentile(volume.hu[lungs], LUNG_PERCENTILES).round().astype(int).tolist()
    ends = [lungs.any(axis=tuple({0, 1, 2} - {axis})).nonzero()[0][[0, -1]] for axis in range(3)]
    box_mm = [float((last - first + 1) * mm) for (first, last), mm in zip(ends, volume.spacing_mm, strict=True)]
    slice_mm, n_slices = volume.spacing_mm[0], volume.hu.shape[0]
    return {
        "lung_volume_l": round(litres, 3),
        **dict(zip([f"lung_p{p:02d}" for p in LUNG_PERCENTILES], inside, strict=True)),
        **{f"lung_{axis}_mm": round(mm, 1) for axis, mm in zip("zyx", box_mm, strict=True)},
        "below_mm": round(float(ends[0][0] * slice_mm), 1),
        "above_mm": round(float((n_slices - 1 - ends[0][1]) * slice_mm), 1),
    }


def _judged(rows: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Turn status into verdict: a scan that was read may still be worth a look."""
    wanted = _numbers(frame, "n_slices")
    remarks = [
        _remarks(row, n_wanted) if row.status == "ok" else []
        for row, n_wanted in zip(rows.itertuples(), wanted, strict=True)
    ]
    looks = pd.Series([" ".join(texts) for texts in remarks], index=rows.index, dtype=str)
    verdict = rows["status"].mask(looks != "", "look")
    rows = rows.assign(reason=rows["reason"].mask(looks != "", looks)).drop(columns="status")
    rows.insert(1, "verdict", verdict)
    counts = ["n_slices", "n_rows", "n_columns", *[name for name in MEASURES if "hu_" in name or "lung_p" in name]]
    return rows.astype(dict.fromkeys(counts, "Int64"))


def _remarks(row: tuple, n_wanted: float) -> list[str]:
    """Sentences on one scan that was read."""
    block_mm = max(1, int(volumes.LUNG_GRID_MM / row.slice_mm)) * row.slice_mm  # the mask is found on such blocks
    rules = [
        (row.n_slices != n_wanted, f"The table says {n_wanted:g} slices, the image has {row.n_slices:g}."),
        (row.below_mm < block_mm, "The lungs reach the lowest slice: their bases may be cut off."),
        (row.above_mm < block_mm, "The lungs reach the highest slice: their tops may be cut off."),
        (row.lung_volume_l > MAX_LUNGS_L, f"The lungs hold {row.lung_volume_l:.1f} L, over {MAX_LUNGS_L:g} L."),
        (
            not LUNG_HU[0] <= row.lung_p50 <= LUNG_HU[1],
            f"The lungs' median is {row.lung_p50:.0f} HU, not {LUNG_HU[0]} to {LUNG_HU[1]}.",
        ),
        (row.slice_mm > MAX_SLICE_MM, f"Slices lie {row.slice_mm:.1f} mm apart, over {MAX_SLICE_MM:g} mm."),
    ]
    return [text for holds, text in (rules if not math.isnan(n_wanted) else rules[1:]) if holds]


def thumbnail(volume: Volume, lungs: np.ndarray | None) -> bytes:
    """Draw a coronal and an axial slice through the middle of the lungs, with the mask's outline, as a small PNG.

    Args:
        volume: The CT.
        lungs: bool (Z, Y, X); None draws the volume's middle without an outline.
    Returns:
        The file's bytes: two views of 360 mm side by side, the patient's left on the right, the head up.
    """
    middle = volumes.middle_voxel(np.ones_like(volume.hu, dtype=bool) if lungs is None else lungs)
    views = [_view(volume, lungs, across, middle) for across in (1, 0)]
    pixels = np.hstack([views[0][::-1], views[1]])
    greys = [[round(255 * grey / (GREYS - 1))] * 3 for grey in range(GREYS)]
    drawing = Image.fromarray(pixels)
    drawing.putpalette(np.array([*greys, OUTLINE_RGB], dtype=np.uint8).ravel().tolist())
    file = io.BytesIO()
    drawing.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _view(volume: Volume, lungs: np.ndarray | None, across: int, middle: Sequence[int]) -> np.ndarray:
    """Palette indices of one slice, (THUMBNAIL_PIXELS, THUMBNAIL_PIXELS)."""
    slab = tuple(slice(middle[a], middle[a] + 1) if a == across else slice(None) for a in range(3))
    center_mm = tuple(0.0 if a == across else middle[a] * volume.spacing_mm[a] for a in range(3))
    spacing_mm = tuple(volume.spacing_mm[a] if a == across else THUMBNAIL_MM for a in range(3))
    shape = tuple(1 if a == across else THUMBNAIL_PIXELS for a in range(3))
    grid = volumes.Grid(center_mm, spacing_mm, shape)
    hu = volumes.to_grid(volume.hu[slab], volume.spacing_mm, grid, fill=reading.AIR_HU, order=1)
    low, high = THUMBNAIL_HU
    pixels = np.rint((hu.clip(low, high) - low) / (high - low) * (GREYS - 1)).astype(np.uint8)
    if lungs is not None:
        inside = volumes.to_grid(lungs[slab], volume.spacing_mm, grid, fill=0, order=0).squeeze(across)
        pixels.squeeze(across)[inside & ~ndimage.binary_erosion(inside)] = GREYS
    return pixels.squeeze(across)


# ---------------------------------------------------------------- the cohort


def label_table(frame: pd.DataFrame, *, tasks: Sequence[str]) -> pd.DataFrame:
    """Count the labels of the whole cohort and of every split, with `cohort.prevalence`'s columns."""
    from lungmtl import cohort

    as_one = cohort.prevalence(frame.assign(split=cohort.SPLITS[0]), tasks=tasks)
    whole = as_one[as_one["split"] == cohort.SPLITS[0]].assign(split=ALL)
    return pd.concat([whole, cohort.prevalence(frame, tasks=tasks)], ignore_index=True)


def mix(frame: pd.DataFrame, scans: pd.DataFrame) -> pd.DataFrame:
    """Count scans by voxel size in mm, and by kernel, thickness, manufacturer and round where the table has them.

    Args:
        frame: A cohort; excluded rows are left out.
        scans: From `check_scans`.
    Returns:
        One row per value: `what`, `value`, and the number of scans in all and in every split.
    """
    from lungmtl import cohort

    rows = cohort.included(frame).merge(scans[["scan", "slice_mm", "pixel_mm"]].round(1), on="scan")
    names = ["slice_mm", "pixel_mm", *[name for name in SIDE_COLUMNS if name in frame]]
    parts = [rows.assign(split=ALL), rows]
    long = pd.concat(part.melt(id_vars="split", value_vars=names, var_name="what") for part in parts)
    long["value"] = long["value"].astype(str).replace({"": "not given", "nan": "not given"})
    table = long.pivot_table(index=["what", "value"], columns="split", aggfunc="size", fill_value=0)
    table = table.reindex(columns=[ALL, *cohort.SPLITS], fill_value=0).reset_index()
    order = table["what"].map({name: place for place, name in enumerate(names)})
    return table.assign(order=order).sort_values(["order", ALL], ascending=[True, False]).drop(columns="order")


def shared(frame: pd.DataFrame, scans: pd.DataFrame, root: str | Path) -> pd.DataFrame:
    """List scans that share their image, their voxels, or a patient across splits.

    Patients are compared without upper and lower case: `P1` and `p1` are one.

    Args:
        frame: A cohort with its splits.
        scans: From `check_scans`.
        root: Folder that `image` is relative to.
    Returns:
        One row per group: `what`, `scans` (the first five), `n_scans`, `n_patients`, `splits`, and `leaks`: whether
        the group is in two splits, or under two patients, whom a draw may part.
    """
    rows = frame.assign(
        **{
            "the same patient": frame["patient"].str.casefold(),
            "the same image": [str(_place(root, image)) for image in frame["image"]],
            "identical voxels": frame["scan"].map(scans.set_index("scan")["voxels"]),
        }
    )
    groups = []
    for what in ("the same patient", "the same image", "identical voxels"):
        repeated = rows[rows[what].notna() & rows[what].duplicated(keep=False)]
        for _, group in repeated.groupby(what, sort=False):
            n_patients, splits = group["patient"].nunique(), sorted(set(group["split"]) - {""})
            names = " ".join(group["scan"].head(5)) + (" ..." if len(group) > 5 else "")
            groups.append((what, names, len(group), n_patients, " ".join(splits), len(splits) > 1 or n_patients > 1))
    table = pd.DataFrame(groups, columns=["what", "scans", "n_scans", "n_patients", "splits", "leaks"])
    return table[table["leaks"].astype(bool) | (table["what"] != "the same patient")].reset_index(drop=True)


def _leak_notes(groups: pd.DataFrame) -> list[str]:
    leaks = groups[groups["leaks"].astype(bool)]
    return [
        f"Leakage: {row.what} in {row.n_scans} scans ({row.scans}), under {row.n_patients} patient name(s), in "
        f"{row.splits.replace(' ', ' and ') or 'no split yet'}."
        for row in leaks.itertuples()
    ]


def _class_notes(shares: pd.DataFrame) -> list[str]:
    """Name what every split lacks: without both classes of every diagnosis no study can be made of it."""
    notes = []
    for split_name, rows in shares[shares["split"] != ALL].groupby("split", sort=False):
        lacks = {"positive": rows["positives"] == 0, "negative": rows["n"] == rows["positives"]}
        found = [f"{kind} {', '.join(rows.loc[is_none, 'task'])}" for kind, is_none in lacks.items() if is_none.any()]
        if found:
            notes.append(
                f"Every split needs both classes of every diagnosis: {split_name} has no {', no '.join(found)}."
            )
    return notes


# ---------------------------------------------------------------- the report's pictures


def gallery(scans: pd.DataFrame, out: str | Path, *, n_good: int, n_bad: int) -> str:
    """Show scans with their thumbnails as an HTML table: first what failed or is worth a look, then good ones.

    Args:
        scans: From `check_scans`.
        out: Its folder.
        n_good: Good scans at most, evenly spread over the table.
        n_bad: Others at most; those that failed come first.
    """
    is_good = scans["verdict"] == "ok"
    bad, good = scans[~is_good].sort_values("verdict", kind="stable").head(n_bad), scans[is_good]
    good = good.iloc[np.unique(np.linspace(0, len(good) - 1, min(n_good, len(good))).round().astype(int))]
    shown = pd.concat([bad, good])
    table = pd.DataFrame(
        {
            "scan": shown["scan"],
            "coronal, axial": [_picture(_thumbnail_file(out, scan)) for scan in shown["scan"]],
            "verdict": shown["verdict"],
            "reason": shown["reason"].map(html.escape),
            "measures": [_measures(row) for row in shown.itertuples()],
        }
    )
    with pd.option_context("display.max_colwidth", None):
        return table.to_html(escape=False, index=False, border=0)


def _picture(file: Path) -> str:
    if not file.is_file():
        return ""
    code = base64.b64encode(file.read_bytes()).decode()
    size = f'style="min-width: {2 * THUMBNAIL_PIXELS}px"'
    return f'<img alt="coronal and axial slice" {size} src="data:image/png;base64,{code}">'


def _measures(row: tuple) -> str:
    """Geometry, HU and lungs of a scan, a line each; blank where it could not be read."""
    if pd.isna(row.n_slices):
        return ""
    lines = [f"{row.n_slices} slices, {row.slice_mm:.2f} mm apart", f"pixel {row.pixel_mm:.2f} mm"]
    lines.append(f"HU {row.hu_p01}, {row.hu_p50}, {row.hu_p99} (1, 50, 99 %)")
    lines += [] if pd.isna(row.lung_volume_l) else [f"lungs {row.lung_volume_l:.2f} L, {row.lung_p50} HU (median)"]
    return "<br>".join(lines)


# ---------------------------------------------------------------- verify


def verify_images(frame: pd.DataFrame, root: str | Path) -> list[str]:
    """List the images that are not there, empty, or have another number of slices than `n_slices` says.

    Args:
        frame: A cohort; every row is looked at, so leave out those that need no image.
        root: Folder that `image` is relative to.
    """
    rows = zip(frame["scan"], frame["image"], _numbers(frame, "n_slices"), strict=True)
    found = ((scan, _image_problem(_place(root, image) if image else None, n_wanted)) for scan, image, n_wanted in rows)
    return [f"scan {scan}: {problem}" for scan, problem in found if problem]


def verify_prepared(
    frame: pd.DataFrame, root: str | Path, folder: str | Path, *, shape: Sequence[int], progress: bool = True
) -> list[str]:
    """List the prepared scans that are missing, unreadable, of another shape or type, or not finite in [0, 1].

    Args:
        frame: A cohort's rows that must be prepared.
        root: Folder that `image` is relative to.
        folder: Where `volumes.prepare_cohort` put `<scan>.npy`.
        shape: Voxels of the model's grid, (z, y, x).
        progress: Whether to show a bar.
    """
    rows = tqdm(list(zip(frame["scan"], frame["image"], strict=True)), "verifying", unit="scan", disable=not progress)
    found = ((scan, _tensor_problem(Path(folder) / f"{scan}.npy", _place(root, image), shape)) for scan, image in rows)
    return [f"scan {scan}: {problem}" for scan, problem in found if problem]


def _image_problem(image: Path | None, n_wanted: float) -> str:
    if image is None or not image.exists():
        return "the image is not there"
    if not image.is_dir():
        if image.stat().st_size == 0:
            return "the image is empty"
        n_found = n_wanted if math.isnan(n_wanted) else _n_slices(image)
    else:
        n_found = _n_slice_files(image)
    if n_found == 0:
        return "the image holds no slice that can be read"
    return f"{n_found:g} of {n_wanted:g} slices" if n_found != n_wanted and not math.isnan(n_wanted) else ""


def _n_slice_files(folder: Path) -> int:
    files = [entry for entry in os.scandir(folder) if entry.is_file() and entry.name != "DICOMDIR"]
    slices = [entry for entry in files if entry.name.lower().endswith(".dcm")] or files
    return sum(entry.stat().st_size > 0 for entry in slices)


def _n_slices(file: Path) -> int:
    """Slices that the header of an image file names; 0 if it cannot be read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return 0
    return reader.GetSize()[-1]


def _tensor_problem(file: Path, image: Path, shape: Sequence[int]) -> str:
    if not file.is_file():
        return "not prepared"
    try:
        array = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        return f"the prepared file cannot be read ({type(error).__name__})"
    if array.shape != tuple(shape) or array.dtype != np.float16:
        return f"prepared as {array.dtype} {array.shape}, not float16 {tuple(shape)}"
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        return "prepared values are not all finite and in [0, 1]"
    return "the image is newer than what was prepared" if file.stat().st_mtime_ns < _stamp(image)[2] else ""


# ---------------------------------------------------------------- files


def _place(root: str | Path, image: str) -> Path:
    return Path(os.path.normpath(os.path.join(os.path.abspath(root), image)))


def _thumbnail_file(out: str | Path, scan: str) -> Path:
    return Path(out) / THUMBNAILS / f"{scan}.png"


def _stamp(image: Path) -> list[int]:
    """Number of files, bytes and latest change (ns) of an image; changes with it. [0, 0, 0] if it is not there."""
    try:
        files = list(os.scandir(image)) if image.is_dir() else []
        stats = [image.stat(), *(file.stat() for file in files)]
    except OSError:
        return [0, 0, 0]
    return [len(files) or 1, sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)]


def _code() -> str:
    """Hash of the code that reads and measures: what another version found is not kept."""
    files = [Path(__file__).with_name(f"{name}.py") for name in ("checks", "dicom", "reading", "volumes")]
    return hashlib.blake2b(b"".join(file.read_bytes() for file in files), digest_size=6).hexdigest()


def _kept(out: Path, stamps: dict[str, list[int]]) -> dict[str, dict]:
    """Rows of earlier calls whose image and code are the same and whose thumbnail is there."""
    code, rows = _code(), {}
    for row in _journal(out / JOURNAL):
        scan = row.get("scan", "")
        is_same = row.get("code") == code and row.get("stamp") == stamps.get(scan) and row["stamp"][0] > 0
        if is_same and ("voxels" not in row or _thumbnail_file(out, scan).is_file()):
            rows[scan] = row
    return rows


def _journal(path: Path) -> Iterator[dict]:
    """Lines of the journal; one that was cut off when a call was killed is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            yield row


def _line(row: dict) -> str:
    return json.dumps(row) + "\n"


def _numbers(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column that may not be there as float, NaN where not given."""
    if name not in frame:
        return pd.Series(np.nan, index=frame.index)
    return pd.to_numeric(frame[name], errors="coerce")


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
