import cv2
import numpy as np
import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.figures.dark_panels import (
    DPI,
    WIDTH_INCHES,
    Field,
    Picture,
    add_close_up,
    panel_grid,
    png_of,
    write_notes,
    write_title,
)

FIELD = Field(left=-100.0, right=100.0, top=0.0, bottom=150.0)


def test_a_field_knows_its_size_and_middle():
    assert (FIELD.width, FIELD.height, FIELD.centre) == (200.0, 150.0, (0.0, 75.0))
    assert FIELD.widened(10.0) == Field(-110.0, 110.0, -10.0, 160.0)


@pytest.mark.parametrize(("n_panels", "rows", "columns"), [(1, 1, 1), (3, 1, 3), (4, 2, 3)])
def test_panels_stand_three_in_a_row_and_keep_the_shape_of_the_field(n_panels, rows, columns):
    figure, panels = panel_grid(n_panels, FIELD, note_lines=1)
    width, height = figure.get_size_inches()
    boxes = [axes.get_position() for axes in panels]

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
    figure, (axes,) = panel_grid(1, FIELD, note_lines=0)
    Picture(pixels, FIELD).drawn(axes)
    image = cv2.imdecode(np.frombuffer(png_of(figure), np.uint8), cv2.IMREAD_GRAYSCALE)
    box = axes.get_position()

    def grey(share_x, share_from_top):
        column = round((box.x0 + share_x * box.width) * image.shape[1])
        row = round((1 - box.y1 + share_from_top * box.height) * image.shape[0])
        return image[row, column]

    assert image.shape[1] == round(WIDTH_INCHES * DPI)
    assert grey(0.75, 0.25) == 255
    assert [grey(0.25, 0.25), grey(0.25, 0.75), grey(0.75, 0.75)] == [0, 0, 0]


@pytest.mark.parametrize(
    ("finding", "corner"),
    [
        # The lower left corner belongs to the scale bar.
        ((90.0, 10.0), "upper left"),
        ((90.0, 140.0), "upper left"),
        ((-90.0, 10.0), "lower right"),
        ((-90.0, 140.0), "upper right"),
    ],
)
def test_a_close_up_stands_in_the_corner_farthest_from_the_finding(finding, corner):
    _, (axes,) = panel_grid(1, FIELD, note_lines=0)
    inset = add_close_up(axes, Field(0, 30, 0, 30), away_from=[finding], frame=(1, 1, 1))
    inset.figure.canvas.draw()
    outer, inner = axes.get_position(), inset.get_position()
    is_right = inner.x0 > (outer.x0 + outer.x1) / 2
    is_upper = inner.y0 > (outer.y0 + outer.y1) / 2

    assert f"{'upper' if is_upper else 'lower'} {'right' if is_right else 'left'}" == corner
    assert inset.get_xlim() == (0, 30)
    assert inset.get_ylim() == (30, 0)


def test_titles_and_notes_are_written():
    figure, (axes,) = panel_grid(1, FIELD, note_lines=2)
    bare = png_of(figure)
    write_title(axes, "Lung mask", "otsu")
    titled = png_of(figure)
    write_notes(figure, ["one", "two"])

    assert len({bare, titled, png_of(figure)}) == 3
    assert [text.get_text() for text in figure.texts] == ["two", "one"]
    assert figure.texts[0].get_position()[1] < figure.texts[1].get_position()[1]
