"""The grid that a scan file states, refused where no patient could lie on it."""

from __future__ import annotations

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError

# 2000 slices of 1024 x 1024: more than any chest CT, less than the memory of a workstation.
MAX_VOXELS = 2**31
# CT scanners resolve a tenth of a millimetre; less is a spacing in metres or centimetres.
MIN_SPACING_MM = 0.01
# Longer than any patient; more is a spacing in micrometres, and would ask for endless memory when
# it is resampled.
MAX_EXTENT_MM = 3000.0
# Frames of reference begin within the scanner's room.
MAX_COORDINATE_MM = 1e5


def geometry_of_file(
    *,
    size_zyx: tuple[int, int, int],
    spacing_zyx_mm: tuple[float, float, float],
    origin_xyz_mm: tuple[float, float, float],
    direction: tuple[float, ...],
    source: str,
) -> ScanGeometry:
    """Return a scan's grid as its file states it.

    Parameters
    ----------
    size_zyx, spacing_zyx_mm, origin_xyz_mm, direction : see :class:`ScanGeometry`.
    source : the file, for messages.

    Raises
    ------
    LungDetError
        Naming the file, if it is no grid, or none on which a patient can have lain.
    """
    try:
        geometry = ScanGeometry(size_zyx, spacing_zyx_mm, origin_xyz_mm, direction)
    except LungDetError as error:
        raise LungDetError(f"{source}: {error}; convert the scan again from DICOM") from error
    extent_mm = np.multiply(size_zyx, spacing_zyx_mm)
    if min(spacing_zyx_mm) < MIN_SPACING_MM or extent_mm.max() > MAX_EXTENT_MM:
        raise LungDetError(
            f"{source}: {size_zyx} voxels (z, y, x) with a spacing of {spacing_zyx_mm} mm: the "
            f"spacing must be at least {MIN_SPACING_MM:g} mm and no side longer than "
            f"{MAX_EXTENT_MM:g} mm; is the spacing in another unit? Convert the scan again"
        )
    if np.abs(origin_xyz_mm).max() > MAX_COORDINATE_MM:
        raise LungDetError(
            f"{source}: the origin (x, y, z) is {origin_xyz_mm} mm: no patient lies further than "
            f"{MAX_COORDINATE_MM:g} mm from the scanner; convert the scan again from DICOM"
        )
    return geometry
