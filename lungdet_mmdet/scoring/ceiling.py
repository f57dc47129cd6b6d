# SPDX-License-Identifier: Apache-2.0
"""What a perfect detector would reach: every positive box found exactly, and nothing else.

A candidate is a hit when it lies within the radius of the nodule's centre, so where it lies along z
caps the sensitivity whatever the detector does. The cap is computed by the code that scores:
labels, merging, and LUNA16's rules are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM
from lungdet_mmdet.scoring.candidates import candidates_by_series
from lungdet_mmdet.scoring.froc import match_marks
from lungdet_mmdet.scoring.intervals import finite_or_none
from lungdet_mmdet.scoring.run_files import marks_of_candidates
from lungdet_mmdet.scoring.slab_records import (
    Slab,
    SlabDetections,
    SlabSet,
    TruthBox,
    size_bands,
    with_depths,
)

ReadDepths = Callable[[Slab], "NDArray[np.uint8] | None"]


@dataclass(frozen=True)
class Ceiling:
    """Highest sensitivities that geometry allows, by name of the size band ("all" among them).

    ``midplane`` is that of candidates on the mid-planes of their slabs; ``depth`` that with the
    depth of the maximum, None where no slab has it; ``n_nodules`` what both rest on. NaN without
    nodules.
    """

    midplane: dict[str, float]
    depth: dict[str, float] | None
    n_nodules: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the figures of all nodules, and the same ``by_band``; null where undefined."""
        by_band = {
            name: {
                "ceiling_midplane": finite_or_none(self.midplane[name]),
                "ceiling_depth": None if self.depth is None else finite_or_none(self.depth[name]),
                "n_nodules": count,
            }
            for name, count in self.n_nodules.items()
        }
        return {**by_band.pop("all"), "by_band": by_band}


def split_ceiling(
    slab_set: SlabSet, read_depths: ReadDepths, *, edges_mm: Sequence[float] = PAPER_BANDS_MM
) -> Ceiling:
    """Return the ceiling of a split, with the depths that its slabs really have."""
    found = [perfect_detections(slab) for slab in slab_set.slabs.values() if slab.has_nodule]
    placed = [
        with_depths(item, slab_set.slabs[item.img_id], read_depths(slab_set.slabs[item.img_id]))
        for item in found
    ]
    midplane, counts = perfect_sensitivities(slab_set, found, edges_mm)
    if not any(item.z_mm is not None for item in placed):
        return Ceiling(midplane, None, counts)
    return Ceiling(midplane, perfect_sensitivities(slab_set, placed, edges_mm)[0], counts)


def positive_boxes(slab: Slab) -> list[TruthBox]:
    """Return the boxes of a slab that are to be found."""
    return [box for box in slab.boxes if not box.is_ignored]


def perfect_detections(slab: Slab) -> SlabDetections:
    """Return what a perfect detector finds on a slab."""
    corners = np.array([box.bbox_xywh_px for box in positive_boxes(slab)])
    corners[:, 2:] += corners[:, :2]
    return SlabDetections(slab.img_id, corners, np.ones(len(corners)))


def perfect_sensitivities(
    slab_set: SlabSet, found: Sequence[SlabDetections], edges_mm: Sequence[float]
) -> tuple[dict[str, float], dict[str, int]]:
    """Return the share of each band's nodules that the merged boxes hit, and their number."""
    per_scan = candidates_by_series(slab_set.slabs, found)
    marks = marks_of_candidates(item for items in per_scan.values() for item in items)
    diameters = np.array([nodule.diameter_mm for nodule in slab_set.nodules])
    shares, counts = {}, {}
    for band in size_bands(edges_mm):
        rows = np.flatnonzero(band.holds(diameters))
        chosen = [slab_set.nodules[row] for row in rows]
        matches = match_marks(marks, chosen, (), slab_set.series, max_marks_per_scan=None)
        counts[band.name] = len(chosen)
        shares[band.name] = matches.true_positives / len(chosen) if chosen else float("nan")
    return shares, counts
