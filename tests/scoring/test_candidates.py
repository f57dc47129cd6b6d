import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.scoring.candidates import candidates_by_series, merge_slab_detections
from lungdet_mmdet.scoring.slab_records import SlabDetections
from tests.support.slabs import slab


def slab_at(number, *, stride_mm=SLAB_THICKNESS_MM, shift=(0.0, 0.0, 0.0), seriesuid="a"):
    """A slab of 0.5 mm pixels; slab 0 spans z = 0 .. 7.5 mm, pixel (0, 0) lies at x, y = 0."""
    low = number * stride_mm + shift[2]
    origin = (shift[0], shift[1], low + SLAB_THICKNESS_MM / 2)
    return slab(number, seriesuid, pixel_mm=0.5, low_mm=low, origin_xyz_mm=origin)


def box_px(x_mm, y_mm, diameter_mm):
    """The box of a disc around a point in mm: pixel centre c is box coordinate c + 0.5."""
    cx, cy, half = x_mm / 0.5 + 0.5, y_mm / 0.5 + 0.5, diameter_mm
    return [cx - half, cy - half, cx + half, cy + half]


def on(number, *boxes):
    return SlabDetections(
        number, np.array([box_px(*box[:3]) for box in boxes]), np.array([box[3] for box in boxes])
    )


def test_one_box_becomes_one_candidate_in_world_mm():
    (candidate,) = merge_slab_detections([slab_at(2)], [on(2, (10.0, 20.0, 6.0, 0.9))])

    assert candidate.centre_xyz_mm == (10.0, 20.0, 18.75)
    assert candidate.diameter_mm == 6.0
    assert (candidate.score, candidate.slab_indices) == (0.9, (2,))
    assert candidate.z_range_mm == (15.0, 22.5)


def test_nothing_found_gives_no_candidates():
    empty = SlabDetections(0, np.zeros((0, 4)), np.zeros(0))

    assert merge_slab_detections([slab_at(0)], [empty]) == []
    assert merge_slab_detections([slab_at(0)], []) == []


def test_neighbouring_slabs_that_see_one_nodule_give_one_candidate():
    # Weights score * d^2: .8 * 400 = 320 at z = 3.75 and .5 * 256 = 128 at z = 11.25.
    (candidate,) = merge_slab_detections(
        [slab_at(0), slab_at(1)], [on(0, (10, 10, 20, 0.8)), on(1, (10, 10, 16, 0.5))]
    )

    assert candidate.centre_xyz_mm[2] == pytest.approx(3.75 + 7.5 * 128 / 448)
    assert (candidate.diameter_mm, candidate.score) == (20.0, 0.8)
    assert candidate.slab_indices == (0, 1)
    assert candidate.z_range_mm == (0.0, 15.0)


def test_a_second_box_on_the_same_slab_gives_no_second_candidate():
    candidates = merge_slab_detections([slab_at(0)], [on(0, (10, 10, 8, 0.8), (11, 10, 7, 0.6))])

    assert [candidate.n_boxes for candidate in candidates] == [2]


def test_each_candidate_knows_the_boxes_in_it():
    joined = []
    found = [on(0, (40, 40, 9, 0.3), (10, 10, 20, 0.8)), on(1, (10, 10, 16, 0.5))]
    merge_slab_detections([slab_at(0), slab_at(1)], found, joined=joined)

    # Slab and row of each box, the best candidate first.
    assert [sorted(map(tuple, boxes.tolist())) for boxes in joined] == [[(0, 1), (1, 0)], [(0, 0)]]


def test_two_nodules_side_by_side_stay_two():
    candidates = merge_slab_detections([slab_at(0)], [on(0, (10, 10, 5, 0.6), (16, 10, 5, 0.8))])

    assert [candidate.score for candidate in candidates] == [0.8, 0.6]


def test_small_nodules_two_slabs_apart_stay_two():
    # One whole slab lies between them, more than a 5 mm sphere can bridge.
    candidates = merge_slab_detections(
        [slab_at(0), slab_at(1), slab_at(2)], [on(0, (10, 10, 5, 0.8)), on(2, (10, 10, 5, 0.6))]
    )

    assert len(candidates) == 2


