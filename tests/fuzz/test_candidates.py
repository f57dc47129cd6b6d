"""Merging of boxes: whatever a model and its slabs say, sound candidates or an error."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.candidates import candidates_by_series, merge_slab_detections
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections
from tests.fuzz.cases import TRIED, fuzzed
from tests.support.slabs import found, slab

pytestmark = pytest.mark.reliability("fuzzing: candidate merging")

ANY = st.floats()
IN_IMAGE = st.floats(-50, 600)
SCORES = st.floats(0, 1)
# Few different scores and corners, so that there are ties.
PIXEL_MM = 0.7
TIED = st.sampled_from([0.0, 0.25, 0.5, 1.0])


def boxes(corner, score, max_size=12):
    return st.lists(st.tuples(*[corner] * 4, score), max_size=max_size)


def check_sound(candidates, n_boxes):
    assert sum(candidate.n_boxes for candidate in candidates) == n_boxes
    scores = [candidate.score for candidate in candidates]
    assert scores == sorted(scores, reverse=True)
    for candidate in candidates:
        numbers = (*candidate.centre_xyz_mm, candidate.diameter_mm, *candidate.z_range_mm)
        assert all(map(math.isfinite, numbers))
        assert candidate.diameter_mm >= 0
        assert candidate.z_range_mm[0] < candidate.z_range_mm[1]


@fuzzed()
@given(
    rows=st.lists(boxes(IN_IMAGE, st.one_of(SCORES, TIED)), min_size=1, max_size=5),
    options=st.tuples(SCORES, SCORES, st.floats(0, 4)),
)
def test_boxes_of_a_model_are_all_accounted_for_once(rows, options):
    min_score, min_iou, max_gap = options
    TRIED["candidate merging"] += 1
    candidates = merge_slab_detections(
        [slab(i, pixel_mm=PIXEL_MM) for i in range(len(rows))],
        [found(i, *of_slab) for i, of_slab in enumerate(rows)],
        min_score=min_score,
        min_iou=min_iou,
        max_gap_slabs=max_gap,
    )
    check_sound(candidates, sum(row[4] >= min_score for of_slab in rows for row in of_slab))


@fuzzed()
@given(
    rows=boxes(ANY, ANY, max_size=5),
    spacing=st.tuples(ANY, ANY, ANY),
    origin=st.tuples(ANY, ANY, ANY),
    faces=st.tuples(ANY, ANY),
    min_iou=ANY,
    max_gap=ANY,
)
def test_numbers_of_any_size(rows, spacing, origin, faces, min_iou, max_gap):
    TRIED["candidate merging"] += 1
    try:
        geometry = SlabGeometry(
            index=0, width=64, height=64, z_range_mm=faces, spacing_xy_mm=spacing[:2],
            origin_xyz_mm=origin,
        )  # fmt: skip
        candidates = merge_slab_detections(
            [Slab(0, "a", geometry)], [found(0, *rows)], min_iou=min_iou, max_gap_slabs=max_gap
        )
    except LungDetError:
        return
    check_sound(candidates, sum(row[4] >= 0 for row in rows))


@fuzzed()
@given(
    rows=boxes(st.floats(-1e300, 1e300), SCORES, max_size=6),
    direction=st.lists(ANY, min_size=9, max_size=9),
    is_axial=st.booleans(),
)
def test_boxes_far_out_and_slabs_of_any_direction(rows, direction, is_axial):
    TRIED["candidate merging"] += 1
    try:
        turned = slab(0, pixel_mm=PIXEL_MM, **({} if is_axial else {"direction": tuple(direction)}))
        candidates = merge_slab_detections([turned], [found(0, *rows)])
    except LungDetError:
        return
    check_sound(candidates, len(rows))


@fuzzed()
@given(
    rows=st.lists(boxes(TIED.map(lambda v: 40 * v), TIED), min_size=2, max_size=4),
    seed=st.integers(0),
)
def test_the_order_of_slabs_and_boxes_changes_nothing(rows, seed):
    rng = np.random.default_rng(seed)
    slabs = [slab(i, pixel_mm=PIXEL_MM) for i in range(len(rows))]
    detections = [found(i, *of_slab) for i, of_slab in enumerate(rows)]
    shuffled = []
    for item in detections:
        order = rng.permutation(len(item.scores))
        shuffled.append(SlabDetections(item.img_id, item.boxes_xyxy_px[order], item.scores[order]))
    TRIED["candidate merging"] += 1
    expected = merge_slab_detections(slabs, detections)
    assert merge_slab_detections(slabs[::-1], shuffled[::-1]) == expected


@fuzzed()
@given(ids=st.lists(st.integers(-1, 4), max_size=6))
def test_detections_on_unknown_slabs_are_refused(ids):
    slabs = {i: slab(i, pixel_mm=PIXEL_MM) for i in range(3)}
    TRIED["candidate merging"] += 1
    detections = [found(i, (1, 1, 9, 9, 0.5)) for i in ids]
    if set(ids) <= set(slabs):
        by_series = candidates_by_series(slabs, detections)
        check_sound(by_series["a"], len(ids))
    else:
        with pytest.raises(LungDetError, match="none of the 3 given"):
            candidates_by_series(slabs, detections)
