"""Project the scan to slabs."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.mip import SLAB_THICKNESS_MM, mip_slabs


@TRANSFORMS.register_module()
class MIPSlabs(BaseTransform):
    """Maximum intensity projection over slabs (equation 2 of the paper).

    Required Keys:

    - volume (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Added Keys:

    - slabs (uint8 array (n_slabs, y, x))
    - slab_geometries (list[SlabGeometry])

    Parameters
    ----------
    thickness_mm : slab thickness; 0 gives single slices.
    stride_mm : distance of neighbouring slabs; None puts slab next to slab.
    """

    def __init__(
        self, thickness_mm: float = SLAB_THICKNESS_MM, stride_mm: float | None = None
    ) -> None:
        self.thickness_mm = thickness_mm
        self.stride_mm = stride_mm

    def transform(self, results: dict) -> dict:
        """Project ``results['volume']``."""
        results["slabs"], results["slab_geometries"] = mip_slabs(
            results["volume"],
            results["geometry"],
            thickness_mm=self.thickness_mm,
            stride_mm=self.stride_mm,
        )
        return results
