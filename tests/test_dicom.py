"""DICOM series: read in the order of their positions, whatever the coding, or refused with the reason."""

import math
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, small_ct, write_slice
from pydicom import uid

from lungmtl.data.preparation import Preparation
from lungmtl.data.reading import read_volume
from lungmtl.data.tensor import prepare
from lungmtl.data.volume import ScanError
from lungmtl.sources.sample import SAMPLE, fetch_sample

CROPS = Path(__file__).parent / "data" / "lidc_crop"  # three slices; one folder per transfer syntax
N_SLICES = 8


def write_series(folder: Path, **tags: str) -> Path:
    """Write the first slices of `chest` as a DICOM series, 3 mm apart, the last file the lowest slice."""
    folder.mkdir(exist_ok=True)
    for index in range(N_SLICES):
        write_slice(folder / f"{N_SLICES - index:03d}.dcm", index, **tags)
    return folder


def test_a_series_is_read_in_the_order_of_its_positions(tmp_path):
    volume = read_volume(write_series(tmp_path / "series"))
    np.testing.assert_array_equal(volume.hu, chest().hu[4 : 4 + N_SLICES])
    assert volume.spacing_mm == pytest.approx((3.0, 0.75, 0.5))


def test_files_that_are_not_dicom_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "series")
    (folder / "LICENSE.txt").write_text("text", encoding="utf-8")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert read_volume(folder).hu.shape[0] == N_SLICES


@pytest.mark.parametrize("below", ["series", "study/series", "patient/study/series"])
def test_the_one_series_below_a_folder_is_found(tmp_path, below):
    """As archives export patients, with reports and other modalities in folders of their own."""
    (tmp_path / below).mkdir(parents=True)
    folder = write_series(tmp_path / below)
    write_series(folder.parent / "mr", t0008_0060="MR")
    (folder.parent / "notes").mkdir()
    (folder.parent / "notes" / "letter.txt").write_text("text", encoding="utf-8")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, chest().hu[4 : 4 + N_SLICES])


