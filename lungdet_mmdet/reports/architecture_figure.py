# SPDX-License-Identifier: Apache-2.0
"""Figure 2 of the paper: the detector as blocks, with the numbers of its config."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.dark_panels import GROUND, MUTED, TEXT

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
        strides = _strides(backbone, n_levels=neck["num_outs"])
        channels = neck["out_channels"]
    except (KeyError, TypeError) as error:
        raise LungDetError(
            f"model is a {model.get('type')}, without the backbone, neck, encoder, decoder or head "
            f"of a DETR ({error}): give a config of that family"
        ) from error
    among = layers[1]["self_attn_cfg"].get("num_heads", 8)
    n_queries = f"{model.get('num_queries', 300)} queries"
    return [
        (Block("Slab", (f"{thickness_mm:g} mm MIP", "3 channels"), "data"),),
        (
            Block(
                f"{backbone['type']}-{backbone.get('depth', '?')}",
                (_named("level", _levels(backbone)), _named("stride", strides[: _n_out(backbone)])),
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
                (_attention_line(attention, len(strides)), _feed_forward(layers[0])),
                "transformer",
            ),
        ),
        (
            Block(
                n_queries, ("proposed by the encoder",) if _proposes(model) else ("learnt",), "data"
            ),
            Block(
                f"Decoder, {decoder['num_layers']} layers",
                (
                    f"self-attention, {among} heads",
                    _attention_line(crossing, len(strides)),
                    _feed_forward(layers[1]),
                ),
                "transformer",
            ),
        ),
        (
            Block("Nodule or not", _loss_lines(head), "answer"),
            Block("Box", ("x, y, width, height", "L1 and GIoU loss"), "answer"),
            Block("one query for a nodule", ("Hungarian matching",), "answer"),
        ),
    ]


def _n_out(backbone: Mapping[str, Any]) -> int:
    return len(backbone.get("out_indices", (0, 1, 2, 3)))


def _levels(backbone: Mapping[str, Any]) -> list[str]:
    return [f"C{index + 2}" for index in backbone.get("out_indices", (0, 1, 2, 3))]


def _named(what: str, values: Sequence[Any]) -> str:
    return f"{what}{'s' if len(values) > 1 else ''} {', '.join(str(value) for value in values)}"


def _strides(backbone: Mapping[str, Any], *, n_levels: int) -> list[int]:
    """Return the stride of every level that the transformer sees."""
    stride, strides = 4, []
    steps = backbone.get("strides", (1, 2, 2, 2))
    for index, step in enumerate(steps):
        stride *= step
        if index in backbone.get("out_indices", (0, 1, 2, 3)):
            strides.append(stride)
    while len(strides) < n_levels:
        strides.append(2 * strides[-1])
    return strides


def _attention_line(attention: Mapping[str, Any], n_levels: int) -> str:
    heads = f"{attention.get('num_heads', 8)} heads"
    if n_levels == 1 and "num_levels" not in attention:
        return f"attention to all, {heads}"
    return f"deformable, {heads}, {attention.get('num_points', 4)} points"


def _feed_forward(layer: Mapping[str, Any]) -> str:
    return f"feed-forward {layer['ffn_cfg'].get('feedforward_channels', 1024)}"


def _proposes(model: Mapping[str, Any]) -> bool:
    return bool(model.get("as_two_stage", False))


def _loss_lines(head: Mapping[str, Any]) -> tuple[str, ...]:
    loss = head["loss_cls"]
    if "FocalLoss" not in loss["type"]:
        return (loss["type"],)
    return ("focal loss", f"gamma {loss.get('gamma', 2.0):g}, alpha {loss.get('alpha', 0.25):g}")


def architecture_figure(model: Mapping[str, Any], *, thickness_mm: float, note: str) -> bytes:
    """Draw a detector; arguments as of :func:`detector_blocks`.

    Parameters
    ----------
    note : one line under the drawing: which config it is.

    Returns
    -------
    bytes
        A PNG.
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
        axes.text(
            middle, top - 0.065, block.title, color=TEXT, fontsize=10.5, ha="center", va="center"
        )
        for line, text in enumerate(block.lines):
            y = top - 0.065 - 0.075 * (line + 1)
            axes.text(
                middle, y, text, color=TEXT, fontsize=8.2, ha="center", va="center", alpha=0.85
            )
        top -= height + 0.04
