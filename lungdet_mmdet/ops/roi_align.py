"""RoIAlign in pure PyTorch (He et al., Mask R-CNN, 2017), with the signature of ``mmcv._ext``."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.ops import INSTALL_COMPILED

AVERAGE = 1
"""mmcv's number for average pooling; 0 is maximum pooling."""

SAMPLES_AT_ONCE = 1 << 22
"""Corner samples gathered at a time: bounds the memory where regions are large."""


def roi_align_forward(
    input: Tensor,  # noqa: A002  (mmcv's own argument names)
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled features of every region into ``output``.

    Parameters
    ----------
    input
        (images, channels, height, width) features.
    rois
        (K, 5) image index, x1, y1, x2, y2 in image pixels.
    output
        (K, channels, aligned_height, aligned_width), overwritten.
    argmax_y, argmax_x
        Used by maximum pooling only, which is not offered.
    spatial_scale
        Feature pixels per image pixel.
    sampling_ratio
        Samples per bin and axis; 0 takes as many as the bin has feature pixels, rounded up.
    pool_mode
        1, average.
    aligned
        Shift by half a pixel, so that feature i is centred at i + 0.5.

    Raises
    ------
    LungDetError
        For maximum pooling.
    """
    _require_average(pool_mode)
    output.zero_()
    table = _pixel_table(input)
    bins = (aligned_height, aligned_width)
    plan = _plan(rois, input, bins, spatial_scale, sampling_ratio, aligned)
    for chosen, row, weight in plan:
        pooled = F.embedding_bag(row, table, per_sample_weights=weight, mode="sum")
        output[chosen] = pooled.view(len(chosen), *bins, -1).movedim(-1, 1).to(output.dtype)


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the features into ``grad_input``; arguments as in the forward pass."""
    _require_average(pool_mode)
    # The pooling is linear in the features, so any table of the right shape has the gradient.
    table = _pixel_table(torch.zeros_like(grad_input)).requires_grad_()
    total = torch.zeros_like(table)
    bins = (aligned_height, aligned_width)
    plan = _plan(rois, grad_input, bins, spatial_scale, sampling_ratio, aligned)
    for chosen, row, weight in plan:
        with torch.enable_grad():
            pooled = F.embedding_bag(row, table, per_sample_weights=weight, mode="sum")
        gradient = grad_output[chosen].movedim(1, -1).reshape(pooled.shape).to(table.dtype)
        total += torch.autograd.grad(pooled, table, gradient)[0]
    images, channels, height, width = grad_input.shape
    grad_input.copy_(total.view(images, height, width, channels).movedim(-1, 1))


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE:
        raise LungDetError(
            "roi_align with pool_mode='max' needs mmcv with compiled ops, and this mmcv has none. "
            f"Use pool_mode='avg', or install them: {INSTALL_COMPILED}"
        )


def _pixel_table(features: Tensor) -> Tensor:
    """(images * height * width, channels), in single precision or better."""
    table = features.detach().movedim(1, -1).reshape(-1, features.shape[1])
    return table if table.dtype == torch.float64 else table.float()


def _plan(
    rois: Tensor,
    features: Tensor,
    bins: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Which table rows each bin averages: (regions (n,), rows (n * bins, s), weights (same)).

    Regions with the same number of samples per bin go together, as many as fit.
    """
    rois = rois if features.dtype == torch.float64 else rois.float()
    height, width = features.shape[2:]
    start_xy = rois[:, 1:3] * spatial_scale - (0.5 if aligned else 0.0)
    size_xy = (rois[:, 3:5] - rois[:, 1:3]) * spatial_scale
    if not aligned:  # the older convention gives every region at least one feature pixel
        size_xy = size_xy.clamp(min=1)
    step_xy = size_xy / size_xy.new_tensor(bins[::-1])
    counts_xy = step_xy.ceil().long()
    if sampling_ratio > 0:
        counts_xy = torch.full_like(counts_xy, sampling_ratio)
    for count_x, count_y in counts_xy.unique(dim=0).tolist():
        if min(count_x, count_y) < 1:  # an empty region has no samples and pools to zero
            continue
        same = (counts_xy == counts_xy.new_tensor([count_x, count_y])).all(dim=1)
        per_region = bins[0] * bins[1] * 4 * count_x * count_y
        for chosen in same.nonzero().squeeze(1).split(max(1, SAMPLES_AT_ONCE // per_region)):
            start, step = start_xy[chosen], step_xy[chosen]
            x, weight_x = _axis_samples(start[:, 0], step[:, 0], bins[1], count_x, width)
            y, weight_y = _axis_samples(start[:, 1], step[:, 1], bins[0], count_y, height)
            first_row = (rois[chosen, 0].long() * height).view(-1, 1, 1, 1, 1)
            row = (first_row + y[:, :, None, :, None]) * width + x[:, None, :, None, :]
            weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :]
            yield chosen, row.flatten(3).flatten(0, 2), weight.flatten(3).flatten(0, 2)


def _axis_samples(
    start: Tensor, step: Tensor, bins: int, count: int, size: int
) -> tuple[Tensor, Tensor]:
    """Pixels and weights along one axis, each (regions, bins, 2 * count).

    A sample up to one pixel outside takes the edge pixel; one farther out counts as zero.
    """
    within = (torch.arange(count, device=start.device, dtype=start.dtype) + 0.5) / count
    offsets = torch.arange(bins, device=start.device)[:, None] + within  # (bins, count)
    position = start[:, None, None] + offsets * step[:, None, None]
    inside = (position >= -1) & (position <= size)
    position = position.clamp(0, size - 1)
    low = position.floor().clamp(max=max(size - 2, 0))
    above = position - low
    index = torch.stack((low, (low + 1).clamp(max=size - 1)), dim=-1).long()
    weight = torch.stack((1 - above, above), dim=-1) * inside[..., None] / count
    return index.flatten(2), weight.flatten(2)
