"""Prepared cohorts: one file per scan, kept until its image changes; a scan that fails stops no other."""

import dataclasses
import itertools
import json
import math
import os
import re
import time

import jobs
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save, write_slice

from lungmtl.data import tensor
from lungmtl.data.cohort import attributes, read_cohort
from lungmtl.data.preparation import Preparation
from lungmtl.data.prepared import _prepare_job, prepare_cohort
from lungmtl.data.reading import read_volume
from lungmtl.data.splits import check_splits
from lungmtl.data.verify import verify_prepared
from lungmtl.experiments import TASKS

SPEC = Preparation(spacing_mm=(20.0, 20.0, 20.0), shape=(16, 16, 16), window_hu=(-1000.0, 400.0))


@pytest.fixture
def cohort(tmp_path) -> pd.DataFrame:
    for name in ("a", "b", "c"):
        save(chest().hu, tmp_path / f"{name}.nii.gz")
    return pd.DataFrame({"scan": ["a", "b", "c"], "image": ["a.nii.gz", "b.nii.gz", "c.nii.gz"]})


def prepare(frame, root, preparation=SPEC, **changes):
    return prepare_cohort(frame, root, preparation, **{"cache_dir": root / "cache", "progress": False} | changes)


def test_every_scan_becomes_one_file_and_nothing_is_left_beside(cohort, tmp_path):
    folder, report = prepare(cohort, tmp_path)
    assert report["status"].tolist() == ["ok"] * 3
    assert report["lung_volume_l"].tolist() == pytest.approx([2.4] * 3)
    assert (report[["slice_mm", "pixel_mm"]] == 10).all(axis=None)
    assert sorted(os.listdir(folder)) == sorted(f"{s}.{e}" for s, e in itertools.product("abc", ("npy", "json")))
    np.testing.assert_array_equal(np.load(folder / "a.npy", allow_pickle=False), tensor.prepare(chest(), SPEC))


def test_a_prepared_scan_is_kept_until_its_image_changes(cohort, tmp_path, monkeypatch):
    folder, first = prepare(cohort, tmp_path)
    os.utime(tmp_path / "b.nii.gz", (2e9, 2e9))
    prepared = []
    original = _prepare_job
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", lambda job: prepared.append(job[0]) or original(job))
    again, second = prepare(cohort, tmp_path)
    assert again == folder
    assert prepared == ["b"]
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), second.drop(columns="seconds"))


@pytest.fixture
def series(tmp_path) -> pd.DataFrame:
    """A DICOM series below its folder, and an image whose voxels lie in a file of their own."""
    write_slices(tmp_path / "a" / "study")
    image = sitk.GetImageFromArray(chest().hu)
    image.SetSpacing((10.0, 10.0, 10.0))
    sitk.WriteImage(image, str(tmp_path / "b.mhd"))
    return pd.DataFrame({"scan": ["a", "b"], "image": ["a", "b.mhd"]})


def write_slices(folder):
    folder.mkdir(parents=True)
    for index, hu in enumerate(chest().hu):
        write_slice(folder / f"{index}.dcm", index, hu=hu, pixel=(10.0, 10.0), z_mm=10.0 * index, t0018_0050="10")