def test_a_large_nodule_missed_on_its_middle_slab_stays_one():
    candidates = merge_slab_detections(
        [slab_at(0), slab_at(1), slab_at(2)], [on(0, (10, 10, 20, 0.8)), on(2, (10, 10, 20, 0.6))]
    )

    assert [candidate.slab_indices for candidate in candidates] == [(0, 2)]


def test_a_gap_of_two_slabs_parts_even_large_boxes():
    candidates = merge_slab_detections(
        [slab_at(0), slab_at(3)], [on(0, (10, 10, 40, 0.8)), on(3, (10, 10, 40, 0.6))]
    )

    assert len(candidates) == 2


def test_a_best_box_near_the_end_of_a_sphere_still_reaches_the_other_end():
    # Sphere of 16 mm around z = 11.25, its outer cuts drawn a little small. The best box lies below
    # z = 4, the last slab begins at 15.25: 11.25 mm apart, more than either of the two is wide.
    slabs = [slab_at(n, stride_mm=3.75, shift=(0, 0, -3.5)) for n in range(6)]
    cuts = {0: 5.0, 1: 16.0, 2: 16.0, 3: 16.0, 4: 15.0, 5: 11.0}
    detections = [on(n, (10, 10, cut, 0.9 if n == 0 else 0.8)) for n, cut in cuts.items()]

    (candidate,) = merge_slab_detections(slabs, detections)

    assert candidate.slab_indices == (0, 1, 2, 3, 4, 5)
    assert candidate.diameter_mm == 16.0


def test_among_equal_scores_the_largest_box_leads():
    # The small boxes are 7 mm apart, but both lie within the large one between them.
    candidates = merge_slab_detections(
        [slab_at(0), slab_at(1), slab_at(2)],
        [on(0, (10, 10, 4, 0.5)), on(1, (13, 10, 10, 0.5)), on(2, (17, 10, 4, 0.5))],
    )

    assert [candidate.slab_indices for candidate in candidates] == [(0, 1, 2)]


def test_a_wandering_vessel_does_not_chain_two_nodules():
    # Each box overlaps the one before, but the last is 8 mm from the first.
    candidates = merge_slab_detections(
        [slab_at(n) for n in range(5)],
        [on(n, (10 + 2 * n, 10, 5, 0.9 - 0.1 * n)) for n in range(5)],
    )

    assert len(candidates) > 1
    assert candidates[0].centre_xyz_mm[0] < 13


def test_a_faint_loose_box_does_not_set_the_diameter():
    (candidate,) = merge_slab_detections([slab_at(0)], [on(0, (10, 10, 6, 0.9), (10, 10, 60, 0.1))])

    assert candidate.diameter_mm == 6.0
    assert candidate.centre_xyz_mm[:2] == pytest.approx((10.0, 10.0))


def test_overlapping_slabs_narrow_down_the_centre():
    # Stride 2.5 mm; a sphere at z = 10 is seen fully by the slabs with mid-planes 6.25 .. 13.75.
    slabs = [slab_at(n, stride_mm=2.5) for n in range(6)]
    detections = [on(n, (10, 10, 4, 0.9)) for n in (1, 2, 3, 4)]

    (candidate,) = merge_slab_detections(slabs, detections)

    assert candidate.centre_xyz_mm[2] == pytest.approx(10.0)


def test_flipped_and_oblique_axes_are_followed():
    # x axis points to -x in the world, the normal to -z; faces are measured along the normal.
    axial = slab_at(0)
    geometry = dataclasses.replace(
        axial.geometry,
        origin_xyz_mm=(100.0, 50.0, -20.0),
        direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0),
        z_range_mm=(16.25, 23.75),
    )
    flipped = dataclasses.replace(axial, geometry=geometry)

    (candidate,) = merge_slab_detections([flipped], [on(0, (10, 20, 6, 0.9))])

    assert candidate.centre_xyz_mm == (90.0, 70.0, -20.0)