def test_a_localizer_in_a_folder_of_its_own_does_not_hide_the_series(tmp_path):
    localizer = write_series(tmp_path / "scout", t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER")
    with pytest.raises(ScanError, match=f"{N_SLICES} localizers among {N_SLICES} slices"):
        read_volume(localizer.parent)
    write_series(tmp_path / "series")
    np.testing.assert_array_equal(read_volume(tmp_path).hu, chest().hu[4 : 4 + N_SLICES])


def test_several_series_below_a_folder_are_counted_and_none_is_chosen(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b")
    (tmp_path / "b" / "001.dcm").unlink()
    with pytest.raises(ScanError, match=r"one series. Found 2 folders with CT below it, of 8, 7 files: name one"):
        read_volume(tmp_path)


def test_folders_beside_slices_are_passed_over(tmp_path):
    folder = write_series(tmp_path / "series")
    write_series(folder / "other")
    assert read_volume(folder).hu.shape[0] == N_SLICES


@pytest.mark.parametrize(
    ("tags", "technique"),
    [
        ({}, (120.0, "B30F", 3.0, "")),
        ({"t0018_1210": "Br40d\\3", "t0018_0060": "80"}, (80.0, "BR40D 3", 3.0, "")),
        ({"t0018_1210": "STANDARD", "t0018_0010": "Omnipaque 300"}, (120.0, "STANDARD", 3.0, "yes")),
        ({"t0018_1210": "FC51", "t0018_0010": "NONE"}, (120.0, "FC51", 3.0, "no")),
        ({"t0018_1210": "JOHN DOE", "t0018_0060": "none", "t0018_0050": ""}, (math.nan, "other", math.nan, "")),
        ({"t0018_1210": "19470813", "t0018_0060": "19470813"}, (math.nan, "other", 3.0, "")),
        ({"t0018_1210": "=B30f"}, (120.0, "other", 3.0, "")),
    ],
)
def test_how_a_scan_was_made_is_told_in_words_that_name_nobody(tmp_path, tags, technique):
    found = read_volume(write_series(tmp_path / "series", **{"t0018_0060": "120", **tags})).technique
    assert found == pytest.approx(technique, nan_ok=True)


def drop_two(folder):
    (folder / "004.dcm").unlink()
    (folder / "005.dcm").unlink()


def drop_every_second(folder):
    for index in range(1, N_SLICES, 2):
        (folder / f"{index:03d}.dcm").unlink()


def keep_one(folder):
    for index in range(2, N_SLICES + 1):
        (folder / f"{index:03d}.dcm").unlink()


def keep_none(folder):
    for file in folder.iterdir():
        file.unlink()


def repeat_a_position(folder):
    write_slice(folder / "100.dcm", 3)


def shift_a_slice(folder):
    write_slice(folder / "004.dcm", 4, z_mm=12.9)


def add_a_series(folder):
    write_slice(folder / "100.dcm", N_SLICES, t0020_000e="1.2.3.5", t0008_103e="Scout", t0008_0008="ORIGINAL\\PRIMARY")


def tilt(folder):
    for index in range(N_SLICES):
        write_slice(folder / f"{N_SLICES - index:03d}.dcm", index, y_mm=0.5 * index)


def turn_a_slice(folder):
    write_slice(folder / "004.dcm", 4, t0020_0037="1\\0\\0\\0\\0.98\\0.199")


def make_mr(folder):
    write_series(folder, t0008_0060="MR")


def cut_a_file(folder):
    (folder / "004.dcm").write_bytes((folder / "004.dcm").read_bytes()[:200])


def edit(folder: Path, change: Callable[[pydicom.Dataset], object], files: Iterable[int] = (4,)) -> None:
    """Change the datasets of some of a series' files."""
    for number in files:
        dataset = pydicom.dcmread(folder / f"{number:03d}.dcm")
        change(dataset)
        dataset.save_as(folder / f"{number:03d}.dcm")


ALL = range(1, N_SLICES + 1)


def two_names(folder):
    edit(folder, lambda slice_: setattr(slice_, "PatientName", "DOE^JANE"), ALL)
    edit(folder, lambda slice_: setattr(slice_, "PatientName", "ROE^JOHN"))


def setting(files: Iterable[int] = (4,), **values) -> Callable[[Path], None]:
    """Return a function that sets elements, or takes out those that are None."""

    def change(dataset: pydicom.Dataset) -> None:
        for name, value in values.items():
            if value is None:
                del dataset[name]
            elif name == "PixelPaddingValue":  # US or SS: pydicom cannot tell which
                dataset.add_new(name, "SS", value)
            else:
                setattr(dataset, name, value)

    return lambda folder: edit(folder, change, files)


def beside_the_stack(folder):
    edit(folder, lambda d: setattr(d, "ImagePositionPatient", [2.0, 0.0, d.ImagePositionPatient[2]]))


def cut_pixels(folder):
    (folder / "004.dcm").write_bytes((folder / "004.dcm").read_bytes()[:-100])


def empty_a_file(folder):
    (folder / "001.dcm").write_bytes(b"")


def nod(folder):
    c, s = math.cos(math.radians(10)), math.sin(math.radians(10))

    def change(dataset: pydicom.Dataset) -> None:
        dataset.ImagePositionPatient = [0.0, -s * dataset.ImagePositionPatient[2], c * dataset.ImagePositionPatient[2]]
        dataset.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, c, s]

    edit(folder, change, ALL)


def deflate(folder):
    dataset = pydicom.dcmread(folder / "004.dcm")
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    dataset.save_as(folder / "004.dcm", implicit_vr=False, little_endian=True)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (
            setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
            "Found 1 localizer among 8 slices, first slice 4 of 8",
        ),
        (setting(ImageType=["DERIVED", "SECONDARY", "MPR"]), "Found 1 derived image among 8 slices"),
        (setting(NumberOfFrames=3), "group for each frame. Found 0 for 3 frames, slice 4 of 8 in file order"),
        (setting(SOPClassUID=uid.EnhancedCTImageStorage), "group for each frame. Found 0 for 1 frame,"),
        (setting(PatientID="OTHER"), "must be of one patient. Found 2 values of PatientID, in 7, 1 slices"),
        (two_names, "must be of one patient. Found 2 values of PatientName, in 7, 1 slices."),
        (setting(ConvolutionKernel="B70f"), "must be of one kernel. Found 2 values of ConvolutionKernel, in 7, 1"),
        (setting(ImagePositionPatient=None), "must have ImagePositionPatient, 3 numbers. Found none, slice 4"),
        (setting(ImageOrientationPatient=None), "must have ImageOrientationPatient, 6 numbers"),
        (setting(ImageOrientationPatient=[1, 0, 0, 0, 2, 0]), "two unit vectors at a right angle"),
        (beside_the_stack, "stacked straight. Found slice 4 of 8 in file order 2.0 mm aside"),
        (nod, "Found an oblique one, by 10.0°"),
        (setting(PixelSpacing=None), "must have PixelSpacing, 2 numbers"),
        (setting(PixelSpacing=[0.75, 0.51]), "one PixelSpacing. Found"),
        (setting(RescaleSlope=None), "must have RescaleSlope, a number. Found none"),
        (setting(RescaleIntercept=None), "must have RescaleIntercept, a number"),
        (setting(RescaleSlope=0), "RescaleSlope must be positive. Found 0.0"),
        (setting(RescaleType="MGML"), "must be HU. Found RescaleType MGML"),
        (setting(PhotometricInterpretation="MONOCHROME1"), "must be MONOCHROME2, one sample each. Found MONOCHROME1"),
        (setting(SamplesPerPixel=3), "must be MONOCHROME2, one sample each"),
        (setting(BitsAllocated=8), "must have 16 bits"),
        (setting(HighBit=7), "must have 16 bits"),
        (setting(PixelRepresentation=2), "PixelRepresentation must be 0 or 1. Found 2"),
        (setting(ALL, BitsStored=10, HighBit=9), "must fit into BitsStored, 10 bits"),
        (setting(ALL, PixelRepresentation=0), "must be in HU"),  # air is bright
        (setting(ALL, RescaleIntercept=-1000, PixelPaddingValue=1040), "hold air and soft tissue"),
        (setting(ALL, Rows=60000, Columns=60000), r"Rows and Columns must be 2 to 4096. Found \[60000.0"),
        (setting(ALL, Rows=14), r"as many as Rows x Columns. Found 2016 of 1008 bytes"),
        (cut_pixels, "Pixels must be complete.* Found 1916 of 2016 bytes, slice 4 of 8"),
        (empty_a_file, "Found slice 1 of 8 in file order, which is not DICOM"),
        (deflate, "Found a deflated slice 4 of 8"),
        (setting(Modality="PT"), "modality CT. Found CT, PT"),
        (drop_two, "Found missing slices: a gap of 9.00 mm after slice 4 of 6 in file order, median 3.00 mm"),
        (drop_every_second, "Found missing slices: 6.00 mm from slice to slice, but 3.00 mm thick"),
        (keep_one, "Found a single slice"),
        (keep_none, "Found no DICOM file"),
        (repeat_a_position, "Found duplicate slices, the first is slice"),
        (shift_a_slice, "Found uneven spacing: a gap of"),
        (add_a_series, "one series. Found 2, of 8, 1 slices: keep one"),
        (tilt, "Found a gantry tilt of 9.5°"),
        (turn_a_slice, "one orientation"),
        (make_mr, "modality CT. Found MR"),
        (cut_a_file, "Every slice must be readable. Found slice 4 of 8"),
    ],
)
def test_a_broken_series_is_refused_with_its_reason(tmp_path, damage, reason):
    folder = write_series(tmp_path / "series")
    damage(folder)
    with pytest.raises(ScanError, match=reason):
        read_volume(folder)


