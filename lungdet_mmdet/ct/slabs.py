# SPDX-License-Identifier: Apache-2.0
"""Slabs of a scan: where they lie, their maximum projections, several as channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from lungdet_mmdet.ct.geometry import IDENTITY_DIRECTION, ScanGeometry
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class SlabGeometry:
    """Where one slab image lies in the patient.

    Parameters
    ----------
    index : number of the slab in its scan, from 0 at the lowest slice.
    width, height : image size in pixels.
    z_range_mm : the slab's two faces (low, high), measured along the slab normal (the third column
        of ``direction``); for an identity direction these are world z.
    spacing_xy_mm : pixel size along x, y.
    origin_xyz_mm : world position of the centre of pixel (0, 0) on the slab's mid-plane.
    direction : nine numbers, row-major 3x3; columns are the unit vectors of image x, y and normal.

    Raises
    ------
    LungDetError
        If the image is empty, the faces are not in order, the pixel size is not positive, a number
        is not finite, or there are not nine numbers of direction.
    """

    index: int
    width: int
    height: int
    z_range_mm: tuple[float, float]
    spacing_xy_mm: tuple[float, float]
    origin_xyz_mm: tuple[float, float, float]
    direction: tuple[float, ...] = IDENTITY_DIRECTION

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise LungDetError(
                f"slab {self.index}: size is {self.width} x {self.height} pixels; at least 1 x 1 "
                "is needed. Prepare the scan again"
            )
        if not self.z_range_mm[0] < self.z_range_mm[1]:
            raise LungDetError(
                f"slab {self.index}: z_range_mm is {self.z_range_mm}; low must be below high. "
                "Prepare the scan again"
            )
        if not min(self.spacing_xy_mm) > 0 or len(self.direction) != 9:
            raise LungDetError(
                f"slab {self.index}: spacing {self.spacing_xy_mm} mm, direction {self.direction}; "
                "needed are positive spacings and nine numbers. Prepare the scan again"
            )
        numbers = (*self.z_range_mm, *self.spacing_xy_mm, *self.origin_xyz_mm, *self.direction)
        if not np.all(np.isfinite(numbers)):
            raise LungDetError(
                f"slab {self.index}: z_range_mm {self.z_range_mm}, spacing {self.spacing_xy_mm}, "
                f"origin {self.origin_xyz_mm}, direction {self.direction}; all must be finite. "
                "Prepare the scan again"
            )

    @property
    def spacing_xyz_mm(self) -> tuple[float, float, float]:
        """Pixel size along x and y, and the slab's thickness."""
        low, high = self.z_range_mm
        return (*self.spacing_xy_mm, high - low)

    @property
    def axes_xyz(self) -> np.ndarray:
        """The unit vectors of image x, image y and the slab normal, as columns (3, 3)."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    def boxes_to_world(self, boxes_xyxy_px: np.ndarray) -> np.ndarray:
        """Return the world centres (N, 3) in mm, on the mid-plane, of boxes (N, 4) in pixels."""
        corners, (dx, dy), axes = np.asarray(boxes_xyxy_px), self.spacing_xy_mm, self.axes_xyz
        # Pixel i spans [i, i + 1] in box coordinates; the origin is the centre of pixel 0.
        x_mm = ((corners[:, 0] + corners[:, 2]) / 2 - 0.5) * dx
        y_mm = ((corners[:, 1] + corners[:, 3]) / 2 - 0.5) * dy
        along = x_mm[:, None] * axes[:, 0] + y_mm[:, None] * axes[:, 1]
        return np.asarray(self.origin_xyz_mm) + along

    def as_record(self) -> dict[str, Any]:
        """Return the fields under the names of the prepared dataset, as plain JSON values."""
        return {
            "index": self.index,
            "width": self.width,
            "height": self.height,
            "z_range_mm": list(self.z_range_mm),
            "spacing": list(self.spacing_xyz_mm),
            "origin": list(self.origin_xyz_mm),
            "direction": list(self.direction),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SlabGeometry:
        """Read a slab of ``scan.json`` or an image of a COCO file of the prepared dataset.

        Further fields are left alone. Raises LungDetError if a field is missing or is not what it
        should be.
        """
        try:
            low, high = (float(value) for value in record["z_range_mm"])
            x, y, z = (float(value) for value in record["origin"])
            return cls(
                index=int(record["index"] if "index" in record else record["slab_index"]),
                width=int(record["width"]),
                height=int(record["height"]),
                z_range_mm=(low, high),
                spacing_xy_mm=(float(record["spacing"][0]), float(record["spacing"][1])),
                origin_xyz_mm=(x, y, z),
                direction=tuple(float(value) for value in record["direction"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise LungDetError(
                f"slab record {dict(record)} is not complete ({type(error).__name__}: {error}); "
                "prepare the scan again"
            ) from error


SLAB_THICKNESS_MM = 7.5
"""The paper's slabs; what MIPSlabs takes where a config names no thickness."""


