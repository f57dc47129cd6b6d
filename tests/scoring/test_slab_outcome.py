import pytest

from lungdet_mmdet.scoring.slab_outcomes import representative_slabs
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import outcome_on, slab

NEAR = TruthBox((0.0, 0.0, 10.0, 10.0), 10.0)
FAR = TruthBox((50.0, 50.0, 20.0, 20.0), 20.0)
GRAZED = TruthBox((100.0, 0.0, 10.0, 10.0), 10.0, is_ignored=True, kind="grazed")


def outcome_of(truth, found, *, threshold=0.5):
    """``found`` holds (x0, y0, x1, y1, score)."""
    return outcome_on(slab(1, "a", *truth), *found, threshold=threshold)


def test_a_box_on_a_nodule_hits_and_others_are_false():
    outcome = outcome_of([NEAR, FAR], [(0, 0, 10, 8, 0.9), (30, 30, 40, 40, 0.6)])

    assert outcome.verdicts == ("hit", "false positive")
    assert outcome.found == (NEAR,)
    assert outcome.missed == (FAR,)
    assert outcome.top_false_positive == 0.6


def test_boxes_under_the_threshold_do_not_count():
    outcome = outcome_of([NEAR], [(0, 0, 10, 10, 0.49), (0, 0, 10, 10, 0.5)])

    assert outcome.scores.tolist() == [0.5]
    assert outcome_of([NEAR], [(0, 0, 10, 10, 0.49)]).missed == (NEAR,)


def test_of_two_boxes_on_one_nodule_the_weaker_is_false():
    outcome = outcome_of([NEAR], [(0, 0, 10, 9, 0.6), (0, 0, 9, 9, 0.8)])

    assert outcome.scores.tolist() == [0.8, 0.6]
    assert outcome.verdicts == ("hit", "false positive")


@pytest.mark.parametrize(("width", "verdict"), [(5.0, "hit"), (4.9, "false positive")])
def test_half_an_overlap_is_enough(width, verdict):
    assert outcome_of([NEAR], [(0, 0, width, 10, 0.9)]).verdicts == (verdict,)


def test_ignore_regions_are_neither_nodules_nor_false_positives():
    # The second lies in the region by 40 % of its own area.
    outcome = outcome_of([GRAZED], [(101, 1, 104, 4, 0.9), (106, 0, 116, 10, 0.8)])

    assert outcome.verdicts == ("ignored", "false positive")
    assert outcome.missed == ()


def test_an_empty_slab_has_nothing():
    outcome = outcome_of([], [])

    assert (outcome.verdicts, outcome.found, outcome.missed) == ((), (), ())
    assert outcome.top_false_positive == 0.0


def on(number, *found, nodule=True):
    """One slab of a split, at every threshold."""
    return outcome_on(slab(number, "a", *([NEAR] if nodule else [])), *found, threshold=0.0)


def hit(number, score):
    return on(number, (0, 0, 10, 10, score))


def alarm(number, score):
    return on(number, (0, 0, 5, 5, score), nodule=False)


def chosen_of(outcomes, *, count):
    chosen = representative_slabs(outcomes, threshold=0.5, count=count)
    return [outcome.slab.img_id for outcome in chosen]


def test_two_thirds_show_nodules_from_best_to_worst_the_rest_false_positives():
    outcomes = [hit(n, 0.1 * (n + 1)) for n in range(7)]
    outcomes += [alarm(7, 0.6), alarm(8, 0.9), alarm(9, 0.7)]

    # Four of seven nodules: places 0, 2, 4, 6 of the falling scores.
    assert chosen_of(outcomes, count=6) == [6, 4, 2, 0, 8, 9]


def test_what_one_kind_leaves_free_goes_to_the_other():
    weak, quiet = on(0), on(2, nodule=False)

    assert chosen_of([weak, hit(1, 0.2), quiet], count=3) == [1, 0]
    assert chosen_of([weak, alarm(1, 0.6), alarm(2, 0.9)], count=3) == [0, 2, 1]
    assert chosen_of([quiet], count=3) == []
    assert chosen_of([weak, alarm(1, 0.6)], count=1) == [0]
    assert chosen_of([alarm(1, 0.4)], count=1) == []


def test_chosen_slabs_show_what_scores_over_the_threshold():
    (chosen,) = representative_slabs([hit(0, 0.4)], threshold=0.5, count=1)

    assert (chosen.verdicts, chosen.missed) == ((), (NEAR,))
