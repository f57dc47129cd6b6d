from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_outcomes import (
    TruthScore,
    best_per_nodule,
    loudest_false_positives,
    truth_scores,
    worst_misses,
)
from lungdet_mmdet.scoring.slab_records import TruthBox
from lungdet_mmdet.scoring.slab_scores import operating_point_scores, size_band_scores
from tests.support.slabs import found, outcomes_of, slab, slab_set


def outcomes(boxes, *rows):
    return outcomes_of(slab_set(slab(0, "a", *boxes)), [found(0, *rows)])


NODULE = TruthBox((0.0, 0.0, 10.0, 10.0), 10.0)


def test_a_box_gets_its_best_score_at_half_overlap():
    # 10 x 5 within 10 x 10 overlaps by exactly .5; 10 x 4 by .4.
    scored = truth_scores(outcomes([NODULE], (0, 0, 10, 5, 0.6), (0, 0, 10, 4, 0.9)))

    assert [item.score for item in scored] == [0.6]


def test_a_missed_box_scores_zero_and_ignored_ones_are_not_listed():
    ignored = TruthBox((50.0, 50.0, 9.0, 9.0), 9.0, is_ignored=True)

    assert [item.score for item in truth_scores(outcomes([NODULE, ignored]))] == [0.0]


def test_the_largest_missed_nodule_is_the_worst():
    large = TruthBox((100.0, 0.0, 20.0, 20.0), 20.0)
    seen = TruthBox((200.0, 0.0, 10.0, 10.0), 30.0)
    scored = truth_scores(outcomes([NODULE, large, seen], (200, 0, 210, 10, 0.8)))

    assert [item.box.diameter_mm for item in worst_misses(scored, count=2)] == [20.0, 10.0]


def test_detections_on_boxes_and_ignore_regions_are_not_false():
    region = TruthBox((100.0, 100.0, 50.0, 50.0), 9.0, is_ignored=True, kind="excluded")
    (outcome,) = outcomes(
        [NODULE, region],
        (0, 0, 10, 10, 0.9), (110, 110, 115, 115, 0.8), (60, 60, 70, 70, 0.3), (40, 0, 50, 9, 0.7),
    )  # fmt: skip

    loud = loudest_false_positives([outcome], count=5)

    assert [item.score for item in loud] == [0.7, 0.3]
    assert outcome.boxes_xyxy_px[loud[0].row].tolist() == [40.0, 0.0, 50.0, 9.0]
    assert len(loudest_false_positives([outcome], count=1)) == 1


def test_a_nodule_on_several_slabs_counts_once_with_its_best_score():
    small = TruthBox((0.0, 0.0, 4.0, 4.0), 10.0, nodule_id="a/0")
    wide = TruthBox((0.0, 0.0, 10.0, 10.0), 10.0, nodule_id="a/0")
    unnamed = TruthBox((0.0, 0.0, 6.0, 6.0), 6.0)
    scored = [
        TruthScore(0, small, 0.7),
        TruthScore(1, wide, 0.0),
        TruthScore(2, unnamed, 0.1),
        TruthScore(3, unnamed, 0.2),
    ]

    nodules = best_per_nodule(scored)

    assert [(item.img_id, item.score, item.n_slabs) for item in nodules] == [
        (1, 0.7, 2), (2, 0.1, 1), (3, 0.2, 1),
    ]  # fmt: skip


def test_one_detection_over_two_nodules_finds_one_everywhere():
    # 10 x 7 of 10 x 13: the box of the upper nodule overlaps the lower one's by 0.54.
    upper, lower = NODULE, TruthBox((0.0, 3.0, 10.0, 10.0), 10.0)
    matched = match_slabs(slab_set(slab(0, "a", upper, lower)), [found(0, (0, 0, 10, 10, 0.9))])
    (outcome,) = matched.outcomes

    assert size_band_scores(matched)["AR50"][0] == 0.5
    assert (outcome.at(0.5).found, outcome.at(0.5).missed) == ((upper,), (lower,))
    assert [item.score for item in truth_scores(matched.outcomes)] == [0.9, 0.0]


def test_a_second_detection_on_one_nodule_is_false_everywhere():
    truth = slab_set(slab(0, "a", NODULE))
    matched = match_slabs(truth, [found(0, (0, 0, 10, 9, 0.6), (0, 0, 10, 10, 0.8))])
    (outcome,) = matched.outcomes

    assert operating_point_scores(matched, 0.5)["precision"][0] == 0.5
    assert outcome.verdicts == ("hit", "false positive")
    assert [item.score for item in loudest_false_positives([outcome], count=5)] == [0.6]
