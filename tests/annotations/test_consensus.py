from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lungdet_mmdet.annotations.consensus import (
    PlacedMask,
    consensus_nodules,
    group_readings,
    majority,
    nodules_on_grid,
    reading_mask,
)
from lungdet_mmdet.annotations.lidc import Contour, LidcSeries, Reading
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from tests.annotations.lidc_files import square


def reading(*contours, reader=None, **ratings):
    drawn = tuple(
        Contour(float(z), included, np.array(points, dtype=np.int32))
        for z, included, points in contours
    )
    return Reading("a", ratings, drawn, reader)


SLICES = np.array([0.0, 2.0, 4.0])


def test_contour_pixels_lie_outside():
    placed = reading_mask(reading((2.0, True, square(10, 14))), SLICES)
    assert placed.start_zyx == (1, 11, 11)
    assert placed.mask.shape == (1, 3, 3)
    assert placed.mask.all()


def test_a_diamond_encloses_one_pixel():
    placed = reading_mask(reading((0.0, True, [(5, 4), (6, 5), (5, 6), (4, 5)])), SLICES)
    assert (placed.start_zyx, placed.mask.shape) == ((0, 5, 5), (1, 1, 1))


def test_slices_go_by_position_not_by_order():
    falling = SLICES[::-1]
    placed = reading_mask(reading((4.0, True, square(0, 3)), (2.0, True, square(0, 3))), falling)
    assert placed.start_zyx[0] == 0
    assert placed.mask.shape[0] == 2


def test_a_contour_between_slices_is_counted():
    problems = Counter()
    far = reading((9.0, True, square(0, 3)))
    assert reading_mask(far, SLICES, problems=problems) is None
    assert problems == {"contours on no slice of the scan": 1}


def test_a_hole_is_taken_out_whatever_the_order():
    outer, hole = (0.0, True, square(0, 8)), (0.0, False, square(2, 5))
    for order in ((outer, hole), (hole, outer)):
        placed = reading_mask(reading(*order), SLICES)
        # 7 x 7 less 2 x 2.
        assert placed.mask.sum() == 45


def test_half_of_three_readers_is_two():
    masks = [PlacedMask((0, 0, x), np.ones((1, 1, 4), bool)) for x in (0, 1, 3)]
    placed = majority(masks, 0.5)
    # Columns 0..3, 1..4, 3..6: two or more on 1..4.
    assert (placed.start_zyx, placed.mask.shape) == ((0, 0, 1), (1, 1, 4))


def test_two_thirds_of_three_readers_is_two():
    masks = [PlacedMask((0, 0, 0), np.ones((1, 1, 1), bool))] * 2
    masks.append(PlacedMask((0, 0, 5), np.ones((1, 1, 1), bool)))
    assert majority(masks, 2 / 3).start_zyx == (0, 0, 0)


def test_readers_that_share_no_voxel_have_no_consensus():
    masks = [PlacedMask((0, 0, 2 * x), np.ones((1, 1, 1), bool)) for x in range(3)]
    assert majority(masks, 0.5) is None


def test_a_nodule_needs_three_readers():
    near = [reading((0.0, True, square(0, 6)), texture=t) for t in (5, 4, 3)]
    far = [reading((4.0, True, square(50, 56)))] * 2
    (nodule,) = consensus_nodules([*far, *near], SLICES, 1.0)
    assert nodule.placed.start_zyx == (0, 1, 1)
    assert nodule.rating_values("texture") == (5, 4, 3)
    assert nodule.rating_values("malignancy") == ()


def test_outlines_without_inside_are_counted():
    problems = Counter()
    consensus_nodules([reading((0.0, True, [(3, 3)]))], SLICES, 1.0, problems=problems)
    assert problems["outlines that enclose no voxel"] == 1


def test_two_nodules_side_by_side_are_parted():
    # Five readings: four of one nodule, one of another whose line is 1.9 mm away.
    one = [reading((0.0, True, square(0, 6)))] * 4
    other = reading((1.9, True, square(0, 6)))
    assert group_readings([*one, other], 1.0, 2.0) == [[0, 1, 2, 3], [4]]


def test_one_reader_has_one_reading_of_a_nodule():
    a = reading((0.0, True, square(0, 6)), reader="1")
    b = reading((1.9, True, square(0, 6)), reader="1")
    assert group_readings([a, b], 1.0, 2.0) == [[0], [1]]


@pytest.mark.parametrize("options", [{"min_readers": 0}, {"min_share": 0.0}, {"min_share": 1.5}])
def test_odd_options_are_refused(options):
    with pytest.raises(LungDetError, match="min_readers"):
        consensus_nodules([], SLICES, 1.0, **options)


@pytest.mark.parametrize(
    ("columns", "rows", "refused"),
    [
        (1.0, 1.0, ()),
        (1.0, -1.0, ("scan.nii.gz", "scan.mhd")),
        # Of a patient on his belly the images run so, and LUNA16's files with them; NIfTI says
        # nothing of the images.
        (-1.0, -1.0, ("scan.nii.gz",)),
    ],
)
def test_contours_are_not_put_on_turned_pixels(columns, rows, refused):
    grid = ScanGeometry(
        (20, 40, 40), (2.0, 0.7, 0.7), (0.0, 0.0, 0.0), (columns, 0, 0, 0, rows, 0, 0, 0, 1.0)
    )
    series = LidcSeries("1.2", None, 0.7, (), ())
    for name in ("scan.nii.gz", "scan.mhd", "folder"):  # contours fit the images in any order
        if name not in refused:
            assert nodules_on_grid(series, grid, Path(name)) == []
            continue
        with pytest.raises(LungDetError, match=f"{name}: its rows or columns run the other way"):
            nodules_on_grid(series, grid, Path(name))
