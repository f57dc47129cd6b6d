"""A CT scan in memory: Hounsfield values and where they lie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry


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