def thickness_flags(slice_mm: float) -> tuple[str, ...]:
    """Name slices of which a slab of 7.5 mm holds fewer than two: "thick_slices"."""
    return ("thick_slices",) if 2 * slice_mm > SLAB_THICKNESS_MM else ()


DEPTH_STEPS = 255
"""Depth of the maximum as a byte: 0 is the slab's low face, this its high face."""


def slab_slices(
    n_slices: int, slice_spacing_mm: float, *, thickness_mm: float, stride_mm: float | None = None
) -> list[tuple[int, int]]:
    """Return (first slice, number of slices) of each slab.

    A slab takes the ``round(thickness / spacing)`` slices (at least one) from its first slice on;
    first slices are ``stride`` apart, or one slab where stride is None. The last slab ends with the
    scan and may be thinner; slabs that would lie wholly inside the one before are left out. Unless
    the stride is larger than the thickness, every slice is in a slab. Raises LungDetError if
    thickness is negative, stride or spacing not positive, or one of them not finite.
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
    with_depth: bool = True,
) -> tuple[np.ndarray, list[SlabGeometry], np.ndarray | None]:
    """Project a volume to slabs: the highest value along z for each (x, y) (equation 2).

    Parameters
    ----------
    volume : array (z, y, x).
    geometry : its grid.
    thickness_mm : slab thickness; 0 gives every single slice.
    stride_mm : distance of neighbouring slabs; None puts slab next to slab, without overlap.
    with_depth : whether to keep where along z each maximum lies.

    Returns
    -------
    slabs : array (n_slabs, y, x) of the same dtype.
    geometries : one :class:`SlabGeometry` per slab.
    depths : uint8 array (n_slabs, y, x), or None without. A share of the slab's thickness in steps
        of 1 / ``DEPTH_STEPS``, from the low face up, so that no slice spacing is needed to read it;
        the middle of a slice, or midway between the first and the last that hold the maximum.
    """
    ranges = slab_slices(
        volume.shape[0],
        geometry.spacing_zyx_mm[0],
        thickness_mm=thickness_mm,
        stride_mm=stride_mm,
    )
    slabs = np.empty((len(ranges), *volume.shape[1:]), dtype=volume.dtype)
    depths = np.empty(slabs.shape, dtype=np.uint8) if with_depth else None
    for index, (first, depth) in enumerate(ranges):
        slices = volume[first : first + depth]
        np.max(slices, axis=0, out=slabs[index])
        if depths is not None:
            depths[index] = _depth_of_maximum(slices, slabs[index])
    return slabs, slab_geometries(geometry, ranges), depths


def _depth_of_maximum(slices: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Return (y, x) uint8: where in the slices (z, y, x) the maximum lies, as of mip_slabs."""
    n = len(slices)
    number = np.min_scalar_type(2 * n)
    # Counted from below and from above: the last and the first slice that hold the maximum. Sums
    # of bytes instead of masked copies, which take ten times as long.
    from_below, from_above = np.zeros((2, *highest.shape), dtype=number)
    for place, values in enumerate(slices):
        holds = (values == highest).astype(number)
        np.maximum(from_below, holds * number.type(place), out=from_below)
        np.maximum(from_above, holds * number.type(n - 1 - place), out=from_above)
    # Twice the middle of the two, in slices; the centre of slice k lies k + 1/2 slices up.
    middle_twice = from_below + number.type(n - 1) - from_above
    shares = (np.arange(2 * n - 1) + 1) / (2 * n)
    return np.round(shares * DEPTH_STEPS).astype(np.uint8)[middle_twice]


