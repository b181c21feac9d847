import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lungmtl.data.cohort import attributes, exclude_failed, included, read_cohort
from lungmtl.data.dataset import ScanDataset
from lungmtl.data.labels import cooccurrence, counts, examples, label_table
from lungmtl.data.splits import assign_splits
from lungmtl.experiments import TASKS
from lungmtl.files import sha256

FRACTIONS = (0.6, 0.2, 0.2)


def table(n: int = 4, **columns) -> pd.DataFrame:
    """A correct cohort table of n scans of n patients, as text; lung cancer in every second scan."""
    frame = pd.DataFrame({"scan": [f"scan{i}" for i in range(n)], "patient": [f"patient{i}" for i in range(n)]})
    frame["image"] = "scans/" + frame["scan"] + ".nii.gz"
    for shift, task in enumerate(TASKS):
        frame[task] = [str((i + shift) % 2) for i in range(n)]
    return frame.assign(**columns)


def write(folder: Path, frame: pd.DataFrame) -> Path:
    """Write a table and an empty file for every image inside the folder."""
    for image in frame.get("image", []):
        if image.startswith("scans/"):
            (folder / image).parent.mkdir(exist_ok=True)
            (folder / image).touch()
    frame.to_csv(folder / "cohort.csv", index=False)
    return folder / "cohort.csv"


def read(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    return read_cohort(write(folder, frame))


# ---------------------------------------------------------------- reading


def test_a_table_keeps_its_rows_and_a_blank_diagnosis_is_unknown(tmp_path):
    frame = read(tmp_path, table(3, copd=["1", "", "0.0"], site=["A", "NA", ""]))
    assert frame["scan"].tolist() == ["scan0", "scan1", "scan2"]
    np.testing.assert_array_equal(frame["copd"], [1.0, np.nan, 0.0])
    assert frame["site"].tolist() == ["A", "NA", ""]  # extra columns ride along, as text
    assert (frame[["split", "excluded"]] == "").all(axis=None)


def test_names_that_look_like_numbers_stay_text(tmp_path):
    frame = read(tmp_path, table(2, scan=["007", "08"], patient=["1e3", "NA"], image=["scans/a", "scans/b"]))
    assert frame["scan"].tolist() == ["007", "08"]
    assert frame["patient"].tolist() == ["1e3", "NA"]


def test_blanks_around_values_and_a_byte_order_mark_are_no_error(tmp_path):
    path = write(tmp_path, table(2, split=[" train", "test "]))
    path.write_text(
        "\ufeff" + path.read_text(encoding="utf-8").replace("scan,patient", "scan, patient"), encoding="utf-8"
    )
    assert read_cohort(path)["split"].tolist() == ["train", "test"]


def test_a_column_that_comes_twice_is_refused(tmp_path):
    path = write(tmp_path, table(2, site="A"))
    path.write_text(path.read_text(encoding="utf-8").replace("site", "copd"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"Column names must differ. Found scan, patient"):
        read_cohort(path)


@pytest.mark.parametrize("row", ["scan9,p,scans/a,0,0,0,0,0,train", "scan9,p,scans/a,0,0,0,0"])
def test_a_row_with_more_or_fewer_cells_is_refused(tmp_path, row):
    path = write(tmp_path, table(2))
    path.write_text(path.read_text(encoding="utf-8") + row + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"as many cells as the header"):
        read_cohort(path)


def test_of_a_wide_table_some_columns_are_named(tmp_path):
    (tmp_path / "cohort.csv").write_text(",".join(f"c{place}" for place in range(500)) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"Found c0, .*, c19, and 480 more in "):
        read_cohort(tmp_path / "cohort.csv")


@pytest.mark.parametrize("column", ["scan", "patient", "image", *TASKS])
def test_a_missing_column_is_named(tmp_path, column):
    with pytest.raises(ValueError, match=rf"must have the column `{column}`. Found .* in .*cohort.csv"):
        read(tmp_path, table().drop(columns=column))


@pytest.mark.parametrize("value", ["2", "yes", "-1", "0.5", "nan"])
def test_a_label_must_be_0_1_or_blank(tmp_path, value):
    with pytest.raises(ValueError, match=rf"`asthma` must be 0, 1 or blank. Found '{value}' in scan scan2"):
        read(tmp_path, table(asthma=["0", "1", value, ""]))


@pytest.mark.parametrize("name", ["scan1", "SCAN1"])  # some file systems ignore case
def test_a_duplicate_scan_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"Every scan must have one row. Found scan1 again|Found SCAN1 again"):
        read(tmp_path, table(scan=["scan0", "scan1", name, "scan3"]))


@pytest.mark.parametrize("name", ["", "../scan", "a/b", "a b", ".hidden", "x" * 200, "scän"])
def test_a_scan_name_must_be_a_file_name(tmp_path, name):
    with pytest.raises(ValueError, match=r"name must be letters, digits, dot, dash and underscore. Found '.*'"):
        read(tmp_path, table(scan=["scan0", name, "scan2", "scan3"]))


def test_every_scan_needs_a_patient(tmp_path):
    with pytest.raises(ValueError, match=r"must have a patient. Found none in scan scan1"):
        read(tmp_path, table(patient=["a", "", "b", "c"]))


def test_a_patient_in_two_splits_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"A patient must be in one split. Found b in train and test"):
        read(tmp_path, table(patient=["a", "b", "b", "c"], split=["train", "train", "test", ""]))


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"`split` must be train, validation, test or blank. Found 'val' in scan scan3"
    ):
        read(tmp_path, table(split=["train", "test", "", "val"]))


