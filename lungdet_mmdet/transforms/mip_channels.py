"""Project each slab over several thicknesses."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.slab_channels import mip_channels
from lungdet_mmdet.errors import LungDetError


@TRANSFORMS.register_module()
class MIPChannels(BaseTransform):
    """Give every slab three channels: projections over three thicknesses about its middle.

    Comes after MIPSlabs, whose slabs decide how many images there are and what their boxes are.

    Required Keys:

    - volume (uint8 array (z, y, x))
    - geometry (ScanGeometry)
    - slab_geometries (list[SlabGeometry])

    Modified Keys:

    - slabs (uint8 array (n_slabs, y, x, 3))

    Parameters
    ----------
    thicknesses_mm : of the three channels, in the order in which the image file stores them.
    """

    def __init__(self, thicknesses_mm: Sequence[float] = (5.0, 10.0, 15.0)) -> None:
        if len(thicknesses_mm) != 3:
            raise LungDetError(
                f"MIPChannels thicknesses_mm is {tuple(thicknesses_mm)}: an image has 3 channels"
            )
        self.thicknesses_mm = tuple(thicknesses_mm)

    def transform(self, results: dict) -> dict:
        """Project ``results['volume']`` anew."""
        results["slabs"] = mip_channels(
            results["volume"],
            results["geometry"],
            results["slab_geometries"],
            thicknesses_mm=self.thicknesses_mm,
        )
        return results
