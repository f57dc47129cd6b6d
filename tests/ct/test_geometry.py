import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError

SEEDS = st.integers(0, 2**32 - 1)
# Columns: the array's x axis runs along world y, y along world z, z along world x.
CYCLIC = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def grid(**changes) -> ScanGeometry:
    values = {
        "size_zyx": (10, 20, 40),
        "spacing_zyx_mm": (2.0, 0.5, 0.25),
        "origin_xyz_mm": (10.0, 20.0, 30.0),
    }
    return ScanGeometry(**{**values, **changes})


@pytest.mark.parametrize(
    ("direction", "world"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), (11.0, 21.0, 32.0)),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), (9.0, 19.0, 32.0)),
        (CYCLIC, (12.0, 21.0, 31.0)),
    ],
)
def test_a_voxel_is_where_spacing_origin_and_direction_put_it(direction, world):
    # Voxel z 1, y 2, x 4 is 2 mm along z, 1 mm along y and 1 mm along x.
    assert grid(direction=direction).voxel_to_world((1, 2, 4)) == pytest.approx(world)
    assert grid(direction=direction).world_to_voxel(world) == pytest.approx((1, 2, 4))


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_world_and_voxel_coordinates_are_inverse(random_geometry, seed):
    geometry = random_geometry(seed)
    points = np.random.default_rng(seed).uniform(-50, 50, size=(7, 3))
    there_and_back = geometry.world_to_voxel(geometry.voxel_to_world(points))
    np.testing.assert_allclose(there_and_back, points, atol=1e-8)
    back_and_there = geometry.voxel_to_world(geometry.world_to_voxel(points))
    np.testing.assert_allclose(back_and_there, points, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_distances_in_the_world_are_voxel_steps_times_spacing(random_geometry, seed):
    geometry = random_geometry(seed)
    steps = np.random.default_rng(seed).uniform(-9, 9, size=(5, 3))
    moved = geometry.voxel_to_world(steps) - np.asarray(geometry.origin_xyz_mm)
    expected = np.linalg.norm(steps * geometry.spacing_zyx_mm, axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), expected, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_a_crop_keeps_world_positions(random_geometry, seed):
    geometry = random_geometry(seed)
    start = np.random.default_rng(seed).integers(0, 30, size=3)
    cropped = geometry.cropped(tuple(start.tolist()), (3, 4, 5))
    assert cropped.size_zyx == (3, 4, 5)
    points = np.array([[0, 0, 0], [2, 3, 4], [0.5, -1, 7]])
    np.testing.assert_allclose(
        cropped.voxel_to_world(points), geometry.voxel_to_world(points + start), atol=1e-8
    )


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_resampling_keeps_the_corner_of_the_first_voxel(random_geometry, seed):
    geometry = random_geometry(seed)
    target_spacing = tuple(np.random.default_rng(seed).uniform(0.3, 6.0, size=3).tolist())
    target = geometry.resampled(target_spacing)
    corner = (-0.5, -0.5, -0.5)
    np.testing.assert_allclose(
        target.voxel_to_world(corner), geometry.voxel_to_world(corner), atol=1e-8
    )
    # The box has the same size to within half a target voxel on each axis, or is one voxel thick.
    extent = np.multiply(geometry.size_zyx, geometry.spacing_zyx_mm)
    difference = np.abs(np.multiply(target.size_zyx, target_spacing) - extent)
    one_voxel = np.asarray(target.size_zyx) == 1
    assert np.all((difference <= 0.5 * np.asarray(target_spacing) + 1e-9) | one_voxel)


def test_resampled_size_is_size_times_the_ratio_of_spacings():
    # 10 x 2 / 1.25 = 16, 20 x 0.5 / 0.7 = 14.3, 40 x 0.25 / 0.7 = 14.3; the first centre moves by
    # half the difference of the spacings: 0.225, 0.1 and -0.375 mm along x, y, z.
    target = grid().resampled((1.25, 0.7, 0.7))
    assert target.size_zyx == (16, 14, 14)
    assert target.origin_xyz_mm == pytest.approx((10.225, 20.1, 29.625))


def test_a_resampled_grid_is_never_empty():
    assert grid(size_zyx=(1, 1, 1)).resampled((9.0, 9.0, 9.0)).size_zyx == (1, 1, 1)


def test_the_normal_is_the_direction_of_increasing_slices():
    np.testing.assert_allclose(grid(direction=CYCLIC).normal_xyz, (1, 0, 0))


def test_json_lists_are_in_the_order_x_y_z():
    assert grid().as_dict() == {
        "size_xyz": [40, 20, 10],
        "spacing_xyz_mm": [0.25, 0.5, 2.0],
        "origin_xyz_mm": [10.0, 20.0, 30.0],
        "direction": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size_zyx": (10, 0, 40)}, "size .* is \\(10, 0, 40\\)"),
        ({"size_zyx": (10, 20)}, "three sizes"),
        ({"spacing_zyx_mm": (2.0, -0.5, 0.25)}, "spacing .*-0.5"),
        ({"spacing_zyx_mm": (2.0, math.nan, 0.25)}, "spacing .*nan"),
        ({"spacing_zyx_mm": (2.0, 0.5)}, "three finite values"),
        ({"origin_xyz_mm": (0.0, math.inf, 0.0)}, "origin .*inf"),
        ({"direction": (1, 0, 0, 0, 1, 0.2, 0, 0, 1)}, "orthogonal unit vectors"),
        ({"direction": (2, 0, 0, 0, 1, 0, 0, 0, 1)}, "orthogonal unit vectors"),
        ({"direction": (math.nan, 0, 0, 0, 1, 0, 0, 0, 1)}, "orthogonal unit vectors"),
        ({"direction": (1, 0, 0, 1)}, "orthogonal unit vectors"),
        ({"origin_xyz_mm": (0.0, 1.0)}, "origin"),
    ],
)
def test_an_impossible_grid_is_refused(changes, message):
    with pytest.raises(LungDetError, match=message):
        grid(**changes)
