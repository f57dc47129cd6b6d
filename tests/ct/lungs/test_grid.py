import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.grid import FULL, CoarseGrid


def test_block_size_is_the_nearest_whole_number():
    grid = CoarseGrid.covering((10, 100, 101), (5.0, 0.7, 0.8), 3.0)
    assert grid.factors_zyx == (1, 4, 4)
    assert grid.shape_zyx == (10, 25, 26)
    assert grid.spacing_zyx_mm == pytest.approx((5.0, 2.8, 3.2))
    assert grid.voxel_ml == pytest.approx(5.0 * 2.8 * 3.2 / 1000)


def test_block_never_exceeds_the_scan():
    assert CoarseGrid.covering((1, 2, 3), (0.5, 0.5, 0.5), 3.0).factors_zyx == (1, 2, 3)


def test_block_mean_of_whole_and_hanging_blocks():
    volume = np.array([[[0, 4, 10], [8, 12, 30]], [[2, 6, 10], [10, 14, 30]]], np.int16)
    grid = CoarseGrid.covering(volume.shape, (1.0, 1.0, 1.0), 2.0)
    # (0+4+8+12)/4 = 6 and (2+6+10+14)/4 = 8 give 7; the last column stands for itself.
    np.testing.assert_array_equal(grid.block_mean(volume), [[[7, 20]]])


def test_last_slice_alone_in_its_block_is_not_diluted():
    volume = np.stack([np.full((2, 2), v, np.int16) for v in (-100, -300, -900)])
    grid = CoarseGrid.covering(volume.shape, (1.0, 1.0, 1.0), 2.0)
    np.testing.assert_array_equal(grid.block_mean(volume).ravel(), [-200, -900])


def test_thin_wall_survives_the_mean():
    volume = np.full((1, 8, 8), -900, np.int16)
    volume[:, :, 2:4] = 0  # picking every fourth voxel would miss it
    grid = CoarseGrid.covering(volume.shape, (1.0, 1.0, 1.0), 4.0)
    assert grid.block_mean(volume)[0, 0, 0] == -450


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_surface_of_the_mask_lies_between_the_blocks(axis):
    grid = CoarseGrid.covering((16, 16, 16), (1.0, 1.0, 1.0), 4.0)
    coarse = np.zeros((4, 4, 4), np.uint8)
    coarse[(slice(None),) * axis + (slice(0, 2),)] = 1
    expected = np.zeros((16, 16, 16), np.uint8)
    expected[(slice(None),) * axis + (slice(0, 8),)] = 1
    np.testing.assert_array_equal(grid.to_scan(coarse * np.uint8(FULL)), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_margin_moves_the_surface_outwards(axis):
    grid = CoarseGrid.covering((16, 16, 16), (1.0, 1.0, 1.0), 4.0)
    coarse = np.zeros((4, 4, 4), np.uint8)
    coarse[(slice(None),) * axis + (slice(0, 2),)] = 1
    moved = grid.to_scan(coarse * np.uint8(FULL), margin_mm=1.0)
    lines = moved.any(axis=tuple(a for a in range(3) if a != axis))
    assert lines.sum() == 9


def test_surface_lies_where_the_shares_put_it():
    # Blocks of 4 voxels, centres 1.5, 5.5, 9.5: half full between a full one at 5.5 and one that
    # is a quarter full at 9.5, two thirds of the way: 8.17.
    grid = CoarseGrid.covering((16, 16, 16), (1.0, 1.0, 1.0), 4.0)
    share = np.zeros((4, 4, 4), np.uint8)
    share[:, :, :2], share[:, :, 2] = FULL, FULL // 4
    assert np.flatnonzero(grid.to_scan(share)[8, 8]).tolist() == list(range(9))


def test_odd_sizes_keep_the_scan_shape_and_fill_to_its_end():
    grid = CoarseGrid.covering((5, 7, 9), (1.0, 1.0, 1.0), 2.0)
    assert grid.to_scan(np.full(grid.shape_zyx, FULL, np.uint8)).all()
    assert grid.to_scan(np.zeros(grid.shape_zyx, np.uint8)).shape == (5, 7, 9)


def test_round_trip_of_a_block_mask():
    grid = CoarseGrid.covering((12, 12, 12), (1.0, 1.0, 1.0), 3.0)
    coarse = np.zeros((4, 4, 4), np.uint8)
    coarse[1:3, 1:3, 1:3] = 1
    np.testing.assert_array_equal(grid.from_scan(grid.to_scan(coarse * np.uint8(FULL))), coarse)
