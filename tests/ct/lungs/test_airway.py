import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.body import follow_airway

SPACING = (3.0, 3.0, 3.0)


def chest(radius=3, end=5, x=20):
    """20 slices of 41 x 41: a body with a tube of air from slice `end` to the top."""
    hu = np.full((20, 41, 41), 40, np.int16)
    yy, xx = np.mgrid[:41, :41]
    hu[end:, (yy - 20) ** 2 + (xx - x) ** 2 <= radius**2] = -1000
    return hu


def airway_of(hu, outside=None):
    candidate = (hu < -450).astype(np.uint8)
    outside = np.zeros_like(candidate) if outside is None else outside
    return follow_airway(hu, candidate & (outside ^ 1), outside, 20.0, SPACING).mask, candidate


def test_the_longest_path_in_the_middle_is_taken_not_the_first():
    hu = chest(end=5)
    hu[19] = 40  # the windpipe begins a slice lower
    hu[14:, 26:32, 28:34] = -1000  # another tube, 33 mm beside it, from the top
    airway, _ = airway_of(hu)
    assert airway[5:19, 20, 20].all()
    assert not airway[:, 26:32, 28:34].any()


def test_carina_is_found_where_the_lumen_divides():
    hu = chest(end=10)
    yy, xx = np.mgrid[:41, :41]
    for k in range(9, 2, -1):  # two tubes that part by a block a slice
        for side in (-1, 1):
            hu[k, (yy - 20) ** 2 + (xx - 20 - side * (12 - k)) ** 2 <= 4] = -1000
    candidate = (hu < -450).astype(np.uint8)
    found = follow_airway(hu, candidate, np.zeros_like(candidate), 20.0, SPACING)
    # Radius 2 each: 3 blocks beside the middle there is tissue between them.
    assert found.carina_zyx == (9, 20, 20)
    hu[:10] = 40
    candidate = (hu < -450).astype(np.uint8)
    assert follow_airway(hu, candidate, 0 * candidate, 20.0, SPACING).carina_zyx is None


def test_a_trough_of_the_skin_is_no_windpipe():
    hu = chest(radius=4)
    outside = np.zeros(hu.shape, np.uint8)
    outside[:, :18] = 1
    hu[outside > 0] = -1000
    assert not airway_of(hu, outside)[0].any()


def test_tube_is_followed_to_its_end():
    airway, tube = airway_of(chest())
    np.testing.assert_array_equal(airway, tube)


def test_following_stops_where_the_lumen_opens_into_the_lung():
    hu = chest()
    hu[3:9, 5:36, 5:36] = -1000  # as light as the lumen: the area alone tells
    airway, tube = airway_of(hu)
    # One slice into the opening the lumen may grow by a block: 29 to 45 of 9 mm2.
    assert np.flatnonzero(airway.any(axis=(1, 2))).tolist() == list(range(8, 20))
    np.testing.assert_array_equal(airway[9:], tube[9:])


@pytest.mark.parametrize(
    "hu",
    [
        chest(radius=12),  # too wide: 4000 mm2
        chest(radius=0),  # too narrow: 9 mm2
        chest(x=4),  # 48 mm beside the middle
        chest(end=17),  # 9 mm long
        np.where(chest() < 0, np.int16(-890), chest()),  # as dense as lung
    ],
    ids=["wide", "narrow", "lateral", "short", "dense"],
)
def test_what_is_no_windpipe(hu):
    assert not airway_of(hu)[0].any()


def test_no_air_at_all():
    hu = np.full((5, 9, 9), 40, np.int16)
    assert not airway_of(hu)[0].any()
