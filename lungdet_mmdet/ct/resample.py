# SPDX-License-Identifier: Apache-2.0
"""A scan on another grid: resampled, straightened, cut to a box of slices, rows and columns."""

from __future__ import annotations

import math

import cv2
import numpy as np

from lungdet_mmdet.ct.geometry import MAX_VOXELS, FileGrid, ScanGeometry
from lungdet_mmdet.ct.scan import AIR_HU
from lungdet_mmdet.errors import LungDetError

# Spacings closer than this give the same grid to within a hundredth of a voxel over 1000 voxels.
SAME_SPACING_REL = 1e-5
CV2_MAX_SIDE = 32766


def _resize_slice(slice_yx: np.ndarray, scale_yx: tuple[float, float]) -> np.ndarray:
    """Resize one slice linearly; the outer faces of the first pixels coincide, as in geometry."""
    if scale_yx == (1.0, 1.0):
        return slice_yx
    height, width = slice_yx.shape
    if (round(height * scale_yx[0]), round(width * scale_yx[1])) == (height, width):
        # cv2.resize merely copies where the size stays, which shifts the far edge by up to half a
        # pixel. Positions are rounded to 1/32 pixel here.
        shift_yx = (0.5 / scale_yx[0] - 0.5, 0.5 / scale_yx[1] - 0.5)
        to_source = np.array([[1 / scale_yx[1], 0, shift_yx[1]], [0, 1 / scale_yx[0], shift_yx[0]]])
        return cv2.warpAffine(
            slice_yx,
            to_source,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    # dsize=None makes OpenCV use the factors exactly; a dsize would change the spacing.
    return cv2.resize(
        slice_yx, None, fx=scale_yx[1], fy=scale_yx[0], interpolation=cv2.INTER_LINEAR
    )


def resample_volume(
    volume: np.ndarray,
    geometry: ScanGeometry,
    target_spacing_zyx_mm: tuple[float | None, float | None, float | None],
) -> tuple[np.ndarray, ScanGeometry]:
    """Resample a volume linearly to another spacing.

    Slices are resized in-plane first and blended along z while the two source slices in question
    are at hand, so that no second full-size volume is ever held.

    Parameters
    ----------
    volume : int16 or uint8 array (z, y, x).
    geometry : its grid.
    target_spacing_zyx_mm : wanted spacing; ``None`` keeps that axis as it is.

    Returns
    -------
    volume : array (z, y, x) of the same dtype, the input itself where nothing changes.
    geometry : the new grid, see :meth:`ScanGeometry.resampled`.

    Raises
    ------
    LungDetError
        If a wanted spacing is not positive, or slices would come out empty or too large.
    """
    if not all(t is None or 0 < t < math.inf for t in target_spacing_zyx_mm):
        raise LungDetError(
            f"target spacing (z, y, x) is {target_spacing_zyx_mm} mm: values must be > 0, or None "
            "to keep the scan's own"
        )
    dz, dy, dx = (
        own if target is None or abs(target / own - 1.0) < SAME_SPACING_REL else float(target)
        for target, own in zip(target_spacing_zyx_mm, geometry.spacing_zyx_mm, strict=True)
    )
    if (dz, dy, dx) == tuple(geometry.spacing_zyx_mm):
        return volume, geometry
    target = geometry.resampled((dz, dy, dx))
    own_z, own_y, own_x = geometry.spacing_zyx_mm
    scale_yx = (own_y / dy, own_x / dx)
    sides = np.array([*geometry.size_zyx[1:], *target.size_zyx[1:]])
    if sides.max() > CV2_MAX_SIDE or min(np.multiply(sides[:2], scale_yx)) <= 0.5:
        raise LungDetError(
            f"slices of {geometry.size_zyx[1:]} pixels of {own_y} x {own_x} mm cannot be resampled "
            f"to {dy} x {dx} mm: the result would have {target.size_zyx[1:]} pixels; check the "
            "scan's spacing and the target spacing"
        )
    if math.prod(target.size_zyx) > MAX_VOXELS:
        raise LungDetError(
            f"a scan of {geometry.size_zyx} voxels (z, y, x) of {geometry.spacing_zyx_mm} mm would "
            f"have {target.size_zyx} voxels of {(dz, dy, dx)} mm, more than {MAX_VOXELS}: no chest "
            "CT is that coarse; check the scan's spacing and the target spacing"
        )
    source_z = (np.arange(target.size_zyx[0]) + 0.5) * dz / own_z - 0.5
    source_z = np.clip(source_z, 0, volume.shape[0] - 1)
    lower = np.floor(source_z).astype(int)
    weights = source_z - lower

    out = np.empty(target.size_zyx, dtype=volume.dtype)
    resized: dict[int, np.ndarray] = {}
    for z, (low, weight) in enumerate(zip(lower.tolist(), weights.tolist(), strict=True)):
        needed = (low,) if weight < 1e-6 else (low, low + 1)
        resized = {
            k: resized[k] if k in resized else _resize_slice(volume[k], scale_yx) for k in needed
        }
        if len(needed) == 1:
            out[z] = resized[low]
        else:
            cv2.addWeighted(resized[low], 1.0 - weight, resized[low + 1], weight, 0.0, dst=out[z])
    return out, target


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
    size_yx = (volume.shape[1] + int(margin[1]), volume.shape[2] + int(margin[0]))
    out = np.empty((len(volume), *size_yx), dtype=np.int16)
    for index, (dx, dy) in enumerate(drift_px - corner_px):
        out[index] = cv2.warpAffine(
            volume[index],
            np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]]),
            size_yx[::-1],
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=AIR_HU,
        )
    return out, frame.cropped((0, int(corner_px[1]), int(corner_px[0])), out.shape)


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


