# SPDX-License-Identifier: Apache-2.0
"""Shapes, tissues and tubes: what slices of a phantom are drawn from.

Shapes are signed pseudo-distances of simple solids: negative inside, about millimetres near the
surface. They broadcast: x and y may be a slice's pixel grid with z one number, or x, y and z may be
the coordinates of single points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.ct.scan import AIR_HU

Extent = np.ndarray | float

_TINY = 1e-3
_LEAST_SLOPE = 1e-5


def ellipse(x: np.ndarray, y: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Distance to an axis-parallel ellipse (cylinder along z) around the origin."""
    u, v = x / rx, y / ry
    k0 = np.maximum(np.sqrt(u * u + v * v), _TINY)
    return k0 * (k0 - 1.0) / _slope(u, v, rx, ry)


def rounded_box(x: np.ndarray, y: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Distance to an ellipse with fuller corners, the cross-section of a chest."""
    u, v = x / rx, y / ry
    u2, v2 = u * u, v * v
    k0 = np.maximum(np.sqrt(0.65 * (u2 + v2) + 0.35 * np.sqrt(u2 * u2 + v2 * v2)), _TINY)
    return k0 * (k0 - 1.0) / _slope(u, v, rx, ry)


def _slope(u: np.ndarray, v: np.ndarray, rx: Extent, ry: Extent) -> np.ndarray:
    """Length of the gradient of the scaled distance, which turns it into millimetres."""
    u, v = u / rx, v / ry
    return np.maximum(np.sqrt(u * u + v * v), _LEAST_SLOPE)


def ellipsoid(
    offset_xyz: tuple[np.ndarray, np.ndarray, Extent],
    radii: tuple[float, float, float],
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Distance to an ellipsoid around the origin; the rows of ``axes`` (3, 3) are its axes."""
    x, y, z = offset_xyz
    if axes is not None:
        x, y, z = (float(a[0]) * x + float(a[1]) * y + float(a[2]) * z for a in axes)
    rx, ry, rz = radii
    x, y, z = x / rx, y / ry, z / rz
    k0 = np.maximum(np.sqrt(x * x + y * y + z * z), _TINY)
    k1 = np.sqrt((x / rx) ** 2 + (y / ry) ** 2 + (z / rz) ** 2)
    return k0 * (k0 - 1.0) / np.maximum(k1, _LEAST_SLOPE)


def capsule(
    x: np.ndarray,
    y: np.ndarray,
    z: np.ndarray | float,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    radius: float,
) -> np.ndarray:
    """Distance to a round-ended rod from ``start`` to ``end``."""
    dx, dy, dz = (b - a for a, b in zip(start, end, strict=True))
    px, py, pz = x - start[0], y - start[1], z - start[2]
    t = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz), 0.0, 1.0)
    return np.sqrt((px - t * dx) ** 2 + (py - t * dy) ** 2 + (pz - t * dz) ** 2) - radius