def test_only_the_best_are_kept_and_faint_boxes_left_out():
    detections = [on(0, (10, 10, 5, 0.9), (50, 50, 5, 0.5), (90, 90, 5, 0.1))]

    kept = merge_slab_detections([slab_at(0)], detections, min_score=0.2)
    best = merge_slab_detections([slab_at(0)], detections, max_candidates=1)

    assert [candidate.score for candidate in kept] == [0.9, 0.5]
    assert [candidate.score for candidate in best] == [0.9]


def test_a_box_without_area_is_a_candidate_of_its_own():
    (candidate,) = merge_slab_detections([slab_at(0)], [on(0, (10, 10, 0, 0.9))])

    assert (candidate.diameter_mm, candidate.centre_xyz_mm[2]) == (0.0, 3.75)


def test_every_scan_has_an_entry_and_scans_do_not_mix():
    slabs = {0: slab_at(0), 1: slab_at(1, seriesuid="b"), 2: slab_at(2, seriesuid="c")}

    found = candidates_by_series(slabs, [on(0, (10, 10, 20, 0.9)), on(1, (10, 10, 20, 0.8))])

    assert {uid: len(items) for uid, items in found.items()} == {"a": 1, "b": 1, "c": 0}


# Quarters and whole shifts are exact in floating point, so even boxes at the very edge of a rule
# fall on the same side after a shift.
quarters = st.integers(0, 160).map(lambda number: number / 4)
boxes = st.tuples(
    st.integers(0, 5),
    quarters,
    quarters,
    st.integers(4, 80).map(lambda number: number / 4),
    st.sampled_from([0.125, 0.25, 0.5, 0.75, 1.0]),
)


def merged(rows, shift=(0.0, 0.0, 0.0), order=None):
    slabs = [slab_at(number, shift=shift) for number in range(6)]
    detections = [
        on(number, *[row[1:] for row in rows if row[0] == number])
        for number in range(6)
        if any(row[0] == number for row in rows)
    ]
    if order is not None:
        order.shuffle(slabs)
        order.shuffle(detections)
    return merge_slab_detections(slabs, detections)


@given(st.lists(boxes, max_size=14), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_slabs_and_boxes_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)

    assert merged(shuffled, order=random) == merged(rows)


@given(st.lists(boxes, max_size=14), st.tuples(*[st.integers(-200, 200)] * 3))
@settings(max_examples=60, deadline=None)
def test_shifting_the_scan_shifts_the_candidates(rows, shift):
    for here, there in zip(merged(rows), merged(rows, shift=shift), strict=True):
        assert there.centre_xyz_mm == pytest.approx(np.add(here.centre_xyz_mm, shift))
        assert there.z_range_mm == pytest.approx(np.add(here.z_range_mm, shift[2]))
        assert (there.score, there.diameter_mm, there.slab_indices) == (
            here.score, here.diameter_mm, here.slab_indices,
        )  # fmt: skip


@given(st.tuples(*[st.floats(10, 35)] * 3), st.floats(4, 30), st.sampled_from([2.5, 3.75, 7.5]))
@settings(max_examples=60, deadline=None)
def test_a_sphere_gives_one_candidate_with_its_diameter(centre, diameter, stride_mm):
    slabs = [slab_at(number, stride_mm=stride_mm) for number in range(int(60 / stride_mm))]
    detections = []
    for item in slabs:
        low, high = item.geometry.z_range_mm
        off = max(low - centre[2], centre[2] - high, 0.0)
        if off < diameter / 2:
            across = 2 * np.sqrt((diameter / 2) ** 2 - off**2)
            detections.append(on(item.img_id, (centre[0], centre[1], across, 0.9)))

    (candidate,) = merge_slab_detections(slabs, detections)

    assert candidate.centre_xyz_mm[:2] == pytest.approx(centre[:2])
    assert candidate.diameter_mm == pytest.approx(diameter)
    assert abs(candidate.centre_xyz_mm[2] - centre[2]) <= SLAB_THICKNESS_MM / 2 + 1e-6
