"""Change the brightness of a slab."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.augmentation import scale_brightness


@TRANSFORMS.register_module()
class RandomSlabBrightness(BaseTransform):
    """Multiply grey levels by a random factor.

    Required Keys:

    - img (array (y, x, c))

    Modified Keys:

    - img (same dtype; clipped to 0..255)

    Parameters
    ----------
    max_change : factors are uniform in ``[1 - max_change, 1 + max_change]``.
    """

    def __init__(self, max_change: float = 0.15) -> None:
        self.max_change = max_change

    @cache_randomness
    def _factor(self) -> float:
        return float(np.random.uniform(1.0 - self.max_change, 1.0 + self.max_change))

    def transform(self, results: dict) -> dict:
        """Scale ``results['img']``; black stays black."""
        results["img"] = scale_brightness(results["img"], factor=self._factor())
        return results
