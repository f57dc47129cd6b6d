import numpy as np
import pytest

from lungdet_mmdet.annotations.slab_boxes import nodule_coverage
from lungdet_mmdet.errors import LungDetError

SPACING = (2.5, 0.7, 0.7)


def test_all_and_nothing():
    assert nodule_coverage(np.ones((20, 60, 60), bool), (10, 30, 30), 12.0, SPACING) == 1.0
    assert nodule_coverage(np.zeros((20, 60, 60), np.uint8), (10, 30, 30), 12.0, SPACING) == 0.0


@pytest.mark.parametrize("diameter", [0.5, 3.0, 9.0, 21.0])
def test_half_space_through_the_centre_is_half(diameter):
    mask = np.zeros((40, 80, 80), np.uint8)
    mask[:, :, :40] = 1  # the face lies at x = 39.5
    assert nodule_coverage(mask, (20.0, 40.0, 39.5), diameter, (1.0, 1.0, 1.0)) == pytest.approx(
        0.5, abs=0.01
    )


def test_cap_of_a_sphere():
    # A plane at half the radius cuts off 5/32 of the volume.
    mask = np.zeros((60, 60, 60), np.uint8)
    mask[:35] = 1  # the face lies at z = 34.5, 5 mm above the centre
    share = nodule_coverage(mask, (29.5, 30.0, 30.0), 20.0, (1.0, 1.0, 1.0))
    assert share == pytest.approx(27 / 32, abs=0.01)


def test_spacing_counts():
    mask = np.zeros((9, 30, 30), np.uint8)
    mask[4] = 1  # one slice of 4 mm through a sphere of 8 mm: r = 4, |z| <= 2 holds 11/16
    share = nodule_coverage(mask, (4.0, 15.0, 15.0), 8.0, (4.0, 1.0, 1.0))
    assert share == pytest.approx(11 / 16, abs=0.02)


def test_nodule_smaller_than_a_voxel():
    mask = np.zeros((3, 3, 3), bool)
    mask[1, 1, 1] = True
    assert nodule_coverage(mask, (1.0, 1.0, 1.0), 0.8, (1.0, 1.0, 1.0)) == 1.0
    assert nodule_coverage(mask, (1.0, 1.0, 1.5), 0.4, (1.0, 1.0, 1.0)) == pytest.approx(0.5)


def test_beyond_the_scan_is_not_covered():
    mask = np.ones((10, 10, 10), bool)
    assert nodule_coverage(mask, (-0.5, 5.0, 5.0), 6.0, (1.0, 1.0, 1.0)) == pytest.approx(
        0.5, abs=0.02
    )
    assert nodule_coverage(mask, (-50.0, 5.0, 5.0), 6.0, (1.0, 1.0, 1.0)) == 0.0


@pytest.mark.parametrize("diameter", [0.0, -1.0, float("nan")])
def test_unusable_diameter(diameter):
    with pytest.raises(LungDetError, match="diameter"):
        nodule_coverage(np.ones((3, 3, 3), bool), (1, 1, 1), diameter, SPACING)


def test_unusable_centre():
    with pytest.raises(LungDetError, match="centre"):
        nodule_coverage(np.ones((3, 3, 3), bool), (1, float("inf"), 1), 5.0, SPACING)
