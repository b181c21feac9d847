"""Grids: resampling keeps ramps and labels, averages where it reduces, and fills outside."""

import numpy as np
import pytest

from lungmtl.data.grid import Grid, lung_grid, middle_voxel, to_grid


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
