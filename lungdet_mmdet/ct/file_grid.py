# SPDX-License-Identifier: Apache-2.0
"""The grid that a scan file states, brought to a regular one where it is sheared by a tilt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import MAX_VOXELS, ScanGeometry, geometry_of_file
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


# Below this, axes are at right angles but for the rounding of whoever wrote them.
_RIGHT_ANGLE = 1e-3


@dataclass(frozen=True)
class FileGrid:
    """A grid whose slice axis may lean, as scanners with a tilted gantry make it.

    Parameters
    ----------
    size_zyx : voxels along z, y, x.
    spacing_xyz_mm : (3,) distance of voxels along the grid's own axes.
    origin_xyz_mm : (3,) centre of the first voxel.
    axes_xyz : (3, 3), its columns are the directions of the axes x, y, z.
    """

    size_zyx: tuple[int, int, int]
    spacing_xyz_mm: np.ndarray
    origin_xyz_mm: np.ndarray
    axes_xyz: np.ndarray

    @property
    def tilt_deg(self) -> float:
        """Angle between the slice axis and the slices' normal; 0.0 where there is none to mend.

        Only a grid whose slices are rectangles and whose axes have a length can be mended.
        """
        axes = self.axes_xyz
        if not np.all(np.isfinite(axes)):
            return 0.0
        lengths = np.linalg.norm(axes, axis=0)
        in_plane = abs(float(axes[:, 0] @ axes[:, 1]))
        if np.abs(lengths - 1.0).max() > _RIGHT_ANGLE or in_plane > _RIGHT_ANGLE:
            return 0.0
        sine = float(np.hypot(*(axes[:, :2].T @ axes[:, 2])))
        return math.degrees(math.asin(min(sine, 1.0))) if sine > _RIGHT_ANGLE else 0.0

    def voxel_to_world(self, points_xyz: np.ndarray) -> np.ndarray:
        """Map voxel coordinates x, y, z (N, 3) or (3,) to world points; voxel i's centre is i."""
        offset = np.asarray(points_xyz, dtype=float) * self.spacing_xyz_mm
        return self.origin_xyz_mm + offset @ self.axes_xyz.T

    def world_to_voxel(self, points_xyz_mm: np.ndarray) -> np.ndarray:
        """Map world points (N, 3) or (3,) to voxel coordinates x, y, z."""
        offset = np.asarray(points_xyz_mm, dtype=float) - self.origin_xyz_mm
        return offset @ np.linalg.inv(self.axes_xyz).T / self.spacing_xyz_mm

    def checked(self, *, source: str) -> ScanGeometry:
        """Return the regular grid of the unmoved slices.

        Raises
        ------
        LungDetError
            Naming the file, if the grid is none, or leans too far to be mended.
        """
        tilt = self.tilt_deg
        if tilt > MAX_TILT_DEG:
            raise LungDetError(
                f"{source}: its slices lean by {tilt:.0f} degrees, more than any gantry "
                f"({MAX_TILT_DEG:g}): a sheared volume has to be resampled to a regular grid first"
            )
        axes, (dx, dy, dz) = self.axes_xyz, self.spacing_xyz_mm.tolist()
        if tilt:
            normal = np.cross(axes[:, 0], axes[:, 1])
            along = float(normal @ axes[:, 2])
            axes = np.stack([axes[:, 0], axes[:, 1], math.copysign(1.0, along) * normal], axis=1)
            dz = abs(along) * dz
        x, y, z = self.origin_xyz_mm.tolist()
        return geometry_of_file(
            size_zyx=self.size_zyx,
            spacing_zyx_mm=(dz, dy, dx),
            origin_xyz_mm=(x, y, z),
            direction=tuple(axes.ravel().tolist()),
            source=source,
        )


def regular(
    values: np.ndarray, grid: FileGrid, *, source: str
) -> tuple[np.ndarray, ScanGeometry, tuple[str, ...]]:
    """Return voxels and their regular grid; slices of a tilted gantry are moved in their planes.

    Parameters
    ----------
    values : int16 array (z, y, x) of Hounsfield units.
    grid : as the file states it.
    source : the file, for messages.

    Returns
    -------
    values, geometry, flags : wider, and with a flag, where slices had to be moved.

    Raises
    ------
    LungDetError
        If the grid is none, or leans too far.
    """
    geometry = grid.checked(source=source)
    tilt = grid.tilt_deg
    if not tilt:
        return values, geometry, ()
    step = grid.axes_xyz[:, 2] * grid.spacing_xyz_mm[2]
    offsets = np.arange(grid.size_zyx[0])[:, None] * step @ geometry.axes_xyz
    values, geometry = shifted_slices(
        values, geometry, offsets[:, :2] / geometry.spacing_xyz_mm[:2], source=source
    )
    return values, geometry, (f"gantry tilt of {tilt:.1f} degrees straightened",)
