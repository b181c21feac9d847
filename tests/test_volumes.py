import itertools
import os
import re
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import jobs
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
from chests import chest, save

from lungmtl.data import tensor as tensor_module
from lungmtl.data.cohort import read_cohort
from lungmtl.data.grid import Grid, lung_grid, middle_voxel, to_grid
from lungmtl.data.lungs import _block_means, find_lungs, lung_mask
from lungmtl.data.prepared import _prepare_job, prepare_cohort
from lungmtl.data.reading import read_volume
from lungmtl.data.splits import assign_splits, check_splits
from lungmtl.data.tensor import prepare_scan, resample_lungs
from lungmtl.data.volume import Volume
from lungmtl.experiments import TASKS
from lungmtl.sources.phantom import make_volume
from lungmtl.workers import run_apart

REAL_CT = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
REAL_NODULE = (56, 64, 55)  # tests/data/README.md
REAL_LUNGS_L = 3.69  # by an independent mask
SPEC = {"spacing_mm": (20.0, 20.0, 20.0), "shape": (16, 16, 16), "window_hu": (-1000.0, 400.0)}


# ---------------------------------------------------------------- lungs


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_lungs_are_the_air_in_the_body():
    volume = chest()
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)


def finer(volume: Volume, times: int) -> Volume:
    hu = volume.hu.repeat(times, axis=0).repeat(times, axis=1).repeat(times, axis=2)
    return Volume(hu, tuple(s / times for s in volume.spacing_mm))


def test_vessels_and_nodules_inside_the_lungs_or_at_their_wall_are_lung():
    volume = finer(chest(), 4)
    lungs = volume.hu == -850
    volume.hu[40:44, 56:60, 48:52] = 50  # 10 mm, inside
    volume.hu[40:44, 56:60, 24:27] = 50  # at the wall, 7.5 mm deep
    found = lung_mask(volume)
    assert found[40:44, 56:60, 48:52].all()
    assert found[40:44, 56:60, 24:27].mean() > 0.6  # a ball does not reach the bottom of a box
    assert not (found & ~lungs).any()


def fine_chest() -> Volume:
    """The chest on voxels of 1.43 mm, searched on blocks of two that half hold lung at the lungs' edges in y."""
    return finer(chest(), 7)


def test_blocks_at_the_edge_keep_only_their_air():
    volume = fine_chest()
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)


def test_vessels_stay_lung_where_the_volume_ends():
    volume = fine_chest()
    volume = Volume(volume.hu[60:], volume.spacing_mm)  # the first slice lies inside the lungs
    volume.hu[:2, 64:132:8, 48:110:8] = 50
    assert lung_mask(volume)[:2, 64:132, 48:110].all()


def test_edges_beside_a_nodule_at_the_wall_are_left_alone(monkeypatch):
    volume = fine_chest()
    nodule = np.s_[80:86, 91:97, 42:46]  # 9 x 9 x 6 mm, at the wall, half a block farther than whole blocks in y
    volume.hu[nodule] = 50
    kept = lung_mask(volume)[nodule].mean()
    monkeypatch.setattr("lungmtl.data.lungs.EDGE_MM", 1.0)
    cut = lung_mask(volume)[nodule].mean()
    assert kept > 0.9
    assert cut < kept - 0.1


def test_block_means_by_hand():
    hu = np.random.default_rng(0).integers(-1024, 3000, (7, 8, 11)).astype(np.int16)
    hu[:2, :3, :4] = 32767  # their sum needs more than 16 bits
    means = _block_means(hu, (2, 3, 4))
    assert means.shape == (3, 2, 2)
    assert means[0, 0, 0] == 32767
    assert means[2, 1, 1] == np.float32(hu[4:6, 3:6, 4:8].mean())
    assert _block_means(hu, (1, 1, 1)) is hu


def test_trachea_bowel_gas_and_a_hollow_table_are_not_lung():
    volume = chest()
    lungs = volume.hu == -850
    volume.hu[14:24, 12:14, 17:19] = -990  # trachea
    volume.hu[14, 12:14, 16:20] = -850  # which opens into both lungs
    volume.hu[1:5, 12:16, 24:28] = -990  # 64 mL of gas under the left lung
    volume.hu[:, 25:28, 2:34] = 300  # a table with 0.7 L of air inside
    volume.hu[:, 26, 3:33] = -1000
    found = lung_mask(volume)
    assert not found[15:24, 12:14, 17:19].any()
    assert dice(found, lungs) > 0.99  # the opening adds 8 of 2400 voxels


