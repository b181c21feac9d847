"""Lungs: the mask is the air in the body, with what lies in it and without airways, bowel gas and table."""

from pathlib import Path

import numpy as np
import pytest
from chests import chest, fine_chest, finer

from lungmtl.data.lungs import _block_means, lung_mask
from lungmtl.data.reading import read_volume
from lungmtl.data.region import find_region
from lungmtl.data.volume import ScanError, Volume
from lungmtl.sources.phantom import make_volume

REAL_CT = Path(__file__).parent / "data" / "lidc_idri_0001_4mm.nii.gz"
REAL_NODULE = (56, 64, 55)  # tests/data/README.md
REAL_LUNGS_L = 3.69  # by an independent mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


def test_lungs_are_the_air_in_the_body():
    volume = chest()
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)


def test_vessels_and_nodules_inside_the_lungs_or_at_their_wall_are_lung():
    volume = finer(chest(), 4)
    lungs = volume.hu == -850
    volume.hu[40:44, 56:60, 48:52] = 50  # 10 mm, inside
    volume.hu[40:44, 56:60, 24:27] = 50  # at the wall, 7.5 mm deep
    found = lung_mask(volume)
    assert found[40:44, 56:60, 48:52].all()
    assert found[40:44, 56:60, 24:27].mean() > 0.6  # a ball does not reach the bottom of a box
    assert not (found & ~lungs).any()


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


def test_one_lung_or_a_childs_are_enough_but_not_what_an_abdomen_shows_of_lungs():
    volume = chest()
    volume.hu[6:18, 9:19, 6:16] = 40
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)
    volume.hu[6:10, 9:19, 20:30] = 40
    np.testing.assert_array_equal(lung_mask(volume), volume.hu == -850)  # 0.8 L
    with pytest.raises(ScanError, match=r"and 1 L where it is cut off. Found 0.80 L, with 100 cm2 in the first"):
        lung_mask(Volume(volume.hu[:18], volume.spacing_mm))
    volume.hu[6:17, 9:19, 20:30] = 40
    with pytest.raises(ScanError, match=r"at least 0.2 L of lung. Found 0.00 L: not a chest"):
        lung_mask(volume)


@pytest.mark.parametrize("find", [lung_mask, find_region])
def test_gas_in_the_bowel_is_no_lung(find):
    volume = chest()
    volume.hu[volume.hu == -850] = -995
    with pytest.raises(ScanError, match=r"Found 0.00 L and 2.40 L of gas, as in bowel"):
        find(volume)


@pytest.mark.parametrize("value", [-1000, 40])
def test_nothing_but_air_or_tissue_is_not_a_chest(value):
    with pytest.raises(ScanError, match=r"at least 0.2 L of lung"):
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
