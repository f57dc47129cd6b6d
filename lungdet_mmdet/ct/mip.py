"""Maximum intensity projection over slabs (equation 2 of the paper)."""

from __future__ import annotations

import math
from itertools import count

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slab_geometry import SlabGeometry
from lungdet_mmdet.errors import LungDetError

SLAB_THICKNESS_MM = 7.5
"""The paper's slabs; what MIPSlabs takes where a config names no thickness."""


def slab_slices(
    n_slices: int, slice_spacing_mm: float, *, thickness_mm: float, stride_mm: float | None = None
) -> list[tuple[int, int]]:
    """Return (first slice, number of slices) of each slab.

    A slab takes the ``round(thickness / spacing)`` slices (at least one) from its first slice on;
    first slices are ``stride`` apart, or one slab where stride is None. The last slab ends with the
    scan and may be thinner; slabs that would lie wholly inside the one before are left out. Unless
    the stride is larger than the thickness, every slice is in a slab.

    Raises
    ------
    LungDetError
        If thickness is negative, stride or spacing not positive, or one of them not finite.
    """
    if not 0 < slice_spacing_mm < math.inf:
        raise LungDetError(
            f"slice spacing is {slice_spacing_mm} mm: it must be finite and > 0; convert the scan "
            "again"
        )
    if not 0 <= thickness_mm < math.inf or not (stride_mm is None or 0 < stride_mm < math.inf):
        raise LungDetError(
            f"slab thickness {thickness_mm} mm, stride {stride_mm} mm: thickness must be >= 0 "
            "(0 = single slices) and stride > 0"
        )
    # No slab is deeper than the scan; without the bound, tiny spacings would overflow.
    depth = max(1, round(min(thickness_mm / slice_spacing_mm, n_slices)))
    # A stride below the slice spacing starts a slab on every slice.
    step = depth if stride_mm is None else max(1.0, min(stride_mm / slice_spacing_mm, n_slices))
    may_leave_gaps = stride_mm is not None and stride_mm > max(thickness_mm, slice_spacing_mm)
    slabs: list[tuple[int, int]] = []
    for number in count():
        first = round(number * step)
        if slabs and not may_leave_gaps:
            # Depth and first slice are rounded apart: together they could skip a slice.
            first = min(first, sum(slabs[-1]))
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
    thickness_mm: float = SLAB_THICKNESS_MM,
    stride_mm: float | None = None,
) -> tuple[np.ndarray, list[SlabGeometry]]:
    """Project a volume to slabs: the highest value along z for each (x, y) (equation 2).

    Parameters
    ----------
    volume : array (z, y, x).
    geometry : its grid.
    thickness_mm : slab thickness; 0 gives every single slice.
    stride_mm : distance of neighbouring slabs; None puts slab next to slab, without overlap.

    Returns
    -------
    slabs : array (n_slabs, y, x) of the same dtype.
    geometries : one :class:`SlabGeometry` per slab.
    """
    dz = geometry.spacing_zyx_mm[0]
    ranges = slab_slices(volume.shape[0], dz, thickness_mm=thickness_mm, stride_mm=stride_mm)
    slabs = np.empty((len(ranges), *volume.shape[1:]), dtype=volume.dtype)
    geometries = []
    for index, (first, depth) in enumerate(ranges):
        np.max(volume[first : first + depth], axis=0, out=slabs[index])
        geometries.append(_slab_geometry(geometry, index, first, depth))
    return slabs, geometries


def _slab_geometry(geometry: ScanGeometry, index: int, first: int, depth: int) -> SlabGeometry:
    centre_z = first + (depth - 1) / 2.0
    x, y, z = geometry.voxel_to_world(np.array([centre_z, 0.0, 0.0])).tolist()
    middle = float(np.array([x, y, z]) @ geometry.normal_xyz)
    half = 0.5 * depth * geometry.spacing_zyx_mm[0]
    return SlabGeometry(
        index=index,
        width=geometry.size_zyx[2],
        height=geometry.size_zyx[1],
        z_range_mm=(middle - half, middle + half),
        spacing_xy_mm=(float(geometry.spacing_xyz_mm[0]), float(geometry.spacing_xyz_mm[1])),
        origin_xyz_mm=(x, y, z),
        direction=tuple(float(v) for v in geometry.direction),
    )
