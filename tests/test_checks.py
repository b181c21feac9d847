"""Every scan gets measures, a picture and a verdict; a cohort's leaks, mix and broken files are named."""

import io
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chests import chest, save, write_slice
from PIL import Image

from lungmtl.data.checks import CHECK_MEASURES, JOURNAL, check_cohort, check_scans
from lungmtl.data.cohort import exclude_failed, read_cohort
from lungmtl.data.images import stamp
from lungmtl.data.inventory import mix, shared
from lungmtl.data.labels import label_table
from lungmtl.data.lungs import lung_mask
from lungmtl.data.reading import read_volume
from lungmtl.data.splits import assign_splits
from lungmtl.data.thumbnails import OUTLINE_RGB, gallery, thumbnail
from lungmtl.data.verify import verify_images, verify_prepared
from lungmtl.data.volume import Technique, Volume
from lungmtl.experiments import TASKS

REAL = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
SPLITS = ["train", "train", "validation", "test"]


@pytest.fixture(autouse=True)
def thick_slices_are_usual(monkeypatch):
    """The slices of `chest` are 10 mm thick."""
    monkeypatch.setattr("lungmtl.data.plausibility.MAX_SLICE_MM", 12)


def table(*scans: str, **columns) -> pd.DataFrame:
    """A correct cohort as `read_cohort` gives it: one patient per scan, lung cancer in every second scan."""
    frame = pd.DataFrame({"scan": scans, "patient": [f"patient-{scan}" for scan in scans]})
    frame["image"] = [f"{scan}.nii.gz" for scan in scans]
    frame = frame.assign(split="train", excluded="", **{task: np.arange(len(scans)) % 2.0 for task in TASKS})
    return frame.assign(**columns)


