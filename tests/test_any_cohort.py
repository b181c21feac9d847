"""`lungmtl cohort`: tables in the formats of RAD-ChestCT, CT-RATE and DLCS24 become cohorts that pass the check."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save

from lungmtl import cli
from lungmtl.data.cohort import read_cohort
from lungmtl.data.reading import read_volume
from lungmtl.data.splits import check_splits
from lungmtl.data.volume import Volume
from lungmtl.sources.cohort_options import EXAMPLES
from lungmtl.sources.conversion import AXES_HERE, Geometry, check_axes, convert
from lungmtl.sources.label_tables import columns_of

VOLUME = Volume(chest().hu, (10.0, 9.0, 8.0))  # three different sizes
VOLUME.hu[:3] = -1000  # no body there: feet and head differ
RAD = "img{}_Abnormality_and_Location_Labels.csv"


def table(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def run(folder: Path, *options: object) -> int:
    return cli.main(["cohort", *map(str, options), "--out", str(folder / "cohort.csv")])


def checked(folder: Path, tasks: str) -> pd.DataFrame:
    """Verdicts of `lungmtl check` on a cohort with tasks of its own."""
    (folder / "study.yaml").write_text(
        f"study: own\nexperiments: [MTL]\nseeds: [0]\ntasks: [{tasks}]\n", encoding="utf-8"
    )
    status = cli.main(
        ["check", str(folder / "cohort.csv"), "--params", str(folder / "study.yaml"), "--no-page", "--workers", "1"]
    )
    assert status == 1  # all scans can be used, and are too few for a study
    return pd.read_csv(folder / "cohort-check" / "scans.csv", dtype={"scan": str})


# ---------------------------------------------------------------- RAD-ChestCT


def rad_row(scan: str, **ones: int) -> dict[str, object]:
    """A row of RAD-ChestCT's labels: every abnormality at every location."""
    names = [
        f"{what}*{where}" for what in ("cancer", "emphysema", "nodule") for where in ("lung", "right_upper", "bone")
    ]
    return {"NoteAcc_DEID": scan} | {name: int(name.replace("*", "_") in ones) for name in names}


@pytest.fixture
def rad(tmp_path) -> Path:
    """RAD-ChestCT as published: three tables, metadata, archives of slices from head to feet."""
    scans = ["trn00001", "trn00002", "val00001", "tst00001", "tst00002"]
    table(tmp_path / RAD.format("train"), rad_row(scans[0], cancer_lung=1), rad_row(scans[1], emphysema_right_upper=1))
    table(tmp_path / RAD.format("valid"), rad_row(scans[2], cancer_bone=1))
    table(tmp_path / RAD.format("test"), rad_row(scans[3], emphysema_lung=1), rad_row(scans[4]))
    table(
        tmp_path / "meta.csv",
        *[{"NoteAcc_DEID": scan, "MRN_DEID": f"m{place}", "PatientAge": "061Y"} for place, scan in enumerate(scans)],
    )
    (tmp_path / "npz").mkdir()
    for place, scan in enumerate(scans[:4]):
        hu = np.clip(VOLUME.hu + np.int16(place), -1000, 1000)
        np.savez_compressed(tmp_path / "npz" / f"{scan}.npz", ct=hu[::-1])
    return tmp_path


def rad_command(folder: Path, *options: object) -> list[object]:
    words = ["--scan", "NoteAcc_DEID", "--metadata", folder / "meta.csv", "--patient", "MRN_DEID"]
    for split, name in (("train", "train"), ("validation", "valid"), ("test", "test")):
        words += ["--table", f"{split}={folder / RAD.format(name)}"]
    words += ["--map", "cancer*lung=lung_cancer", "--map", "emphysema[*]*=emphysema"]
    words += ["--images", folder / "npz", "--image", "{scan}.npz", "--spacing-mm", *VOLUME.spacing_mm, "--axes", "IPL"]
    return [*words, "--keep", "PatientAge=age_years", *options]