def test_blank_parts_of_a_name_and_slices_without_one_are_no_other_patient(tmp_path):
    write_series(tmp_path)
    edit(tmp_path, lambda slice_: setattr(slice_, "PatientName", "DOE^JANE"), ALL[1:])
    edit(tmp_path, lambda slice_: setattr(slice_, "PatientName", "Doe^Jane^^"))

    assert len(read_volume(tmp_path).hu) == N_SLICES


def test_padding_that_looks_like_tissue_is_refused_where_it_fills_the_corner(tmp_path):
    folder = write_series(tmp_path / "series")
    for index in range(N_SLICES):
        edit(folder, lambda d: fill_corner(d, 50), [index + 1])
    with pytest.raises(ScanError, match=r"Padding must not look like tissue. Found padding of 50 HU"):
        read_volume(folder)


def fill_corner(dataset: pydicom.Dataset, value: int, *, tag: str = "SS") -> None:
    """Pad the first row."""
    array = dataset.pixel_array.copy()
    array[0] = value
    dataset.PixelData = array.tobytes()
    dataset.add(pydicom.DataElement("PixelPaddingValue", tag, value))


def test_bright_padding_is_air_and_an_idle_tag_changes_nothing(tmp_path):
    folder = write_series(tmp_path / "series")
    edit(folder, lambda d: fill_corner(d, 32000), [8])  # the lowest slice
    setting([7], PixelPaddingValue=40)(folder)
    wanted = chest().hu[4 : 4 + N_SLICES].copy()
    wanted[0, 0] = -1024
    np.testing.assert_array_equal(read_volume(folder).hu, wanted)