def test_a_hollow_table_that_the_body_lies_on_is_not_lung():
    volume = chest()
    volume.hu[:, 25, 2:34] = -1000
    volume = finer(volume, 4)
    lungs = volume.hu == -850
    volume.hu[:, 96:98, 8:136] = 300  # touches the back, 5 mm thick
    volume.hu[:, 104:106, 8:136] = 300
    volume.hu[:, 96:106, 8:10] = 300
    volume.hu[:, 96:106, 134:136] = 300
    np.testing.assert_array_equal(lung_mask(volume), lungs)


def test_one_lung_is_enough_but_less_than_a_litre_is_not_a_chest():
    volume = chest()
    volume.hu[6:18, 9:19, 6:16] = 40
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)
    volume.hu[6:10, 9:19, 20:30] = 40
    with pytest.raises(ScanError, match=r"at least 1 L of lung. Found 0.80 L: not a chest"):
        lung_mask(volume)


@pytest.mark.parametrize("value", [-1000, 40])
def test_nothing_but_air_or_tissue_is_not_a_chest(value):
    with pytest.raises(ScanError, match=r"at least 1 L of lung"):
        lung_mask(Volume(np.full((16, 16, 16), value, dtype=np.int16), (20.0, 20.0, 20.0)))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mask_agrees_with_the_lungs_of_the_phantom(seed):
    hu, labels, space, _ = make_volume(np.random.default_rng(seed))
    found = lung_mask(Volume(hu, space.spacing_mm))
    assert dice(found, labels > 0) >= 0.97  # found 0.999 on 40 scans
    assert np.count_nonzero(found & (labels > 1)) >= 0.7 * np.count_nonzero(labels > 1)  # 0.8 of the worst at a wall


def test_the_mask_of_the_real_ct_agrees_with_an_independent_one():
    volume = read_volume(REAL_CT)
    assert volume.hu.shape == (83, 90, 90)
    assert volume.spacing_mm == (4.0, 4.0, 4.0)
    found = lung_mask(volume)
    assert np.count_nonzero(found) * 0.064e-3 == pytest.approx(REAL_LUNGS_L, rel=0.08)  # found 3.87
    assert found[REAL_NODULE]
    assert volume.hu[REAL_NODULE] > 0
    assert -880 < volume.hu[found].mean() < -760  # -835 without the rim that 4 mm voxels blur


# ---------------------------------------------------------------- the model's grid


def own_grid(shape, spacing_mm) -> Grid:
    return Grid(tuple((n - 1) / 2 * s for n, s in zip(shape, spacing_mm, strict=True)), spacing_mm, shape)


@pytest.mark.parametrize("order", [0, 1])
def test_the_array_on_its_own_grid_is_unchanged(order):
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    grid = own_grid((5, 6, 7), (2.5, 0.7, 0.9))
    np.testing.assert_allclose(to_grid(array, (2.5, 0.7, 0.9), grid, fill=0, order=order), array, atol=1e-6)


def test_a_ramp_stays_a_ramp_when_enlarged_or_reduced():
    z = np.arange(16, dtype=np.float32).reshape(16, 1, 1) * 3.0  # value = position in mm
    ramp = np.broadcast_to(z, (16, 4, 4))
    for spacing_mm in (1.0, 2.0, 6.0):
        grid = Grid((22.5, 4.5, 4.5), (spacing_mm, 1.0, 1.0), (4, 2, 2))
        expected = 22.5 + (np.arange(4) - 1.5) * spacing_mm
        np.testing.assert_allclose(to_grid(ramp, (3.0, 3.0, 3.0), grid, fill=0, order=1)[:, 0, 0], expected, rtol=1e-5)


def test_reducing_averages_instead_of_picking():
    checker = np.indices((16, 16, 16)).sum(axis=0) % 2  # 0 and 1, mean 0.5
    grid = Grid((7.5, 7.5, 7.5), (4.0, 4.0, 4.0), (2, 2, 2))
    np.testing.assert_allclose(to_grid(checker, (1, 1, 1), grid, fill=0, order=1), 0.5, atol=1e-6)


def test_linear_weights_by_hand():
    array = np.array([0, 8, 0, 0], dtype=np.float32).reshape(4, 1, 1)
    half = to_grid(array, (2, 2, 2), Grid((2.5, 0, 0), (1, 1, 1), (4, 1, 1)), fill=0, order=1)
    np.testing.assert_allclose(half.ravel(), [4, 8, 4, 0])  # at 1, 2, 3, 4 mm; the voxel with 8 lies at 2 mm
    double = to_grid(array, (2, 2, 2), Grid((2, 0, 0), (4, 4, 4), (1, 1, 1)), fill=0, order=1)
    np.testing.assert_allclose(double.ravel(), [4 * 0.5 * 0.5])  # triangle 1/2, 1/4, 1/4; y and x half outside


