"""Map Hounsfield units to grey levels."""

from __future__ import annotations

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.contrast import LUNG_LEVEL_HU, LUNG_WIDTH_HU, window_hu


@TRANSFORMS.register_module()
class WindowHU(BaseTransform):
    """Apply a grey-level window and the lung mask.

    Required Keys:

    - volume (int16 array (z, y, x), Hounsfield units)
    - lung_mask (uint8 array (z, y, x)), where `apply_mask`

    Modified Keys:

    - volume (uint8 array (z, y, x)); 0 outside the mask, 1..255 inside

    Added Keys:

    - masked (bool): whether grey level 0 means "outside the lungs"

    Parameters
    ----------
    level_hu, width_hu : window centre and width.
    apply_mask : black out everything outside the lungs before projecting. Without it, ribs win
        the maximum.
    """

    def __init__(
        self,
        level_hu: float = LUNG_LEVEL_HU,
        width_hu: float = LUNG_WIDTH_HU,
        apply_mask: bool = True,
    ) -> None:
        self.level_hu = level_hu
        self.width_hu = width_hu
        self.apply_mask = apply_mask

    def transform(self, results: dict) -> dict:
        """Window ``results['volume']``."""
        results["volume"] = window_hu(
            results["volume"],
            level_hu=self.level_hu,
            width_hu=self.width_hu,
            mask=results["lung_mask"] if self.apply_mask else None,
        )
        results["masked"] = self.apply_mask
        return results
