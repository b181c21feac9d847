"""Nothing that is written names a patient, a date of birth or a folder, wherever a header or a path does."""

import base64
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset, FileMetaDataset

NAME, BIRTH_DATE = "SECRET^NAME", "19470813"
TEXTS = {
    **dict.fromkeys(("PN", "LO", "SH", "ST", "LT", "UT", "UC", "AE"), NAME),
    **{"UR": "SECRET/NAME", "CS": "SECRET NAME", "DA": BIRTH_DATE, "DT": BIRTH_DATE},
}
READ = ("ImageType", "Modality", "PhotometricInterpretation", "RescaleType", "SpecificCharacterSet")  # else refused
NEEDED = {
    **{"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Modality": "CT", "PhotometricInterpretation": "MONOCHROME2"},
    **{"SeriesInstanceUID": "1.2.3", "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [10, 10]},
    **{"SliceThickness": 10, "RescaleSlope": 1, "RescaleIntercept": 0, "SamplesPerPixel": 1},
    **{"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1},
}
N_GOOD = 6  # scans that can be used: one of each class in every split
PARAMS = """
study: own
cohort: {folder}/cohort.csv
experiments: [STL]
seeds: [0]
spacing_mm: [20, 20, 20]
shape: [17, 17, 20]
width: 4
batch_size: 4
epochs: 1
"""


# ---------------------------------------------------------------- scans whose every text names the patient


def named_slice(index: int, *, everywhere: bool = False) -> Dataset:
    """A slice of `chest` whose text headers name the patient: some, or all that DICOM knows."""
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    slice_.file_meta.MediaStorageSOPClassUID = slice_.SOPClassUID = pydicom.uid.CTImageStorage
    slice_.file_meta.MediaStorageSOPInstanceUID = slice_.SOPInstanceUID = f"1.2.3.{index}"
    slice_.file_meta.SourceApplicationEntityTitle = NAME
    for tag, (vr, *_, keyword) in DicomDictionary.items():
        if vr in TEXTS and tag >> 16 > 2 and keyword not in READ and (everywhere or keyword.startswith("Patient")):
            slice_.add_new(tag, vr, TEXTS[vr])
    slice_.SeriesDescription = slice_.ConvolutionKernel = slice_.ContrastBolusAgent = NAME
    slice_.private_block(0x0011, NAME, create=True).add_new(1, "LO", NAME)
    for name, value in NEEDED.items():
        setattr(slice_, name, value)
    slice_.ImagePositionPatient = [0, 0, 10 * index]
    plane = chest().hu[index]
    slice_.Rows, slice_.Columns = plane.shape
    slice_.PixelData = plane.tobytes()
    return slice_


def file_of(folder: Path, index: int) -> Path:
    return folder / f"{NAME}-{index:03d}.dcm"


def write_series(folder: Path, *, everywhere: bool = False) -> Path:
    folder.mkdir(parents=True)
    for index in range(len(chest().hu)):
        named_slice(index, everywhere=everywhere).save_as(file_of(folder, index), enforce_file_format=True)
    return folder


def edited(**values: object):
    """Return a function that sets elements of one slice, as bytes where they are not what they must be."""

    def damage(folder: Path) -> None:
        one = pydicom.dcmread(file_of(folder, 7))
        for name, value in values.items():
            tag = pydicom.tag.Tag(name)
            content = value.encode() + b" " * (len(value) % 2)
            one[tag] = pydicom.dataelem.RawDataElement(tag, "LO", len(content), content, 0, False, True)
        one.save_as(file_of(folder, 7))

    return damage


def replaced(old: bytes, new: bytes):
    def damage(folder: Path) -> None:
        content = file_of(folder, 7).read_bytes()
        assert old in content
        file_of(folder, 7).write_bytes(content.replace(old, new.ljust(len(old), b"\0")))

    return damage


def rewritten(content: bytes):
    return lambda folder: file_of(folder, 7).write_bytes(content)


def one_level_down(folder: Path) -> None:
    for name in (NAME, f"{NAME} 2"):
        shutil.copytree(folder, folder / name, ignore=shutil.ignore_patterns(f"{NAME}*2", NAME))
    for file in folder.glob("*.dcm"):
        file.unlink()


def as_file(name: str, content: bytes):
    def damage(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.with_name(name).write_bytes(content)

    return damage


BROKEN = {
    "missing": lambda folder: file_of(folder, 11).unlink(),
    "twice": lambda folder: shutil.copy(file_of(folder, 3), file_of(folder, 99)),
    "aside": edited(ImagePositionPatient="3\\0\\70"),
    "uneven": edited(ImagePositionPatient="0\\0\\73"),
    "cut": lambda folder: file_of(folder, 7).write_bytes(file_of(folder, 7).read_bytes()[:-100]),
    "no-pixels": lambda folder: file_of(folder, 7).write_bytes(file_of(folder, 7).read_bytes()[:400]),
    "no-dicom": rewritten(NAME.encode() * 100),
    "series": edited(SeriesInstanceUID="1.2.4"),
    "patients": edited(PatientID=f"{NAME}2"),
    "names": edited(PatientName=f"{NAME}2"),
    "kernels": edited(ConvolutionKernel=f"{NAME}2"),
    "below": one_level_down,
    "text": as_file(f"text.{NAME}", NAME.encode()),
    "nifti": as_file("nifti.nii.gz", NAME.encode()),
    "mha": as_file("mha.mha", f"Comment = {NAME}\nNDims = 3\nElementDataFile = {NAME}".encode()),
    "syntax": replaced(b"1.2.840.10008.1.2.1", NAME.encode()),
    "date": edited(RescaleSlope=BIRTH_DATE),
    **{
        name: edited(**{name: NAME})
        for name in (
            *("Modality", "ImageType", "PhotometricInterpretation", "RescaleType", "RescaleSlope", "PixelSpacing"),
            *("ImagePositionPatient", "ImageOrientationPatient", "Rows", "BitsStored", "NumberOfFrames"),
            *("PixelPaddingValue", "SliceThickness"),
        )
    },
}


def write_files(folder: Path) -> list[str]:
    """The chest as files whose headers name the patient."""
    image = sitk.GetImageFromArray(chest().hu)
    image.SetSpacing((10.0, 10.0, 10.0))
    image.SetMetaData("Comment", NAME)
    for suffix in ("mha", "nrrd"):
        sitk.WriteImage(image, str(folder / f"{NAME}.{suffix}"))
    path = save(chest().hu, folder / f"{NAME}.nii")
    content = bytearray(path.read_bytes())
    content[14 : 14 + 11] = content[148 : 148 + 11] = content[228 : 228 + 11] = NAME.encode()  # db, descrip, aux
    path.write_bytes(content)
    assert NAME.encode() in (folder / f"{NAME}.nrrd").read_bytes()
    return [f"{NAME}.{suffix}" for suffix in ("mha", "nrrd", "nii")]


def write_cohort(folder: Path) -> None:
    """Scans that can be used and scans that cannot, in folders and files that name the patient."""
    place = folder / NAME
    first = write_series(place / "good0" / NAME, everywhere=True).parent
    others = [shutil.copytree(first, place / f"good{index}") for index in range(1, N_GOOD)]
    images = [first.name, *(other.name for other in others), *write_files(place)]
    base = write_series(place / "base")
    for name, damage in BROKEN.items():
        damage(shutil.copytree(base, place / name))
        images.append(next(path.name for path in place.iterdir() if path.name.split(".")[0] == name))
    rows = pd.DataFrame({"scan": [f"s{index}" for index in range(len(images))]})
    rows = rows.assign(patient="p" + rows["scan"], image=[f"{NAME}/{image}" for image in images])
    rows["lung_cancer"] = [index % 2 for index in rows.index]
    rows["split"] = [
        ["train", "validation", "test"][min(index, 5) // 2] if index < N_GOOD else "train" for index in rows.index
    ]
    rows.to_csv(folder / "cohort.csv", index=False)


# ---------------------------------------------------------------- what is written about them


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """All that `check`, `prepare`, `verify`, `advise` and a study of one run write, in files and on the terminal."""
    top = tmp_path_factory.mktemp("user")
    folder = top / "hospital"
    folder.mkdir()
    write_cohort(folder)
    (top / "own.yaml").write_text(PARAMS.format(folder=folder), encoding="utf-8")
    (top / "results").mkdir()
    places = ["--cache-dir", str(top / "cache")]
    of_table = [str(folder / "cohort.csv"), "--params", str(top / "own.yaml"), "--out", str(top / "out"), *places]
    of_study = [str(top / "own.yaml"), "--results-dir", str(top / "results"), *places]
    commands = [
        *(["check", *of_table, "--workers", "1"], ["prepare", *of_table, "--workers", "1"], ["verify", *of_table]),
        ["advise", *of_table],
        *(["prepare", *of_study, "--workers", "1"], ["run", *of_study, "--run", "STL-s0"]),
    ]
    program = f"from lungmtl import cli\nprint([cli.main(command) for command in {commands}])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=False)
    (top / "results" / "terminal.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.stdout.splitlines()[-1:] == ["[1, 0, 1, 0, 0, 0]"], done.stderr
    return top


def files(written: Path) -> list[Path]:
    return [
        file for top in ("out", "cache", "results") for file in sorted((written / top).rglob("*")) if file.is_file()
    ]


def test_all_kinds_of_files_are_looked_at(written):
    names = {path.name for path in files(written)}
    assert names >= {"scans.csv", "shared.csv", "checked.jsonl", "report.html", "preparation.csv", "preparation.json"}
    assert "advice.json" in names
    assert names >= {"s0.png", "s0.npy", "s0.json", "terminal.txt"}
    assert names >= {"record.json", "notebook.ipynb", "run.log", "predictions.csv"}


def test_scans_that_can_be_used_are_and_the_others_have_their_reason(written):
    scans = pd.read_csv(written / "out" / "scans.csv")
    assert scans["verdict"].tolist()[: N_GOOD + 3] == ["look"] * (N_GOOD + 3)
    broken = scans[N_GOOD + 3 :].set_axis(list(BROKEN))
    assert broken.index[broken["verdict"] != "failed"].tolist() == ["ImageType"]  # of words without a meaning
    assert broken["reason"].drop("ImageType").str.match(r"[A-Z].*\. Found .*\.").all()
    assert re.search(r"a gap of 20.00 mm after slice 11 of 23 in file order", broken.loc["missing", "reason"])
    assert scans.loc[0, ["kernel", "contrast"]].tolist() == ["other", "yes"]


def test_the_headers_do_name_the_patient(written):
    one = pydicom.dcmread(file_of(written / "hospital" / NAME / "good0" / NAME, 0))
    assert str(one.PatientName) == NAME
    assert one.PatientBirthDate == BIRTH_DATE
    assert sum(NAME in str(element.value) for element in one) > 500


@pytest.mark.parametrize("secret", ["SECRET", "NAME", BIRTH_DATE, "hospital"])
def test_no_file_names_the_patient_or_a_folder(written, secret):
    pattern = re.compile(rf"(?<![A-Za-z_]){secret}(?![A-Za-z_])".encode(), 0 if secret == "NAME" else re.IGNORECASE)
    assert [path.name for path in files(written) if pattern.search(path.read_bytes())] == []
    assert [path for path in files(written) if secret in str(path.relative_to(written))] == []


def test_pictures_hold_pixels_alone(written):
    pictures = [path.read_bytes() for path in files(written) if path.suffix == ".png"]
    page = (written / "out" / "report.html").read_text(encoding="utf-8")
    pictures += [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([^\"']+)", page)]
    assert len(pictures) > N_GOOD + 3
    for png in pictures:
        assert set(chunks(png)) <= {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"pHYs", b"tEXt"}
        assert png.count(b"tEXt") == png.count(b"tEXtSoftware\0Matplotlib")


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
