# SPDX-License-Identifier: Apache-2.0
"""Bringing the slices of a DICOM series to a regular grid: even steps, no shear."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from lungdet_mmdet.ct.dicom.header import POSITION_TOLERANCE_MM, DicomSlice
from lungdet_mmdet.ct.file_grid import MAX_TILT_DEG, FileGrid, shifted_slices
from lungdet_mmdet.ct.geometry import MAX_VOXELS, ScanGeometry, geometry_of_file
from lungdet_mmdet.errors import LungDetError

STEP_TOLERANCE_REL = 0.02
# A gap this long could hide a nodule that matters; shorter ones are bridged between neighbours.
MAX_GAP_STEPS = 3.5
MAX_GAP_MM = 6.0
# Slices may run off the straight line of their normals by this share of a pixel.
MAX_DRIFT_PIXELS = 0.25
# A tilted gantry moves all slices along one line; one that lies elsewhere has a wrong position.
MAX_OFF_LINE_MM = 5.0


def frame_of(slices: Sequence[DicomSlice], *, source: str) -> ScanGeometry:
    """Return the grid of the first slice, with the median step along z.

    Raises
    ------
    LungDetError
        If the headers state no grid on which a patient can have lain.
    """
    first = slices[0]
    axes = np.stack([first.orientation[:3], first.orientation[3:], first.normal_xyz], axis=1)
    step = float(np.median(np.diff([s.height_mm for s in slices])))
    x, y, z = first.position_xyz_mm
    return geometry_of_file(
        size_zyx=(len(slices), *first.size_yx),
        spacing_zyx_mm=(step, first.spacing_xy_mm[1], first.spacing_xy_mm[0]),
        origin_xyz_mm=(x, y, z),
        direction=tuple(axes.ravel().tolist()),
        source=f"{source} ({first.path.name})",
    )


def grid_of_slices(slices: Sequence[DicomSlice]) -> FileGrid:
    """Return the grid that the slices state, upwards along their normal; it may lean."""
    first, last = slices[0], slices[-1]
    step = np.subtract(last.position_xyz_mm, first.position_xyz_mm) / max(len(slices) - 1, 1)
    length = float(np.linalg.norm(step))
    return FileGrid(
        size_zyx=(len(slices), *first.size_yx),
        spacing_xyz_mm=np.array([*first.spacing_xy_mm, length]),
        origin_xyz_mm=np.array(first.position_xyz_mm),
        axes_xyz=np.stack([first.orientation[:3], first.orientation[3:], step / length], axis=1),
    )


def unshear(
    volume: np.ndarray, frame: ScanGeometry, slices: Sequence[DicomSlice], *, source: str
) -> tuple[np.ndarray, list[str], ScanGeometry]:
    """Bring slices whose corners run off along a tilted gantry to a common frame.

    Parameters
    ----------
    volume : (z, y, x), one slice for each of `slices`.
    frame : of :func:`frame_of`.
    slices : upwards along their normal.
    source : the series, for messages.

    Returns
    -------
    volume : (z, y, x), wider where slices had to be moved.
    flags : the tilt, if there was one.
    geometry : `frame`, wider where slices had to be moved.

    Raises
    ------
    LungDetError
        If the slices do not lie along one line.
    """
    positions = np.array([s.position_xyz_mm for s in slices])
    # In the frame of the first slice: along a row, along a column, along the normal.
    offsets = (positions - positions[0]) @ frame.axes_xyz
    spacing_xy = frame.spacing_xyz_mm[:2]
    drift_px = offsets[:, :2] / spacing_xy
    if np.abs(drift_px).max() <= MAX_DRIFT_PIXELS:
        return volume, [], frame
    tilt_deg = _tilt_deg(offsets, slices, source)
    volume, geometry = shifted_slices(volume, frame, drift_px, source=source)
    return volume, [f"gantry tilt of {tilt_deg:.1f} degrees straightened"], geometry


def _tilt_deg(offsets: np.ndarray, slices: Sequence[DicomSlice], source: str) -> float:
    """Return the angle between the line of the slices and their normal."""
    # The median step is the gantry's; a single wrong position does not move it.
    slope_xy = np.median(np.diff(offsets[:, :2], axis=0) / np.diff(offsets[:, 2])[:, None], axis=0)
    off_line_mm = np.hypot(*(offsets[:, :2] - offsets[:, 2:] * slope_xy).T)
    off_line_mm = np.abs(off_line_mm - np.median(off_line_mm))
    tilt_deg = math.degrees(math.atan(math.hypot(*slope_xy)))
    worst = int(np.argmax(off_line_mm))
    if off_line_mm[worst] > MAX_OFF_LINE_MM or tilt_deg > MAX_TILT_DEG:
        raise LungDetError(
            f"{source}: {slices[worst].path.name} at {slices[worst].position_xyz_mm} lies "
            f"{off_line_mm[worst]:.1f} mm beside the line of the other slices, which leans by "
            f"{tilt_deg:.0f} degrees: its position is wrong, or it is another scan's; export the "
            "series again"
        )
    return tilt_deg


def even_steps(
    volume: np.ndarray, geometry: ScanGeometry, slices: Sequence[DicomSlice], *, source: str
) -> tuple[np.ndarray, ScanGeometry, list[str]]:
    """Interpolate along z where the distance of slices changes or slices are missing.

    Parameters
    ----------
    volume, geometry : slices at the heights of `slices`, with the median step.
    slices : upwards along their normal.
    source : the series, for messages.

    Returns
    -------
    volume, geometry : with even steps.
    flags : what was interpolated.

    Raises
    ------
    LungDetError
        If a gap is too long to bridge.
    """
    heights = np.array([s.height_mm for s in slices])
    heights -= heights[0]
    steps = np.diff(heights)
    step = geometry.spacing_zyx_mm[0]
    if np.abs(steps - step).max() <= max(STEP_TOLERANCE_REL * step, POSITION_TOLERANCE_MM):
        # The mean over the whole scan is free of the rounding of single positions.
        return volume, _with_step(geometry, heights[-1] / (len(heights) - 1), len(volume)), []
    widest = int(np.argmax(steps))
    if steps[widest] > max(MAX_GAP_STEPS * step, MAX_GAP_MM):
        raise LungDetError(
            f"{source} has a gap of {steps[widest]:.1f} mm "
            f"between {slices[widest].path.name} and {slices[widest + 1].path.name} (usual "
            f"distance {step:.2f} mm): slices are missing; export the whole series again"
        )
    n_wanted = heights[-1] / step
    if n_wanted * volume[0].size > MAX_VOXELS:
        raise LungDetError(
            f"{source}: {heights[-1]:.1f} mm in steps of {step:.3f} mm, from {steps.min():.3f} to "
            f"{steps.max():.3f} mm: too uneven to be interpolated; export the series again"
        )
    wanted = np.arange(int(np.floor(heights[-1] / step + 1e-6)) + 1) * step
    upper = np.clip(np.searchsorted(heights, wanted, side="left"), 1, len(heights) - 1)
    weights = (wanted - heights[upper - 1]) / (heights[upper] - heights[upper - 1])
    out = np.empty((len(wanted), *volume.shape[1:]), dtype=np.int16)
    for index, (high, weight) in enumerate(zip(upper, np.clip(weights, 0.0, 1.0), strict=True)):
        cv2.addWeighted(volume[high - 1], 1.0 - weight, volume[high], weight, 0.0, dst=out[index])
    flag = (
        f"slice distance changes from {steps.min():.2f} to {steps.max():.2f} mm: "
        f"interpolated to {step:.2f} mm"
    )
    return out, _with_step(geometry, step, len(out)), [flag]


def _with_step(geometry: ScanGeometry, step_mm: float, n_slices: int) -> ScanGeometry:
    # A mean of positions rounded to their last digit: six decimals give back the stated distance.
    return ScanGeometry(
        size_zyx=(n_slices, *geometry.size_zyx[1:]),
        spacing_zyx_mm=(round(float(step_mm), 6), *geometry.spacing_zyx_mm[1:]),
        origin_xyz_mm=geometry.origin_xyz_mm,
        direction=geometry.direction,
    )
