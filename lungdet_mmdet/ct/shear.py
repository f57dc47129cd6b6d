"""Moving slices within their planes: a tilted gantry leaves a sheared volume behind."""

from __future__ import annotations

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import MAX_VOXELS, ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.errors import LungDetError

# Gantries tilt by up to 30 degrees.
MAX_TILT_DEG = 40.0


def shifted_slices(
    volume: np.ndarray, frame: ScanGeometry, drift_px: np.ndarray, *, source: str
) -> tuple[np.ndarray, ScanGeometry]:
    """Bring slices that run off within their planes to a common frame.

    Parameters
    ----------
    volume : int16 array (z, y, x).
    frame : grid of the first slice, and of all if none were moved.
    drift_px : (z, 2), how far each slice lies off along x and y, in pixels.
    source : the scan, for messages.

    Returns
    -------
    volume, geometry : wide enough for all slices; what is new is air.

    Raises
    ------
    LungDetError
        If the frame would be too large.
    """
    corner_px = np.floor(drift_px.min(axis=0))
    margin = (np.ceil(drift_px.max(axis=0)) - corner_px).astype(int)
    if len(volume) * (volume.shape[1] + margin[1]) * (volume.shape[2] + margin[0]) > MAX_VOXELS:
        raise LungDetError(
            f"{source}: slices of {volume.shape[1:]} pixels run off by {margin[::-1]} pixels: too "
            "large to be straightened; export the series again"
        )
    volume = _shifted(volume, drift_px - corner_px, margin)
    return volume, frame.cropped((0, int(corner_px[1]), int(corner_px[0])), volume.shape)


def _shifted(volume: np.ndarray, shifts_xy_px: np.ndarray, margin_xy_px: np.ndarray) -> np.ndarray:
    """Shift each slice within a larger frame; what is new is air."""
    height, width = volume.shape[1] + int(margin_xy_px[1]), volume.shape[2] + int(margin_xy_px[0])
    out = np.empty((len(volume), height, width), dtype=np.int16)
    for index, (dx, dy) in enumerate(shifts_xy_px):
        matrix = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
        out[index] = cv2.warpAffine(
            volume[index],
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=AIR_HU,
        )
    return out
