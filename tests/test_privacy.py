"""Nothing that is written names a patient, a date of birth or a folder of the machine."""

import zlib

import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save

from lungmtl import cli
from lungmtl.experiments import TASKS

NAME, BIRTH_DATE = "SECRET^NAME", "19470813"
HEADER = {
    **{"0010|0010": NAME, "0010|0030": BIRTH_DATE, "0010|0020": "SECRET-ID", "0008|0060": "CT", "0020|000e": "1.2.3"},
    **{"0020|0037": "1\\0\\0\\0\\1\\0", "0018|0050": "10", "0028|1052": "0", "0028|1053": "1"},
}


def write_series(folder):
    """`chest` as a DICOM series whose headers name its patient."""
    folder.mkdir(parents=True)
    for index, plane in enumerate(chest().hu):
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing((10.0, 10.0, 10.0))
        for key, value in (HEADER | {"0020|0032": f"0\\0\\{10 * index}", "0008|0018": f"1.2.3.{index}"}).items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(image)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All that `check` and `prepare` write about four scans in a folder named after the patient, two of them broken."""
    folder = tmp_path_factory.mktemp("user") / "hospital"
    for scan in ("a", "b"):
        write_series(folder / NAME / scan)
    (folder / NAME / "b" / "011.dcm").unlink()
    save(chest().hu, folder / NAME / "c.nii.gz")
    (folder / NAME / "d.nii.gz").write_bytes(b"no image")
    frame = pd.DataFrame({"scan": list("abcd"), "patient": [f"{NAME}-{scan}" for scan in "abcd"]})
    frame["image"] = [f"{NAME}/{name}" for name in ("a", "b", "c.nii.gz", "d.nii.gz")]
    frame.assign(**dict.fromkeys(TASKS, ""), kernel="SOFT").to_csv(folder / "cohort.csv", index=False)
    out, cache = folder.parent / "out", folder.parent / "cache"
    options = [str(folder / "cohort.csv"), "--out", str(out), "--cache-dir", str(cache), "--workers", "1"]
    assert cli.main(["check", *options]) == 1
    assert cli.main(["prepare", *options, "--spacing-mm", "20", "20", "20", "--shape", "16", "16", "20"]) == 0
    return folder.parent


def files(written):
    return [path for top in ("out", "cache") for path in sorted((written / top).rglob("*")) if path.is_file()]


def test_all_kinds_of_files_are_looked_at(written):
    names = {path.name for path in files(written)}
    assert names >= {"scans.csv", "shared.csv", "checked.jsonl", "report.html", "preparation.csv", "preparation.json"}
    assert names >= {"a.png", "a.npy", "a.json"}
    assert pd.read_csv(written / "out" / "scans.csv")["verdict"].tolist() == ["look", "failed", "look", "failed"]


def test_the_headers_do_name_the_patient(written):
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(written / "hospital" / NAME / "a" / "000.dcm"))
    reader.ReadImageInformation()
    assert reader.GetMetaData("0010|0010").strip() == NAME
    assert reader.GetMetaData("0010|0030").strip() == BIRTH_DATE


@pytest.mark.parametrize("secret", [NAME, "SECRET", BIRTH_DATE, "hospital", "{folder}"])
def test_no_file_names_the_patient_or_a_folder(written, secret):
    secret = secret.format(folder=written).encode()
    assert [path.name for path in files(written) if secret in path.read_bytes()] == []


def test_pictures_hold_pixels_alone(written):
    for path in files(written):
        if path.suffix == ".png":
            kinds = chunks(path.read_bytes())
            assert set(kinds) == {b"IHDR", b"PLTE", b"IDAT", b"IEND"}


def chunks(png):
    """Kinds of a PNG's chunks, each with a right checksum."""
    place, kinds = 8, []
    while place < len(png):
        size, kind = int.from_bytes(png[place : place + 4]), png[place + 4 : place + 8]
        checksum = int.from_bytes(png[place + 8 + size : place + 12 + size])
        assert zlib.crc32(png[place + 4 : place + 8 + size]) == checksum
        kinds.append(kind)
        place += 12 + size
    return kinds
