"""The annotation file of a split: COCO json written, read and counted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.series_name import check_series_name
from lungdet_mmdet.splits.labels import LabelledSlab, SlabLabel, Status
from lungdet_mmdet.splits.split_part import SplitPart

CATEGORY_ID = 1
# Pixels and millimetres are written to a ten-thousandth: far below a voxel, and short to read.
_DIGITS = 4


def coco_of_part(
    part: SplitPart,
    *,
    info: Mapping[str, Any],
    excluded_are_ignored: bool = True,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the COCO dictionary of a part.

    ``images`` are the slab records plus ``id``, ``seriesuid`` and ``slab_index``; ``annotations``
    carry the category 1 with ``iscrowd`` 1 for ignore regions. Ids count from 1. Beyond COCO:
    ``series`` (all series of the part), ``failed_series`` (those of them that could not be
    prepared), ``nodules`` (all nodules that count, unseen ones included),
    ``unseen_nodules`` (to be counted as missed), ``discarded_nodules`` (do not count: their slabs
    were left out for the positive rate), ``excluded`` (irrelevant findings, repeated readers' lines
    included) and ``patients`` where known.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, slab in enumerate(part.slabs, start=1):
        images.append(_image(image_id, slab))
        for label in slab.labels:
            annotations.append(_annotation(len(annotations) + 1, image_id, label))
    uids = [scan.seriesuid for scan in part.scans]
    return {
        "info": dict(info),
        "categories": [{"id": CATEGORY_ID, "name": "nodule"}],
        "images": images,
        "annotations": annotations,
        "series": uids,
        "failed_series": [scan.seriesuid for scan in part.scans if scan.scan.failure is not None],
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


def _annotation(annotation_id: int, image_id: int, label: SlabLabel) -> dict[str, Any]:
    x0, y0, x1, y1 = label.box_xyxy_px
    width, height = x1 - x0, y1 - y0
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
    }


def _counting_nodules(part: SplitPart) -> list[dict[str, Any]]:
    counting = frozenset[str]().union(*(slab.nodule_ids for slab in part.slabs))
    counting |= {item.nodule.nodule_id for item in part.unseen}
    return [
        {**_nodule(nodule), "coverage": scan.scan.coverage.get(nodule.nodule_id)}
        for scan in part.scans
        for nodule in scan.scan.nodules
        if nodule.nodule_id in counting
    ]


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
    for image in coco.get("images", ()) if isinstance(coco, dict) else ():
        check_slab_image(image, source=str(path))
    missing = {"info", "images", "annotations", "series", "nodules"} - set(coco)
    if missing:
        raise LungDetError(
            f"{path}: lacks {', '.join(sorted(missing))}; make the splits again with "
            "data_prep/make_splits.py"
        )
    return coco


def check_slab_image(image: Mapping[str, Any], *, source: str) -> None:
    """Refuse a slab whose series or file leads out of the prepared folder.

    Raises
    ------
    LungDetError
        Naming `source` and the value.
    """
    uid = check_series_name(str(image.get("seriesuid", "")), source=source)
    name = str(image.get("file_name", f"{uid}/"))
    if PurePosixPath(name).parts[:-1] != (uid,) and name != f"{uid}/":
        raise LungDetError(
            f"{source}: the image {name!r} of series {uid} is not in the series' own folder; make "
            "the splits again with data_prep/make_splits.py"
        )


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
    )


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