OUTSIDE = r"in the table's folder with all its files, unless `--allow-outside` is given. Found another place in scan sc"


@pytest.mark.parametrize("image", ["../scan.nii.gz", "a/../../scan.nii.gz", "/scan.nii.gz", "."])
def test_an_image_must_lie_in_the_tables_folder(tmp_path, image):
    with pytest.raises(ValueError, match=OUTSIDE) as caught:
        read(tmp_path, table(1, image=[image]))
    assert f"It is {image}, which leads to {os.path.normpath(tmp_path / image)}." in caught.value.shown
    assert image == "." or image not in str(caught.value)


def test_an_image_outside_can_be_allowed(tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "scan.nii.gz").touch()
    path = write(tmp_path / "study", table(1, image=["../scan.nii.gz"]))
    assert len(read_cohort(path, allow_outside=True)) == 1


def test_a_missing_image_is_named(tmp_path):
    path = write(tmp_path, table())
    (tmp_path / "scans" / "scan2.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"Every image must exist. Found none for scan scan2") as caught:
        read_cohort(path)
    assert f"It should be {tmp_path / 'scans' / 'scan2.nii.gz'}." in caught.value.shown
    assert ".nii.gz" not in str(caught.value)  # which a notebook may store


def link(folder, outside):
    (folder / "scan.nii.gz").symlink_to(outside / "scan.nii.gz")
    return "scan.nii.gz"


def link_above(folder, outside):
    (folder / "images").symlink_to(outside)
    return "images/scan.nii.gz"


def linked_slice(folder, outside):
    (folder / "series" / "below").mkdir(parents=True)
    (folder / "series" / "below" / "1.dcm").symlink_to(outside / "scan.nii.gz")
    return "series"


def header_of(name, text):
    def make(folder, outside):
        (folder / "images").mkdir()
        (folder / "images" / name).write_text(text.format(outside=outside, up="../../outside"), encoding="utf-8")
        return f"images/{name}"

    return make


@pytest.mark.parametrize(
    "make",
    [
        *(link, link_above, linked_slice),
        header_of("scan.mhd", "NDims = 3\nElementDataFile = {up}/scan.raw\n"),
        header_of("scan.mhd", "NDims = 3\nElementDataFile: {outside}/scan.raw\n"),
        header_of("scan.mha", "NDims = 3\r\nElementDataFile = {outside}/scan.raw\r\n"),
        header_of("scan.mhd", "ElementDataFile = LIST\nscan1.raw\n{up}/scan2.raw\n"),
        header_of("scan.mhd", "ElementDataFile = LISTED/../{up}/scan.raw\n"),
        header_of("scan.mhd", "ElementDataFile = {up}/scan%03d.raw 1 9 1\n"),
        header_of("scan.mhd", "ElementDataFile = {outside}/%s 1 9 1\n"),
        header_of("scan.mhd", "Comment = " + "x" * 70000 + "\nElementDataFile = {up}/scan.raw\n"),
        header_of("scan.nhdr", "NRRD0004\ntype: short\ndata file: {up}/scan.raw\n"),
        header_of("scan.nrrd", "NRRD0004\ndatafile: {outside}/scan.raw\n\n"),
        header_of("scan.nhdr", "NRRD0004\nData File: LIST\nscan1.raw\n{up}/scan2.raw\n"),
        header_of("scan.nhdr", "NRRD0004\ndata file: {up}/%d.raw 1 9 1\n"),
    ],
)
def test_links_and_headers_that_lead_outside_are_held_to_the_same_rule(tmp_path, make):
    outside, folder = tmp_path / "outside", tmp_path / "study"
    outside.mkdir()
    folder.mkdir()
    (outside / "scan.nii.gz").touch()
    path = write(folder, table(1, image=[make(folder, outside)]))
    with pytest.raises(ValueError, match=OUTSIDE) as caught:
        read_cohort(path)
    assert re.search(r" leads to (/|.*/outside/.*)\.", caught.value.shown)  # the file to blame; / of a pattern
    assert "outside/" not in str(caught.value)
    assert len(read_cohort(path, allow_outside=True)) == 1


def linked_inside(folder):
    (folder / "real").mkdir()
    (folder / "real" / "scan.nii.gz").touch()
    (folder / "scan.nii.gz").symlink_to(folder / "real" / "scan.nii.gz")
    return "scan.nii.gz"


def headers_inside(name, text):
    return lambda folder: header_of(name, text)(folder, folder)


@pytest.mark.parametrize(
    "make",
    [
        linked_inside,
        headers_inside("scan.mhd", "ElementDataFile = scan.raw\n"),
        headers_inside("scan.mhd", "ElementDataFile = ../scan.raw\n"),
        headers_inside("scan.mha", "ElementDataFile = LOCAL\n\x00data file: /x"),
        headers_inside("scan.nrrd", "NRRD0004\ntype: short\n\ndata file: /x\n"),
        headers_inside("scan.nhdr", "NRRD0004\ndata file: scan%d.raw 1 3 1\n"),
    ],
)
def test_links_and_headers_that_stay_inside_are_read(tmp_path, make):
    (tmp_path / "study").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "study")  # the table's own folder may be reached by a link
    path = write(tmp_path / "study", table(1, image=[make(tmp_path / "study")]))
    assert len(read_cohort(path)) == len(read_cohort(tmp_path / "link" / "cohort.csv")) == 1


