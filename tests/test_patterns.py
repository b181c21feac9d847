"""Labels of training scans: one pattern per scan in proportions, as many full ones, exchanged ones."""

import numpy as np
import pandas as pd
import pytest

from lungmtl.data.labelling import Labelling
from lungmtl.data.patterns import assigned, labelled
from lungmtl.study.config import RunConfig

TASKS = ["lung_cancer", "asthma", "copd"]
ALONE = {"labels": "disjoint", "label_patterns": TASKS}


def cohort(n: int = 101, *, blank: float = 0.0) -> pd.DataFrame:
    """Training scans, then ten of each other split; a share of the labels is blank."""
    generator = np.random.default_rng(7)
    splits = ["train"] * n + ["validation"] * 10 + ["test"] * 10
    frame = pd.DataFrame({"scan": [f"s{i}" for i in range(n + 20)], "split": splits})
    for task in TASKS:
        values = (generator.random(n + 20) < 0.4).astype(float)
        frame[task] = np.where(generator.random(n + 20) < blank, np.nan, values)
    return frame


def kept(settings: dict, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    frame = cohort() if frame is None else frame
    return labelled(frame, Labelling(**settings), central=TASKS[0])


def known(frame: pd.DataFrame) -> np.ndarray:
    return frame.loc[frame["split"] == "train", TASKS].notna().to_numpy()


@pytest.mark.parametrize("proportions", [(), (1, 1, 2), (5, 3, 1), (1, 0, 1)])
def test_every_training_scan_keeps_one_label_in_proportions_within_one_scan(proportions):
    counts = known(kept(ALONE | {"label_proportions": proportions}))
    shares = np.array(proportions or (1, 1, 1)) / sum(proportions or (1, 1, 1))

    assert (counts.sum(axis=1) == 1).all()
    assert (abs(counts.sum(axis=0) - shares * 101) < 1).all()


def test_labels_that_are_kept_are_the_scans_own_and_other_splits_keep_all():
    frame, found = cohort(blank=0.2), kept(ALONE, cohort(blank=0.2))
    is_train = frame["split"] == "train"

    pd.testing.assert_frame_equal(found[~is_train], frame[~is_train])
    both = found.loc[is_train, TASKS].combine_first(frame.loc[is_train, TASKS])
    pd.testing.assert_frame_equal(both, frame.loc[is_train, TASKS])


def test_a_scan_whose_label_is_unknown_gets_another_known_one():
    frame = cohort(blank=0.5)
    before, after = known(frame), known(kept(ALONE, frame))

    assert (after.sum(axis=1) == before.any(axis=1)).all()
    assert (after <= before).all()
    assert np.ptp(after.sum(axis=0)) <= 1  # scans that have a choice make up for those that have none


def test_the_same_seed_gives_the_same_pattern_and_another_one_another():
    first, again, other = kept(ALONE), kept(ALONE), kept(ALONE | {"label_seed": 1})

    pd.testing.assert_frame_equal(first, again)
    assert (known(first) != known(other)).any()


def test_a_pattern_may_hold_several_tasks_and_leave_tasks_out():
    found = known(kept({"labels": "disjoint", "label_patterns": ["lung_cancer+copd", "copd"]}))

    assert found[:, 1].all()  # no pattern names asthma: it keeps all its labels
    assert found[:, 2].all()
    assert abs(found[:, 0].sum() - 101 / 2) < 1


def test_matched_scans_keep_all_labels_where_the_central_one_is_kept_and_none_elsewhere():
    frame = cohort(blank=0.2)
    disjoint, matched = known(kept(ALONE, frame)), known(kept(ALONE | {"labels": "matched"}, frame))

    assert (matched[:, 0] == disjoint[:, 0]).all()
    assert (matched == known(frame) & disjoint[:, [0]]).all()


def test_a_single_task_keeps_the_labels_that_it_keeps_among_all_tasks():
    # the pattern must not depend on which tasks a run has, or experiments would see other scans
    config = RunConfig.from_mapping({"tasks": TASKS[:1], "weights": [3.0], **ALONE})

    assert config.labelling.tasks == TASKS
    assert labelled(cohort(), config.labelling, central=TASKS[0]).equals(kept(ALONE))


def test_shuffled_labels_are_those_of_other_training_scans():
    frame = cohort(blank=0.2)
    found = kept({"shuffle_tasks": TASKS[1:]}, frame)
    is_train = frame["split"] == "train"

    pd.testing.assert_frame_equal(found[~is_train], frame[~is_train])
    pd.testing.assert_series_equal(found["lung_cancer"], frame["lung_cancer"])
    assert (known(found) == known(frame)).all()
    assert (found[TASKS].sum() == frame[TASKS].sum()).all()
    moved = [(found[task] != frame[task])[is_train & frame[task].notna()].mean() for task in TASKS[1:]]
    assert min(moved) > 0.3  # two independent answers of 40 % differ in 48 %
    assert (found["asthma"] != found["copd"])[is_train].any()
    assert kept({"shuffle_tasks": TASKS[1:]}, frame).equals(found)


def test_without_settings_nothing_changes():
    pd.testing.assert_frame_equal(kept({"label_patterns": TASKS}), cohort())


def test_the_pattern_that_lacks_most_scans_comes_first_by_hand():
    found = assigned(np.array([[True, True], [False, True], [True, True]]), np.eye(2, dtype=bool), [0.5, 0.5], seed=0)

    assert found[1] == 1  # its only label
    assert sorted(found[[0, 2]]) in ([0, 0], [0, 1])
    assert (found == 0).sum() == 2  # 1.5 scans are due to each, and the second has one already
