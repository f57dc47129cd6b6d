import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.slab_overlays import (
    CAPTION_HEIGHT,
    DETECTION_COLOUR,
    TRUTH_COLOUR,
    OverlayBox,
    detection_boxes,
    draw_slab,
    read_slab,
    truth_boxes,
    write_png,
)

SLAB = np.full((80, 100), 90, dtype=np.uint8)


def places_of(picture, colour):
    """Rows and columns that show a colour."""
    return np.nonzero((picture == np.array(colour, dtype=np.uint8)).all(axis=2))


def test_a_box_is_drawn_around_its_enlarged_place():
    picture = draw_slab(
        SLAB, [OverlayBox((20, 30, 40, 50), TRUTH_COLOUR)], spacing_x_mm=0.7, min_short_side=320
    )

    assert picture.shape == (320, 400, 3)
    rows, columns = places_of(picture, TRUTH_COLOUR)
    # Enlarged by 4, with a rim of two pixels and a line two pixels wide.
    assert abs(columns.min() - 80) <= 3
    assert abs(columns.max() - 160) <= 3
    assert abs(rows.min() - 120) <= 3
    assert abs(rows.max() - 200) <= 3
    assert (picture[124:196, 84:156] == 90).all()


def test_a_caption_adds_a_strip():
    plain = draw_slab(SLAB, [], spacing_x_mm=0.7)
    captioned = draw_slab(SLAB, [], spacing_x_mm=0.7, caption="phantom")

    assert captioned.shape[0] == plain.shape[0] + CAPTION_HEIGHT


@pytest.mark.parametrize("box", [(0, 0, 4, 4), (95, 75, 100, 80), (-9, -9, 200, 200)])
def test_boxes_at_the_edge_are_drawn(box):
    picture = draw_slab(SLAB, [OverlayBox(box, TRUTH_COLOUR, "12.3 mm")], spacing_x_mm=0.7)

    assert picture.shape == (640, 800, 3)


def test_truth_and_ignore_regions_are_told_apart():
    annotations = [
        {"bbox": [1, 2, 3, 4], "iscrowd": 0, "diameter_mm": 6.25},
        {"bbox": [5, 5, 1, 1], "iscrowd": 1, "diameter_mm": 3.0},
    ]

    nodule, region = truth_boxes(annotations)

    assert nodule.box_xyxy_px == (1, 2, 4, 6)
    assert nodule.label == "6.2 mm"
    assert nodule.colour != region.colour
    assert region.label == ""


def test_the_strongest_detection_lies_on_top():
    boxes = detection_boxes(np.array([[0, 0, 9, 9], [5, 5, 9, 9.0]]), np.array([0.9, 0.2]))

    assert [box.label for box in boxes] == ["0.20", "0.90"]
    assert boxes[0].colour == DETECTION_COLOUR


def test_pictures_are_written_and_read_with_their_colours(tmp_path):
    picture = np.zeros((4, 5, 3), dtype=np.uint8)
    picture[..., 0] = 200

    write_png(tmp_path / "a.png", picture)

    assert cv2.imread(str(tmp_path / "a.png"))[0, 0].tolist() == [0, 0, 200]
    assert read_slab(tmp_path / "a.png").shape == (4, 5)


def test_of_a_slab_with_its_neighbours_the_slab_is_shown(tmp_path):
    channels = np.zeros((4, 5, 3), np.uint8)
    channels[0, 0], channels[1, 1], channels[2, 2] = (255, 0, 0), (0, 200, 0), (0, 0, 255)
    cv2.imwrite(str(tmp_path / "a.png"), channels)
    slab = read_slab(tmp_path / "a.png")
    assert slab[1, 1] == 200
    assert np.count_nonzero(slab) == 1


def test_a_missing_slab_is_named(tmp_path):
    with pytest.raises(LungDetError, match=r"gone\.png"):
        read_slab(tmp_path / "gone.png")