def check(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    found = check_scans(frame, folder, out=folder / "out", progress=False)
    return found.set_index("scan")


def measured(*scans: str, voxels: list[str] | None = None, **columns) -> pd.DataFrame:
    """What `check_scans` would give of good scans."""
    frame = pd.DataFrame({"scan": scans, "voxels": voxels or [f"hash of {scan}" for scan in scans]})
    return frame.assign(verdict="ok", reason="", **columns)


# ---------------------------------------------------------------- one scan


def test_a_scan_is_measured(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    row = check(tmp_path, table("a")).loc["a"]
    assert (row.verdict, row.reason) == ("ok", "")
    assert row[["n_slices", "n_rows", "n_columns"]].tolist() == [24, 28, 36]
    assert row[["slice_mm", "pixel_mm", "length_mm"]].tolist() == [10, 10, 240]
    assert row[["hu_min", "hu_p01", "hu_p50", "hu_p99", "hu_max"]].tolist() == [
        -1000,
        -1000,
        -850,
        40,
        40,
    ]  # 40 % air, 10 % lung
    assert row.lung_volume_l == pytest.approx(2.4, abs=0.05)  # two boxes of 12 x 10 x 10 voxels of 1 mL
    assert row[["lung_p50", "lung_z_mm", "below_mm", "above_mm"]].tolist() == [-850, 120, 60, 60]


def test_the_larger_pixel_side_and_the_order_of_axes_are_kept(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz", spacing_mm=(12.0, 9.0, 10.0))
    assert check(tmp_path, table("a")).loc["a", ["slice_mm", "pixel_mm", "length_mm"]].tolist() == [12, 10, 288]


def test_scans_that_cannot_be_used_are_named_and_never_stop_the_others(tmp_path):
    save(chest().hu, tmp_path / "good.nii.gz")
    save(np.where(chest().hu == -850, 40, chest().hu).astype(np.int16), tmp_path / "solid.nii.gz")
    (tmp_path / "torn.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes()[:500])
    (tmp_path / "empty.nii.gz").touch()
    found = check(tmp_path, table("torn", "gone", "solid", "empty", "good"))
    assert found["verdict"].tolist() == ["failed", "failed", "failed", "failed", "ok"]
    assert re.search("must exist and be readable. Found none", found.loc["gone", "reason"])
    assert re.search("at least 0.2 L of lung", found.loc["solid", "reason"])
    assert found.loc["solid", "n_slices"] == 24  # it was read, and its picture shows what it is
    assert sorted(file.stem for file in (tmp_path / "out" / "thumbnails").iterdir()) == ["good", "solid"]


def test_an_excluded_scan_is_not_checked(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    assert check(tmp_path, table("b", "a", excluded=["motion", ""])).index.tolist() == ["a"]


def test_a_scan_of_another_length_than_the_table_says_is_worth_a_look(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    save(chest().hu, tmp_path / "b.nii.gz")
    found = check(tmp_path, table("a", "b", n_slices=["30", ""]))
    assert found["verdict"].tolist() == ["look", "ok"]
    assert found.loc["a", "reason"] == "The table says 30 slices, the image has 24."


@pytest.mark.parametrize(
    ("part", "reason"),
    [(slice(6, None), "The lungs reach the lowest slice"), (slice(None, 18), "The lungs reach the highest slice")],
)
def test_lungs_that_are_cut_off_are_worth_a_look(tmp_path, part, reason):
    save(chest().hu[part], tmp_path / "a.nii.gz")
    row = check(tmp_path, table("a")).loc["a"]
    assert row.verdict == "look"
    assert row.reason.startswith(reason)


def test_lungs_of_strange_density_are_worth_a_look(tmp_path):
    save(np.where(chest().hu == -850, -450, chest().hu).astype(np.int16), tmp_path / "a.nii.gz")
    row = check(tmp_path, table("a")).loc["a"]
    assert (row.verdict, row.reason) == ("look", "The lungs' median is -450 HU, not -960 to -500.")


def test_thick_slices_are_worth_a_look(tmp_path, monkeypatch):
    monkeypatch.setattr("lungmtl.data.plausibility.MAX_SLICE_MM", 5)
    save(chest().hu, tmp_path / "a.nii.gz")
    row = check(tmp_path, table("a")).loc["a"]
    assert (row.verdict, row.reason) == ("look", "Slices lie 10.0 mm apart, over 5 mm.")


def test_identical_voxels_have_one_hash(tmp_path):
    other = chest().hu.copy()
    other[0, 0, 0] += 1
    for name, hu in (("a", chest().hu), ("b", chest().hu), ("c", other)):
        save(hu, tmp_path / f"{name}.nii.gz")
    voxels = check(tmp_path, table("a", "b", "c"))["voxels"]
    assert voxels["a"] == voxels["b"] != voxels["c"]


# ---------------------------------------------------------------- going on


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """Names of the images read since the test began."""
    names = []
    monkeypatch.setattr(
        "lungmtl.data.checks.read_volume", lambda path: names.append(Path(path).name) or read_volume(path)
    )
    return names


def test_a_scan_whose_image_did_not_change_is_not_read_again(tmp_path, reads):
    frame = table("a", "b")
    save(chest().hu, tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").touch()  # cannot be used, which stays so
    first = check(tmp_path, frame)
    second = check(tmp_path, frame)
    assert reads == ["a.nii.gz", "b.nii.gz"]
    pd.testing.assert_frame_equal(first, second)
    save(chest().hu, tmp_path / "b.nii.gz")
    assert check(tmp_path, frame)["verdict"].tolist() == ["ok", "ok"]
    assert reads == ["a.nii.gz", "b.nii.gz", "b.nii.gz"]


def test_a_slice_that_was_taken_out_is_a_change(tmp_path):
    for index in range(3):
        (tmp_path / f"{index}.dcm").write_bytes(b"0")
    before = stamp(tmp_path)
    (tmp_path / "1.dcm").unlink()
    assert stamp(tmp_path) != before


def test_other_code_reads_again(tmp_path, reads, monkeypatch):
    save(chest().hu, tmp_path / "a.nii.gz")
    check(tmp_path, table("a"))
    monkeypatch.setattr("lungmtl.data.checks.code_key", lambda entry: "another version")
    check(tmp_path, table("a"))
    assert len(reads) == 2


def test_a_killed_call_loses_only_the_scan_under_way(tmp_path, reads):
    frame = table("a", "b")
    for scan in frame["scan"]:
        save(chest().hu, tmp_path / f"{scan}.nii.gz")
    check(tmp_path, frame)
    journal = tmp_path / "out" / JOURNAL
    journal.write_text(journal.read_text(encoding="utf-8")[:-40], encoding="utf-8")  # cut off in the line of b
    reads.clear()
    check(tmp_path, frame)
    assert reads == ["b.nii.gz"]
    assert [json.loads(line)["scan"] for line in journal.read_text(encoding="utf-8").splitlines()] == ["a", "b"]


def test_a_thumbnail_that_was_deleted_is_drawn_again(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    check(tmp_path, table("a"))
    (tmp_path / "out/thumbnails/a.png").unlink()
    check(tmp_path, table("a"))
    assert (tmp_path / "out/thumbnails/a.png").is_file()


def test_two_processes_find_what_one_does(tmp_path, monkeypatch):
    frame = table("a", "b", "c")
    for scan in ("a", "b"):
        save(chest().hu, tmp_path / f"{scan}.nii.gz")
    one = check_scans(frame, tmp_path, out=tmp_path / "one", progress=False)
    monkeypatch.setattr("lungmtl.data.checks.BYTES_PER_WORKER", 1)
    two = check_scans(frame, tmp_path, out=tmp_path / "two", workers=2, progress=False)
    pd.testing.assert_frame_equal(one, two)
    assert two["verdict"].tolist() == ["ok", "ok", "failed"]


# ---------------------------------------------------------------- thumbnails


def drawn(volume: Volume, lungs: np.ndarray | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(thumbnail(volume, lungs))).convert("RGB")).astype(int)


def outline(pixels: np.ndarray) -> np.ndarray:
    return (pixels == OUTLINE_RGB).all(axis=2)


def test_a_thumbnail_outlines_the_lungs_and_no_more():
    pixels = drawn(chest(), lung_mask(chest()))
    assert pixels.shape == (144, 288, 3)
    assert 100 < outline(pixels).sum() < 2000
    assert outline(drawn(chest(), None)).sum() == 0


def test_the_head_is_up_and_the_patients_left_is_on_the_right():
    hu = np.full((30, 30, 30), 40, dtype=np.int16)
    hu[20:, :, 20:] = -1000  # high and left
    coronal = drawn(Volume(hu, (10.0, 10.0, 10.0)), None)[:, :144].mean(axis=2)
    dark = np.argwhere(coronal[22:122, 22:122] < 60).mean(axis=0)  # of the volume's 300 mm, 2.5 mm a pixel
    assert dark[0] < 50 < dark[1]


def test_a_thumbnail_of_a_real_scan_is_small():
    volume = read_volume(REAL)
    assert 5_000 < len(thumbnail(volume, lung_mask(volume))) < 20_000


def test_a_thumbnail_says_nothing_but_its_pixels():
    assert Image.open(io.BytesIO(thumbnail(chest(), None))).info == {}


# ---------------------------------------------------------------- the cohort


def test_a_patient_in_two_splits_is_a_leak_though_spelled_differently(tmp_path):
    frame = table("a", "b", "c", "d", patient=["P1", "p1", "P2", "P2"], split=["train", "test", "train", "train"])
    found = shared(frame, measured("a", "b", "c", "d"), tmp_path)
    assert found[["what", "scans", "splits", "leaks"]].to_numpy().tolist() == [
        ["the same patient", "a b", "test train", True]
    ]


def test_one_image_under_two_names_is_found(tmp_path):
    frame = table("a", "b", "c", image=["x/../a.nii.gz", "a.nii.gz", "c.nii.gz"], split=["train", "test", "test"])
    found = shared(frame, measured("a", "b", "c"), tmp_path)
    assert found[["what", "scans", "n_patients"]].to_numpy().tolist() == [["the same image", "a b", 2]]
    assert found["leaks"].all()


def test_identical_voxels_leak_between_splits_or_patients_and_not_within_one(tmp_path):
    frame = table("a", "b", "c", "d", "e", "f", patient=["A", "B", "C", "C", "E", "F"])
    frame["split"] = ["train", "test", "train", "train", "test", "test"]
    found = shared(frame, measured(*"abcdef", voxels=["1", "1", "2", "2", "3", "3"]), tmp_path)
    leaks = found[found["what"] == "identical voxels"].set_index("scans")["leaks"]
    assert leaks.to_dict() == {"a b": True, "c d": False, "e f": True}


def test_scans_that_could_not_be_read_share_nothing(tmp_path):
    frame = table("a", "b", split=["train", "test"])
    assert shared(frame, measured("a", "b", voxels=[None, None]), tmp_path).empty


def test_the_mix_by_hand():
    frame = table("a", "b", "c", "d", split=SPLITS, kernel=["SOFT", "SHARP", "SOFT", ""])
    frame.loc[3, "excluded"] = "motion"
    scans = measured("a", "b", "c", slice_mm=[2.5, 2.51, 1.0], pixel_mm=[0.7, 0.68, 0.8])
    found = mix(frame, scans).set_index(["what", "value"])
    assert found.columns.tolist() == ["all", "train", "validation", "test"]
    assert found.loc[("slice_mm", "2.5")].tolist() == [2, 2, 0, 0]
    assert found.loc[("pixel_mm", "0.8")].tolist() == [1, 0, 1, 0]
    assert found.loc[("kernel", "SOFT")].tolist() == [2, 1, 1, 0]
    assert found.index.get_level_values("what").unique().tolist() == ["slice_mm", "pixel_mm", "kernel"]


def test_labels_are_counted_in_all_and_by_split():
    frame = table("a", "b", "c", "d", split=SPLITS)
    frame["copd"] = [1.0, 0.0, np.nan, 1.0]
    found = label_table(frame, tasks=["copd"]).set_index("split")
    assert found[["n", "positives", "unknown"]].loc["all"].tolist() == [3, 2, 1]
    assert found["n"].to_dict() == {"all": 3, "train": 2, "validation": 0, "test": 1}
    assert found.loc["all", ["low", "high"]].tolist() == pytest.approx([0.2077, 0.9385], abs=1e-4)  # Wilson, by hand


def test_the_tables_are_written_and_name_what_is_in_the_way(tmp_path):
    frame = table("a", "b", "c", "d", split=SPLITS)
    for scan in frame["scan"]:
        save(chest().hu, tmp_path / f"{scan}.nii.gz")
    found = check_cohort(frame, tmp_path, out=tmp_path / "out", tasks=TASKS[:2], progress=False)
    assert found.notes == [
        "Leakage: identical voxels in 4 scans (a b c d), under 4 patient names, in test and train and validation.",
        "Figures stay blank in validation, for want of positive or negative scans: asthma.",
        "Figures stay blank in test, for want of positive or negative scans: asthma.",
    ]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"scans.csv", "labels.csv", "cooccurrence.csv", "mix.csv", "shared.csv"}
    scans = pd.read_csv(tmp_path / "out" / "scans.csv")
    assert scans.columns.tolist() == ["scan", "verdict", "reason", *CHECK_MEASURES, *Technique._fields]
    assert scans["n_slices"].tolist() == [24] * 4


def test_a_failed_scan_is_excluded_and_one_worth_a_look_is_not():
    scans = measured("a", "b", "c").assign(verdict=["ok", "look", "failed"], reason=["", "odd", "torn"])
    assert exclude_failed(table("a", "b", "c"), scans)["excluded"].tolist() == ["", "", "torn"]


def test_ten_thousand_rows_take_seconds(tmp_path):
    names = [f"s{i:05d}" for i in range(10_000)]
    frame = table(*names, split="", kernel="SOFT").assign(image=[f"scans/{name}" for name in names])
    (tmp_path / "scans").mkdir()
    for name in names:
        (tmp_path / "scans" / name).touch()
    frame.astype({task: int for task in TASKS}).to_csv(tmp_path / "cohort.csv", index=False)
    scans = measured(*names, slice_mm=2.5, pixel_mm=0.7)
    start = time.process_time()
    frame = read_cohort(tmp_path / "cohort.csv")
    frame = assign_splits(frame, fractions=(0.6, 0.2, 0.2), seed=0, stratify=TASKS[0])
    shared(frame, scans, tmp_path)
    mix(frame, scans)
    label_table(frame, tasks=TASKS)
    verify_images(frame, tmp_path)
    assert time.process_time() - start < 10  # takes 1 to 2; row by row in pandas it would take minutes


# ---------------------------------------------------------------- the report's pictures


def test_the_gallery_shows_failed_scans_first_and_escapes_their_reasons(tmp_path):
    scans = measured(*"abcdef").reindex(columns=["scan", "verdict", "reason", *CHECK_MEASURES])
    scans["verdict"] = ["ok", "look", "ok", "failed", "ok", "failed"]
    scans.loc[3, "reason"] = "<b>torn</b>"
    page = gallery(scans, tmp_path, n_good=2, n_bad=2)
    assert re.findall(r"<td>([a-f])</td>", page) == ["d", "f", "a", "e"]
    assert "&lt;b&gt;torn" in page
    assert "<b>" not in page


def test_the_gallery_holds_its_pictures(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    found = check(tmp_path, table("a")).reset_index()
    page = gallery(found, tmp_path / "out", n_good=8, n_bad=8)
    assert page.count("data:image/png;base64,") == 1
    assert "24" in page


# ---------------------------------------------------------------- verify


def slices(folder: Path, n: int, *, n_empty: int = 0) -> Path:
    folder.mkdir()
    for index in range(n):
        (folder / f"{index}.dcm").write_bytes(b"" if index < n_empty else b"1")
    (folder / "LICENSE").write_text("text", encoding="utf-8")
    return folder


def test_images_that_are_missing_or_short_are_listed(tmp_path):
    slices(tmp_path / "whole", 3)
    slices(tmp_path / "short", 2)
    slices(tmp_path / "hollow", 3, n_empty=1)
    save(chest().hu, tmp_path / "file.nii.gz")
    (tmp_path / "zero.nii.gz").touch()
    names = ["whole", "short", "hollow", "file.nii.gz", "zero.nii.gz", "gone", ""]
    frame = table(*"abcdefg", image=names, n_slices=["3", "3", "3", "24", "", "3", "3"])
    assert verify_images(frame, tmp_path) == [
        "scan b: 2 of 3 slices",
        "scan c: 2 of 3 slices",
        "scan e: the image is empty",
        f"scan f: the image is not there, {tmp_path / 'gone'}",
        "scan g: the image is not there",
    ]


def test_files_beside_the_slices_of_an_archive_are_not_counted(tmp_path):
    (tmp_path / "scan" / "series").mkdir(parents=True)
    for index in range(3):
        write_slice(tmp_path / "scan" / "series" / f"{index}.dcm", index)
        (tmp_path / "scan" / "series" / f"{index}.dcm").rename(tmp_path / "scan" / "series" / f"IM{index}")
    for name in ("viewer.exe", "LICENSE", "DICOMDIR", "series/.DS_Store", "series/notes.txt"):
        (tmp_path / "scan" / name).write_text("text", encoding="utf-8")
    assert verify_images(table("a", image=["scan"], n_slices=["3"]), tmp_path) == []
    (tmp_path / "scan" / "series" / "IM1").unlink()
    assert verify_images(table("a", image=["scan"], n_slices=["3"]), tmp_path) == ["scan a: 2 of 3 slices"]


class Trap:
    def __reduce__(self):
        return os.system, ("touch pickle-was-loaded",)


def test_prepared_scans_that_are_broken_are_listed_and_no_pickle_is_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = np.full((16, 16, 16), 0.5, dtype=np.float16)
    for name, array in {
        "a": good,
        "b": good.astype(np.float32),
        "c": good[:8],
        "d": np.where(good > 0, np.nan, good).astype(np.float16),
        "e": good + np.float16(1),
        "g": np.array([Trap()], dtype=object),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "h.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:600])
    found = verify_prepared(table(*"abcdefgh"), tmp_path, tmp_path, shape=[16, 16, 16], progress=False)
    assert found == [
        "scan a: prepared without hashes: a changed byte cannot be found; remove it and prepare it again",
        "scan b: prepared as float32 (16, 16, 16), not float16 (16, 16, 16)",
        "scan c: prepared as float16 (8, 16, 16), not float16 (16, 16, 16)",
        "scan d: prepared values are not all finite and in [0, 1]",
        "scan e: prepared values are not all finite and in [0, 1]",
        "scan f: not prepared",
        "scan g: the prepared file cannot be read (ValueError)",
        "scan h: the prepared file cannot be read (ValueError)",
    ]
    assert not (tmp_path / "pickle-was-loaded").exists()


def test_an_image_newer_than_what_was_prepared_is_listed(tmp_path):
    save(chest().hu, tmp_path / "a.nii.gz")
    np.save(tmp_path / "a.npy", np.zeros((16, 16, 16), dtype=np.float16))
    os.utime(tmp_path / "a.npy", (1, 1))
    found = verify_prepared(table("a"), tmp_path, tmp_path, shape=[16, 16, 16], progress=False)
    assert found == ["scan a: the image is newer than what was prepared"]
