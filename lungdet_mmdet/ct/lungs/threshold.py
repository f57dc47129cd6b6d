"""The threshold between air and tissue: Otsu's method, guarded."""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.ct.scan import PADDING_BELOW_HU

HISTOGRAM_HU = (-1100, 400)
"""Bone and metal above do not help to tell air from tissue."""


def otsu_threshold(volume_hu: np.ndarray) -> float | None:
    """Compute Otsu's threshold between air and tissue, with padding left out.

    Parameters
    ----------
    volume_hu : int16 array of any shape.

    Returns
    -------
    Threshold in HU, values below it being air; None where fewer than two values occur.

    Notes
    -----
    Otsu, "A threshold selection method from gray-level histograms", IEEE SMC 1979.
    """
    values = volume_hu[volume_hu >= PADDING_BELOW_HU].clip(*HISTOGRAM_HU)
    counts = np.bincount((values - HISTOGRAM_HU[0]).ravel()).astype(float)
    if np.count_nonzero(counts) < 2:
        return None
    levels = np.arange(counts.size) + HISTOGRAM_HU[0]
    low = np.cumsum(counts)[:-1]
    high = counts.sum() - low
    sum_low = np.cumsum(counts * levels)[:-1]
    sum_high = (counts * levels).sum() - sum_low
    # The first value present is not zero, so only cuts below it divide by zero.
    low_safe, high_safe = np.maximum(low, 1), np.maximum(high, 1)
    between = low * high * (sum_low / low_safe - sum_high / high_safe) ** 2
    # A gap in the histogram gives a plateau; its middle is the fair cut.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(levels[best].mean()) + 0.5


def clamped_otsu(volume_hu: np.ndarray, clamp_hu: tuple[float, float]) -> tuple[float, bool]:
    """Compute Otsu's threshold and keep it inside a sensible range.

    Parameters
    ----------
    volume_hu : int16 array of any shape.
    clamp_hu : lowest and highest threshold allowed.

    Returns
    -------
    The threshold in HU, and whether it had to be moved (the middle where there was none).
    """
    found = otsu_threshold(volume_hu)
    if found is None:
        return 0.5 * (clamp_hu[0] + clamp_hu[1]), True
    kept = min(max(found, clamp_hu[0]), clamp_hu[1])
    return kept, kept != found