def flip(path, place):
    """Change one byte, and keep the date."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(
    ("scan", "file", "reason"),
    [
        ("a", "{folder}/a.npy", "the prepared file has changed since it was written"),
        ("b", "{folder}/b.npy", "the prepared file has changed since it was written"),
        ("a", "a/study/7.dcm", "the image has changed since it was prepared"),
        ("b", "b.mhd", "the image has changed since it was prepared"),
        ("b", "b.raw", "the image has changed since it was prepared"),
    ],
)
@pytest.mark.parametrize("place", [-1, 300])
def test_one_changed_byte_is_found(series, tmp_path, scan, file, reason, place):
    folder, report = prepare(series, tmp_path)
    assert report["status"].tolist() == ["ok", "ok"]
    assert verify_prepared(series, tmp_path, folder, shape=SPEC.shape, progress=False) == []
    path = tmp_path / file.format(folder=folder)
    flip(path, place if path.stat().st_size > 300 else 20)
    (found,) = verify_prepared(series, tmp_path, folder, shape=SPEC.shape, progress=False)
    assert found.startswith(f"scan {scan}: {reason}")


@pytest.mark.parametrize(("scan", "file"), [("a", "a/study/7.dcm"), ("b", "b.raw")])
def test_an_image_that_changed_under_its_date_is_prepared_anew_and_one_that_was_only_touched_is_kept(
    series, tmp_path, scan, file, monkeypatch
):
    folder, _ = prepare(series, tmp_path)
    flip(tmp_path / file, -1)
    prepared = []
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", lambda job: prepared.append(job[0]) or _prepare_job(job))
    prepare(series, tmp_path)
    assert prepared == [scan]
    assert verify_prepared(series, tmp_path, folder, shape=SPEC.shape, progress=False) == []
    (tmp_path / file).chmod(0o600)
    prepare(series, tmp_path)
    assert prepared == [scan]


def test_what_was_prepared_without_hashes_is_listed_as_that(series, tmp_path):
    folder, _ = prepare(series, tmp_path)
    said = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    (folder / "a.json").write_text(
        json.dumps({name: said[name] for name in said if name != "tensor_sha256"}), encoding="utf-8"
    )
    (found,) = verify_prepared(series, tmp_path, folder, shape=SPEC.shape, progress=False)
    assert found.startswith("scan a: prepared without hashes")


def test_how_scans_were_made_goes_to_the_report_and_the_subgroups(series, tmp_path):
    _, report = prepare(series, tmp_path)
    assert report["kernel"].tolist() == ["B30F", ""]
    assert report["thickness_mm"].tolist() == pytest.approx([10, math.nan], nan_ok=True)
    found = attributes(series, report=report)
    assert found.columns.tolist() == ["scan", "thickness_mm", "kernel"]  # nobody said voltage or contrast
    own = attributes(series.assign(kernel=["SOFT", "SOFT"]), report=report)
    assert own["kernel"].tolist() == ["SOFT", "SOFT"]


def test_other_settings_go_to_another_folder(cohort, tmp_path):
    assert (
        prepare(cohort, tmp_path)[0] != prepare(cohort, tmp_path, dataclasses.replace(SPEC, spacing_mm=(16, 20, 20)))[0]
    )


def test_a_bad_scan_is_reported_and_the_others_go_on(cohort, tmp_path, caplog):
    (tmp_path / "a.nii.gz").write_text("broken", encoding="utf-8")
    save(np.where(chest().hu == -850, 40, chest().hu).astype(np.int16), tmp_path / "b.nii.gz")
    folder, report = prepare(cohort, tmp_path)
    assert report["scan"].tolist() == ["a", "b", "c"]
    assert report["status"].tolist() == ["failed", "failed", "ok"]
    assert "must be NIfTI where its name says so" in report["reason"][0]
    assert "not a chest" in report["reason"][1] or "no air in the body" in report["reason"][1]
    assert [file.name for file in folder.glob("*.npy")] == ["c.npy"]
    assert "2 of 3 scans cannot be used" in caplog.text


def test_an_image_that_breaks_later_does_not_leave_its_old_tensor(cohort, tmp_path):
    folder, _ = prepare(cohort, tmp_path)
    (tmp_path / "a.nii.gz").write_text("broken", encoding="utf-8")
    os.utime(tmp_path / "a.nii.gz", (2e9, 2e9))
    _, report = prepare(cohort, tmp_path)
    assert report["status"].tolist() == ["failed", "ok", "ok"]
    assert not (folder / "a.npy").exists()


def test_excluded_scans_are_not_prepared(cohort, tmp_path):
    folder, report = prepare(cohort.assign(excluded=["", "motion", ""]), tmp_path)
    assert report["scan"].tolist() == ["a", "c"]
    assert not (folder / "b.npy").exists()


def test_two_processes_give_what_one_gives(cohort, tmp_path, monkeypatch):
    one = prepare(cohort, tmp_path)
    monkeypatch.setattr("lungmtl.data.prepared.SCANS_PER_WORKER", 1)
    two = prepare(cohort, tmp_path, cache_dir=tmp_path / "other", workers=2)
    pd.testing.assert_frame_equal(one[1].drop(columns="seconds"), two[1].drop(columns="seconds"))
    assert (one[0] / "a.npy").read_bytes() == (two[0] / "a.npy").read_bytes()


def test_a_scan_that_ends_its_worker_fails_alone_and_is_not_tried_by_later_calls(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("lungmtl.data.prepared.SCANS_PER_WORKER", 1)
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", jobs.die_of_b)
    _, report = prepare(cohort, tmp_path, workers=2)
    assert report["status"].tolist() == ["ok", "failed", "ok"]
    assert re.search(r"its process dead, twice, in scan b\. Remove \.b\.begun,", report["reason"][1])

    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", jobs.refuse)
    folder, again = prepare(cohort, tmp_path)
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), report.drop(columns="seconds"))

    (folder / ".b.begun").unlink()
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", jobs.prepare_one)
    assert prepare(cohort, tmp_path)[1]["status"].tolist() == ["ok"] * 3


def test_a_scan_that_ended_this_process_before_is_prepared_in_another(cohort, tmp_path, monkeypatch):
    folder, _ = prepare(cohort[:1], tmp_path)
    for scan in "bc":
        (folder / f".{scan}.begun").touch()  # what a killed process leaves
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", jobs.die_of_b)  # would end the tests
    assert prepare(cohort, tmp_path)[1]["status"].tolist() == ["ok", "failed", "ok"]


def test_a_scan_whose_worker_was_killed_by_chance_is_prepared_by_the_next(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr("lungmtl.data.prepared.SCANS_PER_WORKER", 1)
    monkeypatch.setattr("lungmtl.data.prepared._prepare_job", jobs.die_of_b_once)
    folder, report = prepare(cohort, tmp_path, workers=2)
    assert (folder.parent / "died").exists()
    assert report["status"].tolist() == ["ok"] * 3
    assert not [file for file in os.listdir(folder) if file.startswith(".")]


def test_a_table_of_10000_scans_is_checked_split_and_resumed_in_seconds(cohort, tmp_path):
    folder, _ = prepare(cohort, tmp_path)
    scans = [f"s{index:05d}" for index in range(10_000)]
    for scan, end in itertools.product(scans, ("npy", "json")):
        os.link(folder / f"a.{end}", folder / f"{scan}.{end}")
    labels = {task: (np.arange(10_000) % (5 + k) == 0).astype(int) for k, task in enumerate(TASKS)}
    patients = [f"p{index // 2}" for index in range(10_000)]
    table = pd.DataFrame({"scan": scans, "patient": patients, "image": "a.nii.gz", **labels})
    table.to_csv(tmp_path / "cohort.csv", index=False)

    start = time.process_time()
    frame = read_cohort(tmp_path / "cohort.csv")
    frame = check_splits(frame, tasks=TASKS, fractions=(0.7, 0.1, 0.2), seed=0, batch_size=8)
    again, report = prepare(frame, tmp_path)
    seconds = time.process_time() - start

    assert again == folder
    assert report["status"].eq("ok").all()
    assert report["seconds"].isna().all()
    assert seconds < 20  # found 2


def _flip_a_bit(file, _):
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)


def _truncate(file, _):
    file.write_bytes(file.read_bytes()[:-100])


def _truncate_note(file, _):
    file.with_suffix(".json").write_text("{", encoding="utf-8")


def _image_of_an_older_date(_, image):
    save(chest().hu + np.int16(30), image)
    os.utime(image, (1e9, 1e9))


@pytest.mark.parametrize("damage", [_flip_a_bit, _truncate, _truncate_note, _image_of_an_older_date])
def test_what_is_not_as_it_was_written_is_prepared_anew(cohort, tmp_path, damage):
    folder, _ = prepare(cohort, tmp_path)
    damage(folder / "b.npy", tmp_path / "b.nii.gz")
    _, report = prepare(cohort, tmp_path)
    assert report["seconds"].isna().tolist() == [True, False, True]
    _, again = prepare(cohort, tmp_path)
    assert again["seconds"].isna().all()
    wanted = tensor.prepare(read_volume(tmp_path / "b.nii.gz"), SPEC)
    np.testing.assert_array_equal(np.load(folder / "b.npy", allow_pickle=False), wanted)
