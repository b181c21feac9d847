"""Mutated DICOM series: each is refused with a reason or read as the volume it was, and none ends the reader."""

import multiprocessing
import resource
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
import pytest

from lungmtl.data.dicom import GAP_TOLERANCE
from lungmtl.data.reading import read_volume
from lungmtl.data.volume import ScanError, Volume
from lungmtl.sources.sample import fetch_sample

CROPS = Path(__file__).parent / "data" / "lidc_crop"  # three slices; one folder per transfer syntax
LIMIT_S = 60  # for one mutant, which takes 10 ms: many times what a busy machine needs
LIMIT_GB = 1.5  # of the reader's memory, all in all
VALUES = ("RescaleSlope", "RescaleIntercept", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue")
ODD_TEXTS = ("", "0", "-1", "nan", "inf", "1e400", "1\\2\\3\\4\\5\\6\\7", "abc", "0,7", "65535", "999999999999")
TEXT_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept")
ODD_NUMBERS = (0, 1, 2, 7, 8, 12, 32, 60000, 65535)
NUMBER_TAGS = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel")


class Mutant(NamedTuple):
    """A folder with a series, what was done to it, and what of the original is still told: None for all slices."""

    folder: Path
    what: str
    kept: list[int] | None = None  # slices left, by their order along z
    changed: int | None = None  # the slice whose voxels may differ


# ---------------------------------------------------------------- a reader that may die


class Reader:
    """A process that reads volumes; one that dies or does not answer is noticed and started again."""

    def __init__(self) -> None:
        self._start()

    def read(self, folder: Path) -> Volume | str:
        """Volume, or the reason of a refusal; raises AssertionError on anything else."""
        try:
            self.pipe.send(folder)
            answer = self.pipe.recv() if self.pipe.poll(LIMIT_S) else AssertionError(f"no answer in {LIMIT_S} s")
        except (EOFError, ConnectionError):
            self.process.join()
            answer = AssertionError(f"the reader died, exit code {self.process.exitcode}")
        if isinstance(answer, AssertionError):
            self.close()
            self._start()
            raise answer
        if isinstance(answer, Exception):
            raise AssertionError(f"{type(answer).__name__} instead of a reason: {answer}")
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=answer_all, args=(other,), daemon=True)
        self.process.start()
        other.close()


