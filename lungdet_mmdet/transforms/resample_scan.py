"""Resample a scan to the target spacing."""

from __future__ import annotations

from collections.abc import Sequence

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.resample import resample_volume


@TRANSFORMS.register_module()
class ResampleScan(BaseTransform):
    """Resample to a common spacing (equation 1 of the paper).

    Required Keys:

    - volume (int16 array (z, y, x))
    - geometry (ScanGeometry)

    Modified Keys:

    - volume, geometry

    Parameters
    ----------
    spacing_zyx_mm : target spacing; ``None`` for an axis keeps the scan's own.
    """

    def __init__(self, spacing_zyx_mm: Sequence[float | None] = (1.25, 0.7, 0.7)) -> None:
        self.spacing_zyx_mm = tuple(spacing_zyx_mm)

    def transform(self, results: dict) -> dict:
        """Resample ``results['volume']``."""
        results["volume"], results["geometry"] = resample_volume(
            results["volume"], results["geometry"], self.spacing_zyx_mm
        )
        return results
