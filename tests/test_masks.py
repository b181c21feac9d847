"""Own masks: any tool's labels, laid on their CT and refused where they do not lie on it; they replace the region."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save
from test_frames import cut, enhanced
from test_frames import save as save_frames

from lungmtl.data.checks import check_scans
from lungmtl.data.cohort import read_cohort
from lungmtl.data.masks import own_lungs
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import prepare_cohort
from lungmtl.data.reading import read_volume
from lungmtl.data.verify import verify_prepared
from lungmtl.data.volume import ScanError
from lungmtl.experiments import TASKS

SPEC = Preparation(spacing_mm=(20.0, 20.0, 20.0), shape=(16, 16, 20), window_hu=(-1000.0, 400.0))
LEFT = (chest().hu == -850) & (np.arange(36) >= 18)


@pytest.fixture
def cohort(tmp_path):
    """Two chests, of which the first has a mask of its left lung: labels of another tool, at another orientation."""
    for scan in ("a", "b"):
        save(chest().hu, tmp_path / f"{scan}.nii.gz")
    save((LEFT * 513).astype(np.uint16), tmp_path / "lobes.nrrd", orientation="RAS")
    lines = [",".join(["scan,patient,image,mask", *TASKS]), "a,P1,a.nii.gz,lobes.nrrd,1,,,,", "b,P2,b.nii.gz,,0,,,,"]
    (tmp_path / "cohort.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_cohort(tmp_path / "cohort.csv")


def prepared(frame, folder):
    cache, report = prepare_cohort(frame, folder, SPEC, cache_dir=folder / "cache", progress=False)
    return cache, report.set_index("scan")


def test_a_mask_replaces_the_region(cohort, tmp_path):
    cache, report = prepared(cohort, tmp_path)
    assert report["lung_volume_l"].tolist() == pytest.approx([1.2, 2.4], rel=0.01)
    a, b = (np.load(cache / f"{scan}.npy") for scan in ("a", "b"))
    assert np.count_nonzero(a) < 0.6 * np.count_nonzero(b)


def test_a_check_shows_the_mask_and_says_what_it_leaves_out(cohort, tmp_path):
    found = check_scans(cohort, tmp_path, out=tmp_path / "out", progress=False).set_index("scan")
    assert found["lung_volume_l"].tolist() == pytest.approx([1.2, 2.4])
    assert "The mask leaves out 50% of the lungs' air." in found.loc["a", "reason"]
    save(np.zeros_like(LEFT, dtype=np.uint8), tmp_path / "lobes.nrrd")
    found = check_scans(cohort, tmp_path, out=tmp_path / "out", progress=False).set_index("scan")
    assert found.loc["a", "verdict"] == "failed"
    assert "must mark some voxels with another label than 0. Found none, in scan a." in found.loc["a", "reason"]


def test_a_changed_mask_prepares_its_scan_again_and_no_other(cohort, tmp_path):
    prepared(cohort, tmp_path)
    assert prepared(cohort, tmp_path)[1]["seconds"].isna().all()
    save(LEFT.astype(np.uint8), tmp_path / "lobes.nrrd")
    assert prepared(cohort, tmp_path)[1]["seconds"].isna().tolist() == [False, True]
    assert prepared(cohort.drop(columns="mask"), tmp_path)[1]["seconds"].isna().tolist() == [False, True]


def test_verify_finds_a_changed_mask(cohort, tmp_path):
    cache, _ = prepared(cohort, tmp_path)
    assert verify_prepared(cohort, tmp_path, cache, shape=SPEC.shape, progress=False) == []
    save(LEFT.astype(np.uint8), tmp_path / "lobes.nrrd")
    found = verify_prepared(cohort, tmp_path, cache, shape=SPEC.shape, progress=False)
    assert found == ["scan a: the mask has changed since the scan was prepared"]


def write(folder, **changes):
    """A mask of the left lung on voxels of 10 mm whose header has been changed."""
    image = sitk.GetImageFromArray(LEFT.astype(np.uint8)[changes.pop("part", np.s_[:])])
    image.SetSpacing((10.0, 10.0, 10.0))
    for name, value in changes.items():
        getattr(image, name)(value)
    sitk.WriteImage(image, str(folder / "mask.nii.gz"))
    return str(folder / "mask.nii.gz")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"part": np.s_[:20]}, r"a size of \(36, 28, 20\) voxels where the CT has \(36, 28, 24\)"),
        ({"SetSpacing": (10.0, 10.0, 9.0)}, r"voxels of \(10, 10, 9\) mm where the CT has \(10, 10, 10\)"),
        ({"SetOrigin": (0.0, 0.0, 5.0)}, r"an origin of \(0, 0, 5\) mm where the CT has \(0, 0, 0\)"),
        (
            {"SetDirection": (0.9998, -0.02, 0, 0.02, 0.9998, 0, 0, 0, 1)},
            r"directions of \(0.9998, 0.02.* where the CT has \(1, 0, 0, 0, 1",
        ),
    ],
)
def test_a_mask_that_does_not_lie_on_its_ct_is_refused(changes, found, tmp_path):
    image = save(chest().hu, tmp_path / "ct.nii.gz")
    with pytest.raises(ScanError, match=f"A mask must lie on the voxels of its CT. Found {found}.*, in scan s1."):
        own_lungs(write(tmp_path, **changes), image, "s1")


def test_a_mask_is_missing_or_outside_by_the_rules_of_images(cohort, tmp_path):
    (tmp_path / "lobes.nrrd").unlink()
    with pytest.raises(FileNotFoundError, match=r"scan a \(mask\)"):
        read_cohort(tmp_path / "cohort.csv")
    text = (tmp_path / "cohort.csv").read_text(encoding="utf-8")
    (tmp_path / "cohort.csv").write_text(text.replace("lobes.nrrd", "../lobes.nrrd"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"folder.*scan a \(mask\)"):
        read_cohort(tmp_path / "cohort.csv", allow_missing=True)


def test_a_file_that_is_no_mask_is_named_by_its_scan_alone(tmp_path):
    image = save(chest().hu, tmp_path / "ct.nii.gz")
    (tmp_path / "mask.nii.gz").write_text("broken", encoding="utf-8")
    with pytest.raises(ScanError, match="The mask of scan s1 must be a label image") as caught:
        own_lungs(str(tmp_path / "mask.nii.gz"), image, "s1")
    assert str(tmp_path) not in str(caught.value)


def test_a_mask_lies_on_a_dicom_series(tmp_path):
    folder = Path(__file__).parent / "data" / "lidc_crop" / "plain"
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(names)
    sitk.WriteImage(sitk.DICOMOrient(image > -500, "RAS"), str(tmp_path / "mask.mha"))
    found = own_lungs(str(tmp_path / "mask.mha"), folder, "s1")
    assert np.count_nonzero(found.mask) == np.count_nonzero(sitk.GetArrayViewFromImage(image) > -500)


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5, 6, 7], [3, 1, 7, 0, 2, 6, 5, 4]])
def test_a_mask_lies_on_the_frames_of_a_series_in_any_order(tmp_path, order):
    folder = save_frames(cut(enhanced(), order), tmp_path / "series")
    hu = read_volume(folder).hu
    image = sitk.GetImageFromArray((hu > -500).astype(np.uint8))
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((0, 0, 3.0))  # of the lowest frame
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(tmp_path / "mask.mha"))
    found = own_lungs(str(tmp_path / "mask.mha"), folder, "s1")
    np.testing.assert_array_equal(found.mask, (hu > -500)[found.box])
