# SPDX-License-Identifier: Apache-2.0
"""Figures 1 and 2 of the paper: the steps of the prep pipeline on any scan, and the detector."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from lungdet_mmdet.annotations.slab_boxes import cut_sphere
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import window_hu
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.dark_panels import (
    GROUND,
    MUTED,
    TEXT,
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
    """Outline of a nodule: the square in mm that just holds it, and whether it is a box."""

    field: Field
    is_box: bool

    def draw(self, axes: Axes) -> None:
        """Draw it into axes in mm, a section as a circle."""
        square = self.field
        outline = (
            Rectangle((square.left, square.top), square.width, square.height)
            if self.is_box
            else Circle(square.centre, square.width / 2)
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
    dz, dy, dx = geometry.spacing_zyx_mm
    place = round((height_mm - float(np.dot(geometry.origin_xyz_mm, geometry.normal_xyz))) / dz)
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
    field = _field(geometry.origin_xyz_mm, geometry.axes_xyz, (dx, dy), size_xy)
    return Picture(image, field)


def nodule_mark(stage: Stage, nodule: Nodule, height_mm: float) -> NoduleMark | None:
    """Return the outline of a nodule at that position, None where neither plane nor slab cuts it.

    On a slice that is the sphere's section, on a slab the box it is annotated with.
    """
    centre = np.asarray(nodule.centre_xyz_mm)
    is_box = isinstance(stage, SlabStage)
    if isinstance(stage, SlabStage):
        slab = stage.geometries[slab_at(stage.geometries, height_mm)]
        axes_xyz, (low, high) = slab.axes_xyz, slab.z_range_mm
    else:
        axes_xyz, low, high = stage.geometry.axes_xyz, height_mm, height_mm
    x, y, z = (centre @ axes_xyz).tolist()
    half = float(cut_sphere(*np.array([z, 0.5 * nodule.diameter_mm, low, high]))[1])
    return NoduleMark(Field.around((x, y), 2 * half, 2 * half), is_box) if half > 0 else None


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
    """Return the same plane of a scan after each step as PNG, nodules marked in green.

    A circle on a slice is the sphere's section by that slice, a square on a slab the slab's box.

    Parameters
    ----------
    stages : in order; all have the same direction.
    height_mm : the plane: position along the slice normal.
    nodules : those that the plane or its slab cuts are marked; the first one cut gets a close-up.
    notes : lines under the panels.

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


WIDTH_INCHES, HEIGHT_INCHES, DPI = 12.0, 3.7, 160
_COLUMN, _GAP = 0.158, 0.022
_FILL = {"data": "#2f3b46", "features": "#26475c", "transformer": "#3b3560", "answer": "#2f5140"}


@dataclass(frozen=True)
class Block:
    """One block of the drawing: what it is, its numbers, and what it works on (its colour)."""

    title: str
    lines: tuple[str, ...]
    kind: str


def detector_blocks(model: Mapping[str, Any], *, thickness_mm: float) -> list[tuple[Block, ...]]:
    """Return the columns of the drawing, from the slab to the boxes.

    Parameters
    ----------
    model : ``model`` of a config: a detector of the DETR family. Values that it leaves out are
        mmdet's own defaults.
    thickness_mm : of the slabs.

    Raises
    ------
    LungDetError
        If it has no encoder and decoder.
    """
    try:
        encoder, decoder = model["encoder"], model["decoder"]
        layers = [part["layer_cfg"] for part in (encoder, decoder)]
        attention, crossing = layers[0]["self_attn_cfg"], layers[1]["cross_attn_cfg"]
        backbone, neck, head = model["backbone"], model["neck"], model["bbox_head"]
        n_levels, channels = neck["num_outs"], neck["out_channels"]
    except (KeyError, TypeError) as error:
        raise LungDetError(
            f"model is a {model.get('type')}, without the backbone, neck, encoder, decoder or head "
            f"of a DETR ({error}): give a config of that family"
        ) from error
    out = backbone.get("out_indices", (0, 1, 2, 3))
    steps = backbone.get("strides", (1, 2, 2, 2))
    own = [4 * math.prod(steps[: i + 1]) for i in range(len(steps)) if i in out]
    # The neck goes on beyond the backbone, to levels of half the size.
    strides = own + [own[-1] << more for more in range(1, n_levels - len(own) + 1)]
    feed_forward = [
        f"feed-forward {layer['ffn_cfg'].get('feedforward_channels', 1024)}" for layer in layers
    ]
    proposed = "proposed by the encoder" if model.get("as_two_stage", False) else "learnt"
    return [
        (Block("Slab", (f"{thickness_mm:g} mm MIP", "3 channels"), "data"),),
        (
            Block(
                f"{backbone['type']}-{backbone.get('depth', '?')}",
                (_named("level", [f"C{index + 2}" for index in out]), _named("stride", own)),
                "features",
            ),
            Block(
                "1 x 1 convolutions",
                (f"{channels} channels", _named("stride", strides)),
                "features",
            ),
            Block("+ sine-cosine positions", (), "features"),
        ),
        (
            Block(
                f"Encoder, {encoder['num_layers']} layers",
                (_attention_line(attention, len(strides)), feed_forward[0]),
                "transformer",
            ),
        ),
        (
            Block(f"{model.get('num_queries', 300)} queries", (proposed,), "data"),
            Block(
                f"Decoder, {decoder['num_layers']} layers",
                (
                    f"self-attention, {layers[1]['self_attn_cfg'].get('num_heads', 8)} heads",
                    _attention_line(crossing, len(strides)),
                    feed_forward[1],
                ),
                "transformer",
            ),
        ),
        (
            Block("Nodule or not", _loss_lines(head["loss_cls"]), "answer"),
            Block("Box", ("x, y, width, height", "L1 and GIoU loss"), "answer"),
            Block("one query for a nodule", ("Hungarian matching",), "answer"),
        ),
    ]


