# SPDX-License-Identifier: Apache-2.0
"""A DICOM series read: its slices stacked, and brought to a regular grid of even steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.ct.dicom.header import POSITION_TOLERANCE_MM, DicomSlice, file_hu, slice_hu
from lungdet_mmdet.ct.dicom.series import (
    MIN_SLICES,
    DicomSeries,
    choose_series,
    find_dicom_series,
)
from lungdet_mmdet.ct.geometry import (
    MAX_TILT_DEG,
    MAX_VOXELS,
    FileGrid,
    ScanGeometry,
    to_canonical,
)
from lungdet_mmdet.ct.resample import shifted_slices
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError

# Slices of one volume are parallel but for rounding; a localizer stands at right angles to them.
MAX_TURN_RAD = 0.01


def slice_stack(series: DicomSeries) -> tuple[list[DicomSlice], list[str]]:
    """Return the slices of a series that make up one volume, upwards along their normal.

    Returns
    -------
    slices : one per position.
    flags : what was left out.

    Raises
    ------
    LungDetError
        If the slices do not make up one volume.
    """
    source = series.place
    flags = []
    slices = [s for s in series.slices if s.is_ct_slice]
    slices = _of_one_orientation(slices)
    if len(slices) < len(series.slices):
        flags.append(f"{len(series.slices) - len(slices)} images of another kind left out")
    first = slices[0]
    for other in slices:
        if other.size_yx != first.size_yx or not np.allclose(
            other.spacing_xy_mm, first.spacing_xy_mm, atol=1e-4
        ):
            raise LungDetError(
                f"{source}: {other.path.name} has {other.size_yx} pixels of {other.spacing_xy_mm} "
                f"mm, {first.path.name} {first.size_yx} of {first.spacing_xy_mm}: two volumes in "
                "one series; put each into its own folder"
            )
    slices, more = _one_per_position(slices, source)
    if len(slices) < MIN_SLICES:
        raise LungDetError(
            f"{source}: {len(series.slices)} images, but only {len(slices)} positions that make up "
            f"a volume; at least {MIN_SLICES} are needed: export the whole series again"
        )
    n_voxels = len(slices) * first.size_yx[0] * first.size_yx[1]
    if not 0 < n_voxels <= MAX_VOXELS:
        raise LungDetError(
            f"{source}: {len(slices)} slices of {first.size_yx} pixels (e.g. {first.path.name}): "
            f"1 to {MAX_VOXELS} voxels can be read; a header is damaged: export the series again"
        )
    return slices, flags + more


def _of_one_orientation(slices: list[DicomSlice]) -> list[DicomSlice]:
    """Return the largest group of slices whose rows and columns point the same way."""
    cosines = np.array([s.orientation for s in slices])
    is_grouped = np.zeros(len(slices), dtype=bool)
    largest = np.array([], dtype=int)
    while len(slices) - np.count_nonzero(is_grouped) > len(largest):
        first = cosines[np.argmin(is_grouped)]
        # Rows and columns are unit vectors: a difference this long is this angle.
        apart = np.maximum(
            np.linalg.norm(cosines[:, :3] - first[:3], axis=1),
            np.linalg.norm(cosines[:, 3:] - first[3:], axis=1),
        )
        group = np.flatnonzero(~is_grouped & (apart < MAX_TURN_RAD))
        is_grouped[group] = True
        largest = max(largest, group, key=len)
    return [slices[index] for index in largest]


def _one_per_position(slices: list[DicomSlice], source: str) -> tuple[list[DicomSlice], list[str]]:
    """Drop copies of a slice; of several acquisitions of the same places take the largest."""
    slices = sorted(slices, key=lambda s: (s.height_mm, s.instance_number, s.instance_uid))
    unique = [slices[0]]
    doubles: list[tuple[DicomSlice, DicomSlice]] = []
    for item in slices[1:]:
        if item.height_mm - unique[-1].height_mm < POSITION_TOLERANCE_MM:
            doubles.append((unique[-1], item))
        else:
            unique.append(item)
    if not doubles:
        return slices, []
    if all(
        (a.instance_uid, a.frame) == (b.instance_uid, b.frame)
        or np.array_equal(slice_hu(a), slice_hu(b))
        for a, b in doubles
    ):
        return unique, [f"{len(doubles)} duplicated slices left out"]
    groups: dict[str, list[DicomSlice]] = {}
    for item in slices:
        groups.setdefault(item.acquisition, []).append(item)
    largest = max(groups.values(), key=len)
    heights = np.array([s.height_mm for s in largest])
    if len(groups) > 1 and np.all(np.diff(heights) >= POSITION_TOLERANCE_MM):
        return largest, [
            f"{len(groups)} acquisitions in one series: number {largest[0].acquisition} was taken, "
            f"{len(slices) - len(largest)} images left out"
        ]
    a, b = doubles[0]
    raise LungDetError(
        f"{source}: {len(doubles)} positions hold several different images (e.g. {a.path.name} and "
        f"{b.path.name}): a 4-D or repeated scan; put the images of one phase into its own folder"
    )


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

    Raises LungDetError if the headers state no grid on which a patient can have lain.
    """
    first = slices[0]
    step = float(np.median(np.diff([s.height_mm for s in slices])))
    return FileGrid(
        size_zyx=(len(slices), *first.size_yx),
        spacing_xyz_mm=np.array([*first.spacing_xy_mm, step]),
        origin_xyz_mm=np.array(first.position_xyz_mm),
        axes_xyz=np.stack([first.orientation[:3], first.orientation[3:], first.normal_xyz], axis=1),
    ).checked(source=f"{source} ({first.path.name})")