def test_a_grid_may_be_resampled_piece_by_piece(monkeypatch):
    array = np.random.default_rng(0).normal(size=(9, 14, 12)).astype(np.float32)
    grid = Grid((10.0, 7.0, 6.0), (0.7, 1.0, 1.3), (23, 16, 11))  # sticks out on both sides
    whole = to_grid(array, (2.5, 1.0, 1.0), grid, fill=-3, order=1)
    monkeypatch.setattr("lungmtl.data.grid.BAND", 4)
    np.testing.assert_allclose(to_grid(array, (2.5, 1.0, 1.0), grid, fill=-3, order=1), whole, atol=1e-5)


def test_outside_the_array_is_the_fill_value():
    array = np.full((4, 4, 4), 7, dtype=np.int16)
    far = Grid((100.0, 100.0, 100.0), (1.0, 1.0, 1.0), (3, 3, 3))
    for order in (0, 1):
        assert (to_grid(array, (1, 1, 1), far, fill=-5, order=order) == -5).all()


def test_nearest_keeps_labels():
    labels = np.random.default_rng(0).integers(0, 4, (6, 6, 6)).astype(np.uint8)
    found = to_grid(labels, (1, 1, 1), Grid((2.5, 2.5, 2.5), (0.5, 1.0, 2.0), (8, 6, 3)), fill=0, order=0)
    assert found.dtype == np.uint8
    assert set(np.unique(found)) <= {0, 1, 2, 3}


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match=r"`order` must be 0 \(nearest\) or 1 \(linear\). Found 3"):
        to_grid(np.zeros((2, 2, 2)), (1, 1, 1), own_grid((2, 2, 2), (1, 1, 1)), fill=0, order=3)


def test_the_grid_is_centred_on_the_lungs_box():
    mask = np.zeros((10, 10, 10), dtype=bool)
    mask[2:5, 1:9, 6] = True
    grid = lung_grid(mask, (3.0, 2.0, 1.0), spacing_mm=(4, 4, 4), shape=(8, 8, 8))
    assert middle_voxel(mask) == (3, 4, 6)
    assert grid == Grid((9.0, 9.0, 6.0), (4.0, 4.0, 4.0), (8, 8, 8))


# ---------------------------------------------------------------- preparation


def test_a_prepared_scan_is_windowed_lung_on_the_asked_grid():
    volume = chest()
    tensor = tensor_module.prepare(volume, spacing_mm=(10, 10, 10), shape=(16, 14, 28), window_hu=(-1000, 400))
    assert tensor.dtype == np.float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 2:12], 150 / 1400, atol=1e-3)  # float16
    np.testing.assert_allclose(tensor[2:14, 2:12, 16:26], 150 / 1400, atol=1e-3)
    assert np.count_nonzero(tensor) == 2 * 12 * 10 * 10


def test_preparing_does_not_depend_on_where_the_patient_lies():
    volume = chest()
    moved = Volume(np.roll(volume.hu, (3, 2, -1), axis=(0, 1, 2)), volume.spacing_mm)
    np.testing.assert_array_equal(tensor_module.prepare(volume, **SPEC), tensor_module.prepare(moved, **SPEC))


def test_preparing_leaves_the_volume_as_it_was():
    volume = chest()
    tensor_module.prepare(volume, **SPEC)
    np.testing.assert_array_equal(volume.hu, chest().hu)


def test_preparing_takes_less_memory_than_the_volume():
    volume = fine_chest()
    peak, lungs = peak_bytes(lambda: find_lungs(volume))
    assert peak < 1.5 * volume.hu.nbytes  # found 1.06, on blocks of 8 voxels
    peak, _ = peak_bytes(lambda: resample_lungs(volume, lungs, **SPEC))
    assert peak < 0.1 * volume.hu.nbytes  # found 0.02; a float copy of the box around the lungs takes 0.4


def peak_bytes(call):
    tracemalloc.start()
    result = call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, result


def test_lungs_that_stick_out_of_the_grid_are_measured():
    whole = prepare_scan(chest(), **SPEC)
    assert whole.cropped_fraction == 0
    assert whole.lung_volume_l == pytest.approx(2.4)
    half = prepare_scan(chest(), spacing_mm=(10, 10, 10), shape=(6, 28, 36), window_hu=(-1000, 400))
    assert half.cropped_fraction == pytest.approx(0.5)