def test_rad_chestct_becomes_a_cohort_that_passes_the_check(rad):
    assert run(rad, *rad_command(rad)) == 0

    frame = read_cohort(rad / "cohort.csv", tasks=["lung_cancer", "emphysema"])
    assert frame["scan"].tolist() == ["trn00001", "trn00002", "tst00001", "tst00002", "val00001"]
    assert frame["patient"].tolist() == ["m0", "m1", "m3", "m4", "m2"]
    assert frame["split"].tolist() == ["train", "train", "test", "test", "validation"]
    assert frame["lung_cancer"].tolist() == [1, 0, 0, 0, 0]  # cancer*bone is no lung cancer
    assert frame["emphysema"].tolist() == [0, 1, 1, 0, 0]  # at any location
    assert frame["age_years"].unique().tolist() == ["61"]
    assert frame["excluded"].tolist() == ["", "", "", "download: no image", ""]
    scans = checked(rad, "lung_cancer, emphysema")
    assert set(scans["verdict"]) <= {"ok", "look"}
    assert len(scans) == 4


def test_slices_from_head_to_feet_are_turned(rad):
    run(rad, *rad_command(rad))

    found = read_volume(rad / "images-mha" / "trn00001.mha")

    np.testing.assert_array_equal(found.hu, np.clip(VOLUME.hu, -1000, 1000))
    assert found.spacing_mm == pytest.approx(VOLUME.spacing_mm)


def test_the_side_file_says_which_columns_and_how(rad):
    run(rad, *rad_command(rad))

    text = (rad / "cohort.json").read_text(encoding="utf-8")
    side = json.loads(text)
    assert side["tasks"] == {
        "lung_cancer": ["cancer*lung"],
        "emphysema": ["emphysema*bone", "emphysema*lung", "emphysema*right_upper"],
    }
    assert side["conversion"]["axes"] == "IPL"
    assert side["n_to_download"] == 1
    assert side["splits"] == {"train": 2, "test": 2, "validation": 1}
    assert str(rad) not in text
    assert "m0" not in text


def test_a_second_call_converts_only_what_changed(rad):
    run(rad, *rad_command(rad))
    files = sorted((rad / "images-mha").iterdir())
    before = {path.name: path.stat().st_mtime_ns for path in files}
    np.savez_compressed(rad / "npz" / "trn00002.npz", ct=VOLUME.hu[::-1])
    files[0].write_bytes(files[0].read_bytes()[:100])

    run(rad, *rad_command(rad))
    after = {path.name: path.stat().st_mtime_ns for path in files}
    run(rad, *rad_command(rad, "--spacing-mm", 3, 3, 3))
    last = {path.name: path.stat().st_mtime_ns for path in files}

    assert [name for name in before if after[name] != before[name]] == ["trn00001.mha", "trn00002.mha"]
    assert all(last[name] != after[name] for name in after)
    assert read_volume(files[0]).spacing_mm == (3, 3, 3)


def test_a_volume_that_cannot_be_converted_is_excluded_with_the_reason(rad):
    place = rad / "npz"
    np.savez(place / "trn00001.npz", DOE_JANE=VOLUME.hu)
    (place / "trn00002.npz").write_bytes((place / "trn00002.npz").read_bytes()[:400])
    with (place / "tst00002.npz").open("wb") as stream:
        np.save(stream, VOLUME.hu)  # a single array, no archive
    np.savez(place / "val00001.npz", ct=VOLUME.hu[0])
    np.savez(place / "tst00001.npz", ct=np.full((4, 4, 4), np.nan))

    assert run(rad, *rad_command(rad)) == 0

    frame = pd.read_csv(rad / "cohort.csv", dtype=str).set_index("scan")
    reasons = frame["excluded"].to_dict()
    assert reasons["trn00001"] == (
        "not converted: An archive must hold the array that `--key` names, ct. Found 1 array of another name."
    )
    for scan in ("trn00002", "tst00002"):
        assert (
            reasons[scan] == "not converted: An archive must be a whole file of numpy. Found a damaged or another one."
        )
    assert reasons["val00001"].startswith("not converted: A volume must have three axes.")
    assert reasons["tst00001"] == "not converted: Every voxel must be a finite number. Found NaN or infinity."
    assert str(rad) not in " ".join(reasons.values())


