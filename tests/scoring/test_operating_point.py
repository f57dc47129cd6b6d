import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_records import TruthBox
from lungdet_mmdet.scoring.slab_scores import (
    choose_threshold,
    operating_point_scores,
    precision_recall_curve,
)
from tests.support.slabs import found, slab, slab_set

SIDE_PX = 10.0  # at 1 mm pixels: a medium nodule


def matched_with(hits, misses=(), *, n_nodules=4):
    """Match one slab per score in ``hits`` (box right) plus a last slab of wrong boxes."""
    slabs, detections = [], []
    for number in range(n_nodules):
        boxes = (TruthBox((0.0, 0.0, SIDE_PX, SIDE_PX), 10.0),)
        slabs.append(slab(number, f"s{number}", *boxes))
        right = hits[number : number + 1]
        detections.append(found(number, *[(0, 0, 10, 10, score) for score in right]))
    slabs.append(slab(n_nodules, "healthy"))
    detections.append(found(n_nodules, *[(50, 50, 60, 60, score) for score in misses]))
    return match_slabs(slab_set(*slabs), detections)


def test_the_curve_has_one_point_per_distinct_score():
    # .9 right; .8 one right and one wrong; .5 wrong.
    matched = matched_with([0.9, 0.8], [0.8, 0.5])

    curve = precision_recall_curve(matched.bands[0], 0)

    assert curve.thresholds.tolist() == [0.9, 0.8, 0.5]
    assert curve.precision.tolist() == [1.0, 2 / 3, 2 / 4]
    assert curve.recall.tolist() == [0.25, 0.5, 0.5]
    assert curve.f1.tolist() == pytest.approx([0.4, 4 / 7, 0.5])


def test_the_curve_without_detections_is_empty():
    assert len(precision_recall_curve(matched_with([]).bands[0], 0).thresholds) == 0


def test_max_f1_takes_the_best_threshold():
    assert choose_threshold(matched_with([0.9, 0.8], [0.8, 0.5]), "max_f1") == 0.8


def test_equal_f1_is_settled_for_the_higher_threshold():
    # .9: P 1, R 1/2, F1 2/3. At .4 both are found among 4 kept: P 1/2, R 1, F1 2/3.
    matched = matched_with([0.9, 0.4], [0.6, 0.5], n_nodules=2)

    assert choose_threshold(matched, "max_f1") == 0.9


@pytest.mark.parametrize(
    ("rule", "expected"),
    [("sensitivity>=0.25", 0.9), ("sensitivity >= 0.5", 0.8), ("sensitivity>=0.3", 0.8)],
)
def test_a_least_sensitivity_takes_the_highest_threshold_that_reaches_it(rule, expected):
    assert choose_threshold(matched_with([0.9, 0.8], [0.8]), rule) == expected


def test_no_threshold_where_none_can_be_chosen():
    never_reached = choose_threshold(matched_with([0.9]), "sensitivity>=0.5")
    nothing_found = choose_threshold(matched_with([]), "max_f1")
    nothing_right = choose_threshold(matched_with([], [0.5]), "max_f1")
    no_nodules = choose_threshold(matched_with([], [0.5], n_nodules=0), "max_f1")

    assert np.isnan([never_reached, nothing_found, nothing_right, no_nodules]).all()


@pytest.mark.parametrize("rule", ["best", "sensitivity>=0", "sensitivity>=1.5", "precision>=0.5"])
def test_an_unknown_rule_is_refused(rule):
    with pytest.raises(LungDetError, match="max_f1"):
        choose_threshold(matched_with([0.9]), rule)


def test_figures_at_a_threshold_keep_scores_equal_to_it():
    scores = operating_point_scores(matched_with([0.9, 0.8, 0.3], [0.8, 0.5]), 0.8)

    assert scores["precision"] == [2 / 3]
    assert scores["recall"] == [2 / 4]
    assert scores["F1"] == pytest.approx([4 / 7])
    assert scores["recall_medium"] == [2 / 4]
    assert np.isnan(scores["precision_small"][0])


def test_a_threshold_that_keeps_nothing_gives_zero():
    scores = operating_point_scores(matched_with([0.9]), float("nan"))

    assert (scores["precision"][0], scores["recall"][0], scores["F1"][0]) == (0.0, 0.0, 0.0)


def test_resamples_weigh_the_scans():
    # Scans: s0 found, s1 missed, healthy with one wrong box.
    matched = matched_with([0.9], [0.8], n_nodules=2)
    weights = np.array([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])

    scores = operating_point_scores(matched, 0.5, weights)

    assert scores["recall"].tolist() == [1.0, 0.0]
    assert scores["precision"].tolist() == [2 / 3, 0.0]
