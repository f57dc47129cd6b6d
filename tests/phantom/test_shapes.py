import numpy as np
import pytest

from lungdet_mmdet.phantom import drawing


def test_ellipse_is_exact_on_its_axes_and_negative_inside():
    x, y = np.array([5.0, 0.0, 0.0, 1.0]), np.array([0.0, 2.0, 0.0, 0.0])
    distance = drawing.ellipse(x, y, 4.0, 2.0)
    assert distance[0] == pytest.approx(1.0)
    assert distance[1] == pytest.approx(0.0, abs=1e-9)
    assert distance[2] < -1.0
    assert distance[3] < 0.0


def test_rounded_box_meets_the_ellipse_on_the_axes_and_is_fuller_in_the_corners():
    corner = np.array([3.0]), np.array([3.0])
    assert drawing.rounded_box(np.array([6.0]), np.array([0.0]), 4.0, 4.0)[0] == pytest.approx(2.0)
    assert drawing.rounded_box(*corner, 4.0, 4.0)[0] < drawing.ellipse(*corner, 4.0, 4.0)[0]


def test_capsule_measures_from_its_axis_and_its_round_ends():
    x, y, z = np.array([3.0, 0.0]), np.array([0.0, 0.0]), np.array([5.0, 14.0])
    distance = drawing.capsule(x, y, z, (0.0, 0.0, 0.0), (0.0, 0.0, 10.0), 1.0)
    assert distance.tolist() == pytest.approx([2.0, 3.0])


def test_ellipsoid_follows_its_turned_axes():
    axes = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # long axis along z
    x, y, z = np.array([0.0, 3.0]), np.array([0.0, 0.0]), np.array([9.0, 0.0])
    distance = drawing.ellipsoid((x, y, z), (8.0, 2.0, 2.0), axes)
    assert distance.tolist() == pytest.approx([1.0, 1.0])


def test_smooth_union_adds_at_the_meeting_edge_only():
    a, b = np.array([0.0, 0.0]), np.array([0.0, 10.0])
    # Equal distances: lowered by blend / 4; further apart than the blend: untouched.
    assert drawing.smooth_union(a, b, 8.0).tolist() == pytest.approx([-2.0, 0.0])
    assert drawing.smooth_intersection(a, -b, 8.0).tolist() == pytest.approx([2.0, 0.0])
