# SPDX-License-Identifier: Apache-2.0
"""pycocotools' own matching of boxes on slabs, with lengths in millimetres.

It is decided here, once, which detection is on which annotated box; tables, figures, plots and
review cases read it off.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_outcomes import PAPER_IOU, UNMATCHED, SlabOutcome
from lungdet_mmdet.scoring.slab_records import (
    NODULE_CATEGORY,
    SizeBand,
    Slab,
    SlabDetections,
    SlabSet,
    equivalent_diameter,
    size_bands,
)

COCO_IOU_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
DEFAULT_MAX_DETECTIONS = 100
# pycocotools holds a dictionary for every detection: a part of the slabs at a time bounds that.
SLABS_AT_A_TIME = 2000


def coco_matches(
    slabs: Mapping[int, Slab],
    detections: Mapping[int, SlabDetections],
    bands: Sequence[SizeBand],
    *,
    iou_thresholds: Sequence[float],
    max_detections: int,
    by_mask: bool = False,
) -> list[list[dict | None]]:
    """Match the detections of some slabs to their boxes, or masks, within every band.

    Boxes are scaled to mm, and diameters stand in for areas.

    Parameters
    ----------
    slabs, detections : by image id; each slab needs its detections.
    max_detections : the best-scoring detections of each slab that are looked at.
    by_mask : whether the overlap is that of masks.

    Returns
    -------
    list of list of dict or None
        Per band and slab pycocotools' result: ``dtIds`` and ``dtScores`` (D,), ``dtMatches`` and
        ``dtIgnore`` (T, D) per IoU threshold, ``gtIgnore`` (G,). Ids count from 1 over all slabs.
        None where a slab holds nothing.
    """
    if not slabs:
        return [[] for _ in bands]
    truth = [record for slab in slabs.values() for record in _truth_records(slab, by_mask)]
    found = [
        record
        for img_id, slab in slabs.items()
        for record in _found_records(slab, detections[img_id], by_mask)
    ]
    # pycocotools reports its progress by print; the numbers come back as values here.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(
            _coco(slabs, truth), _coco(slabs, found), "segm" if by_mask else "bbox"
        )
        evaluation.params.imgIds = list(slabs)
        evaluation.params.iouThrs = np.asarray(iou_thresholds, dtype=np.float64)
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = [list(band.coco_range) for band in bands]
        evaluation.params.areaRngLbl = [band.name for band in bands]
        evaluation.evaluate()
    # Bands times slabs, in the order of pycocotools' loops.
    per_image, n_slabs = evaluation.evalImgs, len(slabs)
    return [per_image[row * n_slabs : (row + 1) * n_slabs] for row in range(len(bands))]


# Only comparisons are made with the area, so a diameter serves as well and keeps the edges of the
# bands exact.
def _truth_records(slab: Slab, by_mask: bool) -> list[dict]:
    sx, sy, _ = slab.geometry.spacing_xyz_mm
    records = []
    for box in slab.boxes:
        x, y, width, height = box.bbox_xywh_px
        bbox_mm = [x * sx, y * sy, width * sx, height * sy]
        record = _record(slab, bbox_mm, box.diameter_mm) | {"iscrowd": int(box.is_ignored)}
        records.append(record | _outline(slab, box.rle, by_mask))
    return records


def _outline(slab: Slab, rle: Mapping[str, Any] | None, by_mask: bool) -> dict:
    if not by_mask:
        return {}
    if rle is None:
        raise LungDetError(
            f"series {slab.seriesuid}, slab {slab.geometry.index}: an annotation or a detection "
            "has no mask; prepare with --nodule-masks, and use a model that gives masks"
        )
    return {"segmentation": dict(rle)}


def _found_records(slab: Slab, detections: SlabDetections, by_mask: bool) -> list[dict]:
    sx, sy, _ = slab.geometry.spacing_xyz_mm
    corners = detections.boxes_xyxy_px * np.array([sx, sy, sx, sy])
    diameters = equivalent_diameter(detections.boxes_xyxy_px, slab.geometry.spacing_xyz_mm)
    rles = detections.rles or (None,) * len(corners)
    return [
        _record(slab, [x1, y1, x2 - x1, y2 - y1], diameter)
        | {"score": score}
        | _outline(slab, rle, by_mask)
        for (x1, y1, x2, y2), diameter, score, rle in zip(
            corners.tolist(), diameters.tolist(), detections.scores.tolist(), rles, strict=True
        )
    ]


def _record(slab: Slab, bbox_mm: list[float], diameter_mm: float) -> dict:
    return {
        "image_id": slab.img_id,
        "category_id": NODULE_CATEGORY,
        "bbox": bbox_mm,
        "area": diameter_mm,
    }


def _coco(slabs: Mapping[int, Slab], annotations: list[dict]) -> COCO:
    # pycocotools takes the id 0 for "no match", so ids start at 1.
    for number, record in enumerate(annotations, start=1):
        record["id"] = number
    coco = COCO()
    coco.dataset = {
        # The outlines carry their own size; pycocotools looks one up all the same.
        "images": [{"id": img_id, "height": 1, "width": 1} for img_id in slabs],
        "categories": [{"id": NODULE_CATEGORY, "name": "nodule"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


@dataclass(frozen=True)
class BandMatches:
    """The detections that count in one band, best score first, and whether each is right.

    Attributes
    ----------
    scores : (D,) detection scores, falling.
    series_rows : (D,) row of the scan in ``MatchedSlabs.series``.
    is_matched, is_ignored : (T, D) per IoU threshold: whether the detection matches a box, and
        whether it counts at all.
    nodules_per_series : (S,) number of annotated boxes in the band, unseen nodules included.
    """

    band: SizeBand
    scores: NDArray[np.float64]
    series_rows: NDArray[np.intp]
    is_matched: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    nodules_per_series: NDArray[np.int64]


@dataclass(frozen=True)
class MatchedSlabs:
    """The matches in every band, with the scans they come from (the unit of resampling).

    ``outcomes`` tell the same slab by slab at the paper's IoU, in the order of the image ids;
    ``max_detections`` of each slab were looked at.
    """

    series: tuple[str, ...]
    iou_thresholds: tuple[float, ...]
    bands: tuple[BandMatches, ...]
    outcomes: tuple[SlabOutcome, ...]
    n_slabs: int
    n_detections: int
    n_ignore_regions: int
    n_unseen: int
    max_detections: int

    @property
    def edges_mm(self) -> tuple[float, ...]:
        """The limits between the size bands."""
        return tuple(matches.band.upper_mm for matches in self.bands[1:-1])

    def iou_row(self, iou: float) -> int:
        """Return the row of ``is_matched`` that holds this IoU threshold."""
        return iou_row_of(self.iou_thresholds, iou)


def iou_row_of(iou_thresholds: Sequence[float], iou: float) -> int:
    """Return the place of an IoU threshold among those evaluated.

    Raises LungDetError when it is not among them.
    """
    distances = np.abs(np.asarray(iou_thresholds) - iou)
    if not len(distances) or distances.min() > 1e-6:
        raise LungDetError(f"IoU {iou:g} was not evaluated, only {tuple(iou_thresholds)}")
    return int(distances.argmin())


def match_slabs(
    slab_set: SlabSet,
    detections: Sequence[SlabDetections],
    *,
    edges_mm: Sequence[float] = PAPER_BANDS_MM,
    iou_thresholds: Sequence[float] = COCO_IOU_THRESHOLDS,
    max_detections: int = DEFAULT_MAX_DETECTIONS,
    count_unseen: bool = True,
    by_mask: bool = False,
) -> MatchedSlabs:
    """Match the detections of every slab that was looked at to its annotated boxes.

    Only the slabs named by ``detections`` are evaluated; give one record for every slab the model
    saw, also where it found nothing. A second record of the same slab is left out.

    Parameters
    ----------
    edges_mm : limits of the size bands.
    iou_thresholds : overlaps at which a detection counts as right, the paper's among them.
    max_detections : the best-scoring detections of each slab that are looked at.
    count_unseen : whether annotated nodules that lie in no slab count as missed.
    by_mask : whether the overlap is that of masks instead of boxes.
    """
    by_id = {item.img_id: item for item in reversed(detections)}
    seen = slab_set.seen_by(by_id.values())
    bands = size_bands(edges_mm)
    row_of = {uid: row for row, uid in enumerate(seen.series)}
    gathered = [_Gathered.empty(band, len(seen.series), len(iou_thresholds)) for band in bands]
    outcomes: list[SlabOutcome] = []
    img_ids = list(seen.slabs)
    for begin in range(0, len(img_ids), SLABS_AT_A_TIME):
        slabs = {img_id: seen.slabs[img_id] for img_id in img_ids[begin : begin + SLABS_AT_A_TIME]}
        per_band = coco_matches(
            slabs,
            by_id,
            bands,
            iou_thresholds=iou_thresholds,
            max_detections=max_detections,
            by_mask=by_mask,
        )
        rows = [row_of[slab.seriesuid] for slab in slabs.values()]
        for target, results in zip(gathered, per_band, strict=True):
            target.add(rows, results)
        # The band of all sizes comes first.
        outcomes += _outcomes(slabs, by_id, per_band[0], iou_thresholds)
    for target in gathered:
        for item in seen.unseen if count_unseen else ():
            if target.band.holds(np.array([item.diameter_mm]))[0]:
                target.nodules[row_of[item.seriesuid]] += 1
    return MatchedSlabs(
        series=seen.series,
        iou_thresholds=tuple(float(iou) for iou in iou_thresholds),
        bands=tuple(target.joined() for target in gathered),
        outcomes=tuple(outcomes),
        n_slabs=len(seen.slabs),
        n_detections=sum(min(len(item.scores), max_detections) for item in by_id.values()),
        n_ignore_regions=sum(box.is_ignored for slab in seen.slabs.values() for box in slab.boxes),
        n_unseen=len(seen.unseen) if count_unseen else 0,
        max_detections=max_detections,
    )


def _outcomes(
    slabs: Mapping[int, Slab],
    detections: Mapping[int, SlabDetections],
    results: Sequence[dict | None],
    iou_thresholds: Sequence[float],
) -> list[SlabOutcome]:
    """Read off which detection pycocotools put on which box; its ids run over all slabs."""
    iou_row = iou_row_of(iou_thresholds, PAPER_IOU)
    outcomes = []
    first_box = first_detection = 1
    for slab, result in zip(slabs.values(), results, strict=True):
        item = detections[slab.img_id]
        order: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        truth_rows: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        if result is not None:
            order = np.array(result["dtIds"], dtype=np.intp) - first_detection
            matched_ids = np.asarray(result["dtMatches"][iou_row], dtype=np.intp)
            truth_rows = np.where(matched_ids > 0, matched_ids - first_box, UNMATCHED)
        outcomes.append(
            SlabOutcome(slab, item.boxes_xyxy_px[order], item.scores[order], truth_rows)
        )
        first_box += len(slab.boxes)
        first_detection += len(item.scores)
    return outcomes


@dataclass
class _Gathered:
    """The per-slab results of one band so far, as lists of arrays."""

    band: SizeBand
    scores: list[NDArray[np.float64]]
    rows: list[NDArray[np.intp]]
    matched: list[NDArray[np.bool_]]
    ignored: list[NDArray[np.bool_]]
    nodules: NDArray[np.int64]

    @classmethod
    def empty(cls, band: SizeBand, n_series: int, n_thresholds: int) -> _Gathered:
        """Begin with arrays of no detections, so that there is always something to join."""
        nothing = np.zeros((n_thresholds, 0), dtype=bool)
        rows = np.zeros(0, dtype=np.intp)
        return cls(
            band, [np.zeros(0)], [rows], [nothing], [nothing], np.zeros(n_series, dtype=np.int64)
        )

    def add(self, rows: Sequence[int], results: Sequence[dict | None]) -> None:
        """Keep what counts of the results of some slabs; ``rows`` are those of their scans."""
        for row, result in zip(rows, results, strict=True):
            if result is None:
                continue
            self.nodules[row] += int(np.count_nonzero(np.asarray(result["gtIgnore"]) == 0))
            ignored = np.asarray(result["dtIgnore"]).astype(bool)
            # Most detections lie outside a band and count at no threshold there.
            counts = ~ignored.all(axis=0)
            if not counts.any():
                continue
            self.scores.append(np.asarray(result["dtScores"], dtype=np.float64)[counts])
            self.rows.append(np.full(int(counts.sum()), row, dtype=np.intp))
            self.matched.append((np.asarray(result["dtMatches"]) != 0)[:, counts])
            self.ignored.append(ignored[:, counts])

    def joined(self) -> BandMatches:
        """Return everything, best score first (ties keep the slabs' order)."""
        scores = np.concatenate(self.scores)
        order = np.argsort(-scores, kind="mergesort")
        return BandMatches(
            band=self.band,
            scores=scores[order],
            series_rows=np.concatenate(self.rows)[order],
            is_matched=np.concatenate(self.matched, axis=1)[:, order],
            is_ignored=np.concatenate(self.ignored, axis=1)[:, order],
            nodules_per_series=self.nodules,
        )