# ---------------------------------------------------------------- CT-RATE

CT_RATE = r"(?P<study>(?P<patient>(?P<set>train|valid)_\d+)_[a-z]+)_\d+"


@pytest.fixture
def rate(tmp_path) -> Path:
    """CT-RATE as published: nested folders, raw volumes with a blank header, geometry and rescaling in a table."""
    names = {
        split: [f"{split}_{k // 2 + 1}_{'ab'[k % 2]}_{r}.nii.gz" for k in range(8) for r in (1, 2)]
        for split in ("train", "valid")
    }
    for split, volumes in names.items():
        rows = [
            {"VolumeName": name, "Lung nodule": int(k // 4 % 2), "Emphysema": int(k % 2)}
            for k, name in enumerate(volumes)
        ]
        table(tmp_path / f"{split}_predicted_labels.csv", *rows)
        z, y, x = VOLUME.spacing_mm
        size = {
            "RescaleSlope": 2.0,
            "RescaleIntercept": -1024,
            "XYSpacing": f"[{y}, {x}]",
            "ZSpacing": z,
            "PatientSex": "F",
        }
        table(tmp_path / f"{split}_metadata.csv", *[{"VolumeName": name} | size for name in volumes])
        for place, name in enumerate(volumes[:3], start=3 * (split == "valid")):
            patient, study = "_".join(name.split("_")[:2]), "_".join(name.split("_")[:3])
            image = sitk.GetImageFromArray(((VOLUME.hu + 1024) / 2 + place).astype(np.float32))
            path = tmp_path / "dataset" / split / patient / study / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(path))
    return tmp_path


def rate_command(folder: Path, *options: object) -> list[object]:
    words = ["--scan", "VolumeName", "--parts", CT_RATE, "--map", "Lung nodule=nodule", "--map", "Emphysema=emphysema"]
    for split, name in (("train", "train"), ("test", "valid")):
        words += [
            "--table",
            f"{split}={folder / name}_predicted_labels.csv",
            "--metadata",
            folder / f"{name}_metadata.csv",
        ]
    words += ["--images", folder / "dataset", "--image", "{set}/{patient}/{study}/{scan}.nii.gz"]
    words += ["--spacing-mm", "ZSpacing", "XYSpacing", "XYSpacing", "--rescale", "RescaleSlope", "RescaleIntercept"]
    return [*words, "--validation-share", 0.5, *options]


def test_ct_rate_becomes_a_cohort_that_passes_the_check(rate):
    assert run(rate, *rate_command(rate, "--keep", "PatientSex=sex")) == 0

    frame = read_cohort(rate / "cohort.csv", tasks=["nodule", "emphysema"])
    assert frame.loc[0, ["scan", "patient", "image"]].tolist() == [
        "train_1_a_1",
        "train_1",
        "images-mha/train_1_a_1.mha",
    ]
    assert frame["patient"].nunique() == 8
    assert (frame["split"] == "test").tolist() == frame["scan"].str.startswith("valid").tolist()
    assert frame["sex"].unique().tolist() == ["F"]
    check_splits(frame.assign(excluded=""), tasks=["nodule", "emphysema"], fractions=(), seed=0, batch_size=1)
    assert frame.groupby("patient")["split"].nunique().max() == 1
    scans = checked(rate, "nodule, emphysema")
    assert set(scans["verdict"]) <= {"ok", "look"}
    found = read_volume(rate / "images-mha" / "train_1_a_1.mha")
    assert found.spacing_mm == pytest.approx(VOLUME.spacing_mm)
    np.testing.assert_array_equal(found.hu, VOLUME.hu)


def test_one_reconstruction_per_study_is_the_first(rate):
    run(rate, *rate_command(rate, "--one-per", "study"))

    frame = pd.read_csv(rate / "cohort.csv", dtype=str)
    dropped = frame["excluded"] == "another scan of the same study"
    assert dropped.tolist() == frame["scan"].str.endswith("_2").tolist()


def test_a_cut_off_volume_is_not_filled_with_zeros(rate):
    path = next((rate / "dataset" / "train").rglob("train_1_a_1.nii.gz"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    run(rate, *rate_command(rate))

    frame = pd.read_csv(rate / "cohort.csv", dtype=str).set_index("scan")
    assert frame.loc["train_1_a_1", "excluded"].startswith("not converted: A scan must be complete.")
    assert str(rate) not in frame.loc["train_1_a_1", "excluded"]


@pytest.mark.parametrize("cell", ["", "[0.7]", "Doe^Jane", "[0.7, -1]", "nan"])
def test_a_scan_without_its_voxel_size_is_excluded(rate, cell):
    path = rate / "train_metadata.csv"
    rows = pd.read_csv(path, dtype=str)
    rows.loc[0, "XYSpacing"] = cell
    rows.to_csv(path, index=False)

    run(rate, *rate_command(rate))

    frame = pd.read_csv(rate / "cohort.csv", dtype=str).set_index("scan")
    assert "must be" in frame.loc["train_1_a_1", "excluded"]
    assert "Doe" not in (rate / "cohort.csv").read_text(encoding="utf-8")
    assert pd.isna(frame.loc["train_1_a_2", "excluded"])


def test_a_scan_that_the_metadata_lacks_is_excluded(rate):
    path = rate / "train_metadata.csv"
    pd.read_csv(path, dtype=str).iloc[1:].to_csv(path, index=False)

    run(rate, *rate_command(rate))

    assert "Found none in the column ZSpacing" in pd.read_csv(rate / "cohort.csv", dtype=str).loc[0, "excluded"]


# ---------------------------------------------------------------- DLCS24, and any other


def dlcs(folder: Path, *rows: tuple[str, str, str, str]) -> list[object]:
    """DLCS24's table, a row per nodule: patient, file, label, split."""
    names = ("patient-id", "ct_nifti_file", "Malignant_lbl", "benchmark_split")
    path = table(
        folder / "DLCSD24_Annotations.csv",
        *[dict(zip(names, row, strict=True)) | {"nodule_id": k} for k, row in enumerate(rows)],
    )
    words = ["--table", path, "--scan", "ct_nifti_file", "--patient", "patient-id", "--split", "benchmark_split"]
    return [*words, "--map", "Malignant_lbl=lung_cancer", "--images", folder, "--image", "{ct_nifti_file}"]


def test_rows_of_nodules_become_scans_and_images_that_can_be_read_stay(tmp_path):
    save(VOLUME.hu, tmp_path / "DLCS_0001.nii.gz")
    rows = [("1", "DLCS_0001.nii.gz", "0", "train"), ("1", "DLCS_0001.nii.gz", "1", "train")]
    rows += [
        ("2", "DLCS_0002.nii.gz", "0", "val"),
        ("2", "DLCS_0002.nii.gz", "", "val"),
        ("3", "DLCS_0003.nii.gz", "0", "test"),
    ]

    assert run(tmp_path, *dlcs(tmp_path, *rows)) == 0

    frame = read_cohort(tmp_path / "cohort.csv", tasks=["lung_cancer"])
    np.testing.assert_array_equal(frame["lung_cancer"], [1, np.nan, 0])  # one nodule of the second is not known
    assert frame["split"].tolist() == ["train", "validation", "test"]
    assert frame["image"].tolist()[0] == "DLCS_0001.nii.gz"
    assert json.loads((tmp_path / "cohort.json").read_text(encoding="utf-8"))["conversion"] == "none"


ONE = ("1", "s1.nii.gz", "0", "test")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([ONE], ["--map", "Malignant=x"], "must have the column `Malignant`. Found none. Close to it: Malignant_lbl."),
        ([ONE], ["--map", "*zzz*=x"], "must have the column `*zzz*`. Found none."),
        ([ONE], ["--map", "x"], "`--map` must be COLUMN=NAME. Found x."),
        ([ONE], ["--map", "Malignant_lbl=Cancer"], "A task must be small letters, digits and underscores"),
        ([ONE], ["--map", "Malignant_lbl=split"], "and none of scan, patient, split"),
        ([ONE], ["--keep", "nodule_id=gender"], "`--keep` must name one of"),
        ([ONE], ["--patient", "patient_id"], "Close to it: patient-id"),
        ([ONE], ["--parts", "(a"], "`--parts` must be a regular expression"),
        ([ONE], ["--parts", "(a)"], "`--parts` must have named parts alone"),
        (
            [ONE],
            ["--parts", "(?P<patient>p.*)"],
            "`--parts` must match every scan's name, with all its parts. Found s1",
        ),
        ([ONE], ["--one-per", "study"], "must have the column `study`"),
        ([ONE], ["--axes", "IPL"], "`--axes` must come with `--spacing-mm`"),
        ([ONE], ["--axes", "IPS", "--spacing-mm", 1, 1, 1], "`--axes` must be three letters"),
        ([ONE], ["--image", "{scan}.npz"], "`--spacing-mm Z Y X` must be given for .npz volumes"),
        ([ONE], ["--table", "fold1=x.csv"], "`--table` must be FILE, or one of train, validation, test with =FILE"),
        ([ONE], ["--table", "none.csv"], "A table must exist. Found none at none.csv."),
        ([ONE], ["--images", "/"], "`--images` must lie in the folder of `--out`"),
        ([("1", "s1.nii.gz", "-1", "train")], [], "`Malignant_lbl` must be 0, 1 or blank. Found '-1' in row 2"),
        ([("1", "s 1.nii.gz", "0", "train")], [], "`ct_nifti_file` must name scans by letters"),
        ([("1", "s1.nii.gz", "0", "fold3")], [], "`benchmark_split` must be train, validation or test. Found fold3."),
        (
            [ONE, ("2", "s1.nii.gz", "0", "train")],
            [],
            "`patient-id` must be the same in all rows of a scan. Found 2 in s1",
        ),
        (
            [ONE, ("1", "s2.nii.gz", "0", "val")],
            [],
            "A patient must be in one split. Found 1 patient in two or more.",
        ),
        (
            [("1", "s1.nii.gz", "0", "train")],
            ["--validation-share", 2],
            "`--validation-share` must be above 0 and below 1. Found 2.0.",
        ),
    ],
)
def test_bad_input_ends_with_status_2_and_a_sentence(tmp_path, caplog, rows, options, message):
    assert run(tmp_path, *dlcs(tmp_path, *rows), *options) == 2
    assert message in caplog.text
    assert not (tmp_path / "cohort.csv").exists()


def test_a_patient_must_be_named(tmp_path, caplog):
    words = [word for word in dlcs(tmp_path, ONE) if word not in ("--patient", "patient-id")]

    assert run(tmp_path, *words) == 2
    assert "`--patient COLUMN` or `--parts` with a part" in caplog.text


def test_cells_that_mean_not_known_are_named(tmp_path):
    rows = [("1", "s1.nii.gz", "-1", ""), ("2", "s2.nii.gz", "1", "")]

    assert run(tmp_path, *dlcs(tmp_path, *rows), "--blank", "-1") == 0

    frame = read_cohort(tmp_path / "cohort.csv", tasks=["lung_cancer"])
    np.testing.assert_array_equal(frame["lung_cancer"], [np.nan, 1])
    assert frame["split"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("name", "found"),
    [("", "a table, NAME.csv, is required"), ("cohort.json", "a table, NAME.csv"), ("own.csv", "Found another table")],
)
def test_only_a_table_of_its_own_is_written_over(tmp_path, capsys, name, found):
    words = dlcs(tmp_path, ONE)
    (tmp_path / "own.csv").write_text("scan\n", encoding="utf-8")

    with pytest.raises(SystemExit) as error:
        cli.main(["cohort", *map(str, words), "--out", str(tmp_path / name)])

    assert error.value.code == 2
    assert found in capsys.readouterr().err
    assert (tmp_path / "own.csv").read_text(encoding="utf-8") == "scan\n"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"PK\x03\x04\xff\xfe\x00", "Found a workbook, "),
        ("ct_nifti_file,patient-id\n".encode("utf-16"), "Found UTF-16 in "),
        (b"\xef\xbb\xbfct_nifti_file;patient-id\n", "Found semicolons in "),
        (b"ct_nifti_file\tpatient-id\n", "Found tabs in "),
    ],
)
def test_a_table_that_is_no_csv_is_refused_with_what_to_do(tmp_path, caplog, content, found):
    words = dlcs(tmp_path, ONE)
    (tmp_path / "DLCSD24_Annotations.csv").write_bytes(content)

    assert run(tmp_path, *words) == 2
    assert found in caplog.text
    assert "save it as CSV UTF-8, separated by commas." in caplog.text


