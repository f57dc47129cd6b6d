# SPDX-License-Identifier: Apache-2.0
"""What came of each slab: nodules found and missed, false alarms, cases worth a look.

And the anomaly view: does a slab, or a scan, hold a nodule at all? The score of a slab is its
highest box score, that of a scan the highest over its slabs; 0.0 where nothing was found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, SlabSet, TruthBox

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


@dataclass(frozen=True)
class AnomalyUnits:
    """Slabs or scans to be told apart.

    Attributes
    ----------
    name : "slab" or "scan"; begins the names of the figures.
    scores : (U,) highest box score.
    is_positive : (U,) whether a nodule is there.
    box_scores : per unit the scores of all its boxes, to count false alarms.
    series_rows : (U,) row of the scan among the ``n_series`` that are resampled.
    """

    name: str
    scores: NDArray[np.float64]
    is_positive: NDArray[np.bool_]
    box_scores: tuple[NDArray[np.float64], ...]
    series_rows: NDArray[np.intp]
    n_series: int


def slab_units(slab_set: SlabSet, detections: Sequence[SlabDetections]) -> AnomalyUnits:
    """Return the slabs that were looked at and are either positive or healthy.

    Slabs that hold nothing but ignore regions (a grazed nodule, an excluded finding) are neither,
    and left out.
    """
    by_id = {item.img_id: item for item in reversed(detections)}
    seen = slab_set.seen_by(by_id.values())
    row_of = {uid: row for row, uid in enumerate(seen.series)}
    slabs = [slab for slab in seen.slabs.values() if slab.has_nodule or slab.is_healthy]
    return AnomalyUnits(
        "slab",
        np.array([by_id[slab.img_id].top_score for slab in slabs], dtype=np.float64),
        np.array([slab.has_nodule for slab in slabs], dtype=bool),
        tuple(by_id[slab.img_id].scores for slab in slabs),
        np.array([row_of[slab.seriesuid] for slab in slabs], dtype=np.intp),
        len(seen.series),
    )


def scan_units(slab_set: SlabSet, detections: Sequence[SlabDetections]) -> AnomalyUnits:
    """Return the scans: positive with an annotated nodule, healthy without any.

    Excluded findings do not make a scan positive, and boxes on them are false alarms here. A scan
    whose nodules lie in no slab is positive and missed. Left out are scans whose nodules do not
    count, and healthy scans of which no slab was looked at: they say nothing about the model.
    """
    by_id = {item.img_id: item for item in reversed(detections)}
    seen = slab_set.seen_by(by_id.values())
    slabs_of: dict[str, list[int]] = {uid: [] for uid in seen.series}
    for img_id, slab in seen.slabs.items():
        slabs_of[slab.seriesuid].append(img_id)
    with_nodule = {item.seriesuid for item in seen.nodules}
    with_nodule |= {item.seriesuid for item in seen.unseen}
    left_out = {item.seriesuid for item in seen.discarded}
    scores, is_positive, box_scores, rows = [], [], [], []
    for row, uid in enumerate(seen.series):
        slabs = [seen.slabs[img_id] for img_id in slabs_of[uid]]
        positive = uid in with_nodule or any(slab.has_nodule for slab in slabs)
        grazed = any(box.kind != "excluded" for slab in slabs for box in slab.boxes)
        healthy = bool(slabs) and not grazed and uid not in left_out
        if not positive and not healthy:
            continue
        found = [by_id[slab.img_id] for slab in slabs]
        scores.append(max((item.top_score for item in found), default=0.0))
        is_positive.append(positive)
        box_scores.append(np.concatenate([np.zeros(0), *(item.scores for item in found)]))
        rows.append(row)
    return AnomalyUnits(
        "scan",
        np.array(scores, dtype=np.float64),
        np.array(is_positive, dtype=bool),
        tuple(box_scores),
        np.array(rows, dtype=np.intp),
        len(seen.series),
    )


def anomaly_scores(
    units: AnomalyUnits,
    weights: NDArray[np.float64] | None = None,
    *,
    threshold: float | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return how well positives are told from healthy ones.

    Parameters
    ----------
    weights : (S, B) resamples of the scans; left out, the data as they are (B = 1).
    threshold : alarm at this score or above; adds the last three figures.

    Returns
    -------
    dict of (B,) arrays, names beginning with ``slab_`` or ``scan_``
        ``AUROC`` (ties count half); ``AP``, average precision; and at the threshold
        ``sensitivity``, ``specificity`` and ``false_alarms_per_100``, the number of boxes raised on
        100 healthy slabs or scans. NaN where there are no positives or no healthy ones to tell
        apart.
    """
    if weights is None:
        weights = np.ones((units.n_series, 1))
    ranking = np.array([_ranking(units, column[units.series_rows]) for column in weights.T])
    ranking = ranking.reshape(-1, 2)
    figures = {"AUROC": ranking[:, 0], "AP": ranking[:, 1]}
    if threshold is not None:
        alarms = units.scores >= threshold
        n_boxes = np.array([np.count_nonzero(item >= threshold) for item in units.box_scores])
        positive, healthy = units.is_positive, ~units.is_positive
        n_positive = _per_resample(units, positive, weights)
        n_healthy = _per_resample(units, healthy, weights)
        raised = _per_resample(units, np.where(healthy, n_boxes, 0), weights)
        hit = _per_resample(units, positive & alarms, weights)
        quiet = _per_resample(units, healthy & ~alarms, weights)
        figures["sensitivity"] = _share(hit, n_positive)
        figures["specificity"] = _share(quiet, n_healthy)
        figures["false_alarms_per_100"] = 100.0 * _share(raised, n_healthy)
    return {f"{units.name}_{name}": values for name, values in figures.items()}


def _ranking(units: AnomalyUnits, weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return AUROC and average precision of units that count ``weights`` (U,) times."""
    positive = np.where(units.is_positive, weights, 0.0)
    healthy = np.where(units.is_positive, 0.0, weights)
    if not positive.sum():
        return np.nan, np.nan
    levels, level_of = np.unique(-units.scores, return_inverse=True)
    positive_at = np.bincount(level_of, positive, minlength=len(levels))  # best score first
    healthy_at = np.bincount(level_of, healthy, minlength=len(levels))
    positive_above, healthy_above = np.cumsum(positive_at), np.cumsum(healthy_at)
    kept = positive_above + healthy_above
    precision = positive_above / np.where(kept > 0, kept, 1.0)
    average_precision = float((positive_at * precision).sum() / positive.sum())
    if not healthy.sum():
        return np.nan, average_precision
    # Every positive beats the healthy ones below its score, and half of those at its score.
    beaten = healthy.sum() - healthy_above + healthy_at / 2
    return float((positive_at * beaten).sum() / (positive.sum() * healthy.sum())), average_precision


def _per_resample(
    units: AnomalyUnits, values: NDArray, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum values (U,) over each scan, then over the scans of every resample: (B,)."""
    per_scan = np.bincount(units.series_rows, values.astype(np.float64), minlength=units.n_series)
    return per_scan @ weights


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
