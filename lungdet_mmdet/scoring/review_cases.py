# SPDX-License-Identifier: Apache-2.0
"""What was found, missed and falsely marked, slab by slab; and the cases worth a look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lungdet_mmdet.scoring.slab_records import Slab, TruthBox

PAPER_IOU = 0.5
HIT, FALSE_POSITIVE, IGNORED = "hit", "false positive", "ignored"
UNMATCHED = -1


@dataclass(frozen=True)
class SlabOutcome:
    """One slab with the detections that were looked at, each matched to at most one box.

    Matched at ``PAPER_IOU`` as COCO does, over all sizes: the best score chooses first, a nodule
    box is found once. A second detection on it is a false positive; one that lies in an ignore
    region by at least that share of its own area is neither right nor wrong.

    Parameters
    ----------
    slab : with its annotated boxes.
    boxes_xyxy_px, scores : (D, 4) and (D,), best score first.
    truth_rows : (D,) row in ``slab.boxes`` that each is matched to, ``UNMATCHED`` for none.
    """

    slab: Slab
    boxes_xyxy_px: NDArray[np.float64]
    scores: NDArray[np.float64]
    truth_rows: NDArray[np.intp]

    def at(self, threshold: float) -> SlabOutcome:
        """Return the outcome of the detections that score ``threshold`` or more.

        Better scores choose before weaker ones, so leaving these out changes no match of those.
        """
        kept = self.scores >= threshold
        return SlabOutcome(
            self.slab, self.boxes_xyxy_px[kept], self.scores[kept], self.truth_rows[kept]
        )

    @property
    def verdicts(self) -> tuple[str, ...]:
        """Per detection "hit", "false positive" or "ignored"."""
        return tuple(
            FALSE_POSITIVE
            if row == UNMATCHED
            else (IGNORED if self.slab.boxes[row].is_ignored else HIT)
            for row in self.truth_rows
        )

    @property
    def nodule_scores(self) -> tuple[tuple[TruthBox, float], ...]:
        """Every nodule box with the score of the detection that found it, 0.0 where none did."""
        score_of = dict(zip(self.truth_rows.tolist(), self.scores.tolist(), strict=True))
        return tuple(
            (box, score_of.get(row, 0.0))
            for row, box in enumerate(self.slab.boxes)
            if not box.is_ignored
        )

    @property
    def found(self) -> tuple[TruthBox, ...]:
        """The nodule boxes that a detection hit."""
        hit = (self.slab.boxes[row] for row in np.unique(self.truth_rows[self.truth_rows >= 0]))
        return tuple(box for box in hit if not box.is_ignored)

    @property
    def missed(self) -> tuple[TruthBox, ...]:
        """The nodule boxes that none did."""
        unhit = (box for row, box in enumerate(self.slab.boxes) if row not in self.truth_rows)
        return tuple(box for box in unhit if not box.is_ignored)

    @property
    def top_false_positive(self) -> float:
        """Highest score of a false positive, 0.0 without one."""
        return float(self.scores[self.truth_rows == UNMATCHED].max(initial=0.0))


@dataclass(frozen=True)
class TruthScore:
    """An annotated nodule box, and the score of the detection that found it (0.0 without one).

    ``n_slabs`` is the number of slabs that the score is the best of.
    """

    img_id: int
    box: TruthBox
    score: float
    n_slabs: int = 1


@dataclass(frozen=True)
class FalsePositive:
    """A false positive: its slab, its row among the slab's detections, and its score."""

    img_id: int
    row: int
    score: float


def truth_scores(outcomes: Iterable[SlabOutcome]) -> list[TruthScore]:
    """Return every annotated nodule box of the slabs, with the score that found it."""
    return [
        TruthScore(outcome.slab.img_id, box, score)
        for outcome in outcomes
        for box, score in outcome.nodule_scores
    ]


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


def loudest_false_positives(outcomes: Iterable[SlabOutcome], *, count: int) -> list[FalsePositive]:
    """Return the best-scoring false positives; a second detection on one nodule is one too."""
    found = [
        FalsePositive(outcome.slab.img_id, row, float(outcome.scores[row]))
        for outcome in outcomes
        for row in np.flatnonzero(outcome.truth_rows == UNMATCHED).tolist()
    ]
    return sorted(found, key=lambda item: -item.score)[:count]


def overlaps(boxes_xyxy_px: NDArray[np.float64], truth: Sequence[TruthBox]) -> NDArray[np.float64]:
    """Return IoU (N, G), or the share of the box (N, 4) inside where the region is ignored."""
    if not len(boxes_xyxy_px) or not truth:
        return np.zeros((len(boxes_xyxy_px), len(truth)))
    corners, sides = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:] - boxes_xyxy_px[:, :2]
    annotated = np.array([box.bbox_xywh_px for box in truth])
    found = np.concatenate([corners, sides], axis=1)
    return np.asarray(coco_mask.iou(found, annotated, [box.is_ignored for box in truth]))


def representative_slabs(
    outcomes: Sequence[SlabOutcome], *, threshold: float, count: int
) -> list[SlabOutcome]:
    """Choose slabs that show a split as it is, not at its best.

    Two thirds of the places go to slabs with a nodule, spread evenly from the highest to the lowest
    score on their nodules, whatever the threshold; the others to slabs without one that have the
    loudest false positives. What one kind leaves free goes to the other.

    Returns
    -------
    list of SlabOutcome
        At the threshold: nodules by falling score, then false positives by falling score.
    """
    with_nodule = [outcome for outcome in outcomes if outcome.slab.has_nodule]
    with_nodule.sort(key=lambda outcome: -max(score for _, score in outcome.nodule_scores))
    loud_enough = max(threshold, np.nextafter(0.0, 1.0))
    alarms = [o for o in outcomes if not o.slab.has_nodule and o.top_false_positive >= loud_enough]
    alarms.sort(key=lambda outcome: -outcome.top_false_positive)
    n_alarms = min(len(alarms), max(count // 3, count - len(with_nodule)))
    n_nodules = min(len(with_nodule), count - n_alarms)
    spread = np.linspace(0, len(with_nodule) - 1, n_nodules).round().astype(int)
    chosen = [with_nodule[place] for place in spread] + alarms[:n_alarms]
    return [outcome.at(threshold) for outcome in chosen]
