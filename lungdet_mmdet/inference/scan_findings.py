"""What the detector found in one scan, with all that the outputs need to show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.ct.slab_geometry import SlabGeometry
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.slab_records import SlabDetections

STAGES = ("reading", "preparation", "network", "merging")
"""The parts of looking at a scan that are timed, in order."""


@dataclass(frozen=True)
class ScanFindings:
    """The result of one scan.

    Parameters
    ----------
    scan : the scan as it was read.
    source : the file or folder it was read from, "" if it was given in memory.
    slabs : uint8 array (n, y, x), or (n, y, x, 3), what the detector saw.
    slab_geometries : where each slab lies.
    lung_mask, lung_mask_z : uint8 (z, y, x) in slab pixels, and for each of its slices the position
        along the slab normal in mm.
    lung_summary : method, verdict and volumes of the lung mask.
    detections : boxes of every slab, ``img_id`` is the slab's index.
    candidates : all candidates from the lowest score on, best first.
    threshold : score from which a candidate counts as positive.
    flags : remarks about the scan and its lungs.
    model : what is known of the model.
    seconds : time of each of `STAGES`.
    """

    scan: CTScan
    source: str
    slabs: np.ndarray
    slab_geometries: tuple[SlabGeometry, ...]
    lung_mask: np.ndarray
    lung_mask_z: np.ndarray
    lung_summary: dict[str, Any]
    detections: tuple[SlabDetections, ...]
    candidates: tuple[Candidate, ...]
    threshold: float
    flags: tuple[str, ...]
    model: dict[str, Any]
    seconds: dict[str, float]

    @property
    def positives(self) -> list[Candidate]:
        """Candidates at or above the threshold."""
        return [c for c in self.candidates if c.score >= self.threshold]
