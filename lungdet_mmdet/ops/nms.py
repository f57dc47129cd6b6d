"""Non-maximum suppression in pure PyTorch, with the call signature of ``mmcv._ext``."""

import numpy as np
import torch
from torch import Tensor

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
