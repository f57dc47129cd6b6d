# SPDX-License-Identifier: Apache-2.0
"""Multi-scale deformable attention in pure PyTorch.

Source: Zhu et al., Deformable DETR (2021), equation 3; the argument order and the in-place results
are those of ``mmcv._ext``, so that ``mmcv.ops.MultiScaleDeformableAttnFunction`` can call it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from scipy.sparse import csc_array
from torch import Tensor
from torch.autograd.function import once_differentiable


def deform_attn(
    value: Tensor,
    spatial_shapes: Tensor,
    level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples from all levels, differentiable by autograd.

    Every query and head reads ``levels * points * 4`` rows of ``value`` (the corners of each
    sampling point). That is one weighted embedding bag, which never holds the rows it sums, so the
    memory does not grow with the channels.

    Parameters
    ----------
    value
        (batch, keys, heads, channels); the levels follow one another along the keys.
    spatial_shapes
        (levels, 2) integer heights and widths.
    level_start_index
        (levels,) integer first key of each level.
    sampling_locations
        (batch, queries, heads, levels, points, 2), x then y, as a share of the level's width and
        height. What lies outside reads zero, and so does a level without pixels.
    attention_weights
        (batch, queries, heads, levels, points).

    Returns
    -------
    Tensor
        (batch, queries, heads * channels), in the dtype of ``value``. Half precision is computed
        in single precision: positions on a wide level need more than the 11 bits of fp16.
    """
    batch, keys, heads, channels = value.shape
    queries, levels, points = sampling_locations.shape[1], *sampling_locations.shape[3:5]
    if sampling_locations.numel() == 0 or keys == 0:
        return value.new_zeros(batch, queries, heads * channels)
    compute = sum_dtype(value)
    samples = levels * points
    # Every tensor below is (batch * queries, heads, samples): the last axis is long and contiguous,
    # which is what keeps the elementwise work far below the time of the sums.
    locations = sampling_locations.to(compute).reshape(batch * queries, heads, samples, 2)
    attention = attention_weights.to(compute).reshape(batch * queries, heads, samples)
    shapes = spatial_shapes.repeat_interleave(points, dim=0)  # (samples, 2)
    heights, widths = shapes.to(compute).unbind(1)
    left, right, left_weight, right_weight = _neighbours(locations[..., 0], widths)
    upper, lower, upper_weight, lower_weight = _neighbours(locations[..., 1], heights)
    upper_weight, lower_weight = upper_weight * attention, lower_weight * attention

    # Rows of the table are ordered by image, key, head.
    whole = torch.int32 if batch * keys * heads < _INT32_ROWS else torch.int64
    device = value.device
    head = torch.arange(heads, dtype=whole, device=device).view(heads, 1)
    # A level without pixels may start behind the last key; what is read there weighs nothing.
    first_key = level_start_index.to(whole).clamp(max=keys - 1)
    level = first_key.repeat_interleave(points) * heads
    image = torch.arange(batch, dtype=whole, device=device) * (keys * heads)
    image = image.repeat_interleave(queries).view(-1, 1, 1)
    stride = shapes[:, 1].to(whole) * heads
    left, right = (column.to(whole) * heads + (head + level) for column in (left, right))
    upper, lower = (row.to(whole) * stride + image for row in (upper, lower))

    corners = ((upper, left), (upper, right), (lower, left), (lower, right))
    weights = (
        upper_weight * left_weight,
        upper_weight * right_weight,
        lower_weight * left_weight,
        lower_weight * right_weight,
    )
    bag = 4 * samples
    is_learning = torch.is_grad_enabled() and value.device.type == "cpu"
    out = (_SumsOnCPU.apply if is_learning else _weighted_sums)(
        torch.stack([row + column for row, column in corners], dim=2).view(-1, bag),
        value.to(compute).reshape(batch * keys * heads, channels),
        torch.stack(weights, dim=2).view(-1, bag),
    )
    return out.view(batch, queries, heads * channels).to(value.dtype)


def _weighted_sums(rows: Tensor, table: Tensor, weights: Tensor) -> Tensor:
    """(bags, channels) sums of the table's rows; ``rows`` and ``weights`` are (bags, samples)."""
    return F.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


class _SumsOnCPU(torch.autograd.Function):
    """:func:`_weighted_sums` with a quick gradient on a CPU.

    The sums are a product with a sparse matrix of one row a bag, the table's gradient one with its
    transpose. PyTorch's own gradient sorts all rows first, which takes ten times as long.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, table, weights)
        return _weighted_sums(rows, table, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        rows, table, weights = ctx.saved_tensors
        _, table_asked, weights_asked = ctx.needs_input_grad
        grad_table = grad_weights = None
        if table_asked:
            bags, samples = rows.shape
            columns = torch.arange(0, bags * samples + 1, samples, dtype=rows.dtype)
            entries = (weights.flatten().numpy(), rows.flatten().numpy(), columns.numpy())
            transposed = csc_array(entries, shape=(len(table), bags))
            grad_table = torch.from_numpy(transposed @ grad.numpy())
        if weights_asked:
            with torch.enable_grad():
                leaf = weights.detach().requires_grad_()
                sums = _weighted_sums(rows, table.detach(), leaf)
            (grad_weights,) = torch.autograd.grad(sums, leaf, grad)
        return None, grad_table, grad_weights


_INT32_ROWS = 2**31
"""Tables with fewer rows are addressed with half the memory traffic."""


def sum_dtype(value: Tensor) -> torch.dtype:
    """Return the precision of sums over values: single at the least."""
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _neighbours(share: Tensor, size: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices and linear weights of the two pixels around each position along one axis.

    ``share`` is (..., samples) in [0, 1] across the axis, ``size`` (samples,). Pixel i is centred
    at i + 0.5. Returns lower index, upper index and their weights, each (..., samples); indices
    are whole floats. A neighbour outside gets weight 0 and an index inside, so that it can be
    gathered. A position that is not finite keeps a NaN weight: the loss shows it, and nothing reads
    outside the table.
    """
    position = share * size - 0.5
    low = position.detach().floor()
    above = position - low
    high, last = low + 1, size - 1
    # nan_to_num only after clamping: infinities are clamped, NaN alone needs a place.
    low_inside, high_inside = (
        index.minimum(last).clamp_(min=0).nan_to_num_(nan=0.0) for index in (low, high)
    )
    return (
        low_inside,
        high_inside,
        (1 - above) * ((low_inside == low) & (size > 0)),
        above * ((high_inside == high) & (size > 0)),
    )


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Forward pass as ``mmcv._ext`` offers it; ``im2col_step`` has no meaning here."""
    return deform_attn(
        value,
        value_spatial_shapes,
        value_level_start_index,
        sampling_locations,
        attention_weights,
    )


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Write the three gradients in place, as ``mmcv._ext`` does.

    The forward pass is computed again rather than kept: its indices and weights are many times
    larger than the inputs.
    """
    inputs = [
        tensor.detach().requires_grad_()
        for tensor in (value, sampling_locations, attention_weights)
    ]
    with torch.enable_grad():
        out = deform_attn(
            inputs[0], value_spatial_shapes, value_level_start_index, inputs[1], inputs[2]
        )
    if not out.requires_grad:  # nothing was sampled: the gradients stay zero
        return
    gradients = torch.autograd.grad(out, inputs, grad_output.view_as(out))
    results = (grad_value, grad_sampling_loc, grad_attn_weight)
    for result, gradient in zip(results, gradients, strict=True):
        result.copy_(gradient)