@pytest.mark.parametrize(
    ("spelling", "found"),
    [
        ("a*b", ["a*b"]),  # the exact name comes first
        ("a[*]*", ["a*b", "a*bb"]),
        ("a*", ["a*b", "a*bb", "ab", "a b"]),
        ("a?b", ["a*b", "a b"]),
        ("ab", ["ab"]),
    ],
)
def test_a_column_is_spelled_by_its_name_or_a_pattern(spelling, found):
    names = ["a*b", "a*bb", "ab", "c", "a b"]
    assert columns_of([spelling], names, Path("x")) == found


@pytest.mark.parametrize("axes", ["SPL", "IPL", "SAR", "LPS", "RIA"])
@pytest.mark.parametrize("suffix", [".npz", ".nii"])
def test_an_array_of_any_axes_is_turned_to_head_back_left(tmp_path, axes, suffix):
    wanted = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)
    pairs = {"S": 0, "I": 0, "P": 1, "A": 1, "L": 2, "R": 2}
    flips = [axis for axis in range(3) if not set(axes) & {AXES_HERE[axis]}]
    array = np.flip(wanted, flips).transpose([pairs[letter] for letter in axes])
    source = tmp_path / f"a{suffix}"
    np.savez(source, ct=array) if suffix == ".npz" else sitk.WriteImage(
        sitk.GetImageFromArray(np.ascontiguousarray(array)), str(source)
    )

    check_axes(axes)
    outcome = convert(("a", source, tmp_path / "a.mha", Geometry((3.0, 2.0, 1.0), axes)))

    image = sitk.ReadImage(str(tmp_path / "a.mha"))
    assert outcome == {"scan": "a", "reason": ""}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), wanted)
    assert image.GetSpacing() == (1.0, 2.0, 3.0)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)


def test_rescaling_alone_keeps_the_files_geometry(tmp_path):
    image = sitk.GetImageFromArray(np.ones((2, 3, 4), np.int16))
    image.SetSpacing((1, 2, 3))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))

    convert(("a", tmp_path / "a.nii.gz", tmp_path / "a.mha", Geometry(None, rescale=(2, 5))))

    found = sitk.ReadImage(str(tmp_path / "a.mha"))
    assert (found.GetSpacing(), found.GetDirection()) == (image.GetSpacing(), image.GetDirection())
    assert np.unique(sitk.GetArrayFromImage(found)).tolist() == [7]


def test_the_help_shows_a_command_for_every_published_cohort(capsys):
    with pytest.raises(SystemExit):
        cli.main(["cohort", "--help"])

    assert EXAMPLES.strip() in capsys.readouterr().out
