# SPDX-License-Identifier: Apache-2.0
"""Multi-scale deformable attention as Triton kernels: nothing to install or compile on a GPU.

Written from equation 3 of Zhu et al., Deformable DETR (2021). CUDA builds of torch bring Triton
along. Inputs may be fp16, bf16, fp32 or fp64, each tensor its own; every sum is in fp32 (fp64
where the values are). The gradient of the values is gathered with atomic additions, so two runs may
differ in the last bits.

Importing this module needs Triton 3.0 or newer; :mod:`lungdet_mmdet.ops.attention_choice` asks
first. With ``TRITON_INTERPRET=1`` set before the import, the kernels run on a CPU, for tests.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from lungdet_mmdet.ops.deform_attn import sum_dtype

TILE = 1024
"""Numbers of the values' tensor that a program holds at a time: rows times channels."""


@triton.jit
def _neighbours(share, size):
    """Index, weight and presence of the two pixels around a position along one axis.

    ``share`` is a share of ``size`` pixels, of which pixel i is centred at i + 0.5. A pixel outside
    has index 0; its weight counts for nothing, since the value read there is zero. A position
    that is not finite gives NaN weights, which the result then shows.
    """
    position = share * size - 0.5
    low = tl.floor(position)
    high = low + 1.0
    low_inside = (low >= 0.0) & (low < size)
    high_inside = (high >= 0.0) & (high < size)
    low_index = tl.where(low_inside, low, 0.0).to(tl.int64)
    high_index = tl.where(high_inside, high, 0.0).to(tl.int64)
    above = position - low
    return low_index, high_index, low_inside, high_inside, 1.0 - above, above


@triton.jit
def _read(table, rows, columns, inside, in_tile, stride, FLOAT: tl.constexpr):
    """(rows, columns) tile of a (rows, stride) table; zero where a row is not inside."""
    at = table + rows[:, None] * stride + columns[None, :]
    return tl.load(at, mask=inside[:, None] & in_tile, other=0.0).to(FLOAT)


@triton.jit
def _add(table, rows, columns, inside, in_tile, stride, amount):
    """Add a (rows, columns) tile to a table where its rows are inside."""
    at = table + rows[:, None] * stride + columns[None, :]
    tl.atomic_add(at, amount, mask=inside[:, None] & in_tile, sem="relaxed")