def smooth_union(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Union of two solids whose meeting edge is rounded over ``blend_mm``."""
    h = np.maximum(blend_mm - np.abs(a - b), 0.0)
    return np.minimum(a, b) - h * h / (4.0 * blend_mm)


def smooth_intersection(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Intersection of two solids whose common edge is rounded over ``blend_mm``."""
    return -smooth_union(-a, -b, blend_mm)


FAT_HU = -105.0
MUSCLE_HU = 52.0
SKIN_HU = 15.0
CORTEX_HU = 620.0
MARROW_HU = 190.0
CARTILAGE_HU = 95.0
LIVER_HU = 58.0
SPLEEN_HU = 48.0
FLUID_HU = 12.0
STOMACH_GAS_HU = -985.0
FOAM_HU = -930.0
TABLE_SHELL_HU = 120.0
BLANKET_HU = -650.0

RIB_PITCH_MM = 27.0
"""Height from one rib, and one vertebra, to the next."""


class SliceCanvas:
    """One slice under construction: pixel grid in atlas mm and densities in HU."""

    def __init__(self, x: np.ndarray, y: np.ndarray, z: float, *, pixel_mm: float) -> None:
        self.x = x
        self.y = y
        self.z = z
        self.pixel_mm = pixel_mm
        self.hu = np.full(np.broadcast_shapes(x.shape, y.shape), AIR_HU, dtype=np.float32)

    def window(self, centre_xy: tuple[float, float], reach_mm: float) -> SliceCanvas:
        """Return the canvas of a square part of the slice; painting it paints this one."""
        columns = np.abs(self.x[0] - centre_xy[0]) <= reach_mm
        rows = np.abs(self.y[:, 0] - centre_xy[1]) <= reach_mm
        part = (_span(rows), _span(columns))
        window = SliceCanvas.__new__(SliceCanvas)
        window.x, window.y, window.hu = self.x[part], self.y[part], self.hu[part]
        window.z, window.pixel_mm = self.z, self.pixel_mm
        return window

    def lay(self, distance: np.ndarray, tissue_hu: np.ndarray | float) -> None:
        """Lay a tissue over the region where ``distance`` is negative."""
        share = np.clip(0.5 - distance / self.pixel_mm, 0.0, 1.0)
        self.hu += share * (tissue_hu - self.hu)


def _span(chosen: np.ndarray) -> slice:
    """Return the run of True values as a slice."""
    found = np.flatnonzero(chosen)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


@dataclass(frozen=True)
class Grid:
    """An axis-parallel grid in the patient's frame.

    Parameters
    ----------
    size_zyx : number of voxels.
    spacing_zyx_mm : voxel distances.
    first_zyx_mm : position of the centre of voxel (0, 0, 0).
    """

    size_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    first_zyx_mm: tuple[float, float, float]

    def axis_mm(self, axis: int) -> np.ndarray:
        """Voxel centres along one array axis, in mm."""
        return self.first_zyx_mm[axis] + self.spacing_zyx_mm[axis] * np.arange(self.size_zyx[axis])

    def box(self, low_xyz: np.ndarray, high_xyz: np.ndarray) -> tuple[slice, slice, slice] | None:
        """Return the voxels between two corners as slices (z, y, x); None if there are none."""
        first, spacing = np.array(self.first_zyx_mm), np.array(self.spacing_zyx_mm)
        start = np.floor((np.asarray(low_xyz)[::-1] - first) / spacing).astype(int)
        stop = np.ceil((np.asarray(high_xyz)[::-1] - first) / spacing).astype(int) + 1
        start, stop = np.maximum(start, 0), np.minimum(stop, self.size_zyx)
        if np.any(start >= stop):
            return None
        z, y, x = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
        return z, y, x

    def axes_in(self, box: tuple[slice, slice, slice]) -> list[np.ndarray]:
        """Voxel centres of a box along z, y, x, shaped to broadcast against each other."""
        axes = [
            self.first_zyx_mm[a] + self.spacing_zyx_mm[a] * np.arange(s.start, s.stop)
            for a, s in enumerate(box)
        ]
        return [axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]]


@dataclass(frozen=True)
class Tubes:
    """Straight tapering tubes.

    Parameters
    ----------
    start_xyz, end_xyz : (N, 3) end points in mm.
    start_radius, end_radius : (N,) radii in mm.
    """

    start_xyz: np.ndarray
    end_xyz: np.ndarray
    start_radius: np.ndarray
    end_radius: np.ndarray

    def __len__(self) -> int:
        return len(self.start_radius)

    def grown(self, wall_mm: np.ndarray) -> Tubes:
        """Return the tubes with ``wall_mm`` (N,) added to their radii."""
        return Tubes(
            self.start_xyz, self.end_xyz, self.start_radius + wall_mm, self.end_radius + wall_mm
        )

    def part(self, rows: slice | np.ndarray) -> Tubes:
        """Return some of the tubes."""
        return Tubes(
            self.start_xyz[rows], self.end_xyz[rows], self.start_radius[rows], self.end_radius[rows]
        )

    def distance_to(self, points_xyz: np.ndarray) -> np.ndarray:
        """Distance (P,) of points (P, 3) to the nearest tube surface."""
        nearest = np.full(len(points_xyz), np.inf)
        along = self.end_xyz - self.start_xyz
        length2 = np.maximum(np.einsum("ij,ij->i", along, along), 1e-9)
        for i, point in enumerate(points_xyz):
            offset = point - self.start_xyz
            t = np.clip(np.einsum("ij,ij->i", offset, along) / length2, 0.0, 1.0)
            gap = np.linalg.norm(offset - t[:, None] * along, axis=1)
            radius = self.start_radius + t * (self.end_radius - self.start_radius)
            nearest[i] = np.min(gap - radius, initial=np.inf)
        return nearest


def concatenate(parts: list[Tubes]) -> Tubes:
    """Join several sets of tubes into one."""
    return Tubes(
        np.concatenate([p.start_xyz for p in parts]).reshape(-1, 3),
        np.concatenate([p.end_xyz for p in parts]).reshape(-1, 3),
        np.concatenate([p.start_radius for p in parts]),
        np.concatenate([p.end_radius for p in parts]),
    )


def draw_tubes(
    volume_hu: np.ndarray,
    grid: Grid,
    tubes: Tubes,
    *,
    tissue_hu: float,
    hollow: bool = False,
    labels: np.ndarray | None = None,
    label: int = 0,
) -> None:
    """Draw tubes into ``volume_hu`` in place.

    Parameters
    ----------
    volume_hu : (z, y, x) int16.
    tissue_hu : density of the tube.
    hollow : lower the density to ``tissue_hu`` (an air-filled lumen) instead of raising it.
    labels, label : if given, voxels filled by more than half take this label.
    """
    keep = np.minimum if hollow else np.maximum
    for i in range(len(tubes)):
        drawn = _tube_share(grid, tubes, i)
        if drawn is None:
            continue
        box, share = drawn
        background = volume_hu[box]
        mixed = background + share * (tissue_hu - background)
        volume_hu[box] = keep(background, mixed.astype(np.int16))
        if labels is not None:
            labels[box][share > 0.5] = label


