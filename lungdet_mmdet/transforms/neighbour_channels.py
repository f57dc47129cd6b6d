"""Show each slab with its neighbours."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.slab_channels import neighbour_channels


@TRANSFORMS.register_module()
class NeighbourChannels(BaseTransform):
    """Put the slab below and the slab above into the first and the third channel.

    Comes after MIPSlabs. At the ends of the scan a slab is its own neighbour.

    Required Keys:

    - slabs (uint8 array (n_slabs, y, x))

    Modified Keys:

    - slabs (uint8 array (n_slabs, y, x, 3))
    """

    def transform(self, results: dict) -> dict:
        """Stack ``results['slabs']``."""
        results["slabs"] = neighbour_channels(results["slabs"])
        return results