@triton.jit
def _tile(items, channels, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Items and columns of this program, which items there are, and which numbers of the tile."""
    item = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    there = item < items
    return item, column, there, there[:, None] & (column < channels)[None, :]


@triton.jit
def _sample(locations, attention, sample, there, FLOAT: tl.constexpr):
    """Position of a sample, x then y as shares of its level, and its weight."""
    x = tl.load(locations + 2 * sample, mask=there, other=0.0).to(FLOAT)
    y = tl.load(locations + 2 * sample + 1, mask=there, other=0.0).to(FLOAT)
    return x, y, tl.load(attention + sample, mask=there, other=0.0).to(FLOAT)


@triton.jit
def _forward_kernel(
    value, shapes, starts, locations, attention, out,
    items, keys, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FLOAT: tl.constexpr,
):  # fmt: skip
    """One program sums all samples of ROWS items; an item is one query's head in one image."""
    item, column, there, in_tile = _tile(items, channels, ROWS, COLUMNS)
    head = item % heads
    first_key = item // heads // queries * keys
    total = tl.zeros((ROWS, COLUMNS), dtype=FLOAT)
    for level in range(LEVELS):
        height = tl.load(shapes + 2 * level)
        width = tl.load(shapes + 2 * level + 1)
        origin = first_key + tl.load(starts + level)
        for point in range(POINTS):
            sample = item * (LEVELS * POINTS) + level * POINTS + point
            x, y, weight = _sample(locations, attention, sample, there, FLOAT)
            left, right, has_left, has_right, wl, wr = _neighbours(x, width.to(FLOAT))
            upper, lower, has_upper, has_lower, wu, wd = _neighbours(y, height.to(FLOAT))
            top = (origin + upper * width) * heads + head
            bottom = (origin + lower * width) * heads + head
            ul = _read(value, top + left * heads, column, has_upper & has_left, in_tile,
                       channels, FLOAT)  # fmt: skip
            ur = _read(value, top + right * heads, column, has_upper & has_right, in_tile,
                       channels, FLOAT)  # fmt: skip
            ll = _read(value, bottom + left * heads, column, has_lower & has_left, in_tile,
                       channels, FLOAT)  # fmt: skip
            lr = _read(value, bottom + right * heads, column, has_lower & has_right, in_tile,
                       channels, FLOAT)  # fmt: skip
            total += (weight * wu * wl)[:, None] * ul + (weight * wu * wr)[:, None] * ur
            total += (weight * wd * wl)[:, None] * ll + (weight * wd * wr)[:, None] * lr
    at = out + item[:, None] * channels + column[None, :]
    tl.store(at, total.to(out.dtype.element_ty), mask=in_tile)


@triton.jit
def _backward_kernel(
    value, shapes, starts, locations, attention, grad_out,
    grad_value, grad_locations, grad_attention,
    items, keys, queries, heads, channels,
    LEVELS: tl.constexpr, POINTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    FLOAT: tl.constexpr,
):  # fmt: skip
    """All three gradients of ROWS items; that of the values is added to ``grad_value``."""
    item, column, there, in_tile = _tile(items, channels, ROWS, COLUMNS)
    head = item % heads
    first_key = item // heads // queries * keys
    upstream = _read(grad_out, item, column, there, in_tile, channels, FLOAT)
    for level in range(LEVELS):
        height = tl.load(shapes + 2 * level)
        width = tl.load(shapes + 2 * level + 1)
        origin = first_key + tl.load(starts + level)
        for point in range(POINTS):
            sample = item * (LEVELS * POINTS) + level * POINTS + point
            x, y, weight = _sample(locations, attention, sample, there, FLOAT)
            left, right, has_left, has_right, wl, wr = _neighbours(x, width.to(FLOAT))
            upper, lower, has_upper, has_lower, wu, wd = _neighbours(y, height.to(FLOAT))
            top = (origin + upper * width) * heads + head
            bottom = (origin + lower * width) * heads + head
            # What each corner's value is worth to the loss: d loss / d sample, times the value.
            row = top + left * heads
            inside = has_upper & has_left
            ul = tl.sum(upstream * _read(value, row, column, inside, in_tile, channels, FLOAT), 1)
            _add(grad_value, row, column, inside, in_tile, channels,
                 (weight * wu * wl)[:, None] * upstream)  # fmt: skip
            row = top + right * heads
            inside = has_upper & has_right
            ur = tl.sum(upstream * _read(value, row, column, inside, in_tile, channels, FLOAT), 1)
            _add(grad_value, row, column, inside, in_tile, channels,
                 (weight * wu * wr)[:, None] * upstream)  # fmt: skip
            row = bottom + left * heads
            inside = has_lower & has_left
            ll = tl.sum(upstream * _read(value, row, column, inside, in_tile, channels, FLOAT), 1)
            _add(grad_value, row, column, inside, in_tile, channels,
                 (weight * wd * wl)[:, None] * upstream)  # fmt: skip
            row = bottom + right * heads
            inside = has_lower & has_right
            lr = tl.sum(upstream * _read(value, row, column, inside, in_tile, channels, FLOAT), 1)
            _add(grad_value, row, column, inside, in_tile, channels,
                 (weight * wd * wr)[:, None] * upstream)  # fmt: skip
            # The bilinear sample and its two slopes, each already multiplied by the upstream.
            by_weight = wu * (wl * ul + wr * ur) + wd * (wl * ll + wr * lr)
            by_x = weight * width.to(FLOAT) * (wu * (ur - ul) + wd * (lr - ll))
            by_y = weight * height.to(FLOAT) * (wl * (ll - ul) + wr * (lr - ur))
            kind = grad_locations.dtype.element_ty
            tl.store(grad_attention + sample, by_weight.to(grad_attention.dtype.element_ty),
                     mask=there)  # fmt: skip
            tl.store(grad_locations + 2 * sample, by_x.to(kind), mask=there)
            tl.store(grad_locations + 2 * sample + 1, by_y.to(kind), mask=there)


class TritonAttention(Function):
    """Deformable attention on a GPU, with the arguments of mmcv's compiled function.

    ``apply(value, spatial_shapes, level_start_index, locations, weights, im2col_step)`` takes

    - ``value`` (batch, keys, heads, channels), the levels one after another along the keys;
    - ``spatial_shapes`` (levels, 2) whole heights and widths, ``level_start_index`` (levels,);
    - ``locations`` (batch, queries, heads, levels, points, 2), x then y as a share of the level's
      width and height; what lies outside reads zero;
    - ``weights`` (batch, queries, heads, levels, points);
    - ``im2col_step``, without a meaning here,

    and returns (batch, queries, heads * channels) in the dtype of ``value``. Locations and weights
    keep their own precision: half-precision values do not make half-precision positions.
    """

    @staticmethod
    def forward(
        ctx: Any,
        value: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        locations: Tensor,
        weights: Tensor,
        im2col_step: int = 64,
    ) -> Tensor:
        """Sum the samples."""
        inputs = _contiguous(value, spatial_shapes, level_start_index, locations, weights)
        ctx.save_for_backward(*inputs)
        batch, _, heads, channels = value.shape
        out = value.new_zeros(batch, locations.shape[1], heads * channels)
        _launch(_forward_kernel, inputs, (out,))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of values, locations and weights."""
        inputs = ctx.saved_tensors
        value, _, _, locations, weights = inputs
        # Many items add to one value: in half precision small ones would be lost.
        grad_value = torch.zeros_like(value, dtype=sum_dtype(value))
        grad_locations, grad_weights = torch.zeros_like(locations), torch.zeros_like(weights)
        results = (grad_out.contiguous(), grad_value, grad_locations, grad_weights)
        _launch(_backward_kernel, inputs, results)
        return grad_value.to(value.dtype), None, None, grad_locations, grad_weights, None


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def _launch(kernel: Any, inputs: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> None:
    value, _, _, locations, _ = inputs
    batch, keys, heads, channels = value.shape
    queries, levels, points = locations.shape[1], *locations.shape[3:5]
    items = batch * queries * heads
    if not (items and levels and points and channels):
        return
    columns = triton.next_power_of_2(channels)
    rows = max(TILE // columns, 1)
    # Triton launches on the current device, which need not be the tensors'.
    on_device = torch.cuda.device(value.device) if value.is_cuda else contextlib.nullcontext()
    with on_device:
        kernel[(triton.cdiv(items, rows),)](
            *inputs, *others, items, keys, queries, heads, channels,
            LEVELS=levels, POINTS=points, ROWS=rows, COLUMNS=columns,
            FLOAT=tl.float64 if value.dtype == torch.float64 else tl.float32,
        )  # fmt: skip
