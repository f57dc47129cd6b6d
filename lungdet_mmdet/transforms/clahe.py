"""Enhance contrast locally."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.contrast import apply_clahe


@TRANSFORMS.register_module()
class CLAHE(BaseTransform):
    """Contrast Limited Adaptive Histogram Equalisation of every slice.

    Before MIPSlabs (the paper's order) it works on slices, after it on slabs.

    Required Keys:

    - volume (uint8 array (z, y, x)), or slabs (uint8 array (n, y, x)) where they are there already
    - masked (bool)

    Modified Keys:

    - volume or slabs

    Parameters
    ----------
    clip_limit : OpenCV's clip limit.
    tiles_yx : number of tiles along y and x.
    """

    def __init__(self, clip_limit: float = 2.0, tiles_yx: Sequence[int] = (8, 8)) -> None:
        self.clip_limit = clip_limit
        self.tiles_yx = tuple(tiles_yx)

    def transform(self, results: dict) -> dict:
        """Equalise; what was black outside the lungs stays black."""
        key = "slabs" if "slabs" in results else "volume"
        results[key] = apply_clahe(
            results[key],
            clip_limit=self.clip_limit,
            tiles_yx=self.tiles_yx,
            keep_zero=results["masked"],
        )
        return results
