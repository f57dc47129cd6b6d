"""Slabs with annotated boxes in green and detected ones in red: Figure 3 of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lungdet_mmdet.figures.dark_panels import (
    CLOSE_UP_SHARE,
    NOTE_POINTS,
    TEXT,
    Panel,
    broken_into_lines,
    draw_scale_bar,
    panel_grid,
    png_of,
    write_notes,
    write_title,
)
from lungdet_mmdet.figures.detection_marks import (
    FOUND,
    MISSED,
    NOT_COUNTED,
    RIGHT,
    WRONG,
    BoxMark,
    box_marks,
    focus_of,
    place_labels,
    write_label,
)
from lungdet_mmdet.figures.plane_picture import Field, Picture
from lungdet_mmdet.figures.slab_overlays import read_slab
from lungdet_mmdet.scoring.slab_outcome import FALSE_POSITIVE, SlabOutcome

CLOSE_UP_MM = 26.0
"""Height of a close-up; large boxes get more."""
_LEGEND_COLUMNS = 3
_LEGEND_LINES = 2


def prediction_figure(
    outcomes: Sequence[SlabOutcome], files: Sequence[Path], *, notes: Sequence[str] = ()
) -> bytes:
    """Draw slabs at one scale, each with a close-up of its nodule or its loudest false positive.

    Parameters
    ----------
    outcomes : what was found on each slab.
    files : their images.
    notes : lines under the legend.

    Returns
    -------
    bytes
        A PNG file.

    Raises
    ------
    LungDetError
        If there is no slab, or an image cannot be read.
    """
    pictures = [_picture(o, path) for o, path in zip(outcomes, files, strict=True)]
    width = max((p.field.width for p in pictures), default=1.0)
    height = max((p.field.height for p in pictures), default=1.0)
    lines = broken_into_lines(notes)
    figure, panels = panel_grid(
        len(pictures),
        Field(0.0, width, 0.0, height),
        note_lines=len(lines) + _LEGEND_LINES + 1,
        close_ups=True,
    )
    for outcome, picture, panel in zip(outcomes, pictures, panels, strict=True):
        Field.around(picture.field.centre, width, height).frame(panel.plane)
        write_title(panel.plane, *_heading(outcome))
        _draw(panel, picture, box_marks(outcome))
    write_notes(figure, lines)
    _write_legend(figure, len(lines))
    return png_of(figure)


def _picture(outcome: SlabOutcome, path: Path) -> Picture:
    pixels = read_slab(path)
    sx, sy, _ = outcome.slab.spacing_mm
    return Picture(pixels, Field(0.0, pixels.shape[1] * sx, 0.0, pixels.shape[0] * sy))


def _heading(outcome: SlabOutcome) -> tuple[str, str]:
    """Return what happened on the slab, and which slab it is."""
    found, missed = len(outcome.found), len(outcome.missed)
    false = sum(verdict == FALSE_POSITIVE for verdict in outcome.verdicts)
    parts = [
        word if count == 1 else f"{count} {word}"
        for count, word in ((found, "found"), (missed, "missed"))
        if count
    ] or ["no nodule"]
    if false:
        parts.append("FP" if false == 1 else f"{false} FP")
    title = ", ".join(parts)
    slab = outcome.slab
    return title[0].upper() + title[1:], f"scan ...{slab.seriesuid[-5:]}, slab {slab.slab_index}"


def _draw(panel: Panel, picture: Picture, marks: Sequence[BoxMark]) -> None:
    _draw_picture(panel.plane, picture, marks)
    if not marks:
        return
    focus = focus_of(marks).field
    height = max(CLOSE_UP_MM, 1.4 * focus.width)
    close_up = Field.around(focus.centre, height / CLOSE_UP_SHARE, height)
    strip = panel.show_close_up(close_up, frame=TEXT)
    _draw_picture(strip, picture, marks)
    for mark, room in place_labels(marks, close_up):
        write_label(strip, mark, room)


def _draw_picture(axes: Axes, picture: Picture, marks: Sequence[BoxMark]) -> None:
    picture.drawn(axes)
    draw_scale_bar(axes)
    for mark in marks:
        mark.outline(axes)


def _write_legend(figure: Figure, n_lines_below: int) -> None:
    height = float(figure.get_figheight())
    # Filled column by column: annotated, detected, the rest.
    styles = (FOUND, MISSED, RIGHT, WRONG, NOT_COUNTED)
    figure.legend(
        handles=[
            Line2D([], [], color=s.colour, linestyle=s.dash, linewidth=1.8, label=s.label)
            for s in styles
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, (0.04 + 0.155 * n_lines_below) / height),
        ncols=_LEGEND_COLUMNS,
        frameon=False,
        fontsize=NOTE_POINTS,
        labelcolor=TEXT,
        handlelength=1.9,
        columnspacing=1.6,
        handletextpad=0.5,
        labelspacing=0.25,
    )
