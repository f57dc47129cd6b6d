"""The cases worth looking at: nodules that were missed and false positives that scored high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lungdet_mmdet.scoring.average_precision import PAPER_IOU
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet, TruthBox


@dataclass(frozen=True)
class TruthScore:
    """An annotated nodule box, and the best score of a detection on it (0.0 without one).

    ``n_slabs`` is the number of slabs that the score is the best of.
    """

    img_id: int
    box: TruthBox
    score: float
    n_slabs: int = 1


@dataclass(frozen=True)
class FalsePositive:
    """A detection on no annotated box: xyxy in slab pixels and score."""

    img_id: int
    box_xyxy_px: tuple[float, float, float, float]
    score: float


def truth_scores(
    slab_set: SlabSet, detections: Sequence[SlabDetections], *, iou: float = PAPER_IOU
) -> list[TruthScore]:
    """Return every annotated nodule box of the slabs looked at, with its best score."""
    scored = []
    for item in detections:
        truth = [box for box in slab_set.slabs[item.img_id].boxes if not box.is_ignored]
        on_box = overlaps(item, truth) >= iou
        for column, box in enumerate(truth):
            scores = item.scores[on_box[:, column]]
            scored.append(TruthScore(item.img_id, box, float(scores.max(initial=0.0))))
    return scored


def best_per_nodule(scored: Sequence[TruthScore]) -> list[TruthScore]:
    """Return one entry per nodule: its largest box, and its best score over all slabs.

    A nodule on several slabs is missed only when no slab shows it. Boxes that name no nodule stay
    by themselves.
    """
    groups: dict[str, list[TruthScore]] = {}
    for number, item in enumerate(scored):
        groups.setdefault(item.box.nodule_id or f"box {number}", []).append(item)
    best = []
    for members in groups.values():
        largest = max(members, key=lambda item: item.box.bbox_xywh_px[2] * item.box.bbox_xywh_px[3])
        score = max(item.score for item in members)
        best.append(TruthScore(largest.img_id, largest.box, score, len(members)))
    return best


def worst_misses(scored: Sequence[TruthScore], *, count: int) -> list[TruthScore]:
    """Return the boxes with the lowest scores; among equal ones the largest nodule comes first."""
    return sorted(scored, key=lambda item: (item.score, -item.box.diameter_mm))[:count]


def loudest_false_positives(
    slab_set: SlabSet,
    detections: Sequence[SlabDetections],
    *,
    count: int,
    iou: float = PAPER_IOU,
) -> list[FalsePositive]:
    """Return the best-scoring detections on neither a nodule box nor an ignore region."""
    found = []
    for item in detections:
        on_truth = (overlaps(item, slab_set.slabs[item.img_id].boxes) >= iou).any(axis=1)
        for row in np.flatnonzero(~on_truth):
            x1, y1, x2, y2 = item.boxes_xyxy_px[row].tolist()
            found.append(FalsePositive(item.img_id, (x1, y1, x2, y2), float(item.scores[row])))
    return sorted(found, key=lambda item: -item.score)[:count]


def overlaps(item: SlabDetections, truth: Sequence[TruthBox]) -> NDArray[np.float64]:
    """Return IoU (N, G), or the share of the detection inside where the region is ignored."""
    if not len(item.scores) or not truth:
        return np.zeros((len(item.scores), len(truth)))
    corners = item.boxes_xyxy_px
    found = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    annotated = np.array([box.bbox_xywh_px for box in truth])
    return np.asarray(coco_mask.iou(found, annotated, [box.is_ignored for box in truth]))
