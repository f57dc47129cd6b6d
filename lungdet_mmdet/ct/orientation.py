"""Bringing an array to canonical orientation: x to patient left, y posterior, z superior."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry


def to_canonical(volume: np.ndarray, geometry: ScanGeometry) -> tuple[np.ndarray, ScanGeometry]:
    """Permute and flip axes until they point as near as possible to +x, +y, +z of LPS.

    No interpolation: an oblique scan stays oblique, and its remaining direction is kept. Scans that
    differ only in how their voxels are stored give identical arrays.

    Parameters
    ----------
    volume : array (z, y, x) on `geometry`.
    geometry : its grid.

    Returns
    -------
    volume : array (z, y, x), a view where no axis had to change.
    geometry : the same points in space, in the new order.
    """
    axes = geometry.axes_xyz
    # order[w] is the array axis (0 = x, 1 = y, 2 = z) that runs most nearly along world axis w.
    order = max(permutations(range(3)), key=lambda p: sum(abs(axes[w, p[w]]) for w in range(3)))
    flips = [axes[w, order[w]] < 0 for w in range(3)]

    size_xyz, spacing_xyz_mm = np.asarray(geometry.size_zyx[::-1]), geometry.spacing_xyz_mm
    corner_xyz = np.zeros(3)
    for world_axis, flip in enumerate(flips):
        if flip:
            corner_xyz[order[world_axis]] = size_xyz[order[world_axis]] - 1
    signs = np.where(flips, -1.0, 1.0)
    direction = axes[:, list(order)] * signs

    numpy_order = [2 - order[w] for w in (2, 1, 0)]
    canonical = volume.transpose(numpy_order)[
        tuple(slice(None, None, -1 if flips[w] else 1) for w in (2, 1, 0))
    ]
    dz, dy, dx = (float(spacing_xyz_mm[order[w]]) for w in (2, 1, 0))
    return canonical, ScanGeometry(
        size_zyx=(canonical.shape[0], canonical.shape[1], canonical.shape[2]),
        spacing_zyx_mm=(dz, dy, dx),
        origin_xyz_mm=tuple(geometry.voxel_to_world(corner_xyz[::-1]).tolist()),
        direction=tuple(direction.ravel().tolist()),
    )
