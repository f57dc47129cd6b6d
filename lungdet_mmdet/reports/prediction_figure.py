# SPDX-License-Identifier: Apache-2.0
"""Figure 3 of the paper: slabs with annotated and detected nodules, each with close-ups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lungdet_mmdet.reports.dark_panels import (
    DETAIL_POINTS,
    GROUND,
    LINE_INCHES,
    NOTE_POINTS,
    TEXT,
    Field,
    Panel,
    Picture,
    Rgb,
    broken_into_lines,
    draw_scale_bar,
    panel_grid,
    png_of,
    rgb,
    write_notes,
    write_title,
)
from lungdet_mmdet.reports.slab_overlays import (
    DETECTION_COLOUR,
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    read_slab,
)
from lungdet_mmdet.scoring.slab_outcomes import FALSE_POSITIVE, HIT, IGNORED, SlabOutcome

Dash = Literal["-"] | tuple[float, tuple[float, float]]
_DOTS: Dash = (0.0, (0.9, 0.8))
_DASHES: Dash = (0.0, (2.6, 1.2))
"""Short enough for the box of a 4 mm nodule to stay a box."""
_LABEL_SHARE_XY = (0.26, 0.22)
"""Width and height of a label, as shares of the close-up."""
_LABEL_GAP_MM = 0.8


@dataclass(frozen=True)
class MarkStyle:
    """How a kind of box is drawn, and what the legend calls it."""

    label: str
    colour: Rgb
    dash: Dash
    line_width: float


# Annotated boxes are thicker: a detection that fits lies on them, and both can be seen.
FOUND = MarkStyle("nodule, found", rgb(TRUTH_COLOUR), "-", 2.2)
MISSED = MarkStyle("nodule, missed", rgb(TRUTH_COLOUR), _DOTS, 1.6)
RIGHT = MarkStyle("detected, right", rgb(DETECTION_COLOUR), "-", 0.9)
WRONG = MarkStyle("false positive", rgb(DETECTION_COLOUR), _DASHES, 1.2)
NOT_COUNTED = MarkStyle("not counted", rgb(IGNORED_COLOUR), "-", 0.9)
_VERDICT_STYLES = {HIT: RIGHT, FALSE_POSITIVE: WRONG, IGNORED: NOT_COUNTED}


@dataclass(frozen=True)
class BoxMark:
    """A box in mm of its slab, how to draw it, and its label ("" for none)."""

    field: Field
    style: MarkStyle
    label: str

    @property
    def is_nodule(self) -> bool:
        """Whether it is annotated and counts."""
        return self.style in (FOUND, MISSED)

    def outline(self, axes: Axes) -> None:
        """Draw it into axes in mm."""
        corner = (self.field.left, self.field.top)
        patch = Rectangle(corner, self.field.width, self.field.height, fill=False, clip_on=True)
        patch.set(
            edgecolor=self.style.colour,
            linewidth=self.style.line_width,
            linestyle=self.style.dash,
        )
        axes.add_patch(patch)


def box_marks(outcome: SlabOutcome) -> list[BoxMark]:
    """Return the boxes of a slab: ignore regions, nodules, detections with the best one last."""
    sx, sy, _ = outcome.slab.geometry.spacing_xyz_mm
    annotated = [(box, NOT_COUNTED) for box in outcome.slab.boxes if box.is_ignored]
    annotated += [(box, FOUND) for box in outcome.found]
    annotated += [(box, MISSED) for box in outcome.missed]
    marks = []
    for box, style in annotated:
        x, y, width, height = box.bbox_xywh_px
        label = "" if box.is_ignored else f"{box.diameter_mm:.1f} mm"
        field = Field(x * sx, (x + width) * sx, y * sy, (y + height) * sy)
        marks.append(BoxMark(field, style, label))
    verdicts = outcome.verdicts
    for place in reversed(range(len(outcome.scores))):
        x0, y0, x1, y1 = (outcome.boxes_xyxy_px[place] * np.array([sx, sy, sx, sy])).tolist()
        style = _VERDICT_STYLES[verdicts[place]]
        marks.append(BoxMark(Field(x0, x1, y0, y1), style, f"{outcome.scores[place]:.2f}"))
    return marks


def focus_of(marks: Sequence[BoxMark]) -> BoxMark:
    """Return what a close-up is about: the largest nodule, else the best detection."""
    nodules = [mark for mark in marks if mark.is_nodule]
    return max(nodules, key=lambda mark: mark.field.width, default=marks[-1])


def place_labels(marks: Sequence[BoxMark], close_up: Field) -> list[tuple[BoxMark, Field]]:
    """Return which boxes of a close-up get their label, and where.

    Hits come first, then nodules, then other detections, the best scores before others. A score
    stands on the right of its box and a diameter on the left, or on the other side where there is
    no room. What would hide another label is left out.
    """
    placed: list[tuple[BoxMark, Field]] = []
    by_weight = sorted(reversed(marks), key=lambda m: 0 if m.style is RIGHT else 2 - m.is_nodule)
    for mark in by_weight:
        if not mark.label:
            continue
        for to_right in (not mark.is_nodule, mark.is_nodule):
            room = _label_room(mark.field, close_up, to_right=to_right)
            if close_up.holds(room) and not any(room.overlaps(other) for _, other in placed):
                placed.append((mark, room))
                break
    return placed


def _label_room(box: Field, close_up: Field, *, to_right: bool) -> Field:
    width, height = (
        share * length
        for share, length in zip(_LABEL_SHARE_XY, (close_up.width, close_up.height), strict=True)
    )
    left = box.right + _LABEL_GAP_MM if to_right else box.left - _LABEL_GAP_MM - width
    middle = box.centre[1]
    return Field(left, left + width, middle - height / 2, middle + height / 2)


def write_label(axes: Axes, mark: BoxMark, room: Field) -> None:
    """Write a label into its room, against its box."""
    on_right = room.left > mark.field.left
    axes.annotate(
        mark.label,
        (room.left if on_right else room.right, room.centre[1]),
        ha="left" if on_right else "right",
        va="center_baseline",
        color=mark.style.colour,
        fontsize=DETAIL_POINTS,
        path_effects=[withStroke(linewidth=2.0, foreground=GROUND)],
    )


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
    sx, sy, _ = outcome.slab.geometry.spacing_xyz_mm
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
    where = f"scan ...{slab.seriesuid[-5:]}, slab {slab.geometry.index}"
    return title[0].upper() + title[1:], where


def _draw(panel: Panel, picture: Picture, marks: Sequence[BoxMark]) -> None:
    _draw_picture(panel.plane, picture, marks)
    if not marks:
        return
    close_up = focus_of(marks).field.close_up()
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
        bbox_to_anchor=(0.5, (0.04 + LINE_INCHES * n_lines_below) / height),
        ncols=_LEGEND_COLUMNS,
        frameon=False,
        fontsize=NOTE_POINTS,
        labelcolor=TEXT,
        handlelength=1.9,
        columnspacing=1.6,
        handletextpad=0.5,
        labelspacing=0.25,
    )