def test_every_scan_needs_an_image(tmp_path):
    with pytest.raises(ValueError, match=r"must have an image. Found none in scan scan1"):
        read(tmp_path, table(2, image=["scans/a.nii.gz", ""]))


def test_an_excluded_scan_needs_no_image_and_is_used_nowhere(tmp_path):
    frame = table(excluded=["", "no download", "", ""], split=["train", "", "train", "test"])
    frame = read(tmp_path, frame.assign(image=["scans/a", "gone", "scans/b", "scans/c"]))
    assert included(frame)["scan"].tolist() == ["scan0", "scan2", "scan3"]
    assert counts(frame, tasks=["copd"])["train"]["copd"]["n"] == 2


def test_a_missing_or_empty_or_unreadable_table_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"existing csv file. Found nothing at .*cohort.csv"):
        read_cohort(tmp_path / "cohort.csv")
    with pytest.raises(ValueError, match=r"at least one scan"):
        read(tmp_path, table(1).iloc[:0])
    (tmp_path / "cohort.csv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"Found an empty file"):
        read_cohort(tmp_path / "cohort.csv")
    (tmp_path / "cohort.csv").write_bytes(b"scan,\xff\xfe\n1,2\n")
    with pytest.raises(ValueError, match=r"must be a csv table in UTF-8"):
        read_cohort(tmp_path / "cohort.csv")


# ---------------------------------------------------------------- splits


def patients(n: int, scans_each: int = 2, share: int = 4) -> pd.DataFrame:
    """n patients; every `share`-th has lung cancer; no split yet."""
    patient = np.repeat(np.arange(n), scans_each)
    frame = table(len(patient), patient=[f"p{i:03d}" for i in patient], split="", excluded="")
    return frame.assign(lung_cancer=(patient % share == 0).astype(float))


@pytest.mark.parametrize("seed", range(5))
def test_a_split_never_shares_a_patient_and_keeps_the_prevalence(seed):
    frame = assign_splits(patients(200), fractions=FRACTIONS, seed=seed)
    assert frame.groupby("patient")["split"].nunique().max() == 1
    per_split = frame.groupby("split")["patient"].nunique()
    assert per_split.to_dict() == {"train": 120, "validation": 40, "test": 40}
    np.testing.assert_allclose(frame.groupby("split")["lung_cancer"].mean(), 0.25)


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_the_rows():
    frame = patients(60)
    one = assign_splits(frame, fractions=FRACTIONS, seed=1)
    again = assign_splits(frame.sample(frac=1, random_state=3), fractions=FRACTIONS, seed=1)
    other = assign_splits(frame, fractions=FRACTIONS, seed=2)
    pd.testing.assert_frame_equal(one, again.sort_index())
    assert (one["split"] != other["split"]).any()


def test_a_given_split_stays_and_covers_the_patients_other_scans():
    frame = patients(60)
    frame.loc[0, "split"] = "test"  # patient p000 has scans 0 and 1
    split = assign_splits(frame, fractions=FRACTIONS, seed=0)["split"]
    assert split[0] == split[1] == "test"
    assert (split != "").all()
    assert frame.loc[1, "split"] == ""  # the input is not changed


def test_a_table_with_all_splits_given_is_unchanged():
    frame = patients(30).assign(split="train")
    pd.testing.assert_frame_equal(assign_splits(frame, fractions=FRACTIONS, seed=0), frame)


def test_unknown_lung_cancer_counts_as_negative_in_the_draw():
    frame = patients(100)
    frame.loc[frame["lung_cancer"] == 0, "lung_cancer"] = np.nan
    split = assign_splits(frame, fractions=FRACTIONS, seed=0)
    assert split.groupby("split")["lung_cancer"].sum().to_dict() == {"train": 30, "validation": 10, "test": 10}


def test_too_few_patients_to_split_is_said():
    with pytest.raises(
        ValueError, match=r"enough patients of both classes .* Found 4 patients without a split, 1 of them"
    ):
        assign_splits(patients(4), fractions=FRACTIONS, seed=0)


def test_counts_by_hand():
    frame = table(5, split=["train", "train", "train", "test", "test"], excluded=["", "", "", "", "motion"])
    frame = frame.assign(lung_cancer=[1.0, 0.0, np.nan, 1.0, 0.0])
    found = counts(frame, tasks=["lung_cancer"])
    assert found == {
        "train": {"lung_cancer": {"n": 2, "positives": 1, "unknown": 1}},
        "validation": {"lung_cancer": {"n": 0, "positives": 0, "unknown": 0}},
        "test": {"lung_cancer": {"n": 1, "positives": 1, "unknown": 0}},
    }


def test_prevalence_has_an_interval_that_holds_it():
    frame = table(40, split=["train"] * 10 + ["test"] * 30, excluded="").assign(lung_cancer=[1.0] + [0.0] * 39)
    found = label_table(frame, tasks=["lung_cancer"]).set_index("split")
    assert found.loc["train", ["n", "positives", "share"]].tolist() == [10, 1, 0.1]
    assert found.loc["train", ["low", "high"]].tolist() == pytest.approx([0.0179, 0.4042], abs=1e-4)  # Wilson, by R
    assert found.loc["test", ["share", "low"]].tolist() == [0, 0]
    assert found.loc["validation", "n"] == 0
    assert np.isnan(found.loc["validation", "share"])


def test_cooccurrence_by_hand():
    frame = table(4, excluded="").assign(lung_cancer=[1.0, 1.0, 0.0, np.nan], copd=[1.0, 0.0, np.nan, 1.0])
    found = cooccurrence(frame, tasks=["lung_cancer", "copd"])
    assert found.loc["lung_cancer", "copd"] == 0.5  # of two with cancer and a known answer one has COPD
    assert found.loc["copd", "lung_cancer"] == 1.0  # of two with COPD one has a known answer, which is yes
    assert found.loc["copd", "copd"] == 1.0


def test_the_example_of_a_label_is_its_most_severe_scan():
    frame = table(4, excluded=["", "", "", "motion"]).assign(copd=[1.0, 0.0, 1.0, 1.0], asthma=[0.0, 1.0, 1.0, 1.0])
    truth = pd.DataFrame({"scan": ["scan0", "scan1", "scan2", "scan3"], "severity_copd": [0.2, 0.9, 0.5, 0.8]})
    assert examples(frame, truth, tasks=["asthma", "copd"]) == {"asthma": "scan1", "copd": "scan2"}


def test_a_scan_that_failed_to_prepare_is_excluded_with_its_reason():
    frame = table(3, excluded=["", "", "motion"])
    report = pd.DataFrame({"scan": ["scan0", "scan1"], "status": ["ok", "failed"], "reason": ["", "not a chest"]})
    assert exclude_failed(frame, report)["excluded"].tolist() == ["", "not a chest", "motion"]


def test_sha256_of_known_bytes(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea")  # FIPS 180-2, appendix B.1


# ---------------------------------------------------------------- dataset


@pytest.fixture
def prepared(tmp_path) -> tuple[pd.DataFrame, Path]:
    frame = table(4, excluded=["", "motion", "", ""]).assign(
        lung_cancer=[1.0, 1.0, 0.0, np.nan], copd=[np.nan, 0, 1, 0]
    )
    for index in (0, 2, 3):
        np.save(tmp_path / f"scan{index}.npy", np.full((4, 5, 6), index / 4, dtype=np.float16))
    return frame, tmp_path


def test_an_item_is_the_volume_its_targets_and_what_is_known(prepared):
    data = ScanDataset(*prepared, tasks=["copd", "lung_cancer"])
    assert data.scans == ["scan0", "scan2", "scan3"]
    assert len(data) == 3
    volume, target, known = data[2]
    assert volume.shape == (1, 4, 5, 6)
    assert (volume.dtype, target.dtype) == (torch.float16, torch.float32)
    assert (volume == 0.75).all()
    assert target.tolist() == [0.0, 0.0]  # an unknown target is 0 and masked
    assert known.tolist() == [True, False]
    assert [data[i][1].tolist() for i in range(2)] == [[0.0, 1.0], [1.0, 0.0]]


def test_a_dataset_stacks_into_batches(prepared):
    volume, target, known = next(iter(torch.utils.data.DataLoader(ScanDataset(*prepared, tasks=TASKS), 3)))
    assert volume.shape == (3, 1, 4, 5, 6)
    assert target.shape == known.shape == (3, len(TASKS))


def test_a_scan_that_is_not_prepared_is_named(prepared):
    frame, folder = prepared
    (folder / "scan2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"Found 1 of 3 missing, first .*scan2.npy"):
        ScanDataset(frame, folder, tasks=["copd"])


# ---------------------------------------------------------------- attributes


def test_attributes_are_numbers_or_text_and_leave_patients_behind():
    frame = table(3, kernel=["STANDARD", "B30f", ""], thickness_mm=["2.5", "", "1"], name=["A", "B", "C"])

    found = attributes(frame)

    assert found.columns.tolist() == ["scan", "thickness_mm", "kernel"]
    assert found["thickness_mm"].tolist() == pytest.approx([2.5, np.nan, 1], nan_ok=True)
    assert found["kernel"].tolist() == ["STANDARD", "B30f", ""]


def test_the_truth_of_a_generator_is_matched_by_scan():
    truth = pd.DataFrame({"scan": ["scan2", "scan0"], "diameter_mm": [8.0, None], "noise_hu": [20.0, 30.0], "x": 1})

    found = attributes(table(3), truth).set_index("scan")

    assert found.columns.tolist() == ["nodule_mm", "noise_hu"]
    assert found["noise_hu"].tolist() == pytest.approx([30, np.nan, 20], nan_ok=True)
    assert found["nodule_mm"].tolist() == pytest.approx([np.nan, np.nan, 8], nan_ok=True)
