# SPDX-License-Identifier: Apache-2.0
"""Where a voxel lies in the patient: spacing, origin and direction of a grid, and of a file's."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from lungdet_mmdet.errors import LungDetError

NO_DIRECTIONS = (
    "the header says nothing about directions ({}): left and right, head and feet may be exchanged"
)
"""Flag of a file that does not say where the patient's sides are; to be filled with what lacks."""
IDENTITY_DIRECTION = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class ScanGeometry:
    """A regular grid in world space (LPS millimetres).

    Parameters
    ----------
    size_zyx : number of voxels along z, y, x.
    spacing_zyx_mm : distance of neighbouring voxel centres along z, y, x.
    origin_xyz_mm : world position (x, y, z) of the centre of voxel (0, 0, 0).
    direction : nine numbers, row-major 3x3 matrix as SimpleITK gives it. Its columns are the unit
        vectors of the array's x, y and z axes in world space.

    Raises
    ------
    LungDetError
        If a size or spacing is not positive and finite, or the direction is not orthonormal.
    """

    size_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    origin_xyz_mm: tuple[float, float, float]
    direction: tuple[float, ...] = IDENTITY_DIRECTION

    def __post_init__(self) -> None:
        if len(self.size_zyx) != 3 or min(self.size_zyx) < 1:
            raise LungDetError(f"size (z, y, x) is {self.size_zyx}: three sizes >= 1 are needed")
        spacing = np.asarray(self.spacing_zyx_mm, dtype=float)
        if spacing.shape != (3,) or not np.all(np.isfinite(spacing)) or spacing.min() <= 0:
            raise LungDetError(
                f"spacing (z, y, x) is {self.spacing_zyx_mm} mm: three finite values > 0 are needed"
            )
        if len(self.origin_xyz_mm) != 3 or not np.all(np.isfinite(self.origin_xyz_mm)):
            raise LungDetError(
                f"origin (x, y, z) is {self.origin_xyz_mm}: three finite values are needed"
            )
        is_3x3 = len(self.direction) == 9
        if not is_3x3 or not np.allclose(self.axes_xyz.T @ self.axes_xyz, np.eye(3), atol=1e-3):
            raise LungDetError(
                f"direction is {self.direction}: its columns must be orthogonal unit vectors "
                "(a sheared, gantry-tilted volume has to be resampled to a regular grid first)"
            )

    @property
    def axes_xyz(self) -> np.ndarray:
        """(3, 3) matrix whose columns are the world directions of array x, y, z."""
        return np.asarray(self.direction, dtype=float).reshape(3, 3)

    @property
    def spacing_xyz_mm(self) -> np.ndarray:
        """(3,) spacing in the order x, y, z."""
        return np.asarray(self.spacing_zyx_mm[::-1], dtype=float)

    @property
    def normal_xyz(self) -> np.ndarray:
        """(3,) world direction of increasing slice index."""
        return self.axes_xyz[:, 2]

    def voxel_to_world(self, points_zyx: np.ndarray) -> np.ndarray:
        """Map voxel coordinates to world points.

        Parameters
        ----------
        points_zyx : (N, 3) or (3,) continuous voxel coordinates; the centre of voxel i is i.

        Returns
        -------
        (N, 3) or (3,) world points x, y, z in mm.
        """
        points_xyz = np.asarray(points_zyx, dtype=float)[..., ::-1]
        return np.asarray(self.origin_xyz_mm) + (points_xyz * self.spacing_xyz_mm) @ self.axes_xyz.T

    def world_to_voxel(self, points_xyz_mm: np.ndarray) -> np.ndarray:
        """Map world points (N, 3) or (3,) in mm to continuous voxel coordinates z, y, x."""
        offset = np.asarray(points_xyz_mm, dtype=float) - np.asarray(self.origin_xyz_mm)
        return ((offset @ self.axes_xyz) / self.spacing_xyz_mm)[..., ::-1]

    def cropped(
        self, start_zyx: tuple[int, int, int], size_zyx: tuple[int, int, int]
    ) -> ScanGeometry:
        """Return the geometry of the sub-grid ``start_zyx`` .. ``start_zyx + size_zyx``."""
        origin = self.voxel_to_world(np.asarray(start_zyx, dtype=float))
        return replace(self, size_zyx=size_zyx, origin_xyz_mm=tuple(origin.tolist()))

    def resampled(self, target_spacing_zyx_mm: tuple[float, float, float]) -> ScanGeometry:
        """Return the grid of another spacing that covers the same box (equation 1: R = S / S').

        The outer faces of the first voxels coincide, so the first voxel centre moves by half the
        difference of the spacings. The size is ``round(size * R)``, at least 1.
        """
        source = np.asarray(self.spacing_zyx_mm, dtype=float)
        target = np.asarray(target_spacing_zyx_mm, dtype=float)
        # Size times factor, in this order: OpenCV rounds the same product to the same integer.
        size = np.maximum(np.rint(np.asarray(self.size_zyx) * (source / target)), 1).astype(int)
        first_centre_zyx = 0.5 * (target / source - 1.0)
        return ScanGeometry(
            size_zyx=tuple(size.tolist()),
            spacing_zyx_mm=tuple(target.tolist()),
            origin_xyz_mm=tuple(self.voxel_to_world(first_centre_zyx).tolist()),
            direction=self.direction,
        )

    def as_dict(self) -> dict:
        """Return plain lists for JSON: size, spacing, origin in x, y, z order, direction."""
        return {
            "size_xyz": [int(n) for n in self.size_zyx[::-1]],
            "spacing_xyz_mm": [float(s) for s in self.spacing_zyx_mm[::-1]],
            "origin_xyz_mm": [float(v) for v in self.origin_xyz_mm],
            "direction": [float(v) for v in self.direction],
        }


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


