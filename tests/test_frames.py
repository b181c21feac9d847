"""Enhanced multi-frame CT: read as the slices that it holds, and refused by the rules that hold for them."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chests import chest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

from lungmtl.data.frames import frame_count
from lungmtl.data.reading import read_volume
from lungmtl.data.volume import ScanError

CROPS = Path(__file__).parent / "data" / "lidc_crop"  # three slices; one folder per transfer syntax
N_FRAMES = 8


def group(**sequences: Dataset | None) -> Dataset:
    """A functional group: every sequence with one item."""
    found = Dataset()
    for name, item in sequences.items():
        if item is not None:
            setattr(found, name, [item])
    return found


def item(**elements: object) -> Dataset:
    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return found


def enhanced() -> Dataset:
    """The first slices of `chest` as frames, 3 mm apart, the highest first."""
    hu = chest().hu[4 : 4 + N_FRAMES][::-1]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.EnhancedCTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    dataset.Modality, dataset.PatientID, dataset.SeriesInstanceUID = "CT", "P1", "1.2.3.4"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SharedFunctionalGroupsSequence = [
        group(
            PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
            PixelMeasuresSequence=item(PixelSpacing=[0.75, 0.5], SliceThickness=3.0),
            PixelValueTransformationSequence=item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU"),
            CTReconstructionSequence=item(ConvolutionKernel="Br40d\\3"),
            CTXRayDetailsSequence=item(KVP=100),
            ContrastBolusUsageSequence=item(ContrastBolusAgentAdministered="YES"),
        )
    ]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(PlanePositionSequence=item(ImagePositionPatient=[0, 0, 3.0 * (N_FRAMES - index)]))
        for index in range(N_FRAMES)
    ]
    dataset.PixelData = (hu + 1024).astype(np.int16).tobytes()
    return dataset


def save(dataset: Dataset, folder: Path, name: str = "1.dcm") -> Path:
    folder.mkdir(exist_ok=True)
    dataset.save_as(folder / name, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return folder


def test_frames_are_read_in_the_order_of_their_positions(tmp_path):
    volume = read_volume(save(enhanced(), tmp_path / "series"))
    np.testing.assert_array_equal(volume.hu, chest().hu[4 : 4 + N_FRAMES])
    assert volume.spacing_mm == pytest.approx((3.0, 0.75, 0.5))
    assert volume.technique == (100.0, "BR40D 3", 3.0, "yes")
    assert frame_count(tmp_path / "series" / "1.dcm") == N_FRAMES


def test_a_file_converted_from_slices_keeps_how_it_was_made(tmp_path):
    """As `highdicom.legacy` writes it: what has no group of its own in unassigned ones, the agent in the file."""
    dataset = enhanced()
    shared, frames = dataset.SharedFunctionalGroupsSequence[0], dataset.PerFrameFunctionalGroupsSequence
    for name in ("CTReconstructionSequence", "CTXRayDetailsSequence", "ContrastBolusUsageSequence"):
        del shared[name]
    shared.UnassignedSharedConvertedAttributesSequence = [item(KVP=100)]
    for frame in frames:
        frame.UnassignedPerFrameConvertedAttributesSequence = [item(ConvolutionKernel="B30f")]
    dataset.ContrastBolusAgent = "IV"
    assert read_volume(save(dataset, tmp_path / "series")).technique == (100.0, "B30F", 3.0, "yes")
    frames[2].UnassignedPerFrameConvertedAttributesSequence[0].ConvolutionKernel = "B70f"
    with pytest.raises(ScanError, match=r"one kernel. Found 2 values of ConvolutionKernel, in \d, \d slices"):
        read_volume(save(dataset, tmp_path / "series"))


def test_what_a_frame_says_of_itself_goes_before_what_all_share(tmp_path):
    dataset = enhanced()
    stored = np.frombuffer(dataset.PixelData, np.int16).reshape(N_FRAMES, -1).copy()
    stored[2] -= 24  # frame 3 has another intercept
    dataset.PixelData = stored.tobytes()
    dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence = [
        item(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU")
    ]
    np.testing.assert_array_equal(read_volume(save(dataset, tmp_path / "series")).hu, chest().hu[4 : 4 + N_FRAMES])


@pytest.mark.parametrize("n_first", [3, 7])
def test_frames_of_one_series_in_two_files_are_one_volume(tmp_path, n_first):
    for name, part in (("1.dcm", slice(n_first)), ("2.dcm", slice(n_first, N_FRAMES))):
        save(cut(enhanced(), part), tmp_path / "series", name)
    np.testing.assert_array_equal(read_volume(tmp_path / "series").hu, chest().hu[4 : 4 + N_FRAMES])


def cut(dataset: Dataset, part: slice | list[int]) -> Dataset:
    """Keep some frames."""
    places = list(range(N_FRAMES))[part] if isinstance(part, slice) else part
    stored = np.frombuffer(dataset.PixelData, np.int16).reshape(N_FRAMES, -1)
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [copy.deepcopy(groups[place]) for place in places]
    dataset.NumberOfFrames, dataset.PixelData = len(places), stored[places].tobytes()
    return dataset


@pytest.mark.parametrize(
    ("syntax", "has_table"), [("rle", True), ("rle", False), ("jpeg_2000", True), ("jpeg_ls", False)]
)
def test_compressed_frames_are_read_as_compressed_slices(tmp_path, syntax, has_table):
    """Frames of the code that other programs wrote for slices (tests/data/README.md), with and without offsets."""
    slices = [pydicom.dcmread(file) for file in sorted((CROPS / syntax).iterdir())]
    codes = [pydicom.encaps.get_frame(one.PixelData, 0, number_of_frames=1) for one in slices]
    dataset = enhanced()
    for name in ("Rows", "Columns", "BitsStored", "HighBit", "PixelRepresentation"):
        setattr(dataset, name, slices[0][name].value)
    dataset.NumberOfFrames = len(slices)
    dataset.file_meta.TransferSyntaxUID = slices[0].file_meta.TransferSyntaxUID
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = [item(PixelSpacing=slices[0].PixelSpacing, SliceThickness=2.5)]
    shared.PixelValueTransformationSequence = [
        item(RescaleSlope=one.RescaleSlope, RescaleIntercept=one.RescaleIntercept) for one in slices[:1]
    ]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=slices[0].ImageOrientationPatient)]
    dataset.PerFrameFunctionalGroupsSequence = [
        group(PlanePositionSequence=item(ImagePositionPatient=one.ImagePositionPatient)) for one in slices
    ]
    dataset.PixelData = pydicom.encaps.encapsulate(codes, has_bot=has_table)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    wanted, found = read_volume(CROPS / syntax), read_volume(save(dataset, tmp_path / "series"))
    np.testing.assert_array_equal(found.hu, wanted.hu)
    assert found.spacing_mm == wanted.spacing_mm


def own(place: int, sequence: str, **elements: object) -> Callable[[Dataset], None]:
    """Return a function that gives one frame a group of its own."""
    return lambda dataset: setattr(dataset.PerFrameFunctionalGroupsSequence[place], sequence, [item(**elements)])


def shared(sequence: str, **elements: object) -> Callable[[Dataset], None]:
    """Return a function that changes a group that all frames share; without elements it takes it out."""

    def change(dataset: Dataset) -> None:
        if elements:
            setattr(dataset.SharedFunctionalGroupsSequence[0], sequence, [item(**elements)])
        else:
            del dataset.SharedFunctionalGroupsSequence[0][sequence]

    return change


def tilt(dataset: Dataset) -> None:
    for index, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0.5 * index, 3.0 * index]


def without_position(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[4].PlanePositionSequence
    dataset.ImagePositionPatient = [0, 0, 12]  # has no meaning here


def setting(**elements: object) -> Callable[[Dataset], None]:
    return lambda dataset: dataset.update(item(**elements))


POSITION, TRANSFORMATION = "PlanePositionSequence", "PixelValueTransformationSequence"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda d: cut(d, [0, 1, 2, 5, 6, 7]), "missing slices: a gap of 9.00 mm after frame 4 of 6, median 3.00 mm"),
        (lambda d: cut(d, [0, 2, 4, 6]), "missing slices: 6.00 mm from slice to slice, but 3.00 mm thick"),
        (lambda d: cut(d, [0, 1, 2, 2, 3, 4]), "Found duplicate slices, the first is frame [34] of 6"),
        (lambda d: cut(d, [0]), "at least two slices"),
        (own(3, POSITION, ImagePositionPatient=[0, 0, 15.9]), "Found uneven spacing: a gap of"),
        (own(3, POSITION, ImagePositionPatient=[2, 0, 15]), "stacked straight. Found frame 4 of 8 2.0 mm aside"),
        (tilt, "Found a gantry tilt of 9.5°"),
        (without_position, "must have ImagePositionPatient, 3 numbers. Found none, frame 5 of 8"),
        (shared("PlaneOrientationSequence"), "must have ImageOrientationPatient, 6 numbers. Found none, frame 1 of 8"),
        (own(2, "PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 0.98, 0.199]), "one orientation"),
        (shared("PixelMeasuresSequence"), "must have PixelSpacing, 2 numbers"),
        (own(2, "PixelMeasuresSequence", PixelSpacing=[0.75, 0.51], SliceThickness=3), "one PixelSpacing. Found"),
        (shared(TRANSFORMATION), "must have RescaleSlope, a number. Found none, frame 1 of 8"),
        (own(2, TRANSFORMATION, RescaleSlope=0, RescaleIntercept=0), "RescaleSlope must be positive. Found 0.0, "),
        (own(2, TRANSFORMATION, RescaleSlope=1, RescaleIntercept=0, RescaleType="Z_EFF"), "Found RescaleType Z_EFF"),
        (own(2, "CTReconstructionSequence", ConvolutionKernel="Br64"), "one kernel. Found 2 values .* in 7, 1 slices"),
        (
            own(2, "CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]),
            "1 localizer amo",
        ),
        (setting(ImageType=["DERIVED", "SECONDARY", "VOLUME", "NONE"]), "8 derived images among 8 slices"),
        (setting(NumberOfFrames=9), "a functional group for each frame. Found 8 for 9 frames, slice 1 of 1"),
        (setting(NumberOfFrames=100000000), "must have NumberOfFrames, a number. Found something else"),
        (setting(PerFrameFunctionalGroupsSequence=[]), "Found 0 for 8 frames"),
        (setting(Rows=14), "Pixels must be complete and as many as Rows x Columns. Found 16128 of 8064 bytes"),
        (setting(PixelData=b"\0\0"), "Pixels must be complete"),
        (setting(BitsAllocated=8), "must have 16 bits"),
        (setting(Modality="MR"), "modality CT. Found MR"),
    ],
)
def test_broken_frames_are_refused_as_broken_slices_are(tmp_path, damage, reason):
    dataset = enhanced()
    damage(dataset)
    with pytest.raises(ScanError, match=reason):
        read_volume(save(dataset, tmp_path / "series"))


def test_damaged_bytes_of_a_header_are_refused_or_change_nothing(tmp_path):
    """As in test_fuzz, on one file with nested groups."""
    save(enhanced(), tmp_path / "series")
    file, rng = tmp_path / "series" / "1.dcm", np.random.default_rng(0)
    content = file.read_bytes()
    start = content.index(b"\xe0\x7f\x10\x00")
    reasons = []
    for _ in range(100):
        damaged = bytearray(content)
        for place in rng.integers(132, start, size=3):
            damaged[place] = rng.integers(256)
        file.write_bytes(damaged)
        try:
            assert read_volume(tmp_path / "series").hu.shape[1:] == chest().hu.shape[1:]
        except ScanError as error:
            reasons.append(str(error))
    assert len(reasons) > 50
    assert not [reason for reason in reasons if str(tmp_path) in reason]
