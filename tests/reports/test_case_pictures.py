import cv2
import numpy as np
import pytest

from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.slab_overlays import CASE_GAP_PX, OverlayBox, case_picture

GREEN = (0, 255, 0)


def slab_with_dot(shape, x, y):
    slab = np.zeros(shape, dtype=np.uint8)
    slab[y - 1 : y + 2, x - 1 : x + 2] = 255
    return slab


@pytest.mark.parametrize(("x", "y"), [(50, 60), (2, 2), (97, 117)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.75)])
def test_the_focus_lies_in_the_middle_of_the_close_up(x, y, spacing):
    # The 3 x 3 dot around pixel (x, y) spans [x - 1, x + 2].
    focus = (x - 1.0, y - 1.0, x + 2.0, y + 2.0)

    picture = case_picture(
        slab_with_dot((120, 100), x, y), focus, [], spacing_xy_mm=spacing, field_mm=20, side_px=200
    )

    middle = picture[50:150, 50:150, 0]  # clear of the scale bar
    rows, columns = np.nonzero(middle > 128)
    assert columns.mean() == pytest.approx(49.5, abs=1.0)
    assert rows.mean() == pytest.approx(49.5, abs=1.0)
    # 3 pixels of 1 mm (0.5 mm) on 10 picture pixels per mm.
    assert np.ptp(columns) + 1 == pytest.approx(30 * spacing[0], abs=3)
    assert np.ptp(rows) + 1 == pytest.approx(30 * spacing[1], abs=3)


def test_boxes_follow_the_enlargement():
    picture = case_picture(
        np.zeros((100, 100), dtype=np.uint8),
        (45, 45, 55, 55),
        [OverlayBox((45, 45, 55, 55), GREEN)],
        spacing_xy_mm=(1, 1),
        field_mm=50,
        side_px=200,
    )

    rows, columns = np.nonzero((picture[:, :200] == GREEN).all(axis=2))
    # 10 pixels at 4 picture pixels each, in the middle, with a rim of two.
    assert abs(columns.min() - 78) <= 1
    assert abs(columns.max() - 121) <= 1
    assert (rows.min(), rows.max()) == (columns.min(), columns.max())


def test_large_findings_get_more_room():
    slab = slab_with_dot((200, 200), 100, 100)

    def dot_width(half):
        focus = (100.5 - half, 100.5 - half, 100.5 + half, 100.5 + half)
        picture = case_picture(slab, focus, [], spacing_xy_mm=(1, 1), field_mm=40, side_px=200)
        middle = picture[100, 60:140, 0]
        return np.count_nonzero(middle > 128)

    assert dot_width(4) == pytest.approx(15, abs=2)  # 40 mm
    assert dot_width(32) == pytest.approx(15 * 40 / 160, abs=2)  # 2.5 times 64 mm


def test_the_whole_slab_stands_beside():
    picture = case_picture(
        slab_with_dot((50, 100), 50, 25), (40, 20, 60, 30), [], spacing_xy_mm=(1, 1), side_px=100
    )

    assert picture.shape == (100, 100 + CASE_GAP_PX + 200, 3)


def test_jpegs_keep_thin_coloured_lines():
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 31:33] = GREEN

    red, green, blue = cv2.imdecode(np.frombuffer(encoded_jpeg(picture), np.uint8), 1)[32, 31, ::-1]

    assert green > 200
    assert max(red, blue) < 60
