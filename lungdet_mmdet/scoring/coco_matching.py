"""pycocotools' own matching of boxes on slabs, with lengths in millimetres."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lungdet_mmdet.scoring.size_bands import SizeBand, equivalent_diameter
from lungdet_mmdet.scoring.slab_records import NODULE_CATEGORY, Slab, SlabDetections


def coco_matches(
    slabs: Mapping[int, Slab],
    detections: Mapping[int, SlabDetections],
    bands: Sequence[SizeBand],
    *,
    iou_thresholds: Sequence[float],
    max_detections: int,
) -> list[list[dict | None]]:
    """Match the detections of some slabs to their boxes within every band.

    Boxes are scaled to mm, and diameters stand in for areas.

    Parameters
    ----------
    slabs, detections : by image id; each slab needs its detections.
    max_detections : the best-scoring detections of each slab that are looked at.

    Returns
    -------
    list of list of dict or None
        Per band and slab pycocotools' result: ``dtScores`` (D,), ``dtMatches`` and ``dtIgnore``
        (T, D) per IoU threshold, ``gtIgnore`` (G,). None where a slab holds nothing.
    """
    if not slabs:
        return [[] for _ in bands]
    truth = [record for slab in slabs.values() for record in _truth_records(slab)]
    found = [
        record
        for img_id, slab in slabs.items()
        for record in _found_records(slab, detections[img_id])
    ]
    # pycocotools reports its progress by print; the numbers come back as values here.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_coco(slabs, truth), _coco(slabs, found), "bbox")
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
def _truth_records(slab: Slab) -> list[dict]:
    sx, sy, _ = slab.spacing_mm
    records = []
    for box in slab.boxes:
        x, y, width, height = box.bbox_xywh_px
        bbox_mm = [x * sx, y * sy, width * sx, height * sy]
        records.append(_record(slab, bbox_mm, box.diameter_mm) | {"iscrowd": int(box.is_ignored)})
    return records


def _found_records(slab: Slab, detections: SlabDetections) -> list[dict]:
    sx, sy, _ = slab.spacing_mm
    corners = detections.boxes_xyxy_px * np.array([sx, sy, sx, sy])
    diameters = equivalent_diameter(detections.boxes_xyxy_px, slab.spacing_mm)
    return [
        _record(slab, [x1, y1, x2 - x1, y2 - y1], diameter) | {"score": score}
        for (x1, y1, x2, y2), diameter, score in zip(
            corners.tolist(), diameters.tolist(), detections.scores.tolist(), strict=True
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
        "images": [{"id": img_id} for img_id in slabs],
        "categories": [{"id": NODULE_CATEGORY, "name": "nodule"}],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