def nearest_on_grid(
    labels: np.ndarray, geometry: ScanGeometry, target: ScanGeometry, *, outside: int = 0
) -> np.ndarray:
    """Bring a label array to another grid of the same direction by nearest neighbour.

    Parameters
    ----------
    labels : array (z, y, x).
    geometry : its grid.
    target : the wanted grid.
    outside : value of target voxels beyond the labels.

    Returns
    -------
    array (z, y, x) of the labels' dtype on `target`.

    Raises
    ------
    LungDetError
        If the two grids have different directions.
    """
    if not np.allclose(geometry.axes_xyz, target.axes_xyz, atol=1e-3):
        raise LungDetError(
            f"labels have direction {geometry.direction}, the scan {target.direction}: "
            "they do not belong together"
        )
    first = geometry.world_to_voxel(np.asarray(target.origin_xyz_mm))
    indices, valid = [], []
    for axis in range(3):
        step = target.spacing_zyx_mm[axis] / geometry.spacing_zyx_mm[axis]
        index = np.rint(first[axis] + step * np.arange(target.size_zyx[axis])).astype(int)
        inside = (index >= 0) & (index < labels.shape[axis])
        indices.append(np.clip(index, 0, labels.shape[axis] - 1))
        valid.append(inside)
    out = labels[np.ix_(*indices)]
    for axis, inside in enumerate(valid):
        if not inside.all():
            out[tuple(~inside if a == axis else slice(None) for a in range(3))] = outside
    return out


def slice_range_with_lung(mask: np.ndarray, *, min_area_share: float) -> tuple[int, int]:
    """Return the range of slices to keep: the paper's removal of slices near the periphery.

    Only slices at either end go; a thin slice between larger ones stays.

    Parameters
    ----------
    mask : bool or uint8 array (z, y, x), non-zero in the lungs.
    min_area_share : a slice at the end is dropped while its non-zero area is below this share of
        the largest slice's area.

    Returns
    -------
    first, stop : kept slices are ``first .. stop - 1``.

    Raises
    ------
    LungDetError
        If the mask is empty.
    """
    area = np.count_nonzero(mask.reshape(mask.shape[0], -1), axis=1)
    if area.max() == 0:
        raise LungDetError("the lung mask is empty: no slice would be left")
    kept = np.flatnonzero(area >= max(min_area_share * area.max(), 1))
    return int(kept[0]), int(kept[-1]) + 1


def in_plane_bounds(
    mask: np.ndarray, *, margin_yx: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the in-plane bounding box of a mask, widened by a margin and clipped to the image.

    Parameters
    ----------
    mask : bool or uint8 array (z, y, x), non-zero in the lungs.
    margin_yx : pixels to add on each side along y and x.

    Returns
    -------
    (y_first, y_stop), (x_first, x_stop)

    Raises
    ------
    LungDetError
        If the mask is empty.
    """
    flat = np.zeros(mask.shape[1:], dtype=bool)
    for slice_mask in mask:  # one slice at a time: no temporary of the volume's size
        flat |= slice_mask.astype(bool, copy=False)
    if not flat.any():
        raise LungDetError("the lung mask is empty: nothing would be left of the slices")
    bounds = []
    for axis, margin in ((1, margin_yx[0]), (0, margin_yx[1])):
        hit = np.flatnonzero(flat.any(axis=axis))
        bounds.append(
            (max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, flat.shape[1 - axis]))
        )
    return bounds[0], bounds[1]
