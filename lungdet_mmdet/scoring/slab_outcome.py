"""What became of each box of one slab at a threshold: found, missed, right, false, ignored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.scoring.average_precision import PAPER_IOU
from lungdet_mmdet.scoring.review_cases import overlaps
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, TruthBox

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
