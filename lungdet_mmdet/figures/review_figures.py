"""Pictures of the worst misses and the loudest false positives of a tested split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.figures.case_pictures import case_picture, encoded_jpeg
from lungdet_mmdet.figures.slab_overlays import (
    DETECTION_COLOUR,
    FAINT_COLOUR,
    IGNORED_COLOUR,
    TRUTH_COLOUR,
    OverlayBox,
    read_slab,
)
from lungdet_mmdet.scoring.candidates import box_centres_world
from lungdet_mmdet.scoring.review_cases import (
    FalsePositive,
    TruthScore,
    best_per_nodule,
    loudest_false_positives,
    overlaps,
    truth_scores,
    worst_misses,
)
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, SlabSet

Box = tuple[float, float, float, float]
MAX_DRAWN = 4
"""Detections drawn beside the one in question; more would hide what they frame."""


@dataclass(frozen=True)
class ReviewFigure:
    """One case: its picture as JPEG, what it is in a few words, and where it is.

    ``is_error`` tells a miss or false positive at the threshold from a case that is merely close.
    """

    jpeg: bytes
    heading: str
    lines: tuple[str, ...]
    is_error: bool


@dataclass(frozen=True)
class ReviewedSplit:
    """What the pictures are made from.

    ``files`` maps image ids to the slab images; ``threshold`` is None where none is known.
    """

    slab_set: SlabSet
    detections: Sequence[SlabDetections]
    files: Mapping[int, Path]
    threshold: float | None

    def found_on(self, img_id: int) -> SlabDetections:
        """Return the detections of one slab."""
        return next(item for item in self.detections if item.img_id == img_id)


def miss_figures(split: ReviewedSplit, *, count: int) -> list[ReviewFigure]:
    """Return the nodules with the lowest best scores, the largest first among equals.

    Each is shown on the slab that cuts it widest.
    """
    nodules = best_per_nodule(truth_scores(split.slab_set, split.detections))
    return [_miss(split, case) for case in worst_misses(nodules, count=count)]


def false_positive_figures(split: ReviewedSplit, *, count: int) -> list[ReviewFigure]:
    """Return the detections on no annotated box with the highest scores."""
    cases = loudest_false_positives(split.slab_set, split.detections, count=count)
    return [_false_positive(split, case) for case in cases]


def _miss(split: ReviewedSplit, case: TruthScore) -> ReviewFigure:
    slab, found = split.slab_set.slabs[case.img_id], split.found_on(case.img_id)
    focus = _corners(case.box.bbox_xywh_px)
    nearest = _most_overlapping(found, case)
    slabs = "its slab" if case.n_slabs == 1 else f"any of its {case.n_slabs} slabs"
    if case.score > 0:
        heading = f"{case.box.diameter_mm:.1f} mm, best score {case.score:.3f}"
    else:
        heading = f"{case.box.diameter_mm:.1f} mm, no matching box on {slabs}"
    drawn = _chosen(found, focus, split.threshold)
    return ReviewFigure(
        _picture(split, slab, focus, drawn, found),
        heading,
        (nearest, *_place(slab, focus)),
        split.threshold is None or case.score < split.threshold,
    )


def _false_positive(split: ReviewedSplit, case: FalsePositive) -> ReviewFigure:
    slab, found = split.slab_set.slabs[case.img_id], split.found_on(case.img_id)
    focus = case.box_xyxy_px
    (own,) = np.flatnonzero((found.boxes_xyxy_px == focus).all(axis=1))[:1]
    drawn = [int(own)] + [row for row in _chosen(found, None, split.threshold) if row != own]
    sx, sy, _ = slab.spacing_mm
    size = f"{(focus[2] - focus[0]) * sx:.0f} x {(focus[3] - focus[1]) * sy:.0f} mm"
    return ReviewFigure(
        _picture(split, slab, focus, drawn[:MAX_DRAWN], found),
        f"score {case.score:.3f}, box {size}",
        (_what_is_there(slab, found, int(own)), *_place(slab, focus)),
        split.threshold is None or case.score >= split.threshold,
    )


def _most_overlapping(found: SlabDetections, case: TruthScore) -> str:
    shares = overlaps(found, [case.box])[:, 0]
    if not len(shares) or shares.max() <= 0:
        return "no box touches it"
    best = int(shares.argmax())
    return f"closest box here: IoU {_floored(shares[best])}, score {found.scores[best]:.3f}"


def _what_is_there(slab: Slab, found: SlabDetections, row: int) -> str:
    shares = overlaps(found, slab.boxes)[row] if slab.boxes else np.zeros(0)
    if not len(shares) or shares.max() <= 0:
        return "nothing annotated here"
    box = slab.boxes[int(shares.argmax())]
    if box.is_ignored:
        return f"touches an ignore region ({box.kind})"
    return f"loose box on a nodule of {box.diameter_mm:.1f} mm, IoU {_floored(shares.max())}"


def _chosen(found: SlabDetections, focus: Box | None, threshold: float | None) -> list[int]:
    """Return the rows worth drawing: those that touch the focus, then those kept; best first."""
    kept = found.scores >= (np.inf if threshold is None else threshold)
    touching = np.zeros(len(found.scores), dtype=bool)
    if focus is not None:
        x0, y0, x1, y1 = found.boxes_xyxy_px.T
        touching = (x0 < focus[2]) & (x1 > focus[0]) & (y0 < focus[3]) & (y1 > focus[1])
    order = np.lexsort((-found.scores, ~touching))
    return [int(row) for row in order if kept[row] or touching[row]][:MAX_DRAWN]


def _picture(
    split: ReviewedSplit, slab: Slab, focus: Box, rows: Sequence[int], found: SlabDetections
) -> bytes:
    boxes = [
        OverlayBox(
            _corners(box.bbox_xywh_px),
            IGNORED_COLOUR if box.is_ignored else TRUTH_COLOUR,
            box.kind if box.is_ignored else f"{box.diameter_mm:.1f} mm",
            label_below=True,
        )
        for box in slab.boxes
    ]
    for row in reversed(rows):
        score = float(found.scores[row])
        is_kept = split.threshold is None or score >= split.threshold
        x0, y0, x1, y1 = found.boxes_xyxy_px[row].tolist()
        colour = DETECTION_COLOUR if is_kept else FAINT_COLOUR
        # Labels of weaker boxes would hide the first one's.
        label = f"{score:.2f}" if row == rows[0] else ""
        boxes.append(OverlayBox((x0, y0, x1, y1), colour, label))
    sx, sy, _ = slab.spacing_mm
    picture = case_picture(
        read_slab(split.files[slab.img_id]), focus, boxes, spacing_xy_mm=(sx, sy)
    )
    return encoded_jpeg(picture)


def _place(slab: Slab, focus: Box) -> tuple[str, str]:
    x, y, z = box_centres_world(np.array([focus]), slab)[0].tolist()
    low, high = slab.z_range_mm
    return (
        f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm (LPS); slab {slab.slab_index}, "
        f"{low:.1f} to {high:.1f} mm",
        slab.seriesuid,
    )


def _floored(iou: float) -> str:
    # Rounding would turn 0.496, which does not match, into 0.50, which does.
    return f"{math.floor(100 * iou) / 100:.2f}"


def _corners(bbox_xywh_px: Box) -> Box:
    x, y, width, height = bbox_xywh_px
    return x, y, x + width, y + height
