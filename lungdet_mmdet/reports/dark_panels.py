# SPDX-License-Identifier: Apache-2.0
"""A CT picture and the part of a plane it covers, in millimetres."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.slab_overlays import CAPTION_BACKGROUND, TEXT_COLOUR


@dataclass(frozen=True)
class Field:
    """A rectangle of a scan plane in mm along the image's x and y axes (y grows downwards)."""

    left: float
    right: float
    top: float
    bottom: float

    @classmethod
    def around(cls, centre_xy_mm: tuple[float, float], width: float, height: float) -> Field:
        """Return the rectangle of a size in mm about a point."""
        x, y = centre_xy_mm
        return cls(x - width / 2, x + width / 2, y - height / 2, y + height / 2)

    @property
    def width(self) -> float:
        """Extent along x in mm."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Extent along y in mm."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        """Middle (x, y) in mm."""
        return (self.left + self.right) / 2.0, (self.top + self.bottom) / 2.0

    def widened(self, margin_mm: float) -> Field:
        """Return the rectangle with a margin on every side."""
        return Field(
            self.left - margin_mm,
            self.right + margin_mm,
            self.top - margin_mm,
            self.bottom + margin_mm,
        )

    def holds(self, other: Field) -> bool:
        """Return whether another rectangle lies inside this one."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.top <= other.top
            and other.bottom <= self.bottom
        )

    def overlaps(self, other: Field) -> bool:
        """Return whether the two share more than an edge."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def close_up(self) -> Field:
        """Return what a close-up of this rectangle shows: at least ``CLOSE_UP_MM`` high."""
        height = max(CLOSE_UP_MM, 1.4 * self.width)
        return Field.around(self.centre, height / CLOSE_UP_SHARE, height)

    def frame(self, axes: Axes) -> None:
        """Make axes show this rectangle."""
        axes.set(xlim=(self.left, self.right), ylim=(self.bottom, self.top))


@dataclass(frozen=True)
class Picture:
    """An image (y, x) or (y, x, 3), uint8, and the outer edges of its pixels in mm."""

    pixels: np.ndarray
    field: Field

    def drawn(self, axes: Axes) -> None:
        """Show it to scale."""
        axes.imshow(
            self.pixels,
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(self.field.left, self.field.right, self.field.bottom, self.field.top),
            interpolation="antialiased",
        )


Rgb = tuple[float, float, float]

WIDTH_INCHES = 4.8
DPI = 300
"""Printed 85 mm wide, a column of most journals, letters are 5.5 points high and more."""
TITLE_POINTS, DETAIL_POINTS, NOTE_POINTS = 10.0, 8.0, 8.0
CLOSE_UP_SHARE = 0.42
"""Height of a close-up, as a share of its width."""
CLOSE_UP_MM = 26.0
"""Height of a close-up; large nodules get more."""
LINE_INCHES = 0.155
_COLUMNS = 3
_GAP_INCHES = 0.07
_TITLE_INCHES = 0.38
_NOTE_LETTERS = 80
_SMALL_PANEL_MM = 100.0
"""Panels up to this width get the short scale bar."""


def rgb(colour: tuple[int, int, int]) -> Rgb:
    """Return a colour of 0..255 as matplotlib wants it."""
    red, green, blue = colour
    return red / 255.0, green / 255.0, blue / 255.0


GROUND, TEXT = rgb(CAPTION_BACKGROUND), rgb(TEXT_COLOUR)
MUTED: Rgb = (0.62, 0.66, 0.71)


@dataclass(frozen=True)
class Panel:
    """Axes of one picture, and of the close-up below it (None where the figure has none)."""

    plane: Axes
    close_up: Axes | None

    def show_close_up(self, field: Field, *, frame: Rgb) -> Axes:
        """Make the close-up show a field, outline that in the plane, and return its axes."""
        if self.close_up is None:
            raise LungDetError("this figure was laid out without close-ups")
        field.frame(self.close_up)
        self.close_up.set_visible(True)
        for spine in self.close_up.spines.values():
            spine.set(visible=True, color=frame, linewidth=0.8)
        x = [field.left, field.right, field.right, field.left, field.left]
        y = [field.top, field.top, field.bottom, field.bottom, field.top]
        self.plane.plot(x, y, color=frame, linewidth=0.7)
        return self.close_up


def panel_grid(
    n_panels: int, field: Field, *, note_lines: int, close_ups: bool = False
) -> tuple[Figure, list[Panel]]:
    """Return a figure of up to three panels a row, all of which show the same field in mm.

    Parameters
    ----------
    n_panels : how many panels.
    field : what each shows; sets their shape.
    note_lines : lines of text to leave room for at the bottom.
    close_ups : leave room for one under each panel; it stays hidden until it is shown. On the
        picture it would cover lung.

    Raises
    ------
    LungDetError
        If there is no panel.
    """
    if n_panels < 1:
        raise LungDetError("a figure without a panel was asked for: give at least one picture")
    columns = min(_COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    width = (WIDTH_INCHES - (columns + 1) * _GAP_INCHES) / columns
    plane_height = width * field.height / field.width
    strip_height = width * CLOSE_UP_SHARE if close_ups else 0.0
    row_height = _TITLE_INCHES + plane_height + strip_height
    total = rows * row_height + note_lines * LINE_INCHES + _GAP_INCHES
    # A figure of its own, not pyplot's: nothing global, no window system.
    figure = Figure(figsize=(WIDTH_INCHES, total), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)

    def axes_at(left: float, bottom: float, height: float) -> Axes:
        share = (left / WIDTH_INCHES, bottom / total, width / WIDTH_INCHES, height / total)
        return _bare_axes(figure, share, field)

    panels = []
    for number in range(n_panels):
        row, column = divmod(number, columns)
        left = _GAP_INCHES + column * (width + _GAP_INCHES)
        bottom = total - (row + 1) * row_height
        plane = axes_at(left, bottom + strip_height, plane_height)
        strip = axes_at(left, bottom, strip_height) if close_ups else None
        if strip is not None:
            strip.set_visible(False)
        panels.append(Panel(plane, strip))
    return figure, panels


def write_title(axes: Axes, title: str, detail: str = "") -> None:
    """Write a heading over a panel, and a smaller line under it."""
    lines = ((title, 13, TEXT, TITLE_POINTS), (detail, 3.5, MUTED, DETAIL_POINTS))
    for text, points_up, colour, size in lines:
        axes.annotate(
            text,
            (0, 1),
            xytext=(1, points_up),
            xycoords="axes fraction",
            textcoords="offset points",
            color=colour,
            fontsize=size,
        )


def broken_into_lines(notes: Sequence[str]) -> list[str]:
    """Return notes as lines that fit the width of a figure."""
    return [line for note in notes for line in textwrap.wrap(note, _NOTE_LETTERS)]


def write_notes(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines of small text at the bottom of a figure, the last one lowest."""
    height = float(figure.get_figheight())
    for number, line in enumerate(reversed(lines)):
        y = (_GAP_INCHES + number * LINE_INCHES) / height
        figure.text(_GAP_INCHES / WIDTH_INCHES, y, line, color=MUTED, fontsize=NOTE_POINTS)


def draw_scale_bar(axes: Axes) -> None:
    """Draw a bar of 10 or 50 mm into the lower left corner, on a ground that bone cannot hide."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    length_mm = 10.0 if abs(right - left) <= _SMALL_PANEL_MM else 50.0
    bar = AnchoredSizeBar(
        axes.transData,
        length_mm,
        f"{length_mm:g} mm",
        loc="lower left",
        color=TEXT,
        size_vertical=0.017 * abs(bottom - top),
        label_top=True,
        pad=0.25,
        sep=1.5,
        borderpad=0.0,
        fontproperties=FontProperties(size=DETAIL_POINTS - 1),
    )
    bar.patch.set(facecolor=GROUND, edgecolor="none", alpha=0.7)
    axes.add_artist(bar)


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    # Without the version of matplotlib the same figure is the same file.
    figure.savefig(content, format="png", facecolor=GROUND, metadata={"Software": None})
    return content.getvalue()


def _bare_axes(figure: Figure, share: tuple[float, float, float, float], field: Field) -> Axes:
    axes = figure.add_axes(share, xticks=[], yticks=[])
    field.frame(axes)
    axes.set_facecolor("black")
    axes.set_autoscale_on(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes
