import numpy as np
import pytest

from lungdet_mmdet.annotations.label_study import box_iou, study_labels, study_lines
from lungdet_mmdet.annotations.lidc import Contour, LidcSeries, Reading
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.reports.score_plots import label_study_png
from tests.annotations.lidc_files import square

# Slices of 1 mm. Three readers drew a box of 9 x 9 pixels of 1 mm on nine slices about z = 14.
HEIGHTS = range(10, 19)


def outline(first, last):
    return tuple(Contour(float(z), True, np.array(square(first, last))) for z in HEIGHTS)


def series(*outlines):
    readings = tuple(Reading(str(i), {}, contours) for i, contours in enumerate(outlines))
    return LidcSeries("1.2", "P", 1.0, tuple(map(float, range(30))), readings)


def nodule(x, y, diameter=10.0):
    return Nodule("1.2/0", "1.2", (x, y, 14.0), diameter)


def test_a_sphere_is_compared_with_the_readers_box_about_one_centre():
    # The origin of the scan is not known: (114, -86) stands for pixel (24, 24).
    study = study_labels([series(*[outline(19, 29)] * 3)], [nodule(114, -86)], n_shifts=2)
    assert (study.nodules_of_readers, study.matched) == (1, 1)
    whole = [cut for cut in study.cuts if cut.sphere_mm == pytest.approx(10.0)]
    assert whole
    for cut in whole:
        assert (cut.width_mm, cut.height_mm) == (9.0, 9.0)
        assert cut.iou_sphere == pytest.approx(0.81)
        assert cut.iou_reader == (1.0, 1.0, 1.0)


def test_a_nodule_at_another_height_is_not_the_readers():
    far = Nodule("1.2/0", "1.2", (24.0, 24.0, 25.0), 10.0)
    study = study_labels([series(*[outline(19, 29)] * 3)], [far])
    assert (study.matched, study.cuts) == (0, ())
    assert "| all | 0 |" in "\n".join(study_lines(study))


def test_overlap_of_boxes():
    assert box_iou(np.array([0, 0, 4, 4]), np.array([2, 0, 6, 4])) == pytest.approx(1 / 3)
    assert box_iou(np.array([0, 0, 1, 1]), np.array([2, 2, 3, 3])) == 0.0


def test_table_and_figure_are_made():
    study = study_labels([series(*[outline(19, 29)] * 3)], [nodule(24, 24)], n_shifts=1)
    lines = study_lines(study)
    assert lines[0].startswith("1 nodules in the table, 1 of three readers or more, 1 matched")
    assert label_study_png(study).startswith(b"\x89PNG")
