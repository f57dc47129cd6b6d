"""What an annotation file holds, in numbers: for the table printed at start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lungdet_mmdet.cohort.coco_json import slab_statuses

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