# 2000 slices of 1024 x 1024: more than any chest CT, less than the memory of a workstation.
MAX_VOXELS = 2**31
# CT scanners resolve a tenth of a millimetre; less is a spacing in metres or centimetres.
MIN_SPACING_MM = 0.01
# Longer than any patient; more is a spacing in micrometres, and would ask for endless memory when
# it is resampled.
MAX_EXTENT_MM = 3000.0
# Frames of reference begin within the scanner's room.
MAX_COORDINATE_MM = 1e5
# Gantries tilt by up to 30 degrees.
MAX_TILT_DEG = 40.0
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

        Raises LungDetError naming the file, if it is no grid or none on which a patient can have
        lain, or if it leans too far to be mended.
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
        spacing_zyx_mm, (x, y, z) = (dz, dy, dx), self.origin_xyz_mm.tolist()
        try:
            geometry = ScanGeometry(
                self.size_zyx, spacing_zyx_mm, (x, y, z), tuple(axes.ravel().tolist())
            )
        except LungDetError as error:
            raise LungDetError(f"{source}: {error}; convert the scan again from DICOM") from error
        extent_mm = np.multiply(self.size_zyx, spacing_zyx_mm)
        if min(spacing_zyx_mm) < MIN_SPACING_MM or extent_mm.max() > MAX_EXTENT_MM:
            raise LungDetError(
                f"{source}: {self.size_zyx} voxels (z, y, x) with a spacing of {spacing_zyx_mm} "
                f"mm: the spacing must be at least {MIN_SPACING_MM:g} mm and no side longer than "
                f"{MAX_EXTENT_MM:g} mm; is the spacing in another unit? Convert the scan again"
            )
        if max(map(abs, (x, y, z))) > MAX_COORDINATE_MM:
            raise LungDetError(
                f"{source}: the origin (x, y, z) is {(x, y, z)} mm: no patient lies further than "
                f"{MAX_COORDINATE_MM:g} mm from the scanner; convert the scan again from DICOM"
            )
        return geometry

    def upright(self, *, source: str) -> ScanGeometry:
        """Return the grid where its slices stand upon one another, as labels have to.

        Raises LungDetError naming the file as `checked` does, and if the slices lean.
        """
        if self.tilt_deg:
            raise LungDetError(
                f"{source}: its slices lean by {self.tilt_deg:.1f} degrees (gantry tilt): labels "
                "are read on regular grids; resample scan and labels to one first"
            )
        return self.checked(source=source)


def place_problem(labels: ScanGeometry, scan: ScanGeometry, *, source: str) -> str | None:
    """Say why a label volume cannot belong to a scan by its grid; None where it may.

    Any grid may carry labels, except one that is the scan's own but for its place: that is a lost
    or changed origin.
    """
    if labels.size_zyx == scan.size_zyx and np.allclose(
        labels.spacing_zyx_mm, scan.spacing_zyx_mm, rtol=1e-3
    ):
        near = 0.5 * min(scan.spacing_zyx_mm)
        ends = np.array([np.zeros(3), np.subtract(labels.size_zyx, 1)])
        moved = labels.voxel_to_world(ends) - scan.voxel_to_world(ends)
        # The same voxels may come in another order, as NIfTI tools store them.
        is_same_box = np.allclose(_box(labels), _box(scan), atol=near)
        if not np.allclose(moved, 0.0, atol=near) and not is_same_box:
            x, y, z = (round(float(value), 2) for value in moved[0])
            return (
                f"{source}: has the scan's size and spacing but lies ({x:g}, {y:g}, {z:g}) mm off; "
                "copy origin and direction from the scan"
            )
    low, high = _box(scan)
    own_low, own_high = _box(labels)
    if np.any(own_high < low) or np.any(own_low > high):
        own_from, own_to, start, stop = (
            f"({', '.join(f'{value:.0f}' for value in point)})"
            for point in (own_low, own_high, low, high)
        )
        return (
            f"{source}: spans {own_from} to {own_to} mm, the scan {start} to {stop} mm; it belongs "
            "to another scan"
        )
    return None


def _box(geometry: ScanGeometry) -> tuple[np.ndarray, np.ndarray]:
    corners = list(product(*((0, n - 1) for n in geometry.size_zyx)))
    world = geometry.voxel_to_world(np.array(corners))
    return world.min(axis=0), world.max(axis=0)
