"""Multi-scale deformable attention in pure PyTorch.

Source: Zhu et al., Deformable DETR (2021), equation 3; the argument order and the in-place results
are those of ``mmcv._ext``, so that ``mmcv.ops.MultiScaleDeformableAttnFunction`` can call it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
        height. What lies outside reads zero.
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
    if sampling_locations.numel() == 0:
        return value.new_zeros(batch, queries, heads * channels)
    compute = _compute_dtype(value)
    locations, attention = sampling_locations.to(compute), attention_weights.to(compute)
    heights, widths = spatial_shapes.to(compute).unsqueeze(-1).unbind(1)  # each (levels, 1)
    columns, column_weights = _neighbours(locations[..., 0], widths)
    rows, row_weights = _neighbours(locations[..., 1], heights)

    # The last two axes are the corners: (batch, queries, heads, levels, points, 2 rows, 2 columns).
    per_level = (levels, 1, 1, 1)
    key = rows[..., :, None] * spatial_shapes[:, 1].view(per_level) + columns[..., None, :]
    key = key + level_start_index.view(per_level)
    image = torch.arange(batch, device=value.device).view(batch, 1, 1, 1, 1, 1, 1)
    head = torch.arange(heads, device=value.device).view(heads, 1, 1, 1, 1)
    table_row = (key + image * keys) * heads + head
    weight = attention[..., None, None] * row_weights[..., :, None] * column_weights[..., None, :]

    bag = levels * points * 4
    out = F.embedding_bag(
        table_row.view(-1, bag),
        value.to(compute).reshape(batch * keys * heads, channels),
        per_sample_weights=weight.view(-1, bag),
        mode="sum",
    )
    return out.view(batch, queries, heads * channels).to(value.dtype)


def _compute_dtype(value: Tensor) -> torch.dtype:
    return torch.float64 if value.dtype == torch.float64 else torch.float32


def _neighbours(share: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and linear weights of the two pixels around each position along one axis.

    ``share`` is (..., levels, points) in [0, 1] across the axis, ``size`` (levels, 1). Pixel i is
    centred at i + 0.5. Both results are (..., levels, points, 2). A neighbour outside gets weight
    0 and an index inside, so that it can be gathered. A position that is not finite keeps a NaN
    weight: the loss shows it, and nothing reads outside the table.
    """
    position = share * size - 0.5
    low = position.detach().floor()
    above = position - low
    index = torch.stack((low, low + 1), dim=-1)
    inside = (index >= 0) & (index < size[..., None])
    weight = torch.stack((1 - above, above), dim=-1) * inside
    index = torch.minimum(index.nan_to_num().clamp(min=0), size[..., None] - 1)
    return index.long(), weight


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
