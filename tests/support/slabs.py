"""Slabs, detections and what was matched, written in as few words as a test needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.annotations.slab_boxes import SlabStack, sphere_boxes
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM, SlabGeometry
from lungdet_mmdet.scoring.froc import match_marks_of_split
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_matching import match_slabs
from lungdet_mmdet.scoring.slab_outcomes import SlabOutcome
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, SlabSet, TruthBox
from lungdet_mmdet.scoring.split_scores import (
    ScoringOptions,
    SplitScores,
    score_split,
)


def slab(
    img_id: int = 0,
    seriesuid: str = "a",
    *boxes: TruthBox,
    slab_index: int | None = None,
    pixel_mm: float = 1.0,
    thickness_mm: float = SLAB_THICKNESS_MM,
    low_mm: float | None = None,
    **place,
) -> Slab:
    """A slab of square pixels; it lies at ``img_id`` times 7.5 mm unless ``low_mm`` is given.

    Pixel (0, 0) lies at x, y = 0.
    """
    low = SLAB_THICKNESS_MM * img_id if low_mm is None else low_mm
    geometry = SlabGeometry(
        index=img_id if slab_index is None else slab_index,
        width=512,
        height=512,
        spacing_xy_mm=(pixel_mm, pixel_mm),
        **{
            "origin_xyz_mm": (0.0, 0.0, low + thickness_mm / 2),
            "z_range_mm": (low, low + thickness_mm),
            **place,
        },
    )
    return Slab(img_id=img_id, seriesuid=seriesuid, geometry=geometry, boxes=boxes)


def nodule_of(
    seriesuid: str, diameter_mm: float, centre_xyz_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Nodule:
    """An annotated nodule, the first of its scan."""
    return Nodule(f"{seriesuid}/0", seriesuid, centre_xyz_mm, diameter_mm)


def found(img_id: int, *rows: Sequence[float]) -> SlabDetections:
    """Detections on a slab; ``rows`` hold (x0, y0, x1, y1, score)."""
    table = np.array(rows, dtype=float).reshape(-1, 5)
    return SlabDetections(img_id, table[:, :4], table[:, 4])


def slab_set(*slabs: Slab, series: Sequence[str] | None = None, **truth) -> SlabSet:
    """A split of these slabs; ``truth`` is what the scans hold beside them."""
    return SlabSet(
        slabs={item.img_id: item for item in slabs},
        series=tuple(series or dict.fromkeys(item.seriesuid for item in slabs)),
        **{name: tuple(items) for name, items in truth.items()},
    )


def outcomes_of(
    truth: SlabSet, detections: Sequence[SlabDetections], **options
) -> tuple[SlabOutcome, ...]:
    """What was found on each slab."""
    return match_slabs(truth, detections, **options).outcomes


def outcome_on(one: Slab, *rows: Sequence[float], threshold: float = 0.5, **options) -> SlabOutcome:
    """What was found on one slab at a threshold; ``rows`` as for ``found``."""
    (outcome,) = outcomes_of(slab_set(one), [found(one.img_id, *rows)], **options)
    return outcome.at(threshold)


def scored_split(
    truth: SlabSet,
    detections: Sequence[SlabDetections],
    marks: Marks | None = None,
    *,
    matching: dict | None = None,
    **options,
) -> SplitScores:
    """Match detections and candidates (none unless given), and score them."""
    marks = marks or Marks((), np.zeros((0, 3)), np.zeros(0))
    seen = truth.restricted_to(item.img_id for item in detections)
    return score_split(
        truth,
        detections,
        match_slabs(truth, detections, **(matching or {})),
        match_marks_of_split(seen, marks),
        ScoringOptions(**options),
        marks=marks,
    )


@dataclass(frozen=True)
class SlabBox:
    """A sphere's box on one slab, xyxy in its pixels, and how far it reaches into the slab."""

    box_xyxy_px: tuple[float, float, float, float]
    overlap_mm: float


def slab_box(
    centre_xyz_mm: Sequence[float], diameter_mm: float, slab: SlabGeometry
) -> SlabBox | None:
    """Return the box of one sphere on one slab, or None where they do not meet."""
    centre, diameter = np.asarray(centre_xyz_mm)[None], np.array([diameter_mm])
    boxes, overlap = sphere_boxes(centre, diameter, SlabStack((slab,)))
    return SlabBox(tuple(boxes[0, 0]), float(overlap[0, 0])) if overlap[0, 0] > 0 else None
