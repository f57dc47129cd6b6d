# SPDX-License-Identifier: Apache-2.0
"""Figure 1 of the paper for any scan: each step of the prep pipeline drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from lungdet_mmdet.annotations.slab_boxes import SlabStack, sphere_boxes
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import window_hu
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.dark_panels import (
    Field,
    Panel,
    Picture,
    broken_into_lines,
    draw_scale_bar,
    panel_grid,
    png_of,
    rgb,
    write_notes,
    write_title,
)
from lungdet_mmdet.reports.slab_overlays import TRUTH_COLOUR

MASK_COLOUR = np.array([70, 200, 255], dtype=np.float32)
MASK_WEIGHT = 0.45
_LINE_WIDTH = 1.1


@dataclass(frozen=True)
class VolumeStage:
    """A volume after one step.

    Parameters
    ----------
    title, detail : what the step does, and with which values.
    volume : (z, y, x), int16 Hounsfield units or uint8 grey levels.
    geometry : its grid.
    tint : uint8 (z, y, x), non-zero where to lay colour over it; None for nowhere.
    """

    title: str
    detail: str
    volume: np.ndarray
    geometry: ScanGeometry
    tint: np.ndarray | None = None


@dataclass(frozen=True)
class SlabStage:
    """The slabs after one step: uint8 (n, y, x) or (n, y, x, 3), and where they lie."""

    title: str
    detail: str
    slabs: np.ndarray
    geometries: tuple[SlabGeometry, ...]


Stage = VolumeStage | SlabStage


@dataclass(frozen=True)
class NoduleMark:
    """Outline of a nodule in mm: middle, half width, and whether it is a box or a section."""

    x: float
    y: float
    half: float
    is_box: bool

    @property
    def field(self) -> Field:
        """Square that just holds it."""
        return Field.around((self.x, self.y), 2 * self.half, 2 * self.half)

    def draw(self, axes: Axes) -> None:
        """Draw it into axes in mm."""
        corner = (self.x - self.half, self.y - self.half)
        outline = (
            Rectangle(corner, 2 * self.half, 2 * self.half)
            if self.is_box
            else Circle((self.x, self.y), self.half)
        )
        outline.set(fill=False, edgecolor=rgb(TRUTH_COLOUR), linewidth=_LINE_WIDTH)
        axes.add_patch(outline)


def slab_at(geometries: Sequence[SlabGeometry], height_mm: float) -> int:
    """Return which slab a position along the normal lies in, the one whose middle is nearest.

    Raises LungDetError if it lies in none.
    """
    inside = [
        (abs(sum(slab.z_range_mm) / 2 - height_mm), place)
        for place, slab in enumerate(geometries)
        if slab.z_range_mm[0] <= height_mm <= slab.z_range_mm[1]
    ]
    if not inside:
        raise LungDetError(
            f"no slab holds the plane at {height_mm:.1f} mm; choose another nodule with --nodule"
        )
    return min(inside)[1]


def stage_picture(stage: Stage, height_mm: float) -> Picture:
    """Return what a stage shows at a position along the slice normal.

    Raises LungDetError if no slice or slab of the stage lies there.
    """
    if isinstance(stage, SlabStage):
        place = slab_at(stage.geometries, height_mm)
        slab = stage.geometries[place]
        size_xy = (slab.width, slab.height)
        field = _field(slab.origin_xyz_mm, slab.axes_xyz, slab.spacing_xy_mm, size_xy)
        return Picture(stage.slabs[place], field)
    geometry = stage.geometry
    origin = np.asarray(geometry.origin_xyz_mm)
    dz, dy, dx = geometry.spacing_zyx_mm
    place = round((height_mm - float(origin @ geometry.normal_xyz)) / dz)
    if not 0 <= place < geometry.size_zyx[0]:
        raise LungDetError(
            f"the plane at {height_mm:.1f} mm is not among the slices of '{stage.title}'; choose "
            "another nodule with --nodule"
        )
    image = stage.volume[place]
    if image.dtype != np.uint8:
        image = window_hu(image[None])[0]
    if stage.tint is not None:
        image = _tinted(image, stage.tint[place])
    size_xy = (geometry.size_zyx[2], geometry.size_zyx[1])
    return Picture(image, _field(origin, geometry.axes_xyz, (dx, dy), size_xy))


def nodule_mark(stage: Stage, nodule: Nodule, height_mm: float) -> NoduleMark | None:
    """Return the outline of a nodule at that position, None where neither plane nor slab cuts it.

    On a slice that is the sphere's section, on a slab the box it is annotated with.
    """
    centre = np.asarray(nodule.centre_xyz_mm)
    if isinstance(stage, SlabStage):
        slab = stage.geometries[slab_at(stage.geometries, height_mm)]
        boxes, overlap = sphere_boxes(
            centre[None], np.array([nodule.diameter_mm]), SlabStack((slab,))
        )
        if overlap[0, 0] <= 0:
            return None
        half = 0.5 * float(boxes[0, 0, 2] - boxes[0, 0, 0]) * slab.spacing_xy_mm[0]
        axes_xyz = slab.axes_xyz
    else:
        axes_xyz = stage.geometry.axes_xyz
        away = float(centre @ axes_xyz[:, 2]) - height_mm
        if abs(away) >= nodule.diameter_mm / 2:
            return None
        half = math.sqrt((nodule.diameter_mm / 2) ** 2 - away**2)
    x, y = (centre @ axes_xyz[:, :2]).tolist()
    return NoduleMark(x, y, half, isinstance(stage, SlabStage))


def _field(
    origin_xyz_mm: Sequence[float] | np.ndarray,
    axes_xyz: np.ndarray,
    spacing_xy_mm: tuple[float, float],
    size_xy: tuple[int, int],
) -> Field:
    """Return the outer edges of a plane's pixels, in mm along its own axes."""
    x, y = (np.asarray(origin_xyz_mm) @ axes_xyz[:, :2]).tolist()
    (sx, sy), (width, height) = spacing_xy_mm, size_xy
    left, top = x - sx / 2, y - sy / 2
    return Field(left, left + width * sx, top, top + height * sy)


def _tinted(grey: np.ndarray, where: np.ndarray) -> np.ndarray:
    colour = np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)
    inside = where != 0
    colour[inside] = (1 - MASK_WEIGHT) * colour[inside] + MASK_WEIGHT * MASK_COLOUR
    return np.rint(colour).astype(np.uint8)


MARGIN_MM = 12.0
"""Rim of the field around what the last step shows."""


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
    close_up = marks[-1][0].field.close_up() if marks[-1] else None
    lines = broken_into_lines(notes)
    figure, panels = panel_grid(
        len(stages), field, note_lines=len(lines), close_ups=close_up is not None
    )
    for stage, picture, found, panel in zip(stages, pictures, marks, panels, strict=True):
        write_title(panel.plane, stage.title, stage.detail)
        _draw(panel, picture, found, close_up)
    write_notes(figure, lines)
    return png_of(figure)


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