def _are_even(steps_mm: np.ndarray) -> bool:
    step = float(np.median(steps_mm))
    return np.abs(steps_mm - step).max() <= max(STEP_TOLERANCE_REL * step, POSITION_TOLERANCE_MM)


def grid_of_slices(slices: Sequence[DicomSlice], *, source: str) -> FileGrid:
    """Return the grid that the slices state, upwards along their normal; it may lean.

    Raises LungDetError if they lie at uneven distances: voxels of it would lie elsewhere.
    """
    steps = np.diff([s.height_mm for s in slices])
    if not _are_even(steps):
        raise LungDetError(
            f"{source}: its slices lie {steps.min():.2f} to {steps.max():.2f} mm apart, so places "
            "in voxels cannot be told from its headers: give marks in millimetres, or export the "
            "whole series again"
        )
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
    if _are_even(steps):
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
    spacing = (round(float(step_mm), 6), *geometry.spacing_zyx_mm[1:])
    return replace(geometry, size_zyx=(n_slices, *geometry.size_zyx[1:]), spacing_zyx_mm=spacing)


# Slices thinner than this share of their distance leave gaps in which a nodule can lie.
MIN_FILLED_SHARE = 0.75


def read_dicom_folder(folder: Path | str, *, series_uid: str | None = None) -> CTScan:
    """Read a series below a folder: the one asked for, else the thinnest axial CT.

    Raises LungDetError if there is no such series, or it cannot be brought to a regular grid.
    """
    found = find_dicom_series(folder)
    return read_dicom_series(choose_series(found, source=str(folder), series_uid=series_uid))


def read_dicom_series(series: DicomSeries) -> CTScan:
    """Read one series.

    Returns
    -------
    CTScan
        ``file_geometry`` is the regular grid of the slices sorted along their normal.

    Raises
    ------
    LungDetError
        If slices differ in size or pixel spacing, several images share each position, a slice is
        damaged, or a gap is too long to bridge.
    """
    if series.why_unsuitable:
        raise LungDetError(f"{series.place} cannot be used: {series.why_unsuitable}")
    if series.damaged:
        names = ", ".join(path.name for path in series.damaged[1:4])
        names += ", ..." if len(series.damaged) > 4 else ""
        raise LungDetError(
            f"{series.damaged[0]}: cannot be read, perhaps cut off, emptied or packed "
            f"({len(series.damaged)} such files in series {series.uid}"
            f"{': also ' + names if names else ''}); export or copy the series again"
        )
    slices, flags = slice_stack(series)
    source = series.place
    frame = frame_of(slices, source=source)
    volume = _read_pixels(slices)
    volume, shear_flags, geometry = unshear(volume, frame, slices, source=source)
    volume, geometry, step_flags = even_steps(volume, geometry, slices, source=source)
    if not step_flags:
        step_flags = what_may_be_missing(series, slices)
    if series.strangers:
        # Without their names, which may be a patient's: these stand in the notes of the listing.
        flags.append(
            f"{len(series.strangers)} files beside the images cannot be read and may be part of "
            "the series"
        )
    canonical, canonical_geometry = to_canonical(volume, geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(canonical),
        geometry=canonical_geometry,
        file_geometry=geometry,
        seriesuid=series.uid,
        flags=(*flags, *shear_flags, *step_flags),
    )


def what_may_be_missing(series: DicomSeries, slices: Sequence[DicomSlice]) -> list[str]:
    """Return a flag for everything that says there were more slices than there are.

    Slices missing at the ends, or every second one, leave a regular grid behind.
    """
    flags = []
    numbers = sorted({s.instance_number for s in series.slices} - {0})
    if len(numbers) == len(series.slices):
        n_missing = numbers[-1] - numbers[0] + 1 - len(numbers)
        if n_missing:
            flags.append(
                f"the images are numbered from {numbers[0]} to {numbers[-1]}, and {n_missing} of "
                "these numbers are missing: slices may be"
            )
    promised = max(s.n_images for s in slices)
    if promised > len(series.slices):
        flags.append(
            f"the header speaks of {promised} images in the acquisition, {len(series.slices)} are "
            "here: slices may be missing"
        )
    step = float(np.median(np.diff([s.height_mm for s in slices])))
    thickness = float(np.median([s.thickness_mm for s in slices]))
    if 0 < thickness < MIN_FILLED_SHARE * step and step - thickness > POSITION_TOLERANCE_MM:
        flags.append(
            f"slices of {thickness:g} mm lie {step:g} mm apart: what is between them was not "
            "scanned, or slices are missing"
        )
    return flags


def _read_pixels(slices: Sequence[DicomSlice]) -> np.ndarray:
    volume = np.empty((len(slices), *slices[0].size_yx), dtype=np.int16)
    files: dict[Path, np.ndarray] = {}
    scales = {(s.path, s.rescaling) for s in slices}
    if len(scales) > len({s.path for s in slices}):
        raise LungDetError(
            f"{slices[0].path}: its frames have different rescale slopes or intercepts; convert it "
            "to single-frame DICOM first, e.g. with dcm2niix"
        )
    for index, item in enumerate(slices):
        if item.frame is None:
            volume[index] = slice_hu(item)
            continue
        if item.path not in files:
            files = {item.path: file_hu(item)}
        volume[index] = files[item.path][item.frame]
    return volume
