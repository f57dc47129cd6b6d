"""Cases worth a look: what was found, missed and falsely marked, slab by slab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lungdet_mmdet.scoring.average_precision import PAPER_IOU
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, SlabSet, TruthBox


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


HIT, FALSE_POSITIVE, IGNORED = "hit", "false positive", "ignored"


@dataclass(frozen=True)
class SlabOutcome:
    """One slab with its detections at or above a threshold, best score first.

    Parameters
    ----------
    slab : with its annotated boxes.
    boxes_xyxy_px, scores : (N, 4) and (N,) of the detections kept.
    verdicts : (N,) each "hit", "false positive" or "ignored".
    found : the nodule boxes that a detection hit.
    missed : those that none did.
    """

    slab: Slab
    boxes_xyxy_px: NDArray[np.float64]
    scores: NDArray[np.float64]
    verdicts: tuple[str, ...]
    found: tuple[TruthBox, ...]
    missed: tuple[TruthBox, ...]

    @property
    def top_false_positive(self) -> float:
        """Highest score of a false positive, 0.0 without one."""
        wrong = [verdict == FALSE_POSITIVE for verdict in self.verdicts]
        return float(self.scores[wrong].max(initial=0.0))


def slab_outcome(
    slab: Slab, detections: SlabDetections, *, threshold: float, iou: float = PAPER_IOU
) -> SlabOutcome:
    """Match detections to annotated boxes as COCO does: best score first, one box each.

    A second detection on one nodule is a false positive; one that lies in an ignore region by at
    least `iou` of its own area is neither right nor wrong.
    """
    order = np.argsort(-detections.scores, kind="stable")
    order = order[detections.scores[order] >= threshold]
    kept = SlabDetections(
        detections.img_id, detections.boxes_xyxy_px[order], detections.scores[order]
    )
    nodules = [box for box in slab.boxes if not box.is_ignored]
    ignored = [box for box in slab.boxes if box.is_ignored]
    verdicts, taken = _verdicts(overlaps(kept, nodules), overlaps(kept, ignored), iou)
    return SlabOutcome(
        slab=slab,
        boxes_xyxy_px=kept.boxes_xyxy_px,
        scores=kept.scores,
        verdicts=verdicts,
        found=tuple(box for place, box in enumerate(nodules) if place in taken),
        missed=tuple(box for place, box in enumerate(nodules) if place not in taken),
    )


def _verdicts(
    on_nodules: NDArray[np.float64], on_ignored: NDArray[np.float64], iou: float
) -> tuple[tuple[str, ...], set[int]]:
    """Return the verdict of each detection, and which nodules were hit."""
    verdicts: list[str] = []
    taken: set[int] = set()
    for nodule_row, ignored_row in zip(on_nodules, on_ignored, strict=True):
        free = [place for place in range(len(nodule_row)) if place not in taken]
        best = max(free, key=lambda place: nodule_row[place], default=None)
        if best is not None and nodule_row[best] >= iou:
            taken.add(best)
            verdicts.append(HIT)
        else:
            verdicts.append(IGNORED if ignored_row.max(initial=0.0) >= iou else FALSE_POSITIVE)
    return tuple(verdicts), taken


def representative_slabs(
    outcomes: Sequence[SlabOutcome], best_scores: Sequence[float], *, count: int
) -> list[int]:
    """Choose slabs that show a split as it is, not at its best.

    Two thirds of the places go to slabs with a nodule, spread evenly from the highest to the lowest
    score on their nodules; the others to slabs without one that have the loudest false positives.
    What one kind leaves free goes to the other.

    Parameters
    ----------
    outcomes : one per slab.
    best_scores : for each, the best score on any of its nodules at any threshold.
    count : how many to choose.

    Returns
    -------
    list of int
        Places in `outcomes`: nodules by falling score, then false positives by falling score.
    """
    places = range(len(outcomes))
    with_nodule = [p for p in places if outcomes[p].slab.has_nodule]
    with_nodule.sort(key=lambda p: -best_scores[p])
    alarms = [p for p in places if p not in set(with_nodule) and outcomes[p].top_false_positive > 0]
    alarms.sort(key=lambda p: -outcomes[p].top_false_positive)
    n_alarms = min(len(alarms), max(count // 3, count - len(with_nodule)))
    n_nodules = min(len(with_nodule), count - n_alarms)
    spread = np.linspace(0, len(with_nodule) - 1, n_nodules).round().astype(int)
    return [with_nodule[place] for place in spread] + alarms[:n_alarms]
