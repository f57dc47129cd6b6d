# SPDX-License-Identifier: Apache-2.0
"""Ops of mmcv in pure PyTorch, with the argument order and in-place results of ``mmcv._ext``.

Non-maximum suppression; sigmoid focal loss (Lin et al., Focal Loss for Dense Object Detection,
2017); RoIAlign (He et al., Mask R-CNN, 2017).
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.versions import INSTALL_COMPILED

BLOCK = 1024
"""Boxes settled at a time: bounds the memory to BLOCK x N overlaps and the device round trips."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy suppression of every box that overlaps a better one by more than the threshold.

    Parameters
    ----------
    boxes
        (N, 4) x1, y1, x2, y2.
    scores
        (N,); of equal scores the earlier box goes first.
    iou_threshold
        A box goes when its IoU is above, not at, this value.
    offset
        0 or 1; widths are ``x2 - x1 + offset`` (1 for corners that name whole pixels).

    Returns
    -------
    Tensor
        (K,) int64 indices of the kept boxes, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order]
    if ranked.dtype != torch.float64:
        ranked = ranked.float()
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(order), BLOCK):
        stop = start + BLOCK
        block = start + alive[start:stop].nonzero().squeeze(1)
        overlaps = _overlap(ranked[block], ranked[block], iou_threshold, offset)
        kept = block[_settle(overlaps)]
        alive[start:stop] = False
        alive[kept] = True
        alive[stop:] &= ~_overlap(ranked[kept], ranked[stop:], iou_threshold, offset).any(dim=0)
    return order[alive]


def _settle(overlaps: Tensor) -> Tensor:
    """(n,) bool of the boxes that survive one another; ``overlaps`` is (n, n), best box first."""
    beats = np.triu(overlaps.cpu().numpy(), k=1)
    kept = np.ones(len(beats), dtype=bool)
    for rank, beaten in enumerate(beats):
        if kept[rank]:
            kept &= ~beaten
    return torch.from_numpy(kept).to(overlaps.device)


def _overlap(first: Tensor, second: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """(n, m) bool, true where the IoU is above the threshold; empty boxes overlap nothing."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low + offset).clamp(min=0).prod(dim=-1)
    area_first = (first[:, 2:] - first[:, :2] + offset).prod(dim=-1)
    area_second = (second[:, 2:] - second[:, :2] + offset).prod(dim=-1)
    union = area_first[:, None] + area_second[None, :] - shared
    return shared / union > iou_threshold


def sigmoid_focal_loss_forward(
    input: Tensor,  # noqa: A002  (mmcv's own argument names)
    target: Tensor,
    weight: Tensor,
    output: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write the loss of every sample and class into ``output``.

    Parameters
    ----------
    input
        (samples, classes) logits.
    target
        (samples,) class indices; one outside [0, classes) is background, negative for all classes.
    weight
        (classes,) weight of the samples whose target is that class, or empty. Background samples
        weigh 1: there is no entry for them.
    output
        (samples, classes), overwritten.
    gamma, alpha
        Focusing exponent, and share of the positives.
    """
    logits = _computable(input)
    positive = _is_target(logits, target)
    p = logits.sigmoid()
    loss_if_positive = -alpha * (1 - p).pow(gamma) * F.logsigmoid(logits)
    loss_if_negative = -(1 - alpha) * p.pow(gamma) * F.logsigmoid(-logits)
    loss = torch.where(positive, loss_if_positive, loss_if_negative)
    output.copy_(loss * _sample_weight(logits, target, weight))


def sigmoid_focal_loss_backward(
    input: Tensor,  # noqa: A002
    target: Tensor,
    weight: Tensor,
    grad_input: Tensor,
    gamma: float,
    alpha: float,
) -> None:
    """Write d loss / d logit into ``grad_input``; arguments as in the forward pass."""
    logits = _computable(input)
    positive = _is_target(logits, target)
    p = logits.sigmoid()
    slope_if_positive = -alpha * (1 - p).pow(gamma) * (1 - p - gamma * p * F.logsigmoid(logits))
    slope_if_negative = (1 - alpha) * p.pow(gamma) * (p - gamma * (1 - p) * F.logsigmoid(-logits))
    slope = torch.where(positive, slope_if_positive, slope_if_negative)
    grad_input.copy_(slope * _sample_weight(logits, target, weight))


def _computable(logits: Tensor) -> Tensor:
    """Half precision is computed in single precision: powers of small p underflow in fp16."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _is_target(logits: Tensor, target: Tensor) -> Tensor:
    """(samples, classes) bool, true at each sample's own class."""
    classes = torch.arange(logits.shape[1], device=target.device)
    return target[:, None] == classes


def _sample_weight(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(samples, 1) weight by target class; 1 for background and where no weights are given."""
    ones = logits.new_ones(target.shape)
    if weight.numel() == 0:
        return ones[:, None]
    foreground = (target >= 0) & (target < len(weight))
    own = weight.to(logits)[target.clamp(0, len(weight) - 1)]
    return torch.where(foreground, own, ones)[:, None]


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