def test_the_real_ct_prepares_to_the_same_lungs_at_every_orientation(tmp_path):
    image = sitk.ReadImage(str(REAL_CT))
    sitk.WriteImage(sitk.DICOMOrient(image, "RAS"), str(tmp_path / "ras.nii.gz"))
    spec = {"spacing_mm": (8, 8, 8), "shape": (32, 32, 40), "window_hu": (-1000, 400)}
    first, second = (prepare_scan(read_volume(p), **spec) for p in (REAL_CT, tmp_path / "ras.nii.gz"))
    np.testing.assert_array_equal(first.tensor, second.tensor)
    assert first.cropped_fraction < 0.001


@pytest.fixture
def cohort(tmp_path) -> pd.DataFrame:
    for name in ("a", "b", "c"):
        save(chest().hu, tmp_path / f"{name}.nii.gz")
    return pd.DataFrame({"scan": ["a", "b", "c"], "image": ["a.nii.gz", "b.nii.gz", "c.nii.gz"]})


def prepare(frame, root, **changes):
    return prepare_cohort(frame, root, **{"cache_dir": root / "cache", "progress": False} | SPEC | changes)


def test_every_scan_becomes_one_file_and_nothing_is_left_beside(cohort, tmp_path):
    folder, report = prepare(cohort, tmp_path)
    assert report["status"].tolist() == ["ok"] * 3
    assert report["lung_volume_l"].tolist() == pytest.approx([2.4] * 3)
    assert (report[["slice_mm", "pixel_mm"]] == 10).all(axis=None)
    assert sorted(os.listdir(folder)) == sorted(f"{s}.{e}" for s, e in itertools.product("abc", ("npy", "json")))
    np.testing.assert_array_equal(np.load(folder / "a.npy", allow_pickle=False), tensor_module.prepare(chest(), **SPEC))


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


def test_other_settings_go_to_another_folder(cohort, tmp_path):
    assert prepare(cohort, tmp_path)[0] != prepare(cohort, tmp_path, spacing_mm=(16, 20, 20))[0]


def test_a_bad_scan_is_reported_and_the_others_go_on(cohort, tmp_path, caplog):
    (tmp_path / "a.nii.gz").write_text("broken")
    save(np.where(chest().hu == -850, 40, chest().hu).astype(np.int16), tmp_path / "b.nii.gz")
    folder, report = prepare(cohort, tmp_path)
    assert report["scan"].tolist() == ["a", "b", "c"]
    assert report["status"].tolist() == ["failed", "failed", "ok"]
    assert "SimpleITK can read" in report["reason"][0]
    assert "not a chest" in report["reason"][1] or "no air in the body" in report["reason"][1]
    assert [file.name for file in folder.glob("*.npy")] == ["c.npy"]
    assert "2 of 3 scans cannot be used" in caplog.text


def test_an_image_that_breaks_later_does_not_leave_its_old_tensor(cohort, tmp_path):
    folder, _ = prepare(cohort, tmp_path)
    (tmp_path / "a.nii.gz").write_text("broken")
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


def test_a_job_without_end_is_lost_and_the_others_are_done():
    found = run_apart(jobs.wait_long_at_b, list("abc"), workers=1, lost=lambda job, why: (job, why), limit_s=1.0)
    assert sorted(map(str, found)) == ["('b', 'no end after 1 s')", "a", "c"]


def test_an_error_of_a_job_reaches_the_caller():
    with pytest.raises(AssertionError, match="nothing is to be called"):
        list(run_apart(jobs.refuse, [1], workers=1, lost=jobs.refuse))


def test_workers_that_cannot_start_are_reported(monkeypatch):
    monkeypatch.setattr("lungmtl.workers._start_worker", jobs.refuse)
    with pytest.raises(RuntimeError, match=r"A worker must start. Found it dead before its first job"):
        list(run_apart(jobs.wait_long_at_b, list("ac"), workers=1, lost=jobs.refuse))


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
    frame = assign_splits(frame, fractions=(0.7, 0.1, 0.2), seed=0)
    check_splits(frame, tasks=TASKS)
    again, report = prepare(frame, tmp_path)
    seconds = time.process_time() - start

    assert again == folder
    assert report["status"].eq("ok").all()
    assert report["seconds"].isna().all()
    assert seconds < 20  # found 2


def test_workers_end_when_the_process_that_started_them_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "from lungmtl import volumes\n"
        "def job(folder):\n"
        "    (pathlib.Path(folder) / str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    list(volumes.run_jobs(job, [sys.argv[1]] * 2, workers=2))\n"
    )
    started = tmp_path / "started"
    started.mkdir()
    parent = subprocess.Popen([sys.executable, str(script), str(started)])
    _wait_until(lambda: len(list(started.iterdir())) == 2)
    parent.kill()
    parent.wait()
    _wait_until(lambda: not any(_is_running(int(file.name)) for file in started.iterdir()))


def _wait_until(holds, *, limit_s=60):
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def _is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
