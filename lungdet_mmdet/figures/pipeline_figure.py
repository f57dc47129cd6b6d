"""How a scan becomes slabs, step by step on one plane of the patient: Figure 1 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.figures.dark_panels import (
    CLOSE_UP_SHARE,
    Panel,
    broken_into_lines,
    draw_scale_bar,
    panel_grid,
    png_of,
    rgb,
    write_notes,
    write_title,
)
from lungdet_mmdet.figures.plane_picture import Field, Picture
from lungdet_mmdet.figures.slab_overlays import TRUTH_COLOUR
from lungdet_mmdet.figures.stage_plane import NoduleMark, Stage, nodule_mark, stage_picture
from lungdet_mmdet.nodules.tables import Nodule

MARGIN_MM = 12.0
"""Rim of the field around what the last step shows."""
CLOSE_UP_MM = 26.0
"""Height of a close-up; large nodules get more."""


def pipeline_figure(
    stages: Sequence[Stage],
    *,
    height_mm: float,
    nodules: Sequence[Nodule] = (),
    notes: Sequence[str] = (),
) -> bytes:
    """Draw the same plane of a scan after each step, side by side, nodules marked in green.

    A circle on a slice is the sphere's section by that slice, a square on a slab the slab's box.

    Parameters
    ----------
    stages : in order; all have the same direction.
    height_mm : the plane: position along the slice normal.
    nodules : those that the plane or its slab cuts are marked; the first one cut gets a close-up.
    notes : lines under the panels.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    LungDetError
        If there is no stage, or the plane lies outside one.
    """
    if not stages:
        raise LungDetError("the prep pipeline has no step that shows a picture")
    pictures = [stage_picture(stage, height_mm) for stage in stages]
    marks = [
        [mark for n in nodules if (mark := nodule_mark(stage, n, height_mm)) is not None]
        for stage in stages
    ]
    field = pictures[-1].field.widened(MARGIN_MM)
    # The slab cuts every nodule that its middle plane cuts: one close-up for all panels.
    close_up = _close_up(marks[-1][0]) if marks[-1] else None
    lines = broken_into_lines(notes)
    figure, panels = panel_grid(
        len(stages), field, note_lines=len(lines), close_ups=close_up is not None
    )
    for stage, picture, found, panel in zip(stages, pictures, marks, panels, strict=True):
        write_title(panel.plane, stage.title, stage.detail)
        _draw(panel, picture, found, close_up)
    write_notes(figure, lines)
    return png_of(figure)


def _close_up(mark: NoduleMark) -> Field:
    height = max(CLOSE_UP_MM, 2.8 * mark.half)
    return Field.around((mark.x, mark.y), height / CLOSE_UP_SHARE, height)


def _draw(
    panel: Panel, picture: Picture, marks: Sequence[NoduleMark], close_up: Field | None
) -> None:
    picture.drawn(panel.plane)
    draw_scale_bar(panel.plane)
    if close_up is None:
        shown = marks
    else:
        strip = panel.show_close_up(close_up, frame=rgb(TRUTH_COLOUR))
        picture.drawn(strip)
        for mark in marks:
            mark.draw(strip)
        draw_scale_bar(strip)
        # What the close-up shows is framed by its outline already.
        shown = [mark for mark in marks if not close_up.holds(mark.field)]
    for mark in shown:
        mark.draw(panel.plane)
