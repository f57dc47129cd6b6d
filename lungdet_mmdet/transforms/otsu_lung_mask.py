"""Find the lungs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.lungs.mask import segment_with_fallback
from lungdet_mmdet.ct.reading import read_scan
from lungdet_mmdet.ct.resample import nearest_on_grid
from lungdet_mmdet.errors import LungDetError

# Between the air around the patient (-1000) and the least dense lung.
ABOVE_AIR_HU = -975


@TRANSFORMS.register_module()
class OtsuLungMask(BaseTransform):
    """Segment the lungs: Otsu, connected components, erosion, hole filling, closing.

    Required Keys:

    - volume (int16 array (z, y, x), Hounsfield units)
    - geometry (ScanGeometry)
    - lung_mask_path (path or None) (optional): LUNA16's own mask of the scan

    Added Keys:

    - lung_mask (uint8 array (z, y, x), 1 inside)
    - lung_summary (dict): method, verdict, volumes in litres, flags, and ``tissue_voxels``, the
      voxels above air before masking

    Parameters
    ----------
    method : "otsu" computes the mask; "luna16" takes LUNA16's own where it is there.
    closing_mm : radius of the closing per lung.
    erosion_mm : erosion that parts the air into components.
    margin_mm : how far the mask reaches beyond the surface found.
    grid_mm : size of the blocks on which the lungs are found.
    """

    def __init__(
        self,
        method: Literal["otsu", "luna16"] = "otsu",
        closing_mm: float = 12.0,
        erosion_mm: float = 3.0,
        margin_mm: float = 1.0,
        grid_mm: float = 3.0,
    ) -> None:
        if method not in ("otsu", "luna16"):
            raise LungDetError(f"OtsuLungMask method is '{method}': use 'otsu' or 'luna16'")
        self.method = method
        self.closing_mm = closing_mm
        self.erosion_mm = erosion_mm
        self.margin_mm = margin_mm
        self.grid_mm = grid_mm

    def transform(self, results: dict) -> dict:
        """Add the mask and its summary."""
        volume, geometry = results["volume"], results["geometry"]
        segmentation = segment_with_fallback(
            volume,
            spacing_zyx_mm=geometry.spacing_zyx_mm,
            luna16_mask=_luna16_mask(results.get("lung_mask_path"), geometry),
            prefer=self.method,
            closing_mm=self.closing_mm,
            erosion_mm=self.erosion_mm,
            margin_mm=self.margin_mm,
            grid_mm=self.grid_mm,
        )
        results["lung_mask"] = segmentation.mask
        results["lung_summary"] = {
            **segmentation.summary(),
            "tissue_voxels": sum(int(np.count_nonzero(s > ABOVE_AIR_HU)) for s in volume),
        }
        return results


def _luna16_mask(path: Path | None, geometry: ScanGeometry) -> np.ndarray | None:
    if path is None:
        return None
    labels = read_scan(path)
    return nearest_on_grid(labels.volume_hu.astype(np.uint8), labels.geometry, geometry)
