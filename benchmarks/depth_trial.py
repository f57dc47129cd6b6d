# SPDX-License-Identifier: Apache-2.0
"""How far from a nodule's centre several ways to read a depth put it: the trial behind the choice.

Every nodule of a prepared folder has its exact box, shaken where that is asked for, on the slab
that shows it best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import PAPER_BANDS_MM
from lungdet_mmdet.ct.slabs import DEPTH_STEPS
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.slab_records import (
    CORE_SHARE,
    core_pixels,
    read_depths,
    size_bands,
)
from lungdet_mmdet.splits.labels import label_scan
from lungdet_mmdet.splits.prepared import PreparedScan, read_prepared

Estimate = Callable[[NDArray, NDArray, NDArray], float]


def _weighted_mean(box: NDArray, image: NDArray, depths: NDArray) -> float:
    grey = core_pixels(box, image).astype(float)
    return float(np.average(core_pixels(box, depths), weights=grey - grey.min() + 1e-6))


ESTIMATES: dict[str, Estimate] = {
    "mid-plane": lambda box, image, depths: DEPTH_STEPS / 2,
    "brightest pixel": lambda box, image, depths: float(
        core_pixels(box, depths, share=1.0)[core_pixels(box, image, share=1.0).argmax()]
    ),
    "median, whole box": lambda box, image, depths: float(
        np.median(core_pixels(box, depths, share=1.0))
    ),
    "mean, whole box": lambda box, image, depths: float(core_pixels(box, depths, share=1.0).mean()),
    "median, core": lambda box, image, depths: float(np.median(core_pixels(box, depths))),
    "weighted mean, core": _weighted_mean,
    "mean, core (used)": lambda box, image, depths: float(core_pixels(box, depths).mean()),
}
"""Ways to get a depth (0 to ``DEPTH_STEPS``) from a box, the slab and its depths."""


@dataclass(frozen=True)
class DepthTrial:
    """Distances along z in mm by estimate, each (N,), and the N nodules' diameters in mm."""

    data: str
    off_mm: dict[str, NDArray[np.float64]]
    diameters_mm: NDArray[np.float64]

    def rows(self) -> list[dict[str, Any]]:
        """Return median, 90th percentile and share inside the nodule, by band and estimate."""
        rows = []
        for band in size_bands(PAPER_BANDS_MM):
            chosen = band.holds(self.diameters_mm)
            for name, values in self.off_mm.items():
                off = np.abs(values[chosen])
                if off.size:
                    inside = np.mean(off < self.diameters_mm[chosen] / 2)
                    p50, p90 = np.percentile(off, (50, 90))
                    rows.append({"band": band.name, "n": len(off), "estimate": name,
                                 "median_mm": round(float(p50), 2), "p90_mm": round(float(p90), 2),
                                 "inside": round(float(inside), 3)})  # fmt: skip
        return rows

    def lines(self) -> list[str]:
        """Return the rows as text."""
        head = f"{'band':8}{'n':>6}  {'z from':22}{'median |dz|':>12}{'90 %':>7}{'inside':>8}"
        return [f"{self.data} data, exact boxes on the best slab, core {CORE_SHARE:g}", head] + [
            f"{row['band']:8}{row['n']:6}  {row['estimate']:22}{row['median_mm']:9.2f} mm"
            f"{row['p90_mm']:7.2f}{row['inside']:8.3f}"
            for row in self.rows()
        ]


def try_depths(folder: Path, *, shake: float = 0.0, seed: int = 0) -> DepthTrial:
    """Try all estimates on the nodules of a prepared folder.

    Parameters
    ----------
    folder : prepared with depths.
    shake : standard deviation of the boxes' corners, as a share of their width.

    Raises
    ------
    LungDetError
        If it holds no nodule on a slab with depths.
    """
    cohort = read_prepared(folder)
    rng = np.random.default_rng(seed)
    found = [row for scan in cohort.scans for row in _of_scan(folder, scan, shake, rng)]
    if not found:
        raise LungDetError(f"{folder}: no nodule lies on a slab with depths; prepare it again")
    off = {name: np.array([row[0][name] for row in found]) for name in ESTIMATES}
    return DepthTrial(cohort.data, off, np.array([row[1] for row in found]))


def _of_scan(
    folder: Path, scan: PreparedScan, shake: float, rng: np.random.Generator
) -> list[tuple[dict[str, float], float]]:
    nodules = {nodule.nodule_id: nodule for nodule in scan.nodules}
    rows = []
    for labelled in label_scan(scan).slabs:
        geometry, fields = labelled.slab.geometry, labelled.slab.fields
        if not labelled.best_of or not fields.get("depth_file_name"):
            continue
        depths = read_depths(folder / "slabs" / fields["depth_file_name"])
        if depths is None:
            continue
        image = cv2.imread(str(folder / "slabs" / fields["file_name"]), cv2.IMREAD_GRAYSCALE)
        low, high = geometry.z_range_mm
        normal = geometry.axes_xyz[:, 2]
        for label in labelled.labels:
            if label.nodule_id not in labelled.best_of:
                continue
            box = np.array(label.box_xyxy_px)
            box = box + rng.normal(0, shake, 4) * (box[2] - box[0])
            truth = float(normal @ np.asarray(nodules[label.nodule_id].centre_xyz_mm))
            off = {
                name: low + estimate(box, image, depths) / DEPTH_STEPS * (high - low) - truth
                for name, estimate in ESTIMATES.items()
            }
            rows.append((off, label.diameter_mm))
    return rows
