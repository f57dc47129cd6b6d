"""Drop slices at both ends of a scan that hold hardly any lung."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.cropping import slice_range_with_lung


@TRANSFORMS.register_module()
class DropPeripheralSlices(BaseTransform):
    """Keep the slices between the first and the last with enough lung.

    Required Keys:

    - volume (array (z, y, x))
    - lung_mask (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, lung_mask, geometry

    Parameters
    ----------
    min_area_share : least lung area of a slice, as a share of the scan's largest slice area.
    """

    def __init__(self, min_area_share: float = 0.02) -> None:
        self.min_area_share = min_area_share

    def transform(self, results: dict) -> dict:
        """Cut the volume, its mask and its geometry along z; views, no copies."""
        first, stop = slice_range_with_lung(
            results["lung_mask"], min_area_share=self.min_area_share
        )
        geometry = results["geometry"]
        results["volume"] = results["volume"][first:stop]
        results["lung_mask"] = results["lung_mask"][first:stop]
        results["geometry"] = geometry.cropped((first, 0, 0), results["volume"].shape)
        return results