def answer_all(pipe) -> None:
    """Read every folder that is asked for, within the memory limit."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            answer = read_volume(pipe.recv())
        except EOFError:
            return
        except ScanError as error:
            answer = str(error)
        except Exception as error:
            answer = RuntimeError(repr(error))
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > LIMIT_GB * 1e6:  # kB
            answer = MemoryError("the reader took too much memory")
        pipe.send(answer)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def test_a_reader_that_dies_hangs_or_fails_is_noticed(reader, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "LIMIT_S", 0)
    with pytest.raises(AssertionError, match="no answer in 0 s"):
        reader.read(CROPS / "plain")
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="FileNotFoundError"):
        reader.read(tmp_path / "gone")
    reader.process.kill()
    with pytest.raises(AssertionError, match="died, exit code -9"):
        reader.read(CROPS / "plain")
    assert reader.read(CROPS / "plain").hu.shape == (3, 64, 64)


# ---------------------------------------------------------------- mutations of one series, sorted along z


def bytes_in_header(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """Up to eight random bytes in one header."""
    at = int(rng.integers(len(files)))
    content, start = bytearray(files[at].read_bytes()), element_offsets(files[at])
    places = rng.integers(0, start["PixelData"][0] + 12, size=rng.integers(1, 9))
    for place in places:
        content[place] = rng.integers(256)
    files[at].write_bytes(content)
    return Mutant(folder, f"bytes {places.tolist()} of slice {at}", changed=touched(start, places, at))


def length_of_an_element(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """Another length, huge ones too, for one element."""
    at = int(rng.integers(len(files)))
    content, start = bytearray(files[at].read_bytes()), element_offsets(files[at])
    name = list(start)[rng.integers(len(start))]
    place = start[name][1]
    length = int(rng.choice([0, 1, 3, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFE, int(rng.integers(2**32))]))
    width = 4 if name == "PixelData" else 2
    content[place : place + width] = (length % 256**width).to_bytes(width, "little")
    files[at].write_bytes(content)
    return Mutant(folder, f"length {length} of {name} in slice {at}", changed=at if name in VALUES else None)


def piece_of_header(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """A piece of one header taken out or repeated."""
    at = int(rng.integers(len(files)))
    content, start = files[at].read_bytes(), element_offsets(files[at])
    first = int(rng.integers(132, start["PixelData"][0]))
    last = first + int(rng.integers(1, 200))
    is_out = bool(rng.integers(2))
    files[at].write_bytes(content[:first] + content[last:] if is_out else content[:last] + content[first:])
    return Mutant(folder, f"{'no' if is_out else 'twice'} {first}:{last} in slice {at}", changed=at)


def cut_off(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """One file cut off, in its header as often as in its pixels."""
    at = int(rng.integers(len(files)))
    content, start = files[at].read_bytes(), element_offsets(files[at])
    end = int(rng.integers(len(content) if rng.integers(2) else start["PixelData"][0]))
    files[at].write_bytes(content[:end])
    return Mutant(folder, f"slice {at} ends at {end}")


def odd_value(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """A value in the right place that makes no sense, in one slice."""
    at = int(rng.integers(len(files)))
    is_text = bool(rng.integers(2))
    name = str(rng.choice(TEXT_TAGS if is_text else NUMBER_TAGS))
    value = str(rng.choice(ODD_TEXTS)) if is_text else int(rng.choice(ODD_NUMBERS))
    set_value(files[at], name, value)
    return Mutant(folder, f"{name} {value!r} in slice {at}", changed=at if name in VALUES else None)


def odd_value_everywhere(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """A size, or a number of bits, that is not that of the pixels, in all slices."""
    name, value = str(rng.choice(NUMBER_TAGS[:4])), int(rng.choice([0, 1, 13, 30000, 65535]))
    for file in files:
        set_value(file, name, value)
    return Mutant(folder, f"{name} {value} in all slices")


def names_in_another_order(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """The same files under names in another order."""
    for index, place in enumerate(rng.permutation(len(files))):
        files[index].rename(folder / f"x{place:03d}.dcm")
    return Mutant(folder, "other names")


def slices_gone(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """Some slices taken away; what is left is a series only without holes."""
    gone = set(rng.choice(len(files), size=int(rng.integers(1, len(files))), replace=False).tolist())
    for index in gone:
        files[index].unlink()
    return Mutant(folder, f"without slices {sorted(gone)}", kept=[i for i in range(len(files)) if i not in gone])


def a_slice_twice(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """One slice a second time, or in another's place."""
    one, other = rng.choice(len(files), size=2, replace=False).tolist()
    shutil.copyfile(files[one], folder / "copy.dcm" if rng.integers(2) else files[other])
    return Mutant(folder, f"slice {one} twice")


def a_slice_elsewhere(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """One slice moved by a millimetre to a metre, in a random direction."""
    at = int(rng.integers(len(files)))
    way = rng.normal(size=3)
    way *= 10 ** rng.uniform(0, 3) / np.abs(way).max()
    position = [round(float(a + b), 4) for a, b in zip(header(files[at]).ImagePositionPatient, way, strict=True)]
    set_value(files[at], "ImagePositionPatient", "\\".join(str(p) for p in position))
    return Mutant(folder, f"slice {at} moved by {way}")


def bytes_in_pixels(folder: Path, files: list[Path], rng: np.random.Generator) -> Mutant:
    """Random bytes in the coded pixels of one slice."""
    at = int(rng.integers(len(files)))
    content, start = bytearray(files[at].read_bytes()), element_offsets(files[at])["PixelData"][0]
    end = min(len(content), start + int(rng.choice([200, 10**9])))  # the coded image's own header as often as the rest
    for place in rng.integers(start + 12, end, size=rng.integers(1, 30)):
        content[place] = rng.integers(256)
    files[at].write_bytes(content)
    return Mutant(folder, f"bytes in the pixels of slice {at}", changed=at)


MUTATIONS = (
    *(bytes_in_header, bytes_in_header, length_of_an_element, length_of_an_element, piece_of_header, cut_off),
    *(odd_value, odd_value, odd_value_everywhere, names_in_another_order, slices_gone, a_slice_twice),
    *(a_slice_elsewhere, bytes_in_pixels),
)


def header(file: Path) -> pydicom.Dataset:
    return pydicom.dcmread(file, stop_before_pixels=True)


def element_offsets(file: Path) -> dict[str, tuple[int, int]]:
    """Where each element of an explicit little-endian file starts, and where its length stands."""
    offsets = {}
    with file.open("rb") as stream:
        stream.seek(144 + header(file).file_meta.FileMetaInformationGroupLength)
        for element in pydicom.filereader.data_element_generator(stream, False, True):
            is_long = element.VR in ("OB", "OW", "SQ", "UN", "UT")
            start = element.value_tell - (12 if is_long else 8)
            offsets[pydicom.datadict.keyword_for_tag(element.tag) or str(element.tag)] = (
                start,
                start + is_long * 2 + 6,
            )
    return offsets


def touched(start: dict[str, tuple[int, int]], places: np.ndarray, at: int) -> int | None:
    """The slice, where a byte of an element that says what voxels mean was hit."""
    firsts = [first for first, _ in start.values()]
    ends = dict(zip(start, [*firsts[1:], 2**31], strict=True))
    hit = any(start[name][0] <= place < ends[name] for name in VALUES if name in start for place in places)
    return at if hit else None


def set_value(file: Path, name: str, value: str | int) -> None:
    """Set a value as bytes, whatever it is."""
    dataset = pydicom.dcmread(file)
    content = struct.pack("<H", value) if isinstance(value, int) else value.encode().ljust(len(value) + len(value) % 2)
    tag = pydicom.tag.Tag(name)
    vr = "US" if isinstance(value, int) else "DS"
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(content), content, 0, False, True)
    dataset.save_as(file)


