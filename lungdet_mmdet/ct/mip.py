"""Maximum intensity projection over slabs (equation 2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class SlabGeometry:
    """Where one slab lies.

    Parameters
    ----------
    index : number of the slab in its scan, from 0 at the lowest slice.
    first_slice, n_slices : the slices of the resampled scan that it projects.
    size_yx : pixels along y and x.
    spacing_xy_mm : pixel spacing along x and y.
    origin_xyz_mm : world position of the centre of pixel (0, 0), on the slab's mid-plane.
    direction : nine numbers, as in :class:`ScanGeometry`.
    z_range_mm : positions of the lower and upper face along the slab normal (the dot product of a
        world point on the face with the normal; the world z for an axial scan).
    """

    index: int
    first_slice: int
    n_slices: int
    size_yx: tuple[int, int]
    spacing_xy_mm: tuple[float, float]
    origin_xyz_mm: tuple[float, float, float]
    direction: tuple[float, ...]
    z_range_mm: tuple[float, float]

    def as_record(self) -> dict:
        """Return the fields under the names of the prepared dataset, as plain JSON values."""
        low, high = self.z_range_mm
        return {
            "index": self.index,
            "width": self.size_yx[1],
            "height": self.size_yx[0],
            "z_range_mm": [low, high],
            "spacing": [*self.spacing_xy_mm, high - low],
            "origin": list(self.origin_xyz_mm),
            "direction": list(self.direction),
        }


def slab_slices(
    n_slices: int, slice_spacing_mm: float, *, thickness_mm: float, stride_mm: float
) -> list[tuple[int, int]]:
    """Return (first slice, number of slices) of each slab.

    A slab takes the ``round(thickness / spacing)`` slices (at least one) from its first slice on;
    first slices are ``stride`` apart. The last slab ends with the scan and may be thinner; slabs
    that would lie wholly inside the one before are left out.

    Raises
    ------
    LungDetError
        If thickness is negative or stride not positive.
    """
    if thickness_mm < 0 or not stride_mm > 0:
        raise LungDetError(
            f"slab thickness {thickness_mm} mm, stride {stride_mm} mm: thickness must be >= 0 "
            "(0 = single slices) and stride > 0"
        )
    depth = max(1, round(thickness_mm / slice_spacing_mm))
    slabs: list[tuple[int, int]] = []
    for number in range(n_slices):
        first = round(number * stride_mm / slice_spacing_mm)
        if first >= n_slices:
            break
        slabs.append((first, min(depth, n_slices - first)))
        if first + depth >= n_slices:
            break
    return slabs


def mip_slabs(
    volume: np.ndarray,
    geometry: ScanGeometry,
    *,
    thickness_mm: float = 7.5,
    stride_mm: float | None = None,
) -> tuple[np.ndarray, list[SlabGeometry]]:
    """Project a volume to slabs: the highest value along z for each (x, y) (equation 2).

    Parameters
    ----------
    volume : array (z, y, x).
    geometry : its grid.
    thickness_mm : slab thickness; 0 gives every single slice.
    stride_mm : distance of neighbouring slabs; None means the thickness (no overlap).

    Returns
    -------
    slabs : array (n_slabs, y, x) of the same dtype.
    geometries : one :class:`SlabGeometry` per slab.
    """
    dz = geometry.spacing_zyx_mm[0]
    if stride_mm is None:
        stride_mm = thickness_mm or dz
    ranges = slab_slices(volume.shape[0], dz, thickness_mm=thickness_mm, stride_mm=stride_mm)
    slabs = np.empty((len(ranges), *volume.shape[1:]), dtype=volume.dtype)
    geometries = []
    for index, (first, count) in enumerate(ranges):
        np.max(volume[first : first + count], axis=0, out=slabs[index])
        geometries.append(_slab_geometry(geometry, index, first, count))
    return slabs, geometries


def _slab_geometry(geometry: ScanGeometry, index: int, first: int, count: int) -> SlabGeometry:
    centre_z = first + (count - 1) / 2.0
    origin = geometry.voxel_to_world(np.array([centre_z, 0.0, 0.0]))
    middle = float(origin @ geometry.normal_xyz)
    half = 0.5 * count * geometry.spacing_zyx_mm[0]
    return SlabGeometry(
        index=index,
        first_slice=first,
        n_slices=count,
        size_yx=(geometry.size_zyx[1], geometry.size_zyx[2]),
        spacing_xy_mm=(float(geometry.spacing_xyz_mm[0]), float(geometry.spacing_xyz_mm[1])),
        origin_xyz_mm=tuple(origin.tolist()),
        direction=tuple(float(v) for v in geometry.direction),
        z_range_mm=(middle - half, middle + half),
    )
