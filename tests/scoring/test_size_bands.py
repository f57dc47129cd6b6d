import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import equivalent_diameter, size_bands


@pytest.mark.parametrize(
    ("diameter_mm", "name"),
    [(3.0, "small"), (7.0, "small"), (7.000001, "medium"), (15.0, "medium"), (15.1, "large")],
)
def test_an_edge_diameter_is_in_the_lower_band(diameter_mm, name):
    holding = [band.name for band in size_bands() if band.holds(np.array([diameter_mm]))[0]]

    assert holding == ["all", name]


def test_other_numbers_of_edges_name_the_bands_by_their_limits():
    names = [band.name for band in size_bands([6, 8, 30])]

    assert names == [
        "all",
        "over_0mm_to_6mm",
        "over_6mm_to_8mm",
        "over_8mm_to_30mm",
        "over_30mm_to_infmm",
    ]


@pytest.mark.parametrize("edges_mm", [(15, 7), (7, 7), (0, 7), (-1, 7)])
def test_edges_that_do_not_rise_are_refused(edges_mm):
    with pytest.raises(LungDetError, match="rising"):
        size_bands(edges_mm)


def test_equivalent_diameter_uses_both_spacings():
    # 8 px * 0.5 mm = 4 mm wide, 9 px * 1 mm = 9 mm high: sqrt(36) = 6 mm.
    assert equivalent_diameter(np.array([[0.0, 0.0, 8.0, 9.0]]), (0.5, 1.0, 7.5)) == [6.0]