# ---------------------------------------------------------------- what must hold


def mutate(source: Path, folder: Path, seed: int) -> Mutant:
    """Copy a series and do one thing to it."""
    rng = np.random.default_rng(seed)
    shutil.copytree(source, folder)
    files = sorted(folder.glob("*.dcm"), key=lambda file: float(header(file).ImagePositionPatient[2]))
    return MUTATIONS[seed % len(MUTATIONS)](folder, files, rng)


def check(answer: Volume | str, mutant: Mutant, whole: Volume) -> None:
    """Check that an answer is a reason, or the volume that was there before the mutation."""
    if isinstance(answer, str):
        assert str(mutant.folder.parent) not in answer, f"a reason must name no path: {answer}"
        return
    kept = mutant.kept or list(range(len(whole.hu)))
    assert np.diff(kept).tolist() == [1] * (len(kept) - 1), f"read with a hole: {mutant.what}"
    assert answer.hu.shape == (len(kept), *whole.hu.shape[1:]), mutant.what
    gap_tolerance = GAP_TOLERANCE / (len(kept) - 1) + 1e-6  # of a slice at an end, in its mean gap
    np.testing.assert_allclose(answer.spacing_mm[0], whole.spacing_mm[0], rtol=gap_tolerance, err_msg=mutant.what)
    np.testing.assert_allclose(answer.spacing_mm[1:], whole.spacing_mm[1:], rtol=2e-4, err_msg=mutant.what)
    same = [index for index in kept if index != mutant.changed]
    np.testing.assert_array_equal(
        answer.hu[np.subtract(same, kept[0])], whole.hu[same], err_msg=f"wrong voxels: {mutant.what}"
    )


FOUND = (5837, 5034, 5104, 6413)  # crashed GDCM; cropped RLE without a word, twice; had no reason
SYNTAXES = ("plain", "jpeg_lossless", "jpeg_2000", "jpeg_ls", "rle")


@pytest.mark.parametrize("seed", [*range(70), *FOUND])
def test_a_mutated_series_is_refused_or_read_as_it_was(reader, tmp_path, seed):
    source = CROPS / SYNTAXES[seed // len(MUTATIONS) % len(SYNTAXES)]
    mutant = mutate(source, tmp_path / "scan", seed)
    check(reader.read(mutant.folder), mutant, read_volume(source))


@pytest.fixture(scope="module")
def real_slices(tmp_path_factory) -> Path:
    """Nine slices of the real series through the lungs, 512 x 512."""
    folder = tmp_path_factory.mktemp("sample")
    fetch_sample(folder)
    part = tmp_path_factory.mktemp("part")
    files = sorted(folder.rglob("*.dcm"), key=lambda file: float(header(file).ImagePositionPatient[2]))
    for file in files[60:69]:
        shutil.copyfile(file, part / file.name)
    return part


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1280))
def test_a_mutated_real_series_is_refused_or_read_as_it_was(reader, real_slices, tmp_path, seed):
    mutant = mutate(real_slices, tmp_path / "scan", seed)
    check(reader.read(mutant.folder), mutant, read_volume(real_slices))
