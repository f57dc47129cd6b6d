"""Slabs with annotated boxes in green and detected ones in red: Figure 3 of the paper."""

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

from lungdet_mmdet.figures.dark_panels import (
    GROUND,
    NOTE_POINTS,
    TEXT,
    Field,
    Picture,
    Rgb,
    add_close_up,
    draw_scale_bar,
    panel_grid,
    png_of,
    rgb,
    write_notes,
    write_title,
)
from lungdet_mmdet.figures.slab_overlays import (
    DETECTION_COLOUR,
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    read_slab,
)
from lungdet_mmdet.scoring.slab_outcome import FALSE_POSITIVE, HIT, IGNORED, SlabOutcome
from lungdet_mmdet.scoring.slab_records import TruthBox

SCALE_BAR_MM = 50.0
CLOSE_UP_MM = 36.0
_LABEL_SHARE = 0.2
"""Height of a label in a close-up, as a share of its field."""
_LABEL_REACH = 0.3
"""Labels of boxes whose centres lie nearer than this share of the field would overlap."""
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Style:
    label: str
    colour: Rgb
    dash: Literal["-", "--", ":"]
    line_width: float


# Annotated boxes are thicker: a detection that fits lies on them, and both can be seen.
FOUND = _Style("nodule, found", rgb(TRUTH_COLOUR), "-", 2.2)
MISSED = _Style("nodule, missed", rgb(TRUTH_COLOUR), ":", 1.5)
RIGHT = _Style("detected, right", rgb(DETECTION_COLOUR), "-", 1.0)
WRONG = _Style("false positive", rgb(DETECTION_COLOUR), "--", 1.2)
NOT_COUNTED = _Style("not counted", rgb(IGNORED_COLOUR), "-", 1.0)
_VERDICT_STYLES = {HIT: RIGHT, FALSE_POSITIVE: WRONG, IGNORED: NOT_COUNTED}


@dataclass(frozen=True)
class _Drawn:
    """A box in mm of its slab, how to draw it, and its label ("" for none)."""

    box_xyxy_mm: Box
    style: _Style
    label: str

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box_xyxy_mm
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def width(self) -> float:
        return self.box_xyxy_mm[2] - self.box_xyxy_mm[0]


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
    figure, panels = panel_grid(
        len(pictures), Field(0.0, width, 0.0, height), note_lines=len(notes) + 2
    )
    for outcome, picture, axes in zip(outcomes, pictures, panels, strict=True):
        _move_to_middle(axes, picture.field, width, height)
        write_title(axes, *_heading(outcome))
        _draw(axes, picture, _boxes(outcome))
        draw_scale_bar(axes, length_mm=SCALE_BAR_MM)
    write_notes(figure, notes)
    _write_legend(figure, len(notes))
    return png_of(figure)


def _picture(outcome: SlabOutcome, path: Path) -> Picture:
    pixels = read_slab(path)
    sx, sy, _ = outcome.slab.spacing_mm
    return Picture(pixels, Field(0.0, pixels.shape[1] * sx, 0.0, pixels.shape[0] * sy))


def _move_to_middle(axes: Axes, field: Field, width: float, height: float) -> None:
    x, y = field.centre
    axes.set(xlim=(x - width / 2, x + width / 2), ylim=(y + height / 2, y - height / 2))


def _heading(outcome: SlabOutcome) -> tuple[str, str]:
    """Return what happened on the slab, and which slab it is."""
    found, missed = len(outcome.found), len(outcome.missed)
    false = sum(verdict == FALSE_POSITIVE for verdict in outcome.verdicts)
    parts = [f"{found} found"] * (found > 1) + ["found"] * (found == 1)
    parts += [f"{missed} missed"] * (missed > 1) + ["missed"] * (missed == 1)
    if not found + missed:
        parts.append("no nodule")
    if false:
        parts.append(f"{false} FP" if false > 1 else "FP")
    return ", ".join(parts).capitalize().replace("fp", "FP"), (
        f"scan ...{outcome.slab.seriesuid[-5:]}, slab {outcome.slab.slab_index}"
    )