def _tube_share(
    grid: Grid, tubes: Tubes, i: int
) -> tuple[tuple[slice, slice, slice], np.ndarray] | None:
    """Return the box around tube ``i`` and the share of each of its voxels that it fills."""
    start, end = tubes.start_xyz[i], tubes.end_xyz[i]
    radius0, radius1 = float(tubes.start_radius[i]), float(tubes.end_radius[i])
    spacing_xyz = np.array(grid.spacing_zyx_mm[::-1])
    reach = max(radius0, radius1) + 0.6 * spacing_xyz
    box = grid.box(np.minimum(start, end) - reach, np.maximum(start, end) + reach)
    if box is None:
        return None
    along = end - start
    length2 = max(float(along @ along), 1e-9)
    z, y, x = grid.axes_in(box)
    # Thick slices are averages of thin ones; else oblique tubes would look like strings of beads.
    layers = max(1, int(np.ceil(0.7 * spacing_xyz[2] / spacing_xyz[0])))
    layer_mm = float(spacing_xyz[2]) / layers
    z = (z + layer_mm * (np.arange(layers) - 0.5 * (layers - 1))).reshape(-1, 1, 1)
    # The voxel as seen along the tube: how far an edge is smeared across it.
    across2 = 1.0 - along * along / length2
    voxel_xyz = np.array([spacing_xyz[0], spacing_xyz[1], layer_mm])
    blur = float(np.sqrt((voxel_xyz**2 * across2).sum() / 2.0))
    x, y, z = (a.astype(np.float32) - np.float32(s) for a, s in zip((x, y, z), start, strict=True))
    dx, dy, dz = (np.float32(v) for v in along)
    t = np.clip((x * dx + y * dy + z * dz) / np.float32(length2), 0.0, 1.0)
    gap = np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2 + (z - t * dz) ** 2)
    radius = np.float32(radius0) + t * np.float32(radius1 - radius0)
    share = np.clip((radius - gap) / np.float32(blur) + 0.5, 0.0, 1.0)
    share *= np.float32(_thin_tube_share(0.5 * (radius0 + radius1), blur))
    return box, share.reshape(-1, layers, *share.shape[1:]).mean(axis=1)


def _thin_tube_share(radius: float, blur: float) -> float:
    """Return the factor that keeps the cross-section of a smeared tube at pi * radius^2.

    The smeared profile is a cone (radius below half the blur) or a truncated cone; the factor is
    the tube's area over the volume of that cone. Tubes wider than a voxel need none.
    """
    if radius >= blur:
        return 1.0
    if radius >= 0.5 * blur:
        return radius**2 / (radius**2 + blur**2 / 12.0)
    return 3.0 * blur * radius**2 / (radius + 0.5 * blur) ** 3


def draw_blob(
    volume_hu: np.ndarray,
    grid: Grid,
    centre_xyz: np.ndarray,
    reach_mm: float,
    inside: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    *,
    tissue_hu: float,
    labels: np.ndarray | None = None,
    label: int = 0,
) -> None:
    """Raise the density of the voxels where ``inside(x, y, z)`` holds, in place.

    ``inside`` takes offsets from the centre in mm and is asked at several points within each
    voxel, so that edges get their partial volume along every axis. Where ``labels`` are given,
    voxels filled by more than half take the label; the fullest one does in any case.
    """
    centre = np.asarray(centre_xyz, dtype=float)
    box = grid.box(centre - reach_mm, centre + reach_mm)
    if box is None:
        return
    z, y, x = grid.axes_in(box)
    share = np.zeros(np.broadcast_shapes(z.shape, y.shape, x.shape), dtype=np.float32)
    steps = [max(2, int(np.ceil(s / 0.35))) for s in grid.spacing_zyx_mm]
    shifts = [
        ((np.arange(n) + 0.5) / n - 0.5) * s
        for n, s in zip(steps, grid.spacing_zyx_mm, strict=True)
    ]
    for shift_z in shifts[0]:
        for shift_y in shifts[1]:
            for shift_x in shifts[2]:
                share += inside(
                    x + shift_x - centre[0], y + shift_y - centre[1], z + shift_z - centre[2]
                )
    share /= np.prod(steps)
    if labels is not None and share.any():
        labels[box][share > min(0.5, 0.999 * float(share.max()))] = label
    background = volume_hu[box]
    mixed = background + share * (tissue_hu - background)
    volume_hu[box] = np.maximum(background, mixed.astype(np.int16))
