import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.dark_panels import (
    CLOSE_UP_SHARE,
    DPI,
    WIDTH_INCHES,
    Field,
    Picture,
    broken_into_lines,
    draw_scale_bar,
    panel_grid,
    png_of,
    write_notes,
    write_title,
)

FIELD = Field(left=-100.0, right=100.0, top=0.0, bottom=150.0)


@pytest.mark.parametrize(("n_panels", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 3)])
def test_panels_stand_three_in_a_row_and_keep_the_shape_of_the_field(n_panels, rows, columns):
    figure, panels = panel_grid(n_panels, FIELD, note_lines=1)
    width, height = figure.get_size_inches()
    boxes = [panel.plane.get_position() for panel in panels]

    assert len({round(box.y0, 6) for box in boxes}) == rows
    assert len({round(box.x0, 6) for box in boxes}) == columns
    for box in boxes:
        assert box.width * width / (box.height * height) == pytest.approx(200 / 150)
        assert box.x1 <= 1.0
        assert box.y0 >= 0.0


def test_no_panel_is_refused():
    with pytest.raises(LungDetError, match="at least one picture"):
        panel_grid(0, FIELD, note_lines=0)


def test_y_grows_downwards_and_pixels_lie_where_their_field_says():
    # White in the upper right quarter of the field only.
    pixels = np.zeros((2, 2), dtype=np.uint8)
    pixels[0, 1] = 255
    figure, (panel,) = panel_grid(1, FIELD, note_lines=0)
    Picture(pixels, FIELD).drawn(panel.plane)
    image = cv2.imdecode(np.frombuffer(png_of(figure), np.uint8), cv2.IMREAD_GRAYSCALE)
    box = panel.plane.get_position()

    def grey(share_x, share_from_top):
        column = round((box.x0 + share_x * box.width) * image.shape[1])
        row = round((1 - box.y1 + share_from_top * box.height) * image.shape[0])
        return image[row, column]

    assert image.shape[1] == round(WIDTH_INCHES * DPI)
    assert grey(0.75, 0.25) == 255
    assert [grey(0.25, 0.25), grey(0.25, 0.75), grey(0.75, 0.75)] == [0, 0, 0]


def test_a_close_up_stands_below_its_panel_and_covers_none_of_it():
    figure, (panel,) = panel_grid(1, FIELD, note_lines=0, close_ups=True)
    strip = panel.close_up
    assert not strip.get_visible()
    assert not panel.plane.lines

    assert panel.show_close_up(Field(0, 50, 0, 21), frame=(1, 1, 1)) is strip
    plane, below = panel.plane.get_position(), strip.get_position()
    width, height = figure.get_size_inches()
    assert strip.get_visible()
    assert below.y1 == pytest.approx(plane.y0)
    assert below.height * height / (below.width * width) == pytest.approx(CLOSE_UP_SHARE)
    assert (strip.get_xlim(), strip.get_ylim()) == ((0, 50), (21, 0))
    # Its outline in the plane
    assert [set(line.get_xdata()) for line in panel.plane.lines] == [{0, 50}]


def test_a_close_up_without_room_is_refused():
    _, (panel,) = panel_grid(1, FIELD, note_lines=0)
    with pytest.raises(LungDetError, match="without close-ups"):
        panel.show_close_up(Field(0, 50, 0, 21), frame=(1, 1, 1))


@pytest.mark.parametrize(("width_mm", "label"), [(60.0, "10 mm"), (300.0, "50 mm")])
def test_the_scale_bar_suits_the_panel_and_is_as_long_as_it_says(width_mm, label):
    # All white: only the bar's ground is dark.
    field = Field(0.0, width_mm, 0.0, width_mm)
    figure, (panel,) = panel_grid(1, field, note_lines=0)
    Picture(np.full((2, 2), 255, np.uint8), field).drawn(panel.plane)
    draw_scale_bar(panel.plane)
    (bar,) = panel.plane.artists

    assert bar.txt_label.get_text() == label
    figure.canvas.draw()
    length_px = bar.size_bar.get_window_extent(figure.canvas.get_renderer()).width
    panel_px = panel.plane.get_window_extent().width
    assert length_px / panel_px == pytest.approx(float(label[:2]) / width_mm, rel=0.02)


def test_titles_and_notes_are_written():
    figure, (panel,) = panel_grid(1, FIELD, note_lines=2)
    bare = png_of(figure)
    write_title(panel.plane, "Lung mask", "otsu")
    titled = png_of(figure)
    write_notes(figure, ["one", "two"])

    assert len({bare, titled, png_of(figure)}) == 3
    assert [text.get_text() for text in figure.texts] == ["two", "one"]
    assert figure.texts[0].get_position()[1] < figure.texts[1].get_position()[1]


def test_long_notes_are_broken_into_lines():
    assert broken_into_lines(["one", "many words " * 10]) == [
        "one",
        ("many words " * 7).strip(),
        ("many words " * 3).strip(),
    ]
