"""The annotation file of a split: COCO json written, read and counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.labels import LabelledSlab, SlabLabel, Status
from lungdet_mmdet.splits.split_part import SplitPart

CATEGORY_ID = 1
# Pixels and millimetres are written to a ten-thousandth: far below a voxel, and short to read.
_DIGITS = 4
_ELLIPSE_CORNERS = 32


def coco_of_part(
    part: SplitPart,
    *,
    info: Mapping[str, Any],
    excluded_are_ignored: bool = True,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the COCO dictionary of a part.

    ``images`` are the slab records plus ``id``, ``seriesuid`` and ``slab_index``; ``annotations``
    carry the category 1 with ``iscrowd`` 1 for ignore regions, ``label`` ("mask" or "sphere") and,
    where any scan of the part has masks, ``segmentation`` (RLE; an ellipse for a sphere). Ids count
    from 1. Beyond COCO: ``series`` (all series of the part), ``nodules`` (all nodules that count,
    unseen ones included), ``unseen_nodules`` (to be counted as missed), ``discarded_nodules`` (do
    not count: their slabs were left out for the positive rate), ``excluded`` (irrelevant findings,
    repeated readers' lines included) and ``patients`` where known.
    """
    with_masks = any(scan.scan.masks for scan in part.scans)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, slab in enumerate(part.slabs, start=1):
        images.append(_image(image_id, slab))
        geometry = slab.slab.geometry
        size = (geometry.height, geometry.width) if with_masks else None
        for label in slab.labels:
            annotations.append(_annotation(len(annotations) + 1, image_id, label, size))
    uids = [scan.seriesuid for scan in part.scans]
    return {
        "info": dict(info),
        "categories": [{"id": CATEGORY_ID, "name": "nodule"}],
        "images": images,
        "annotations": annotations,
        "series": uids,
        "patients": {uid: patients[uid] for uid in uids if uid in patients} if patients else {},
        "nodules": _counting_nodules(part),
        "unseen_nodules": [
            {**_nodule(unseen.nodule), "reason": unseen.reason} for unseen in part.unseen
        ],
        "discarded_nodules": [_nodule(nodule) for nodule in part.discarded_nodules],
        "excluded": [
            {
                "seriesuid": finding.seriesuid,
                "centre_xyz_mm": list(finding.centre_xyz_mm),
                "diameter_mm": finding.diameter_mm,
            }
            for scan in part.scans
            for finding in scan.scan.excluded
            if excluded_are_ignored
        ],
    }


def _image(image_id: int, slab: LabelledSlab) -> dict[str, Any]:
    index = slab.slab.geometry.index
    return {**slab.slab.fields, "id": image_id, "seriesuid": slab.seriesuid, "slab_index": index}


def _annotation(
    annotation_id: int, image_id: int, label: SlabLabel, size: tuple[int, int] | None
) -> dict[str, Any]:
    x0, y0, x1, y1 = label.box_xyxy_px
    width, height = x1 - x0, y1 - y0
    segmentation = {} if size is None else {"segmentation": _segmentation(label, size)}
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": CATEGORY_ID,
        "bbox": [round(value, _DIGITS) for value in (x0, y0, width, height)],
        "area": round(width * height, _DIGITS),
        "iscrowd": int(label.kind != "nodule"),
        "kind": label.kind,
        "nodule_id": label.nodule_id,
        "diameter_mm": label.diameter_mm,
        "overlap_mm": round(label.overlap_mm, _DIGITS),
        "label": label.source,
        **segmentation,
    }


def _segmentation(label: SlabLabel, size: tuple[int, int]) -> dict[str, Any]:
    """Return a label's run lengths: the mask's own, or those of the ellipse in a sphere's box."""
    if label.rle is not None:
        return {"size": list(size), "counts": label.rle}
    x0, y0, x1, y1 = label.box_xyxy_px
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)
    x = 0.5 * (x0 + x1 + (x1 - x0) * np.cos(angles))
    y = 0.5 * (y0 + y1 + (y1 - y0) * np.sin(angles))
    (rle,) = coco_mask.frPyObjects([np.column_stack([x, y]).ravel().tolist()], *size)
    return {"size": list(size), "counts": rle["counts"].decode("ascii")}


def _counting_nodules(part: SplitPart) -> list[dict[str, Any]]:
    counting = frozenset[str]().union(*(slab.nodule_ids for slab in part.slabs))
    counting |= {item.nodule.nodule_id for item in part.unseen}
    return [
        {
            **_nodule(nodule),
            "coverage": scan.scan.coverage.get(nodule.nodule_id),
            "label": "mask" if nodule.nodule_id in scan.scan.masks else "sphere",
            **_ratings(scan.scan.ratings.get(nodule.nodule_id)),
        }
        for scan in part.scans
        for nodule in scan.scan.nodules
        if nodule.nodule_id in counting
    ]


def _ratings(ratings: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"ratings": dict(ratings)} if ratings else {}


def _nodule(nodule: Nodule) -> dict[str, Any]:
    return {
        "nodule_id": nodule.nodule_id,
        "seriesuid": nodule.seriesuid,
        "centre_xyz_mm": list(nodule.centre_xyz_mm),
        "diameter_mm": nodule.diameter_mm,
    }


def read_coco(path: str | Path) -> dict[str, Any]:
    """Read one of the annotation files.

    Raises
    ------
    LungDetError
        If it is missing, no JSON, or not a file written by ``make_splits.py``.
    """
    path = Path(path)
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LungDetError(
            f"{path}: no such file; write the splits with data_prep/make_splits.py PREPARED_DIR"
        ) from None
    except (OSError, ValueError) as error:
        raise LungDetError(
            f"{path}: cannot be read as JSON ({error}); make the splits again"
        ) from None
    missing = {"info", "images", "annotations", "series", "nodules"} - set(coco)
    if missing:
        raise LungDetError(
            f"{path}: lacks {', '.join(sorted(missing))}; make the splits again with "
            "data_prep/make_splits.py"
        )
    return coco


