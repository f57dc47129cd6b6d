"""Steps of preparation that turn a scan into slabs."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM, mip_channels, mip_slabs, neighbour_channels
from lungdet_mmdet.errors import LungDetError


@TRANSFORMS.register_module()
class MIPSlabs(BaseTransform):
    """Maximum intensity projection over slabs (equation 2 of the paper).

    Required Keys:

    - volume (uint8 array (z, y, x))
    - geometry (ScanGeometry)

    Added Keys:

    - slabs (uint8 array (n_slabs, y, x))
    - slab_geometries (list[SlabGeometry])
    - slab_depths (uint8 array (n_slabs, y, x)), where ``depth``; see ``mip_slabs``

    Parameters
    ----------
    thickness_mm : slab thickness; 0 gives single slices.
    stride_mm : distance of neighbouring slabs; None puts slab next to slab.
    depth : whether to hand on the depth of the maximum, from which candidates take their position
        along z; without it they lie on the mid-plane of their slab.
    """

    def __init__(
        self,
        thickness_mm: float = SLAB_THICKNESS_MM,
        stride_mm: float | None = None,
        depth: bool = True,
    ) -> None:
        self.thickness_mm = thickness_mm
        self.stride_mm = stride_mm
        self.depth = depth

    def transform(self, results: dict) -> dict:
        """Project ``results['volume']``."""
        results["slabs"], results["slab_geometries"], depths = mip_slabs(
            results["volume"],
            results["geometry"],
            thickness_mm=self.thickness_mm,
            stride_mm=self.stride_mm,
            with_depth=self.depth,
        )
        if depths is not None:
            results["slab_depths"] = depths
        return results


@TRANSFORMS.register_module()
class MIPChannels(BaseTransform):
    """Give every slab three channels: projections over three thicknesses about its middle.

    Comes after MIPSlabs, whose slabs decide how many images there are and what their boxes are.
    ``slab_depths`` stays that of the slab itself.

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


@TRANSFORMS.register_module()
class NeighbourChannels(BaseTransform):
    """Put the slab below and the slab above into the first and the third channel.

    Comes after MIPSlabs. At the ends of the scan a slab is its own neighbour. ``slab_depths`` stays
    that of the slab itself.

    Required Keys:

    - slabs (uint8 array (n_slabs, y, x))

    Modified Keys:

    - slabs (uint8 array (n_slabs, y, x, 3))
    """

    def transform(self, results: dict) -> dict:
        """Stack ``results['slabs']``."""
        results["slabs"] = neighbour_channels(results["slabs"])
        return results
