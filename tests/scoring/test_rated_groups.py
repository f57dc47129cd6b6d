from dataclasses import replace

import numpy as np
import pytest

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.scoring.froc import match_marks_of_split
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet, TruthBox
from lungdet_mmdet.scoring.split_scores import (
    ScoringOptions,
    rated_groups,
    rated_scores,
    score_split,
)
from tests.support.slabs import slab


def split(ratings, locations=None):
    """Two scans of one slab: a nodule of 10 mm at (15, 15) each."""
    box = (10.0, 10.0, 10.0, 10.0)
    slabs, nodules = {}, []
    for img_id, uid in ((1, "1.1"), (2, "1.2")):
        boxes = (TruthBox(box, 10.0, nodule_id=f"{uid}/0"),)
        slabs[img_id] = slab(img_id, uid, *boxes, slab_index=0)
        nodules.append(Nodule(f"{uid}/0", uid, (15.0, 15.0, 0.0), 10.0))
    return SlabSet(
        slabs, ("1.1", "1.2"), tuple(nodules), ratings=ratings, locations=locations or {}
    )


RATINGS = {"1.1/0": {"texture": 4.5, "malignancy": 2.5}, "1.2/0": {"texture": 1.25}}


def test_means_are_rounded_halves_upward():
    found = {(g.rating, g.group): g.nodule_ids for g in rated_groups(split(RATINGS))}
    assert found["texture", "solid"] == {"1.1/0"}
    assert found["texture", "ground-glass"] == {"1.2/0"}
    assert found["texture", "part-solid"] == frozenset()
    assert found["malignancy", "3"] == {"1.1/0"}


def test_a_group_is_scored_by_its_own_nodules():
    # Only the first scan's nodule is found.
    detections = [
        SlabDetections(1, np.array([[10, 10, 20, 20]]), np.array([0.9])),
        SlabDetections(2, np.zeros((0, 4)), np.zeros(0)),
    ]
    marks = Marks(("1.1",), np.array([[15.0, 15.0, 0.0]]), np.array([0.9]))
    figures, intervals, counts = rated_scores(
        split(RATINGS),
        detections,
        marks,
        max_detections=100,
        n_resamples=20,
        seed=0,
    )
    assert (counts["n_texture_solid"], counts["n_texture_part-solid"]) == (1, 0)
    assert figures["AP50_texture_solid"] == pytest.approx(1.0)
    assert figures["sensitivity_texture_solid"] == 1.0
    # The found nodule of the other group is no false positive here.
    assert figures["AP50_texture_ground-glass"] == 0.0
    assert figures["sensitivity_texture_ground-glass"] == 0.0
    assert np.isnan(figures["AP50_texture_part-solid"])
    assert set(intervals) == set(figures)


def test_without_ratings_there_are_no_groups():
    assert rated_groups(split({})) == []


def test_a_scan_that_failed_is_no_scan_without_false_positives_in_any_group():
    # Two false positives before the hit: 2 per scan looked at, but 1 over both scans.
    healthy = split(RATINGS)
    failed = replace(healthy, failed=("1.2",), info={"data": "CT scans"})
    marks = Marks(("1.1",) * 3, np.array([[90.0, 90, 0], [80.0, 80, 0], [15.0, 15, 0]]),
                  np.array([0.9, 0.8, 0.7]))  # fmt: skip
    for slab_set, expected in ((failed, 0.0), (healthy, 1.0)):
        figures, *_ = rated_scores(slab_set, [], marks, max_detections=100, n_resamples=0, seed=0)
        assert figures["sensitivity_texture_solid"] == expected


def test_where_a_nodule_sits_is_scored_without_any_rating():
    detections = [
        SlabDetections(1, np.array([[10, 10, 20, 20]]), np.array([0.9])),
        SlabDetections(2, np.zeros((0, 4)), np.zeros(0)),
    ]
    marks = Marks(("1.1",), np.array([[15.0, 15.0, 0.0]]), np.array([0.9]))
    slab_set = split({}, {"1.1/0": "pleural", "1.2/0": "isolated"})
    figures, intervals, counts = rated_scores(
        slab_set.seen_by(detections), detections, marks, max_detections=100, n_resamples=20, seed=0
    )
    assert counts == {"n_location_isolated": 1, "n_location_pleural": 1, "n_location_vascular": 0}
    assert figures["AP50_location_pleural"] == pytest.approx(1.0)
    assert figures["sensitivity_location_pleural"] == 1.0
    assert figures["sensitivity_location_isolated"] == 0.0
    assert np.isnan(figures["AP50_location_vascular"])
    assert set(intervals) == set(figures)


def test_groups_look_at_as_many_boxes_a_slab_as_the_whole():
    louder = [[100 + 10 * k, 0, 105 + 10 * k, 5] for k in range(5)]
    boxes = np.array([*louder, [10, 10, 20, 20]], dtype=float)
    detections = [
        SlabDetections(1, boxes, np.linspace(0.9, 0.4, 6)),
        SlabDetections(2, np.zeros((0, 4)), np.zeros(0)),
    ]
    seen = split(RATINGS).seen_by(detections)
    marks = Marks((), np.zeros((0, 3)), np.zeros(0))
    for limit, is_found in ((5, False), (6, True)):
        scores = score_split(
            seen,
            detections,
            match_slabs(seen, detections, max_detections=limit),
            match_marks_of_split(seen, marks),
            ScoringOptions(n_resamples=0),
            marks=marks,
        )
        for name in ("AP50", "AP50_texture_solid"):
            assert (scores.figures[name] > 0) == is_found, (limit, name)


def test_nodules_in_no_slab_count_as_missed():
    whole = split(RATINGS)
    unseen = Nodule("1.2/9", "1.2", (15.0, 15.0, 300.0), 10.0)
    ratings = {**RATINGS, "1.2/9": {"texture": 5.0}}
    slab_set = replace(whole, nodules=(*whole.nodules, unseen), unseen=(unseen,), ratings=ratings)
    detections = [SlabDetections(1, np.array([[10, 10, 20, 20]]), np.array([0.9]))]
    detections += [SlabDetections(2, np.zeros((0, 4)), np.zeros(0))]
    marks = Marks(("1.1",), np.array([[15.0, 15.0, 0.0]]), np.array([0.9]))
    options = dict(max_detections=100, n_resamples=0, seed=0)
    figures, _, counts = rated_scores(slab_set, detections, marks, **options)
    assert counts["n_texture_solid"] == 2
    # One of two is found: AP is the area up to recall 0.5, in COCO's 101 points.
    assert figures["AP50_texture_solid"] == pytest.approx(51 / 101)
    assert figures["sensitivity_texture_solid"] == 0.5