def test_padding_of_the_wrong_sign_is_air(tmp_path):
    """63536 is how a tag of unsigned type writes -2000, as GE's scanners do."""
    folder = write_series(tmp_path / "series")
    edit(folder, lambda d: fill_corner(d, -2000), [8])
    edit(folder, lambda d: d.add(pydicom.DataElement("PixelPaddingValue", "US", 63536)), [8])
    setting([8], PixelRepresentation=0)(folder)
    edit(folder, lambda d: store(d, np.uint16, intercept=0, row=63536), [8])
    assert (read_volume(folder).hu[0, 0] == -1024).all()


def store(dataset: pydicom.Dataset, kind: type, *, intercept: int, slope: float = 1.0, row: int | None = None) -> None:
    """Store a slice in another way that means the same HU; `row` is put in the first row as it is."""
    hu = pydicom.dcmread(dataset.filename).pixel_array.astype(np.int16).astype(int)
    stored = np.maximum((hu - intercept) / slope, np.iinfo(kind).min).astype(kind)
    if row is not None:
        stored[0] = row
    dataset.PixelData = stored.tobytes()
    dataset.PixelRepresentation = int(kind is np.int16)
    dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept


def test_slices_stored_in_different_ways_are_read_as_one_series(tmp_path):
    folder = write_series(tmp_path / "series")
    edit(folder, lambda d: store(d, np.uint16, intercept=-1024), [1, 2])
    edit(folder, lambda d: store(d, np.int16, intercept=-1000, slope=0.5), [3])
    setting([1, 2], BitsStored=12, HighBit=11)(folder)
    np.testing.assert_array_equal(read_volume(folder).hu, chest().hu[4 : 4 + N_SLICES])


def test_twelve_signed_bits_without_their_sign_above_are_read_as_signed(tmp_path):
    folder = write_series(tmp_path / "series")

    def change(dataset: pydicom.Dataset) -> None:
        dataset.PixelData = (dataset.pixel_array.astype(np.int16) & 0x0FFF).astype(np.int16).tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11

    edit(folder, change, ALL)
    np.testing.assert_array_equal(read_volume(folder).hu, chest().hu[4 : 4 + N_SLICES])


