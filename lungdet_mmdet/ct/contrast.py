# SPDX-License-Identifier: Apache-2.0
"""From Hounsfield values to 8-bit grey levels: window and CLAHE."""

from __future__ import annotations

import cv2
import numpy as np

from lungdet_mmdet.errors import LungDetError

LUNG_LEVEL_HU = -600.0
LUNG_WIDTH_HU = 1500.0


def window_hu(
    volume_hu: np.ndarray,
    *,
    level_hu: float = LUNG_LEVEL_HU,
    width_hu: float = LUNG_WIDTH_HU,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Map a window of Hounsfield values linearly to 0..255, and zero outside a mask.

    Inside the mask the grey levels are 1..255, so that 0 means "not lung" and nothing else.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    level_hu, width_hu : centre and width of the window; the default is the usual lung window.
    mask : bool or uint8 array (z, y, x), or None to keep everything.

    Returns
    -------
    uint8 array (z, y, x).

    Raises
    ------
    LungDetError
        If the width is not positive.
    """
    if not width_hu > 0:
        raise LungDetError(f"window width is {width_hu} HU: it must be > 0")
    low = level_hu - width_hu / 2.0
    scale = 255.0 / width_hu
    grey = np.empty(volume_hu.shape, dtype=np.uint8)
    floor = 0 if mask is None else 1
    for z in range(volume_hu.shape[0]):
        scaled = np.multiply(volume_hu[z], np.float32(scale), dtype=np.float32)
        scaled -= np.float32(low * scale)
        np.clip(scaled, floor, 255, out=scaled)
        np.rint(scaled, out=scaled)
        np.copyto(grey[z], scaled, casting="unsafe")
        if mask is not None:
            grey[z] *= mask[z] != 0
    return grey


def apply_clahe(
    volume: np.ndarray,
    *,
    clip_limit: float = 2.0,
    tiles_yx: tuple[int, int] = (8, 8),
    keep_zero: bool = True,
) -> np.ndarray:
    """Contrast Limited Adaptive Histogram Equalisation, slice by slice (OpenCV's).

    Parameters
    ----------
    volume : uint8 array (z, y, x), already windowed: equal grey levels mean equal HU in all slices.
    clip_limit : OpenCV's clip limit, in multiples of a flat histogram.
    tiles_yx : number of tiles along y and x.
    keep_zero : pixels of grey level 0 (outside the lungs) stay 0.

    Returns
    -------
    uint8 array (z, y, x).

    Raises
    ------
    LungDetError
        If the array is not uint8.
    """
    if volume.dtype != np.uint8:
        raise LungDetError(f"CLAHE works on 8-bit grey levels, not {volume.dtype}: window first")
    clahe = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles_yx[1], tiles_yx[0]))
    out = np.empty(volume.shape, dtype=np.uint8)
    for source, target in zip(volume, out, strict=True):
        source = np.ascontiguousarray(source)
        clahe.apply(source, target)
        if keep_zero:
            target *= source != 0
    return out
