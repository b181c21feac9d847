"""Synthetic chest CTs with known truth: anatomy drawn per patient, voxels computed, files and cohort table written.

Coordinates are millimetres from the middle of the volume, LPS: x to the patient's left, y to the back, z to the head.
Arrays are (Z, Y, X), intensities HU. Every scan has its own generator, seeded by (seed, index), so that a cohort can be
made in any order, in parallel, and completed after a kill. Difficulty was fixed before any policy was compared.

Sources: nodule diameters and irregularities are fits to the readers' contours of LIDC-IDRI (doi
10.7937/K9/TCIA.2015.LO9QL9SX; 691 annotations of malignancy 5, 2,600 of 1 or 2). All other numbers without a
source are chosen by us so that volumes, densities and wall figures lie in the range that reviews of quantitative CT
give (lungs 3 to 6 L, parenchyma near -850 HU, LAA-950 below 6 % without and 6 to 35 % with emphysema, wall area 50 to
75 %).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk  # noqa: N813
from numpy.random import Generator
from scipy import ndimage
from tqdm import tqdm

from lungmtl.experiments import CENTRAL_TASK, TASKS
from lungmtl.files import replacing, write
from lungmtl.sources.anatomy import Patient, Space, add_trees, body_of, body_scale, lungs_of, parenchyma
from lungmtl.sources.diagnoses import ILL_SEVERITY, auxiliary_log_ratio, laws, severity_of_exposure
from lungmtl.sources.nodules import (  # noqa: F401
    TRUTH_BENIGN,
    TRUTH_MALIGNANT,
    Nodule,
    add_nodules,
    draw_nodules,
    nodule_log_ratio,
)
from lungmtl.sources.phantom_settings import USUAL, Knobs, PhantomSettings
from lungmtl.sources.signs import LOW_SHARE, WALL_MM, add_signs, count_signs
from lungmtl.tables import write_csv
from lungmtl.workers import run_jobs

BLANK_FRACTION = 0.03  # auxiliary answers that were not given


def make_cohort(folder: str | Path, settings: PhantomSettings, *, workers: int = 1, progress: bool = True) -> Path:
    """Write a phantom cohort: images/, truth/, truth.csv and, last, cohort.csv, whose path is returned.

    A complete cohort is left as it is, a started one is completed.
    """
    folder = Path(folder)
    table_path = folder / "cohort.csv"
    if table_path.exists():
        return table_path
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "truth").mkdir(exist_ok=True)
    jobs = [(folder, settings, index) for index in range(len(settings.splits))]
    made = run_jobs(_make_scan, jobs, workers=workers)
    rows = tqdm(made, total=len(jobs), desc="phantom scans", unit="scan", disable=not progress)
    truth = pd.DataFrame(sorted(rows, key=lambda row: row["scan"]))
    write_csv(truth, folder / "truth.csv")
    return _write_table(truth, settings, table_path)


def make_scans(folder: str | Path, settings: PhantomSettings, scans: Sequence[str]) -> Path:
    """Write some scans of a cohort and the table of all, without the other images; returns the table's path.

    Every file has the bytes that `make_cohort` gives it, which completes the cohort later. Until then the table is
    drawn.csv, because cohort.csv means that all scans are there.
    """
    folder = Path(folder)
    for scan in scans:
        _make_scan((folder, settings, int(scan.removeprefix("s"))))
    if (folder / "cohort.csv").exists():
        return folder / "cohort.csv"
    generators = [np.random.default_rng([settings.seed, i]) for i in range(len(settings.splits))]
    patients = [draw_patient(generator, settings.knobs) for generator in generators]
    truth = pd.DataFrame([{"scan": f"s{i:05d}"} | patient for i, patient in enumerate(patients)])
    return _write_table(truth, settings, folder / "drawn.csv")


def _write_table(truth: pd.DataFrame, settings: PhantomSettings, path: Path) -> Path:
    table = diagnoses(truth, seed=settings.seed, label_noise=settings.label_noise)
    return write_csv(table.assign(split=settings.splits), path)


def diagnoses(truth: pd.DataFrame, *, seed: int, label_noise: float) -> pd.DataFrame:
    """Cohort table (scan, patient, image and the five labels: 1, 0 or blank) from the truth (scan, true_<task>).

    An auxiliary answer is wrong with the chance `label_noise`, and some are missing; lung cancer is as it is.
    """
    generator = np.random.default_rng([seed, 1_000_003])
    table = pd.DataFrame({"scan": truth["scan"]})
    table["patient"] = table["scan"].str.replace("s", "p")
    table["image"] = "images/" + table["scan"] + ".nii.gz"
    for task in TASKS:
        wrong, blank = generator.random((2, len(truth)))
        answer = truth[f"true_{task}"].astype("Int64")
        if task != CENTRAL_TASK:
            answer = (answer ^ (wrong < label_noise).astype(int)).mask(blank < BLANK_FRACTION)
        table[task] = answer
    return table


def draw_patient(generator: Generator, knobs: Knobs = USUAL) -> Patient:
    """Labels, severities and acquisition of one patient, coupled by a latent exposure.

    Returns:
        exposure, true_<task> (0 or 1), severity_<task> (0 to 1) and the drawn anatomy, units in the names.
    """
    exposure = generator.normal()
    patient: Patient = {"exposure": exposure}
    for task, law in laws(knobs).items():  # lung cancer first
        log_odds = law.intercept + law.slope * exposure + law.with_cancer * patient.get("true_lung_cancer", 0)
        patient[f"true_{task}"] = int(generator.random() < 1 / (1 + np.exp(-log_odds)))
        ill, subclinical = generator.uniform(*ILL_SEVERITY), generator.beta(1.2, 8.0)
        ill += knobs.exposure_severity * (severity_of_exposure(exposure) - ill)
        patient[f"severity_{task}"] = ill if patient[f"true_{task}"] else subclinical
    copd, diffuse = patient["severity_copd"], 1 - knobs.relatedness
    bronchitis, emphysema = (diffuse * patient[f"severity_{task}"] for task in ("chronic_bronchitis", "emphysema"))
    patient["target_volume_l"] = float(np.clip(generator.normal(4.2, 0.5) * (1 + 0.25 * copd), 3.1, 5.9))
    patient["dome_mm"] = generator.uniform(38, 52) * (1 - 0.5 * copd)
    patient["parenchyma_hu"] = generator.normal(-842, 9) - 28 * copd
    patient["wall_thickness_mm"] = generator.normal(1.15, 0.10) + WALL_MM * bronchitis
    patient["low_attenuation"] = generator.uniform(0.002, 0.015) + LOW_SHARE * emphysema**1.3
    patient["trapped"] = 0.45 * patient["severity_asthma"]
    patient["noise_hu"] = generator.uniform(18, 45)
    patient["fat_mm"] = generator.uniform(8, 28)
    return patient | count_signs(patient, knobs.relatedness)


def make_volume(generator: Generator, knobs: Knobs = USUAL) -> tuple[np.ndarray, np.ndarray, Space, Patient]:
    """Draw a patient and compute the scan.

    Returns:
        HU int16 (Z, Y, X); truth labels uint8, same shape; the grid; the truth, one number per name.
    """
    of_signs, of_nodules = generator.spawn(2)  # what the knobs draw
    patient = draw_patient(generator, knobs)
    in_plane, slice_mm = generator.uniform(2.2, 3.0), generator.choice([2.5, 3.0, 3.5])
    scale = body_scale(patient)
    extent_mm = np.array([312, 272, 352]) * scale
    spacing_mm = (float(slice_mm), float(in_plane), float(in_plane))
    space = Space(tuple(int(n) for n in np.ceil(extent_mm / spacing_mm)), spacing_mm)
    lung = lungs_of(space, patient, scale)
    hu = body_of(space, lung, patient, scale)
    np.copyto(hu, parenchyma(space, lung, patient, generator), where=lung)
    bronchi_mm = add_trees(hu, space, lung, patient, scale, generator)
    add_signs(hu, space, lung, bronchi_mm, patient, of_signs)
    labels = lung.astype(np.uint8)
    nodules = draw_nodules(np.argwhere(lung), space, patient, knobs, generator, of_nodules)
    add_nodules(hu, labels, space, nodules, generator)
    patient |= _measure(hu, labels, space, nodules)
    patient["nodule_log_ratio"] = nodule_log_ratio(nodules, knobs)
    patient["auxiliary_log_ratio"] = auxiliary_log_ratio(patient, knobs)
    return _acquire(hu, patient, generator), labels, space, patient


def _make_scan(job: tuple[Path, PhantomSettings, int]) -> dict[str, Any]:
    folder, settings, index = job
    scan = f"s{index:05d}"
    record = folder / "truth" / f"{scan}.json"
    if record.exists():
        return json.loads(record.read_text(encoding="utf-8"))
    generator = np.random.default_rng([settings.seed, index])
    hu, labels, space, truth = make_volume(generator, settings.knobs)
    orientation = str(generator.choice(["LPS", "RAS", "LAS", "RPI"]))
    _write_image(hu, space, folder / "images" / f"{scan}.nii.gz", orientation)
    _write_image(labels, space, folder / "truth" / f"{scan}.nii.gz", orientation)
    row = {"scan": scan} | {name: round(float(value), 5) for name, value in truth.items()}
    write(record, json.dumps(row))
    return row


def _write_image(array: np.ndarray, space: Space, path: Path, orientation: str) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in reversed(space.spacing_mm)])
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(reversed(space.shape), reversed(space.spacing_mm), strict=True)])
    with replacing(path) as beside:
        sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(beside), useCompression=True, compressionLevel=1)


def _measure(hu: np.ndarray, labels: np.ndarray, space: Space, nodules: list[Nodule]) -> Patient:
    """Measurements of the noise-free scan."""
    lung = hu[labels > 0]
    malignant, benign = ([n for n in nodules if n.malignant == wanted] for wanted in (True, False))
    return {
        "lung_volume_l": lung.size * space.voxel_ml / 1000,
        "mean_lung_hu": float(lung.mean()),
        "laa950": float((lung < -950).mean()),
        "diameter_mm": max((n.diameter_mm for n in malignant), default=np.nan),
        "irregularity": max((n.irregularity for n in malignant), default=np.nan),
        "n_benign": len(benign),
        "benign_diameter_mm": max((n.diameter_mm for n in benign), default=np.nan),
    }


def _acquire(hu: np.ndarray, patient: Patient, generator: Generator) -> np.ndarray:
    """Blur by the scanner, add correlated noise, clip to what scanners store."""
    blurred = ndimage.gaussian_filter(hu, 0.55, truncate=3)
    noise = ndimage.gaussian_filter(generator.standard_normal(hu.shape, dtype=np.float32), 0.6, truncate=3)
    return np.clip(np.rint(blurred + noise * (patient["noise_hu"] / noise.std())), -1024, 3071).astype(np.int16)
