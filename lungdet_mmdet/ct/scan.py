"""A CT scan in memory: Hounsfield values and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError

INT16 = np.iinfo(np.int16)
AIR_HU = -1000
PADDING_BELOW_HU = -1200
"""Scanners write -2000, -2048 or -3024 outside the field of view; air is never below -1100."""


@dataclass(frozen=True)
class CTScan:
    """Hounsfield values on a grid in canonical orientation.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x). Array axes point nearest to patient left (x), posterior (y)
        and superior (z), whatever the order in the file was.
    geometry : the grid of `volume_hu`.
    file_geometry : the grid as stored in the file, for results in the input's own voxels.
    seriesuid : series instance UID, or the file's stem where the format has none.
    flags : remarks about the input (e.g. "padding", "non-uniform spacing").
    """

    volume_hu: np.ndarray
    geometry: ScanGeometry
    file_geometry: ScanGeometry
    seriesuid: str
    flags: tuple[str, ...] = ()


def as_int16_hu(values: np.ndarray, *, source: str) -> np.ndarray:
    """Return Hounsfield values as int16 without a copy where they are int16 already.

    Values beyond the int16 range are clipped; floats are rounded.

    Raises
    ------
    LungDetError
        If a floating point volume holds NaN or infinity.
    """
    if values.dtype == np.int16:
        return values
    if np.issubdtype(values.dtype, np.floating):
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise LungDetError(
                f"{source}: {bad} voxels are NaN or infinite; Hounsfield values are needed: "
                "convert the scan again from its original"
            )
        values = np.rint(values)
    return np.clip(values, INT16.min, INT16.max).astype(np.int16)
