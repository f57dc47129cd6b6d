"""Crop the slices to the lungs."""

from __future__ import annotations

import math

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.cropping import in_plane_bounds


@TRANSFORMS.register_module()
class CropToLungs(BaseTransform):
    """Crop in-plane to the bounding box of the lung mask plus a margin.

    Everything outside is black after masking; without it the detector sees the same lungs in
    about half the pixels. The geometry moves along, so world coordinates stay right.

    Required Keys:

    - volume (array (z, y, x))
    - lung_mask (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, lung_mask, geometry

    Parameters
    ----------
    margin_mm : width of the rim to keep around the lungs.
    """

    def __init__(self, margin_mm: float = 5.0) -> None:
        self.margin_mm = margin_mm

    def transform(self, results: dict) -> dict:
        """Cut the volume, its mask and its geometry along y and x; views, no copies."""
        geometry = results["geometry"]
        margin_yx = tuple(math.ceil(self.margin_mm / s) for s in geometry.spacing_zyx_mm[1:])
        (y0, y1), (x0, x1) = in_plane_bounds(results["lung_mask"], margin_yx=margin_yx)
        results["volume"] = results["volume"][:, y0:y1, x0:x1]
        results["lung_mask"] = results["lung_mask"][:, y0:y1, x0:x1]
        results["geometry"] = geometry.cropped((0, y0, x0), results["volume"].shape)
        return results
