import numpy as np
import pytest

from lungdet_mmdet.ct.lungs.airway import follow_airway

SPACING = (3.0, 3.0, 3.0)


def chest(radius=3, end=5, x=20):
    """20 slices of 41 x 41: a body with a tube of air from slice `end` to the top."""
    hu = np.full((20, 41, 41), 40, np.int16)
    yy, xx = np.mgrid[:41, :41]
    hu[end:, (yy - 20) ** 2 + (xx - x) ** 2 <= radius**2] = -1000
    return hu


def airway_of(hu):
    candidate = (hu < -450).astype(np.uint8)
    return follow_airway(hu, candidate, candidate ^ 1, SPACING), candidate


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