def slab_statuses(coco: Mapping[str, Any]) -> list[Status]:
    """Return "positive", "ignored" or "healthy" for every image, in the order of ``images``.

    Only healthy slabs may be counted or drawn as such; ignored ones hold nothing but ignore
    regions.
    """
    status: dict[int, Status] = {image["id"]: "healthy" for image in coco["images"]}
    for annotation in coco["annotations"]:
        image_id = annotation["image_id"]
        if not annotation["iscrowd"]:
            status[image_id] = "positive"
        elif status[image_id] == "healthy":
            status[image_id] = "ignored"
    return [status[image["id"]] for image in coco["images"]]


# The published size bands: up to 7, 7 to 15, over 15 mm. An edge belongs to the lower band.
BANDS_MM = (7.0, 15.0)
# A nodule with a smaller share of its voxels in the lung mask counts as lost to the mask.
MIN_COVERAGE = 0.9


@dataclass(frozen=True)
class CohortSummary:
    """Counts of one annotation file.

    Parameters
    ----------
    split, protocol, data : what made the file.
    slabs, positives, healthy, ignored : ``slabs`` is the sum of the other three.
    rate : share of positives among positive and healthy slabs; None without either.
    series, series_without_nodules : scans, and those without a nodule that counts.
    nodules : nodules that count, unseen ones included.
    nodules_by_band : name and number per size band, by annotated diameter.
    boxes, ignore_regions : annotations to be found, and to be ignored.
    unseen : nodules that no slab shows, counted as missed.
    discarded : nodules whose slabs were left out for the rate; not in ``nodules``.
    lost_to_mask : nodules with less than 90 % of their voxels in the lung mask.
    coverage_unknown : nodules for which that share is not known.
    labels : rule by which boxes were made: "auto", "sphere" or "mask".
    nodules_by_label : number of nodules whose boxes come from masks, and from spheres.
    """

    split: str
    protocol: str
    data: str
    slabs: int
    positives: int
    healthy: int
    ignored: int
    rate: float | None
    series: int
    series_without_nodules: int
    nodules: int
    nodules_by_band: tuple[tuple[str, int], ...]
    boxes: int
    ignore_regions: int
    unseen: int
    discarded: int
    lost_to_mask: int
    coverage_unknown: int
    labels: str
    nodules_by_label: tuple[tuple[str, int], ...]


def summarise(
    coco: Mapping[str, Any],
    *,
    bands_mm: Sequence[float] = BANDS_MM,
    min_coverage: float = MIN_COVERAGE,
) -> CohortSummary:
    """Count what a COCO dictionary of a split holds."""
    statuses = slab_statuses(coco)
    positives, healthy = statuses.count("positive"), statuses.count("healthy")
    nodules = coco["nodules"]
    coverages = [nodule.get("coverage") for nodule in nodules]
    boxes = sum(not annotation["iscrowd"] for annotation in coco["annotations"])
    info = coco["info"]
    return CohortSummary(
        split=str(info.get("split", "")),
        protocol=str(info.get("protocol", "")),
        data=str(info.get("data", "")),
        slabs=len(statuses),
        positives=positives,
        healthy=healthy,
        ignored=statuses.count("ignored"),
        rate=positives / (positives + healthy) if positives + healthy else None,
        series=len(coco["series"]),
        series_without_nodules=len(set(coco["series"]) - {n["seriesuid"] for n in nodules}),
        nodules=len(nodules),
        nodules_by_band=count_by_band([n["diameter_mm"] for n in nodules], bands_mm),
        boxes=boxes,
        ignore_regions=len(coco["annotations"]) - boxes,
        unseen=len(coco.get("unseen_nodules", ())),
        discarded=len(coco.get("discarded_nodules", ())),
        lost_to_mask=sum(share is not None and share < min_coverage for share in coverages),
        coverage_unknown=sum(share is None for share in coverages),
        labels=str(info.get("labels", "sphere")),
        nodules_by_label=count_by_label(nodules),
    )


def count_by_label(nodules: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """Return how many nodules of an annotation file have boxes from masks, and from spheres."""
    from_mask = sum(nodule.get("label") == "mask" for nodule in nodules)
    return ("mask", from_mask), ("sphere", len(nodules) - from_mask)


def label_text(summary: CohortSummary) -> str:
    """Return a summary's labels in words, e.g. ``auto: 12 mask, 3 sphere``."""
    counts = ", ".join(f"{count} {name}" for name, count in summary.nodules_by_label)
    return f"{summary.labels}: {counts}"


def count_by_band(
    diameters_mm: Sequence[float], bands_mm: Sequence[float] = BANDS_MM
) -> tuple[tuple[str, int], ...]:
    """Return (name, count) per band; a diameter on an edge belongs to the lower band."""
    edges = [0.0, *bands_mm, float("inf")]
    names = [f"<= {bands_mm[0]:g} mm"]
    names += [f"{low:g}-{high:g} mm" for low, high in zip(bands_mm, bands_mm[1:], strict=False)]
    names.append(f"> {bands_mm[-1]:g} mm")
    counts = [
        sum(low < diameter <= high for diameter in diameters_mm)
        for low, high in zip(edges, edges[1:], strict=False)
    ]
    return tuple(zip(names, counts, strict=True))
