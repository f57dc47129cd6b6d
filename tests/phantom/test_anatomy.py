import numpy as np
import pytest

from lungdet_mmdet.phantom.anatomy import Anatomy

INSIDE_LEFT, INSIDE_RIGHT = (80.0, 0.0, -40.0), (-80.0, 0.0, -40.0)


def lung_at(anatomy, *points):
    x, y, z = np.array(points).T
    return anatomy.lung(x, y, z)


def test_lungs_lie_on_both_sides_of_the_mediastinum():
    left, right, middle, outside = lung_at(
        Anatomy(), INSIDE_LEFT, INSIDE_RIGHT, (0.0, 0.0, -40.0), (160.0, 0.0, -40.0)
    )
    assert max(left, right) < -5.0
    assert min(middle, outside) > 5.0


def test_lungs_end_below_the_neck_and_above_the_belly():
    above, below = lung_at(Anatomy(), (50.0, 20.0, 110.0), (60.0, 0.0, -160.0))
    assert min(above, below) > 0.0


@pytest.mark.parametrize(
    ("option", "gone", "left"),
    [("left_lung", INSIDE_LEFT, INSIDE_RIGHT), ("right_lung", INSIDE_RIGHT, INSIDE_LEFT)],
)
def test_removed_lung_is_gone_and_the_other_stays(option, gone, left):
    absent, present = lung_at(Anatomy(**{option: False}), gone, left)
    assert absent > 0 > present


def test_heart_lies_more_to_the_left():
    left, right = Anatomy().heart(np.array([60.0, -60.0]), np.array([-36.0] * 2), -80.0)
    assert left < 0 < right


def test_one_slice_and_single_points_agree():
    anatomy, x, y = Anatomy(), np.linspace(-120, 120, 7), np.linspace(-80, 80, 7)
    grid_x, grid_y = np.meshgrid(x, y)
    plane = anatomy.lung(grid_x, grid_y, -60.0)
    points = anatomy.lung(grid_x.ravel(), grid_y.ravel(), np.full(49, -60.0))
    np.testing.assert_allclose(plane.ravel(), points)


def test_slices_stay_float32():
    x, y = np.meshgrid(np.linspace(-99, 99, 5, dtype=np.float32), np.zeros(4, np.float32))
    assert Anatomy().lung(x, y, -60.0).dtype == np.float32
