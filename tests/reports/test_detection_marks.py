import pytest

from lungdet_mmdet.reports.dark_panels import Field
from lungdet_mmdet.reports.prediction_figure import (
    FOUND,
    MISSED,
    NOT_COUNTED,
    RIGHT,
    WRONG,
    box_marks,
    focus_of,
    place_labels,
)
from lungdet_mmdet.scoring.slab_records import TruthBox
from tests.support.slabs import outcome_on, slab

FOUND_BOX = TruthBox((20.0, 20.0, 10.0, 10.0), 20.0)
MISSED_BOX = TruthBox((60.0, 20.0, 4.0, 4.0), 8.0)
EXCLUDED_BOX = TruthBox((80.0, 20.0, 4.0, 4.0), -1.0, is_ignored=True)


def marks_of(truth, boxes, scores):
    rows = [(*box, score) for box, score in zip(boxes, scores, strict=True)]
    return box_marks(outcome_on(slab(1, "1.2.3", *truth, slab_index=3, pixel_mm=2.0), *rows))


def test_boxes_come_in_mm_with_a_style_for_each_verdict():
    marks = marks_of(
        [FOUND_BOX, MISSED_BOX, EXCLUDED_BOX], [[20, 20, 30, 30], [40, 40, 50, 50]], [0.9, 0.6]
    )

    assert [mark.style for mark in marks] == [NOT_COUNTED, FOUND, MISSED, WRONG, RIGHT]
    assert [mark.label for mark in marks] == ["", "20.0 mm", "8.0 mm", "0.60", "0.90"]
    # Pixels are 2 mm wide.
    assert marks[1].field == Field(40.0, 60.0, 40.0, 60.0)
    assert marks[3].field == Field(80.0, 100.0, 80.0, 100.0)


def test_the_close_up_is_about_the_largest_nodule_or_the_best_detection():
    assert focus_of(marks_of([MISSED_BOX, FOUND_BOX], [], [])).label == "20.0 mm"
    alarms = marks_of([], [[0, 0, 9, 9], [40, 40, 50, 50]], [0.6, 0.9])
    assert focus_of(alarms).label == "0.90"


def test_scores_stand_on_the_right_and_diameters_on_the_left():
    marks = marks_of([FOUND_BOX], [[20, 20, 30, 30]], [0.9])
    rooms = dict(
        (mark.label, room)
        for mark, room in place_labels(marks, Field.around((50.0, 50.0), 120.0, 50.0))
    )

    assert rooms["0.90"].left > 60.0
    assert rooms["20.0 mm"].right < 40.0


@pytest.mark.parametrize(("edge", "side"), [(62.0, "left"), (120.0, "right")])
def test_a_label_without_room_stands_on_the_other_side(edge, side):
    marks = marks_of([], [[20, 20, 30, 30]], [0.9])
    ((_, room),) = place_labels(marks, Field(0.0, edge, 30.0, 70.0))

    assert (room.left > 60.0) == (side == "right")


def test_labels_that_would_hide_better_ones_are_left_out():
    marks = marks_of([], [[20, 20, 30, 30], [20, 21, 30, 31], [20, 22, 30, 32]], [0.9, 0.8, 0.7])
    labels = [m.label for m, _ in place_labels(marks, Field.around((50.0, 50.0), 120.0, 50.0))]

    # The second best moves to the other side; for the third there is no room.
    assert labels == ["0.90", "0.80"]


def test_a_diameter_is_labelled_before_false_alarms_on_its_nodule():
    # Hit at .9, two duplicates: the room on the left goes to the diameter.
    marks = marks_of(
        [FOUND_BOX], [[20, 20, 30, 30], [20, 21, 30, 31], [20, 22, 30, 32]], [0.9, 0.8, 0.7]
    )
    labels = [m.label for m, _ in place_labels(marks, Field.around((50.0, 50.0), 120.0, 50.0))]

    assert labels == ["0.90", "20.0 mm"]