def test_mixed_transfer_syntaxes_and_a_missing_preamble_are_read(tmp_path):
    folder = write_series(tmp_path / "series")
    for number, syntax in ((1, uid.ExplicitVRLittleEndian), (2, uid.ImplicitVRLittleEndian), (3, uid.RLELossless)):
        dataset = pydicom.dcmread(folder / f"{number:03d}.dcm")
        array = dataset.pixel_array.astype(np.int16)
        dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        dataset.PixelData = array.tobytes()
        if syntax == uid.RLELossless:
            dataset.compress(syntax, generate_instance_uid=False)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(
            folder / f"{number:03d}.dcm", implicit_vr=syntax == uid.ImplicitVRLittleEndian, little_endian=True
        )
    swap_bytes(folder / "004.dcm")
    content = (folder / "002.dcm").read_bytes()
    (folder / "002.dcm").write_bytes(content[144 + struct.unpack_from("<I", content, 140)[0] :])  # data set alone
    np.testing.assert_array_equal(read_volume(folder).hu, chest().hu[4 : 4 + N_SLICES])


def swap_bytes(file: Path) -> None:
    dataset = pydicom.dcmread(file)
    big = pydicom.Dataset({element.tag: element for element in dataset if element.keyword != "PixelData"})
    big.PixelData = dataset.pixel_array.astype(">i2").tobytes()
    big.file_meta = dataset.file_meta
    big.file_meta.TransferSyntaxUID = uid.ExplicitVRBigEndian
    big["PixelData"].VR = "OW"
    big.save_as(file, implicit_vr=False, little_endian=False, enforce_file_format=True)


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_2000", "jpeg_ls", "rle"])
def test_compressed_slices_are_read_as_plain_ones(syntax):
    """The codes were written by other programs than those that read them here (tests/data/README.md)."""
    plain, packed = read_volume(CROPS / "plain"), read_volume(CROPS / syntax)
    np.testing.assert_array_equal(packed.hu, plain.hu)
    assert packed.spacing_mm == plain.spacing_mm == (2.5, 0.703125, 0.703125)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.50", r"known compression. Found JPEG Baseline"),
        (b"\x28\0\x10\0US\2\0\x40\0", b"\x28\0\x10\0US\2\0\x20\0", r"must be \(32, 64\), .* Found \(64, 64\)"),
        (b"\x28\0\x03\1US\2\0\1\0", b"\x28\0\x03\1US\2\0\0\0", r"PixelRepresentation must be that of the compr"),
    ],
)
def test_a_header_that_contradicts_its_compressed_pixels_is_refused(tmp_path, old, new, reason):
    for file in (CROPS / "jpeg_2000").iterdir():
        assert old in file.read_bytes()
        (tmp_path / file.name).write_bytes(file.read_bytes().replace(old, new))
    with pytest.raises(ScanError, match=reason):
        read_volume(tmp_path)


@pytest.mark.parametrize("syntax", ["jpeg_lossless", "jpeg_2000", "jpeg_ls", "rle"])
def test_damaged_compressed_pixels_are_refused_and_nothing_is_printed(tmp_path, capfd, syntax):
    shutil.copytree(CROPS / syntax, tmp_path / "scan")
    content = bytearray((tmp_path / "scan" / "2.dcm").read_bytes())
    content[-1000:-8] = b"\xff\xd9" * 496  # the end marker of JPEG; what is merely wrong has no checksum to show it
    (tmp_path / "scan" / "2.dcm").write_bytes(content)
    with pytest.raises(ScanError, match="Every slice must be readable"):
        read_volume(tmp_path / "scan")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "orientation",
    [(1, 0, 0, 0, 1, 0), (-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)],
)
def test_slices_of_every_plane_give_the_same_volume(tmp_path, orientation):
    """Axial, prone, seen from the head, sagittal and coronal."""
    image = sitk.GetImageFromArray(small_ct())
    image.SetSpacing((0.7, 0.9, 2.5))
    row, column = np.reshape(orientation, (2, 3))
    axes = [int(np.abs(way).argmax()) for way in (row, column, np.cross(row, column))]
    image = sitk.PermuteAxes(image, axes)
    signs = [way[axis] for way, axis in zip((row, column, np.cross(row, column)), axes, strict=True)]
    image = sitk.Flip(image, [bool(sign < 0) for sign in signs])
    folder = tmp_path / "series"
    folder.mkdir()
    for index in range(image.GetSize()[2]):
        one = image[:, :, index]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        header = {"t0020_0032": "\\".join(f"{p:.6f}" for p in position), "t0018_0050": str(image.GetSpacing()[2])}
        header["t0020_0037"] = "\\".join(map(str, orientation))
        write_slice(
            folder / f"{index + 1}.dcm", index, hu=sitk.GetArrayFromImage(one), pixel=one.GetSpacing(), **header
        )
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.hu, small_ct())
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 0.9, 0.7), rtol=1e-6)


