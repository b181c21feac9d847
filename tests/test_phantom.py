"""The phantom cohort: the same seed the same bytes, anatomy in the published range, signs where the labels say."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lungmtl.data.cohort import read_cohort
from lungmtl.data.lungs import lung_mask
from lungmtl.data.reading import read_mask, read_volume
from lungmtl.experiments import TASKS
from lungmtl.sources.anatomy import Space, _occupancy
from lungmtl.sources.phantom import (
    BLANK_FRACTION,
    TRUTH_MALIGNANT,
    _make_scan,
    diagnoses,
    draw_patient,
    make_cohort,
    make_scans,
    make_volume,
)
from lungmtl.sources.phantom_settings import USUAL, Knobs, PhantomSettings
from lungmtl.tables import csv_text

SETTINGS = PhantomSettings(n_train=6, n_validation=3, n_test=3, seed=7, label_noise=0.1)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("phantom"), SETTINGS, progress=False)


@pytest.fixture(scope="session")
def truth(made):
    return pd.read_csv(made.parent / "truth.csv")


def digests(folder):
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_twice_gives_the_same_bytes(made, tmp_path):
    make_cohort(tmp_path, SETTINGS, workers=2, progress=False)
    assert digests(tmp_path) == digests(made.parent)


def test_settings_at_their_defaults_give_the_phantom_of_the_first_studies():
    hu, labels, _, _ = make_volume(np.random.default_rng([2019, 0]))
    found = [hashlib.sha256(array.tobytes()).hexdigest()[:16] for array in (hu, labels)]
    assert found == ["f2e283a7a4d5cf7a", "3ba6b0b31b93b460"]
    settings = PhantomSettings(n_train=8, n_validation=8, n_test=8, seed=2019, label_noise=0.05)
    truth = pd.DataFrame([draw_patient(np.random.default_rng([2019, k])) for k in range(24)])
    table = diagnoses(truth.assign(scan=[f"s{k:05d}" for k in range(24)]), seed=2019, label_noise=0.05)
    text = csv_text(table.assign(split=np.repeat(["train", "validation", "test"], 8)))
    assert hashlib.sha256(text.encode()).hexdigest().startswith("da2f15e582992a96")
    assert settings.folder("x").name == "phantom-e0481bd93545"  # cohorts that lie in caches are found again


def test_other_settings_lie_in_another_folder():
    made = [
        dataclasses.replace(SETTINGS, knobs=knobs) for knobs in (USUAL, Knobs(relatedness=1.0), Knobs(invisible=1.0))
    ]
    assert len({settings.folder("x") for settings in made}) == 3


def test_another_seed_gives_other_scans():
    first, second = (make_volume(np.random.default_rng([seed, 0]))[3] for seed in (1, 2))
    assert first["lung_volume_l"] != second["lung_volume_l"]


def test_a_started_cohort_is_completed_without_redoing_scans(made, tmp_path):
    (tmp_path / "truth").mkdir()
    (tmp_path / "images").mkdir()
    for index in range(4):
        _make_scan((tmp_path, SETTINGS, index))
    kept = tmp_path / "images" / "s00002.nii.gz"
    before = kept.stat().st_mtime_ns
    make_cohort(tmp_path, SETTINGS, progress=False)
    assert kept.stat().st_mtime_ns == before
    assert digests(tmp_path) == digests(made.parent)


def test_some_scans_have_the_bytes_of_the_whole_cohort_and_so_has_the_table(made, tmp_path):
    path = make_scans(tmp_path, SETTINGS, ["s00003", "s00010"])
    assert path.name == "drawn.csv"  # cohort.csv would say that all scans are there
    assert path.read_bytes() == made.read_bytes()
    wanted = {name: digest for name, digest in digests(made.parent).items() if "s00003" in name or "s00010" in name}
    assert digests(tmp_path) == {"drawn.csv": digests(made.parent)["cohort.csv"]} | wanted


def test_the_whole_cohort_is_taken_where_it_is_there(made):
    assert make_scans(made.parent, SETTINGS, ["s00003"]) == made


def test_the_table_passes_the_checks_of_a_patients_table(made):
    table = read_cohort(made)
    assert table["split"].value_counts().to_dict() == {"train": 6, "validation": 3, "test": 3}
    assert table["patient"].is_unique


def test_the_mask_finds_the_true_lungs(made, truth):
    for row in truth.head(6).itertuples():
        volume = read_volume(made.parent / "images" / f"{row.scan}.nii.gz")
        lungs = read_mask(made.parent / "truth" / f"{row.scan}.nii.gz") > 0
        found = lung_mask(volume)
        dice = 2 * (found & lungs).sum() / (found.sum() + lungs.sum())
        assert dice >= 0.97, row.scan


def test_anatomy_lies_in_the_published_range(truth):
    assert truth["lung_volume_l"].between(3, 6).all()
    assert truth["mean_lung_hu"].between(-900, -780).all()
    assert truth["wall_thickness_mm"].between(0.8, 2.6).all()
    assert truth["laa950"].between(0, 0.4).all()


def test_the_nodule_in_the_truth_mask_has_its_diameter(made, truth):
    ill = truth[truth["true_lung_cancer"] == 1]
    assert len(ill) >= 2
    for row in ill.itertuples():
        volume = read_volume(made.parent / "images" / f"{row.scan}.nii.gz")
        labels = read_mask(made.parent / "truth" / f"{row.scan}.nii.gz")
        extent_mm = np.ptp(np.argwhere(labels == TRUTH_MALIGNANT), axis=0) * volume.spacing_mm
        assert 8 <= row.diameter_mm <= 30
        # a voxel of slack on both sides: the mask counts whole voxels; a nodule at the wall is cut by it
        assert extent_mm.max() <= 1.35 * row.diameter_mm + 2 * max(volume.spacing_mm)


def test_healthy_scans_have_no_malignant_nodule(made, truth):
    for scan in truth.loc[truth["true_lung_cancer"] == 0, "scan"]:
        labels = read_mask(made.parent / "truth" / f"{scan}.nii.gz")
        assert not (labels == TRUTH_MALIGNANT).any(), scan


def draw_many(n=3000):
    return pd.DataFrame([draw_patient(np.random.default_rng([5, k])) for k in range(n)])


def test_labels_are_coupled_through_exposure_and_have_signs():
    drawn = draw_many()
    labels = drawn[[f"true_{task}" for task in TASKS]]
    assert labels.mean().between(0.2, 0.5).all()
    assert labels.corr().loc["true_lung_cancer", "true_emphysema"] > 0.05  # 3,000 draws: deviation about 0.018
    for task, sign in {
        "emphysema": "low_attenuation",
        "chronic_bronchitis": "wall_thickness_mm",
        "copd": "target_volume_l",
        "asthma": "trapped",
    }.items():
        means = drawn.groupby(f"true_{task}")[sign].mean()
        assert means[1] > means[0], task


def test_diagnoses_are_wrong_and_blank_as_often_as_asked():
    truth = draw_many(4000).assign(scan=[f"s{k:05d}" for k in range(4000)])
    table = diagnoses(truth, seed=3, label_noise=0.2)
    assert (table["lung_cancer"] == truth["true_lung_cancer"]).all()
    known = table["copd"].notna()
    # 4,000 draws: deviations about 0.0064 and 0.0027
    assert (table["copd"] != truth["true_copd"])[known].mean() == pytest.approx(0.2, abs=0.025)
    assert (~known).mean() == pytest.approx(BLANK_FRACTION, abs=0.011)


def test_without_label_noise_the_diagnoses_are_the_truth():
    truth = draw_many(200).assign(scan=[f"s{k:05d}" for k in range(200)])
    table = diagnoses(truth, seed=3, label_noise=0.0)
    for task in TASKS:
        known = table[task].notna()
        assert (table[task][known] == truth[f"true_{task}"][known]).all(), task


def test_tubes_fill_the_volume_that_geometry_says():
    space = Space((40, 40, 40), (2.0, 2.0, 2.0))
    start, stop = np.array([[-30.0, 0, 0]]), np.array([[30.0, 0, 0]])
    generator = np.random.default_rng(0)
    inside = _occupancy(space, start, stop, np.array([3.0]), np.array([5.0]), generator)
    expected_mm3 = np.pi * (5**2 - 3**2) * 60
    assert inside.sum() * 8 == pytest.approx(expected_mm3, rel=0.05)  # full voxels are capped at 1
