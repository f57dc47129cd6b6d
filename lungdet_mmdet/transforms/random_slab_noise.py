"""Add sensor-like noise to a slab."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from mmdet.registry import TRANSFORMS

from lungdet_mmdet.ct.augmentation import add_gaussian_noise


@TRANSFORMS.register_module()
class RandomSlabNoise(BaseTransform):
    """Add Gaussian noise of a random standard deviation.

    Required Keys:

    - img (array (y, x, c))

    Modified Keys:

    - img (float32: the paper's noise is below one grey level and would vanish in 8 bits)

    Parameters
    ----------
    sd_percent : lowest and highest standard deviation in per cent of the full grey range.
    """

    def __init__(self, sd_percent: Sequence[float] = (0.001, 0.18)) -> None:
        self.sd_percent = tuple(sd_percent)

    @cache_randomness
    def _draw(self) -> tuple[float, int]:
        # mmengine seeds the global generator per worker; all further draws come from this seed.
        sd = float(np.random.uniform(*self.sd_percent)) / 100.0 * 255.0
        return sd, int(np.random.randint(2**31))

    def transform(self, results: dict) -> dict:
        """Add the same noise to all channels of ``results['img']``."""
        sd, seed = self._draw()
        results["img"] = add_gaussian_noise(results["img"], sd=sd, rng=np.random.default_rng(seed))
        return results
