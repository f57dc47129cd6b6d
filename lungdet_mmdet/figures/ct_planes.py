"""Plain CT pictures, sampled from a scan along any plane and shown in the lung window."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from lungdet_mmdet.ct.contrast import window_hu
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.ct.slab_geometry import SlabGeometry

CROP_MM = 60.0
CROP_PIXELS = 120
# World directions (LPS) to the right and downwards in each picture, as radiologists hang them.
_PLANES = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    "coronal": ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "sagittal": ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}


def sample_plane(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    *,
    first_xyz_mm: np.ndarray,
    right_xyz_mm: np.ndarray,
    down_xyz_mm: np.ndarray,
    size_yx: tuple[int, int],
) -> np.ndarray:
    """Return a picture (y, x) uint8 of a plane through a scan, lung window.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    geometry : its grid.
    first_xyz_mm : world point of the centre of the first pixel.
    right_xyz_mm, down_xyz_mm : world vectors from one pixel to the next along x and y.
    size_yx : pixels along y and x. What lies outside the scan is air.
    """
    rows, columns = np.mgrid[: size_yx[0], : size_yx[1]]
    points = first_xyz_mm + columns[..., None] * right_xyz_mm + rows[..., None] * down_xyz_mm
    voxels_zyx = np.moveaxis(geometry.world_to_voxel(points), -1, 0)
    # int16 in, int16 out: no copy of the volume as floating point.
    values = map_coordinates(volume_hu, voxels_zyx, order=1, cval=AIR_HU)
    return window_hu(values[None])[0]


def nodule_crops(
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    centre_xyz_mm: tuple[float, float, float],
    *,
    size_mm: float = CROP_MM,
    size_px: int = CROP_PIXELS,
) -> dict[str, np.ndarray]:
    """Return square axial, coronal and sagittal pictures around a world point, by name."""
    step = size_mm / size_px
    crops = {}
    for name, (right, down) in _PLANES.items():
        right_mm, down_mm = step * np.asarray(right), step * np.asarray(down)
        crops[name] = sample_plane(
            volume_hu,
            geometry,
            first_xyz_mm=np.asarray(centre_xyz_mm) - (right_mm + down_mm) * (size_px - 1) / 2.0,
            right_xyz_mm=right_mm,
            down_xyz_mm=down_mm,
            size_yx=(size_px, size_px),
        )
    return crops


def slab_middle(volume_hu: np.ndarray, geometry: ScanGeometry, slab: SlabGeometry) -> np.ndarray:
    """Return the plain CT on a slab's mid-plane, pixel for pixel under the slab's image."""
    axes = np.asarray(slab.direction, dtype=float).reshape(3, 3)
    return sample_plane(
        volume_hu,
        geometry,
        first_xyz_mm=np.asarray(slab.origin_xyz_mm),
        right_xyz_mm=slab.spacing_xy_mm[0] * axes[:, 0],
        down_xyz_mm=slab.spacing_xy_mm[1] * axes[:, 1],
        size_yx=(slab.height, slab.width),
    )