def _named(what: str, values: Sequence[Any]) -> str:
    return f"{what}{'s' if len(values) > 1 else ''} {', '.join(str(value) for value in values)}"


def _attention_line(attention: Mapping[str, Any], n_levels: int) -> str:
    heads = f"{attention.get('num_heads', 8)} heads"
    if n_levels == 1 and "num_levels" not in attention:
        return f"attention to all, {heads}"
    return f"deformable, {heads}, {attention.get('num_points', 4)} points"


def _loss_lines(loss: Mapping[str, Any]) -> tuple[str, ...]:
    if "FocalLoss" not in loss["type"]:
        return (loss["type"],)
    return ("focal loss", f"gamma {loss.get('gamma', 2.0):g}, alpha {loss.get('alpha', 0.25):g}")


def architecture_figure(model: Mapping[str, Any], *, thickness_mm: float, note: str) -> bytes:
    """Return the drawing of a detector as PNG; arguments as of :func:`detector_blocks`.

    ``note`` is one line under the drawing: which config it is.
    """
    columns = detector_blocks(model, thickness_mm=thickness_mm)
    figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, facecolor=GROUND)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    axes.set_axis_off()
    total = len(columns) * _COLUMN + (len(columns) - 1) * 2 * _GAP
    left = 0.5 * (1.0 - total)
    for number, column in enumerate(columns):
        _draw_column(axes, column, left)
        if number + 1 < len(columns):
            start, end = left + _COLUMN + 0.006, left + _COLUMN + 2 * _GAP - 0.006
            arrow = {"arrowstyle": "-|>", "color": TEXT, "linewidth": 1.4}
            axes.annotate("", (end, 0.54), (start, 0.54), arrowprops=arrow)
        left += _COLUMN + 2 * _GAP
    axes.text(0.5, 0.04, note, color=MUTED, fontsize=9, ha="center", va="bottom")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=GROUND)
    return stream.getvalue()


def _draw_column(axes: Axes, blocks: tuple[Block, ...], left: float) -> None:
    heights = [0.13 + 0.075 * len(block.lines) for block in blocks]
    top = 0.54 + 0.5 * (sum(heights) + 0.04 * (len(blocks) - 1))
    for block, height in zip(blocks, heights, strict=True):
        shape = FancyBboxPatch(
            (left, top - height),
            _COLUMN,
            height,
            boxstyle="round,pad=0,rounding_size=0.012",
            facecolor=_FILL[block.kind],
            edgecolor=MUTED,
            linewidth=0.8,
        )
        axes.add_patch(shape)
        middle = left + _COLUMN / 2
        for line, text in enumerate((block.title, *block.lines)):
            look: dict[str, Any] = {"fontsize": 8.2, "alpha": 0.85} if line else {"fontsize": 10.5}
            y = top - 0.065 - 0.075 * line
            axes.text(middle, y, text, color=TEXT, ha="center", va="center", **look)
        top -= height + 0.04
