"""Figures of several CT pictures on a dark ground, all drawn to one scale in millimetres."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.figures.slab_overlays import CAPTION_BACKGROUND, TEXT_COLOUR

Rgb = tuple[float, float, float]

WIDTH_INCHES = 5.6
DPI = 260
"""Printed 85 mm wide, a column of most journals, letters are still 5 points high and more."""
TITLE_POINTS, DETAIL_POINTS, NOTE_POINTS = 11.0, 8.5, 8.0
_COLUMNS = 3
_GAP_INCHES = 0.07
_TITLE_INCHES = 0.42
_INSET_SHARE = 0.32
_LINE_INCHES = 0.16


def rgb(colour: tuple[int, int, int]) -> Rgb:
    """Return a colour of 0..255 as matplotlib wants it."""
    red, green, blue = colour
    return red / 255.0, green / 255.0, blue / 255.0


GROUND, TEXT = rgb(CAPTION_BACKGROUND), rgb(TEXT_COLOUR)
MUTED: Rgb = (0.62, 0.66, 0.71)


@dataclass(frozen=True)
class Field:
    """A rectangle of a scan plane in mm along the image's x and y axes (y grows downwards)."""

    left: float
    right: float
    top: float
    bottom: float

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


def panel_grid(n_panels: int, field: Field, *, note_lines: int) -> tuple[Figure, list[Axes]]:
    """Return a figure of up to three panels a row, all of which show the same field in mm.

    Parameters
    ----------
    n_panels : how many panels.
    field : what each shows; sets their shape.
    note_lines : lines of text to leave room for at the bottom.

    Raises
    ------
    LungDetError
        If there is no panel.
    """
    if n_panels < 1:
        raise LungDetError("a figure without a panel was asked for: give at least one picture")
    columns = min(_COLUMNS, n_panels)
    rows = -(-n_panels // columns)
    panel_width = (WIDTH_INCHES - (columns + 1) * _GAP_INCHES) / columns
    panel_height = panel_width * field.height / field.width
    foot = note_lines * _LINE_INCHES + _GAP_INCHES
    height = rows * (panel_height + _TITLE_INCHES) + foot
    # A figure of its own, not pyplot's: nothing global, no window system.
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)
    panels = []
    for number in range(n_panels):
        row, column = divmod(number, columns)
        left = _GAP_INCHES + column * (panel_width + _GAP_INCHES)
        bottom = height - (row + 1) * (panel_height + _TITLE_INCHES)
        share = (
            left / WIDTH_INCHES,
            bottom / height,
            panel_width / WIDTH_INCHES,
            panel_height / height,
        )
        panels.append(_bare_axes(figure.add_axes(share), field))
    return figure, panels


def write_title(axes: Axes, title: str, detail: str = "") -> None:
    """Write a heading over a panel, and a smaller line under it."""
    lines = ((title, 14, TEXT, TITLE_POINTS), (detail, 4, MUTED, DETAIL_POINTS))
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


def write_notes(figure: Figure, lines: Sequence[str]) -> None:
    """Write lines of small text at the bottom of a figure, the last one lowest."""
    height = float(figure.get_figheight())
    for number, line in enumerate(reversed(lines)):
        y = (_GAP_INCHES + number * _LINE_INCHES) / height
        figure.text(_GAP_INCHES / WIDTH_INCHES, y, line, color=MUTED, fontsize=NOTE_POINTS)


def draw_scale_bar(axes: Axes, *, length_mm: float) -> None:
    """Draw a bar of known length into the lower left corner of a panel."""
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    x, y = left + 0.04 * (right - left), bottom + 0.06 * (top - bottom)
    halo = [withStroke(linewidth=2.0, foreground=GROUND)]
    axes.plot([x, x + length_mm], [y, y], color=TEXT, linewidth=1.8, path_effects=halo)
    axes.annotate(
        f"{length_mm:g} mm",
        (x, y),
        xytext=(0, 3),
        textcoords="offset points",
        color=TEXT,
        fontsize=DETAIL_POINTS,
        path_effects=halo,
    )


def add_close_up(
    axes: Axes, field: Field, *, away_from: Sequence[tuple[float, float]], frame: Rgb
) -> Axes:
    """Return a square axes in the corner of a panel that lies farthest from some points.

    The lower left corner is left to the scale bar.

    Parameters
    ----------
    axes : the panel.
    field : square that the close-up shows; its outline is drawn into the panel.
    away_from : points (x, y) in mm that should not be covered, the most important first.
    frame : colour of outline and frame.
    """
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    # Panels show x and y to one scale, so a square is square in mm as well as in print.
    share_x, share_y = _INSET_SHARE, _INSET_SHARE * (right - left) / (bottom - top)

    def clearance(corner: tuple[float, float]) -> float:
        x = left + (corner[0] + share_x / 2) * (right - left)
        y = bottom + (corner[1] + share_y / 2) * (top - bottom)
        return min((np.hypot(x - px, y - py) for px, py in away_from), default=0.0)

    corners = [(1 - share_x, 0.0), (1 - share_x, 1 - share_y), (0.0, 1 - share_y)]
    corner = max(corners, key=clearance)
    inset = axes.inset_axes((*corner, share_x, share_y))
    _bare_axes(inset, field)
    for spine in inset.spines.values():
        spine.set(visible=True, color=frame, linewidth=1.0)
    outline = [field.left, field.right, field.right, field.left, field.left]
    axes.plot(
        outline,
        [field.top, field.top, field.bottom, field.bottom, field.top],
        color=frame,
        linewidth=0.7,
    )
    return inset


def png_of(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    content = io.BytesIO()
    # Without the version of matplotlib the same figure is the same file.
    figure.savefig(content, format="png", facecolor=GROUND, metadata={"Software": None})
    return content.getvalue()


def _bare_axes(axes: Axes, field: Field) -> Axes:
    axes.set(xlim=(field.left, field.right), ylim=(field.bottom, field.top), xticks=[], yticks=[])
    axes.set_facecolor("black")
    axes.set_autoscale_on(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return axes
