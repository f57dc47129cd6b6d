"""The perfect detector's ceiling from nodule tables alone, without images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM, slab_geometries, slab_slices
from lungdet_mmdet.scoring.ceiling import (
    Ceiling,
    perfect_detections,
    perfect_sensitivities,
    positive_boxes,
)
from lungdet_mmdet.scoring.size_bands import PAPER_BANDS_MM
from lungdet_mmdet.scoring.slab_records import Slab, SlabDetections, SlabSet, TruthBox
from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.prepared import PreparedScan, PreparedSlab

# The grid of the default preparation, on which tables without images are laid out.
SPACING_ZYX_MM = (1.25, 0.7, 0.7)
# Where the slabs begin is chance; so many beginnings, evenly over a stride, are averaged.
N_BEGINNINGS = 6


def table_ceiling(
    nodules: Sequence[Nodule],
    series: Sequence[str],
    *,
    thickness_mm: float = SLAB_THICKNESS_MM,
    stride_mm: float | None = None,
    edges_mm: Sequence[float] = PAPER_BANDS_MM,
) -> Ceiling:
    """Return the ceiling of nodule tables alone: axial slabs of the default grid, no lung mask.

    A perfect depth is the middle of what the slab holds of the nodule.

    Raises
    ------
    LungDetError
        If thickness or stride make no slabs.
    """
    totals: list[tuple[dict[str, float], dict[str, float]]] = []
    counts: dict[str, int] = {}
    step = thickness_mm if stride_mm is None else stride_mm
    for beginning in np.arange(N_BEGINNINGS) * step / N_BEGINNINGS:
        slab_set = _slab_set_of(nodules, series, thickness_mm, stride_mm, float(beginning))
        found = [perfect_detections(slab) for slab in slab_set.slabs.values() if slab.has_nodule]
        by_id = {nodule.nodule_id: nodule for nodule in nodules}
        placed = [_with_true_depths(item, slab_set.slabs[item.img_id], by_id) for item in found]
        midplane, counts = perfect_sensitivities(slab_set, found, edges_mm)
        totals.append((midplane, perfect_sensitivities(slab_set, placed, edges_mm)[0]))
    means = [
        {name: float(np.mean([total[kind][name] for total in totals])) for name in counts}
        for kind in (0, 1)
    ]
    return Ceiling(means[0], means[1], counts)


def _with_true_depths(
    found: SlabDetections, slab: Slab, nodules: dict[str, Nodule]
) -> SlabDetections:
    low, high = slab.geometry.z_range_mm
    truth = [nodules[box.nodule_id] for box in positive_boxes(slab)]
    middle = np.array([nodule.centre_xyz_mm[2] for nodule in truth])
    radius = np.array([nodule.diameter_mm / 2 for nodule in truth])
    part = (np.maximum(middle - radius, low) + np.minimum(middle + radius, high)) / 2
    return replace(found, z_mm=part, z_sd_mm=np.zeros(len(part)))


def _slab_set_of(
    nodules: Sequence[Nodule],
    series: Sequence[str],
    thickness_mm: float,
    stride_mm: float | None,
    beginning_mm: float,
) -> SlabSet:
    """Lay slabs over the nodules of every series and label them."""
    of_series: dict[str, list[Nodule]] = {}
    for nodule in nodules:
        of_series.setdefault(nodule.seriesuid, []).append(nodule)
    slabs: dict[int, Slab] = {}
    for uid, members in of_series.items():
        scan = _slabbed(uid, members, thickness_mm, stride_mm, beginning_mm)
        for labelled in label_scan(scan).slabs:
            geometry, number = labelled.slab.geometry, len(slabs)
            slabs[number] = Slab(
                img_id=number,
                seriesuid=uid,
                geometry=geometry,
                boxes=tuple(
                    TruthBox(
                        (x0, y0, x1 - x0, y1 - y0), label.diameter_mm, label.kind != "nodule",
                        label.kind, str(label.nodule_id),
                    )
                    for label in labelled.labels
                    for x0, y0, x1, y1 in (label.box_xyxy_px,)
                ),
            )  # fmt: skip
    return SlabSet(slabs=slabs, series=tuple(series), nodules=tuple(nodules))


def _slabbed(
    uid: str,
    nodules: list[Nodule],
    thickness_mm: float,
    stride_mm: float | None,
    beginning_mm: float,
) -> PreparedScan:
    """Return a scan that reaches a slab beyond its nodules on every side, without images."""
    centres = np.array([nodule.centre_xyz_mm for nodule in nodules])
    margin = max(nodule.diameter_mm for nodule in nodules) + 2 * thickness_mm
    low = centres.min(axis=0) - margin - (0, 0, beginning_mm)
    spacing_xyz = np.array(SPACING_ZYX_MM[::-1])
    size = np.ceil((centres.max(axis=0) + margin - low) / spacing_xyz).astype(int) + 1
    geometry = ScanGeometry(tuple(size[::-1].tolist()), SPACING_ZYX_MM, tuple(low.tolist()))
    ranges = slab_slices(
        int(size[2]), SPACING_ZYX_MM[0], thickness_mm=thickness_mm, stride_mm=stride_mm
    )
    slabs = tuple(PreparedSlab(item, {}) for item in slab_geometries(geometry, ranges))
    return PreparedScan(uid, None, slabs, tuple(nodules), (), {})