def test_a_single_dicom_file_is_refused(tmp_path):
    folder = write_series(tmp_path / "series")
    with pytest.raises(ScanError, match=r"Found a single slice, or several, of DICOM: give its folder"):
        read_volume(folder / "001.dcm")


# ---------------------------------------------------------------- the same scan in two formats; time and memory

SPEC = Preparation(spacing_mm=(12.0, 12.0, 12.0), shape=(24, 24, 32), window_hu=(-1000.0, 400.0))


def as_nifti(folder: Path, path: Path) -> Path:
    """Let SimpleITK read a series and write it as NIfTI."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(reader.Execute(), str(path))
    return path


def test_a_series_and_its_nifti_give_the_same_tensor(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    for index, hu in enumerate(chest().hu):
        position = f"{-123.4}\\{-97.7}\\{-170.3 + 9.7 * index:.4f}"  # none of these a whole binary fraction
        write_slice(folder / f"{index:03d}.dcm", index, hu=hu, pixel=(10.3, 9.9), t0020_0032=position, t0018_0050="10")
    a, b = read_volume(folder), read_volume(as_nifti(folder, tmp_path / "scan.nii.gz"))
    assert a.spacing_mm == b.spacing_mm
    assert prepare(a, SPEC).tobytes() == prepare(b, SPEC).tobytes()


@pytest.fixture(scope="module")
def real_series(tmp_path_factory) -> Path:
    return fetch_sample(tmp_path_factory.mktemp("sample")).parent / SAMPLE


@pytest.mark.slow
def test_the_real_series_and_its_nifti_give_the_same_tensor_in_time(real_series, tmp_path):
    spec = Preparation(spacing_mm=(2.0, 2.0, 2.0), shape=(128, 128, 160), window_hu=SPEC.window_hu)
    start = time.process_time()
    tensor = prepare(read_volume(real_series), spec)
    assert time.process_time() - start < 1.5  # measured 0.6 s
    nifti = read_volume(as_nifti(real_series, tmp_path / "scan.nii"))
    assert tensor.tobytes() == prepare(nifti, spec).tobytes()


@pytest.mark.slow
def test_800_slices_are_prepared_in_1500_mb(tmp_path):
    hu = chest().hu.repeat(34, axis=0)[:800].repeat(19, axis=1)[:, :512].repeat(15, axis=2)[:, :, :512]
    for index, one in enumerate(hu):
        position = {"t0020_0032": f"0\\0\\{0.3 * index:.1f}", "t0018_0050": "0.3"}
        write_slice(tmp_path / f"{index:03d}.dcm", index, hu=one, pixel=(0.67, 0.53), **position)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, encoding="utf-8", check=True
    )
    assert float(done.stdout) < 1500  # MB; measured 780


MEASURE = """
import resource, sys
from lungmtl import data
preparation = data.Preparation(spacing_mm=(2, 2, 2), shape=(128, 128, 160), window_hu=(-1000, 400))
data.prepare(data.read_volume(sys.argv[1]), preparation)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""