def _boxes(outcome: SlabOutcome) -> list[_Drawn]:
    """Return the boxes of a slab: ignore regions, nodules, detections with the best one last."""
    sx, sy, _ = outcome.slab.spacing_mm
    kinds = ((outcome.found, FOUND), (outcome.missed, MISSED))
    ignored = [
        _Drawn(_corners_mm(box, sx, sy), NOT_COUNTED, "")
        for box in outcome.slab.boxes
        if box.is_ignored
    ]
    truth = [
        _Drawn(_corners_mm(box, sx, sy), style, f"{box.diameter_mm:.1f} mm")
        for boxes, style in kinds
        for box in boxes
    ]
    scale = np.array([sx, sy, sx, sy])
    detected = [
        _Drawn(tuple((box * scale).tolist()), _VERDICT_STYLES[verdict], f"{score:.2f}")
        for box, verdict, score in zip(
            outcome.boxes_xyxy_px, outcome.verdicts, outcome.scores.tolist(), strict=True
        )
    ]
    return [*ignored, *truth, *reversed(detected)]


def _focus(boxes: Sequence[_Drawn]) -> _Drawn:
    """Return what the close-up is about: the largest nodule, else the last box."""
    nodules = [box for box in boxes if _is_truth(box)]
    return max(nodules, key=lambda box: box.width, default=boxes[-1])


def _corners_mm(box: TruthBox, sx: float, sy: float) -> Box:
    x, y, width, height = box.bbox_xywh_px
    return x * sx, y * sy, (x + width) * sx, (y + height) * sy


def _draw(axes: Axes, picture: Picture, boxes: Sequence[_Drawn]) -> None:
    picture.drawn(axes)
    for box in boxes:
        _outline(axes, box)
    if not boxes:
        return
    focus = _focus(boxes)
    half = max(CLOSE_UP_MM / 2, 1.1 * focus.width)
    x, y = focus.centre
    close = Field(x - half, x + half, y - half, y + half)
    counted = [box.centre for box in boxes if box.style is not NOT_COUNTED]
    inset = add_close_up(axes, close, away_from=counted or [focus.centre], frame=TEXT)
    picture.drawn(inset)
    for box in boxes:
        _outline(inset, box)
    for box in _labelled(boxes, close):
        _label(inset, box, close)


def _outline(axes: Axes, box: _Drawn) -> None:
    x0, y0, x1, y1 = box.box_xyxy_mm
    patch = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, clip_on=True)
    patch.set(edgecolor=box.style.colour, linewidth=box.style.line_width, linestyle=box.style.dash)
    axes.add_patch(patch)


def _labelled(boxes: Sequence[_Drawn], close: Field) -> list[_Drawn]:
    """Return the boxes in a close-up whose labels do not hide each other, best scores first."""
    chosen: list[_Drawn] = []
    for box in reversed(boxes):
        x, y = box.centre
        inside = close.left < x < close.right and close.top < y < close.bottom
        rivals = [other for other in chosen if _is_truth(other) == _is_truth(box)]
        reach = _LABEL_REACH * close.width
        if box.label and inside and all(_apart(box, other) > reach for other in rivals):
            chosen.append(box)
    return chosen


def _is_truth(box: _Drawn) -> bool:
    return box.style in (FOUND, MISSED)


def _apart(one: _Drawn, other: _Drawn) -> float:
    return max(abs(a - b) for a, b in zip(one.centre, other.centre, strict=True))


def _label(axes: Axes, box: _Drawn, close: Field) -> None:
    """Write the score over a detection, the diameter under a nodule."""
    _, y0, _, y1 = box.box_xyxy_mm
    is_truth = _is_truth(box)
    room = (close.bottom - y1 if is_truth else y0 - close.top) > _LABEL_SHARE * close.height
    # Without room outside the label stands inside the box.
    goes_down = is_truth == room
    axes.annotate(
        box.label,
        (box.centre[0], y1 if is_truth else y0),
        xytext=(0, -2 if goes_down else 2),
        textcoords="offset points",
        ha="center",
        va="top" if goes_down else "bottom",
        color=box.style.colour,
        fontsize=NOTE_POINTS - 1,
        annotation_clip=True,
        path_effects=[withStroke(linewidth=2.0, foreground=GROUND)],
    )


def _write_legend(figure: Figure, n_notes: int) -> None:
    height = float(figure.get_figheight())
    styles = (FOUND, MISSED, RIGHT, WRONG, NOT_COUNTED)
    figure.legend(
        handles=[
            Line2D([], [], color=s.colour, linestyle=s.dash, linewidth=1.8, label=s.label)
            for s in styles
        ],
        loc="lower center",
        bbox_to_anchor=(0.5, (0.02 + 0.16 * n_notes) / height),
        ncols=len(styles),
        frameon=False,
        fontsize=NOTE_POINTS - 0.5,
        labelcolor=TEXT,
        handlelength=1.7,
        columnspacing=1.0,
        handletextpad=0.5,
    )
