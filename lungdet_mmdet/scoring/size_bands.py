# SPDX-License-Identifier: Apache-2.0
"""Size bands in millimetres, and how large a box on a slab is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.errors import LungDetError

PAPER_BANDS_MM = (7.0, 15.0)  # Lung-DETR, Table 1: up to 7, 7 to 15, over 15 mm


@dataclass(frozen=True)
class SizeBand:
    """Diameters over ``lower_mm`` up to and with ``upper_mm``; "all" also holds diameter 0."""

    name: str
    lower_mm: float
    upper_mm: float

    @property
    def coco_range(self) -> tuple[float, float]:
        """The band as pycocotools reads it: both ends belong to the range."""
        lowest = self.lower_mm if self.lower_mm <= 0 else np.nextafter(self.lower_mm, np.inf)
        return float(lowest), self.upper_mm

    @property
    def limits_text(self) -> str:
        """The limits in mm, such as "7-15 mm"."""
        if self.lower_mm <= 0:
            return f"<= {self.upper_mm:g} mm"
        if math.isinf(self.upper_mm):
            return f"> {self.lower_mm:g} mm"
        return f"{self.lower_mm:g}-{self.upper_mm:g} mm"

    def holds(self, diameter_mm: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Tell for each diameter (N,) in mm whether it is in the band."""
        lowest, highest = self.coco_range
        return (diameter_mm >= lowest) & (diameter_mm <= highest)


def size_bands(edges_mm: Sequence[float] = PAPER_BANDS_MM) -> tuple[SizeBand, ...]:
    """Return the band "all" and one band per interval between the edges.

    Two edges make small, medium and large; any other number of edges makes bands named by their
    limits, such as "over_6mm_to_8mm". A diameter of exactly an edge is in the lower band.

    Raises
    ------
    LungDetError
        When the edges are not positive and rising.
    """
    edges = [float(edge) for edge in edges_mm]
    if any(low >= high for low, high in zip([0.0, *edges], edges, strict=False)):
        raise LungDetError(f"size band edges {edges} mm: give positive, rising diameters")
    limits = [0.0, *edges, float("inf")]
    names = ["small", "medium", "large"]
    if len(edges) != 2:
        names = [
            f"over_{low:g}mm_to_{high:g}mm" for low, high in zip(limits, limits[1:], strict=False)
        ]
    parts = zip(names, limits, limits[1:], strict=False) if edges else ()
    bands = [SizeBand(name, low, high) for name, low, high in parts]
    return (SizeBand("all", 0.0, float("inf")), *bands)


def count_by_band(
    diameters_mm: Sequence[float], edges_mm: Sequence[float] = PAPER_BANDS_MM
) -> tuple[tuple[str, int], ...]:
    """Return the limits of each band between the edges, and how many diameters lie in it."""
    diameters = np.array(diameters_mm, dtype=np.float64)
    return tuple(
        (band.limits_text, int(np.count_nonzero(band.holds(diameters))))
        for band in size_bands(edges_mm)[1:]
    )


def equivalent_diameter(
    boxes_xyxy_px: NDArray[np.float64], spacing_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Return the diameter in mm of each box (N, 4): the square root of its area in mm^2."""
    width = np.maximum(boxes_xyxy_px[:, 2] - boxes_xyxy_px[:, 0], 0.0) * spacing_mm[0]
    height = np.maximum(boxes_xyxy_px[:, 3] - boxes_xyxy_px[:, 1], 0.0) * spacing_mm[1]
    return np.sqrt(width * height)
