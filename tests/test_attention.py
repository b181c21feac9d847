"""Where an attention map peaks is scored on the network's own grid, against chance."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from lungmtl.evidence.attention import hit_rate, peak_inside, swapped_chance, touched_cells
from lungmtl.files import sha256
from lungmtl.network.model import REDUCTION, MultiTaskNet
from lungmtl.study import Look, load_run, look_at, positive_scans, table_of

COMMITTED = Path(__file__).parents[1] / "results" / "attention" / "runs" / "STL-s0"


def mask_at(voxel, shape=(16, 24, 32)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[voxel] = True
    return mask


@pytest.mark.parametrize(
    ("voxel", "cell"),
    [((0, 0, 0), (0, 0, 0)), ((3, 3, 3), (0, 0, 0)), ((4, 3, 11), (1, 0, 1)), ((8, 16, 24), (1, 2, 3))],
)
def test_voxel_touches_the_cell_whose_centre_is_nearest(voxel, cell):
    assert np.argwhere(touched_cells(mask_at(voxel), cell=8)).tolist() == [list(cell)]


def test_far_end_of_the_input_belongs_to_the_last_cell():
    assert np.argwhere(touched_cells(mask_at((15, 23, 31)), cell=8)).tolist() == [[1, 2, 3]]


def test_empty_mask_touches_nothing():
    assert not touched_cells(np.zeros((16, 24, 32), dtype=bool), cell=8).any()


def test_cells_are_those_of_a_shape_that_does_not_divide():
    assert touched_cells(np.ones((17, 20, 33), dtype=bool), cell=8).shape == (3, 3, 5)


@pytest.mark.parametrize("voxel", [(8, 16, 24), (16, 8, 8)])
def test_cells_are_where_the_network_looks(voxel):
    # the feature voxel whose centre is this input voxel must be the one with the largest gradient there
    torch.manual_seed(0)
    network = MultiTaskNet(["lung_cancer"], width=4).eval()
    kernels = [layer.weight for layer in network.modules() if isinstance(layer, torch.nn.Conv3d)]
    for weight in kernels:
        torch.nn.init.constant_(weight, 0.1)
    volume = torch.zeros(1, 1, 32, 32, 40)
    volume[(0, 0, *voxel)] = 1
    with torch.inference_mode():
        response = network.encoder(volume)[0].sum(dim=0)  # (z, y, x)

    cell = touched_cells(mask_at(voxel, (32, 32, 40)), cell=REDUCTION)

    assert np.unravel_index(response.argmax().item(), response.shape) == tuple(np.argwhere(cell)[0])


def test_peak_in_the_target_is_a_hit_and_chance_is_the_targets_share_of_the_lungs():
    attention = np.zeros((2, 3, 4))
    attention[1, 2, 3] = 1

    hit, chance = peak_inside(attention, mask_at((8, 16, 24)), np.ones((16, 24, 32), dtype=bool), cell=8)

    assert hit
    assert chance == pytest.approx(1 / 24)


def test_peak_elsewhere_is_a_miss_with_the_same_chance():
    attention = np.zeros((2, 3, 4))
    attention[0, 0, 0] = 1
    lungs = mask_at((slice(8, 9), slice(0, 24), slice(0, 32)))  # the upper layer of cells

    assert peak_inside(attention, mask_at((8, 16, 24)), lungs, cell=8) == (False, pytest.approx(1 / 12))


def test_drawn_peaks_hit_as_often_as_chance_says():
    generator = np.random.default_rng(0)
    lungs = np.ones((16, 24, 32), dtype=bool)
    target = mask_at((slice(0, 12), slice(0, 8), slice(0, 8)))

    scores = [peak_inside(generator.random((2, 3, 4)), target, lungs, cell=8) for _ in range(2000)]

    # standard error of the share: sqrt(0.33 * 0.67 / 2000) = 0.011
    assert np.mean([hit for hit, _ in scores]) == pytest.approx(scores[0][1], abs=0.035)


def test_map_that_always_peaks_in_one_place_is_as_good_when_swapped():
    attention = np.zeros((2, 3, 4))
    attention[1, 2, 3] = 1
    targets = [mask_at((8, 16, 24)), mask_at((8, 16, 24)), mask_at((0, 0, 0))]

    assert swapped_chance([attention] * 3, targets, cell=8).tolist() == [1, 1, 0]


def test_swapping_leaves_out_the_scans_own_map():
    attentions = np.zeros((3, 2, 3, 4))
    attentions[0, 1, 2, 3] = attentions[1, 1, 2, 3] = attentions[2, 0, 0, 0] = 1
    targets = [mask_at((8, 16, 24)), mask_at((0, 0, 0)), mask_at((0, 0, 0))]

    assert swapped_chance(list(attentions), targets, cell=8).tolist() == [0.5, 0.5, 0]


def test_one_scan_cannot_be_swapped():
    with pytest.raises(ValueError, match="Swapping needs one map per target and two scans"):
        swapped_chance([np.zeros((2, 3, 4))], [mask_at((0, 0, 0))], cell=8)


def test_hit_rate_is_wilsons_interval_and_a_binomial_test():
    score = hit_rate(np.array([True] * 5 + [False] * 5), np.full(10, 0.1))

    assert (score.hits, score.n_scans, score.rate.value, score.chance) == (5, 10, 0.5, pytest.approx(0.1))
    # Wilson by hand: centre 0.5, half-width 1.96 sqrt(0.25/10 + 1.96^2/400) / (1 + 1.96^2/10) = 0.2634
    assert score.rate[1:] == pytest.approx((0.2366, 0.7634), abs=5e-5)
    # sum of binomial(10, 0.1) from 5 on = 0.001635
    assert score.p == pytest.approx(0.001635, abs=1e-6)


@pytest.mark.parametrize(
    ("attention", "lungs", "message"),
    [
        (
            np.zeros((2, 2, 2)),
            np.ones((16, 24, 32), dtype=bool),
            "`attention` must be the masks' shape by 8, rounded up",
        ),
        (np.zeros((2, 3, 4)), np.zeros((16, 24, 32), dtype=bool), "`lungs` must have a voxel in the grid"),
    ],
)
def test_masks_that_do_not_fit_are_refused(attention, lungs, message):
    with pytest.raises(ValueError, match=message):
        peak_inside(attention, mask_at((0, 0, 0)), lungs, cell=8)


@pytest.mark.parametrize(("hit", "chance"), [([], []), ([True], [0.1, 0.2])])
def test_hit_rate_needs_one_chance_per_hit(hit, chance):
    with pytest.raises(ValueError, match="There must be one hit and one chance per scan"):
        hit_rate(np.array(hit), np.array(chance))


def test_figures_are_cut_through_the_structure_or_through_the_highest_attention():
    attention = np.zeros((2, 3, 4))
    attention[1, 2, 3] = 1
    look = Look(np.zeros((16, 24, 32)), attention, {"nodule": mask_at((3, 5, 7)).astype(np.float16)})

    assert look.drawn("nodule", cell=8)[3] == (3, 5, 7)
    assert look.drawn("", cell=8)[3] == (8, 16, 24)
    assert not look.drawn("", cell=8)[2].any()


def test_committed_network_tells_cancer_in_the_cohort_that_its_record_names(tmp_path):
    run, names = load_run(COMMITTED), positive_scans(COMMITTED)
    scan = names[0]
    path, table = table_of(run, [scan], cache_dir=str(tmp_path))
    found = look_at(run, table.loc[scan], path.parent)
    logit = run.network(torch.from_numpy(found.volume).float()[None, None])[0].item()
    predictions = pd.read_csv(COMMITTED / "predictions.csv").set_index("scan")["probability"]

    assert sha256(path) == run.record["cohort"]["sha256"]
    assert len(list(path.parent.glob("images/*"))) == 1  # the others are not made
    # trained and scored in bf16, whose three digits move a logit by some hundredths
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(predictions[scan], abs=0.03)
    assert all(split["lung_cancer"]["low"] > 0.6 for split in run.record["metrics"].values())
    assert (COMMITTED / "model.safetensors").stat().st_size < 1.2e6
