"""Gas of stomach and bowel that has run together with the lung through a vanished wall."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lungdet_mmdet.ct.lungs.morphology import Mask, Spacing, dilate, opening

GAS_HU = -960
"""Block means of gas are below, those of lung above; emphysema is told apart by its neighbours."""
BUBBLE_OPENING_MM = 4.0
MIN_BUBBLE_ML = 4.0
RIM_MM = 6.0
MIN_TISSUE_SHARE = 0.6
"""A bubble in the stomach is wrapped in tissue, a bulla lies in lung."""


def find_gas(coarse_hu: np.ndarray, air: Mask, spacing_zyx_mm: Spacing) -> Mask:
    """Find bubbles of gas in the lower half of the enclosed air.

    Parameters
    ----------
    coarse_hu : int16 (z, y, x), z growing towards the head.
    air : uint8 enclosed air, lungs and bubbles together.
    spacing_zyx_mm : voxel size.

    Returns
    -------
    uint8 (z, y, x), the bubbles' inner part.
    """
    bubbles = np.zeros_like(air)
    dark = ((coarse_hu < GAS_HU) & (air > 0)).astype(np.uint8)
    levels = np.flatnonzero(air.any(axis=(1, 2)))
    if not dark.any():
        return bubbles
    middle_z = 0.5 * (levels[0] + levels[-1])
    parts, _ = ndimage.label(opening(dark, BUBBLE_OPENING_MM, spacing_zyx_mm))
    voxel_ml = float(np.prod(spacing_zyx_mm)) / 1000.0
    reach = [int(RIM_MM / s) + 1 for s in spacing_zyx_mm]
    for index, found in enumerate(ndimage.find_objects(parts), start=1):
        box = tuple(
            slice(max(s.start - r, 0), s.stop + r) for s, r in zip(found, reach, strict=True)
        )
        part = parts[box] == index
        low = 0.5 * (found[0].start + found[0].stop) < middle_z
        if not low or part.sum() * voxel_ml < MIN_BUBBLE_ML:
            continue
        rim = dilate(part.astype(np.uint8), RIM_MM, spacing_zyx_mm) > part
        # Half-filled blocks at its edge say nothing about what wraps the bubble.
        rim &= (dark[box] == 0) & ((air[box] == 0) | (coarse_hu[box] > GAS_HU + 40))
        if rim.any() and float((air[box][rim] == 0).mean()) >= MIN_TISSUE_SHARE:
            bubbles[box][part] = 1
    return bubbles