def slab_geometries(
    geometry: ScanGeometry, ranges: Sequence[tuple[int, int]]
) -> list[SlabGeometry]:
    """Return where the slabs of a grid lie, from ``slab_slices``'s first slices and numbers."""
    return [_slab_geometry(geometry, i, first, depth) for i, (first, depth) in enumerate(ranges)]


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


def mip_channels(
    volume: np.ndarray,
    geometry: ScanGeometry,
    slabs: Sequence[SlabGeometry],
    *,
    thicknesses_mm: Sequence[float],
) -> np.ndarray:
    """Project a volume over several thicknesses about the middle of each slab.

    Parameters
    ----------
    volume : array (z, y, x).
    geometry : its grid.
    slabs : where the slabs lie; their mid-planes are the middle of every channel.
    thicknesses_mm : one per channel; 0 takes the one slice nearest to the middle. Channels that
        reach beyond the scan end with it.

    Returns
    -------
    array (n_slabs, y, x, c) of the volume's dtype.

    Raises
    ------
    LungDetError
        If a thickness is negative or not finite, or there is none.
    """
    if not thicknesses_mm or not all(0 <= t < math.inf for t in thicknesses_mm):
        raise LungDetError(
            f"channel thicknesses are {tuple(thicknesses_mm)} mm: at least one is needed, each >= 0"
        )
    n_slices, dz = volume.shape[0], geometry.spacing_zyx_mm[0]
    channels = np.empty((len(slabs), *volume.shape[1:], len(thicknesses_mm)), dtype=volume.dtype)
    for index, slab in enumerate(slabs):
        middle = float(geometry.world_to_voxel(np.asarray(slab.origin_xyz_mm))[0])
        for channel, thickness in enumerate(thicknesses_mm):
            first, stop = _slices_about(middle, max(1, round(thickness / dz)), n_slices)
            channels[index, ..., channel] = volume[first:stop].max(axis=0)
    return channels


def _slices_about(middle: float, depth: int, n_slices: int) -> tuple[int, int]:
    """First slice and stop of ``depth`` slices about a slice coordinate, cut off at the scan."""
    # A mid-plane is a whole or a half slice; where depth and it do not agree, the lower slice wins.
    # The hundredth keeps rounding errors of world coordinates from deciding that.
    first = math.ceil(middle - depth / 2.0 - 0.01)
    return max(0, min(first, n_slices - 1)), max(1, min(first + depth, n_slices))


def neighbour_channels(slabs: np.ndarray, geometries: Sequence[SlabGeometry]) -> np.ndarray:
    """Put the slab below and the slab above beside each slab.

    A neighbour begins where the slab ends, whatever the stride; where the scan ends, the nearest
    there is stands in for it, at last the slab itself. A vessel that runs along z is as round as a
    nodule on its slab, but goes on in the neighbours.

    Parameters
    ----------
    slabs : array (n_slabs, y, x).
    geometries : where they lie.

    Returns
    -------
    array (n_slabs, y, x, 3): below, the slab itself, above.
    """
    low, high = np.array([slab.z_range_mm for slab in geometries]).T
    below = np.abs(high[None, :] - low[:, None]).argmin(axis=1)
    above = np.abs(low[None, :] - high[:, None]).argmin(axis=1)
    return np.stack([slabs[below], slabs, slabs[above]], axis=-1)
