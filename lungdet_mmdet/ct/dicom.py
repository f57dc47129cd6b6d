"""Reading a DICOM series into Hounsfield values on a regular grid.

Scanners and archives deliver what a regular grid is not: slices twice, slices missing, distances
that change within a scan, slices sheared by a tilted gantry. All of it is repaired, with a flag
that says so, or refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom_damage import is_cut_off
from lungdet_mmdet.ct.dicom_series import DicomSeries, DicomSlice, choose_series, find_dicom_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.orientation import to_canonical
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError

AIR_HU = -1000
INT16 = np.iinfo(np.int16)
# Positions are written with few digits: differences below this are rounding.
POSITION_TOLERANCE_MM = 0.02
STEP_TOLERANCE_REL = 0.02
SAME_ORIENTATION_ATOL = 1e-3
# A gap this long could hide a nodule that matters; shorter ones are bridged between neighbours.
MAX_GAP_STEPS = 3.5
MAX_GAP_MM = 6.0
# Slices may run off the straight line of their normals by this share of a pixel.
MAX_DRIFT_PIXELS = 0.25


def read_dicom_folder(folder: Path | str, *, series_uid: str | None = None) -> CTScan:
    """Read a series below a folder: the one asked for, else the thinnest axial CT.

    Raises
    ------
    LungDetError
        If there is no such series, or it cannot be brought to a regular grid.
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
        raise LungDetError(
            f"{series.slices[0].path.parent}: series {series.uid} cannot be used: "
            f"{series.why_unsuitable}"
        )
    if series.damaged:
        raise LungDetError(
            f"{series.damaged[0]}: cannot be read, perhaps cut off ({len(series.damaged)} such "
            f"files in series {series.uid}); export or copy the series again"
        )
    slices, flags = slice_stack(series)
    volume = _read_pixels(slices)
    volume, shear_flags, geometry = _unshear(volume, slices)
    volume, geometry, step_flags = _even_steps(volume, geometry, slices, series)
    canonical, canonical_geometry = to_canonical(volume, geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(canonical),
        geometry=canonical_geometry,
        file_geometry=geometry,
        seriesuid=series.uid,
        flags=(*flags, *shear_flags, *step_flags),
    )


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
    source = f"{series.slices[0].path.parent}: series {series.uid}"
    flags = []
    slices = [s for s in series.slices if s.has_place and "LOCALIZER" not in s.image_type.upper()]
    keys = [tuple(np.round(s.orientation, 2)) for s in slices]
    usual = Counter(keys).most_common(1)[0][0]
    slices = [s for s, key in zip(slices, keys, strict=True) if key == usual]
    if len(slices) < len(series.slices):
        flags.append(f"{len(series.slices) - len(slices)} images of another orientation left out")
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
    return slices, flags + more


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
        a.instance_uid == b.instance_uid or np.array_equal(_pixels(a), _pixels(b))
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


def _pixels(item: DicomSlice) -> np.ndarray:
    """Return a slice's Hounsfield values as int16 (y, x); slope and intercept are applied."""
    if is_cut_off(item.path, pixel_bytes=item.pixel_bytes):
        raise LungDetError(f"{item.path}: its pixels are cut off; export or copy the series again")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(item.path))
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LungDetError(
            f"{item.path}: cannot be read ({reason}); the file is damaged: export it again"
        ) from error
    if values.size != item.size_yx[0] * item.size_yx[1]:
        raise LungDetError(f"{item.path}: {values.shape} pixels; one grey image is needed")
    if np.issubdtype(values.dtype, np.floating):
        values = np.rint(values)
    return np.clip(values, INT16.min, INT16.max).astype(np.int16).reshape(item.size_yx)


def _read_pixels(slices: Sequence[DicomSlice]) -> np.ndarray:
    volume = np.empty((len(slices), *slices[0].size_yx), dtype=np.int16)
    for index, item in enumerate(slices):
        volume[index] = _pixels(item)
    return volume


def _unshear(
    volume: np.ndarray, slices: Sequence[DicomSlice]
) -> tuple[np.ndarray, list[str], ScanGeometry]:
    """Bring slices whose corners run off along a tilted gantry to a common frame.

    Returns
    -------
    volume : (z, y, x), wider where slices had to be moved.
    flags : the tilt, if there was one.
    geometry : grid of the first slice, with the median step along z.
    """
    first = slices[0]
    axes = np.stack([first.orientation[:3], first.orientation[3:], first.normal_xyz], axis=1)
    # Positions in the frame of the first slice: along a row, along a column, along the normal.
    offsets = (np.array([s.position_xyz_mm for s in slices]) - first.position_xyz_mm) @ axes
    spacing_xy = np.asarray(first.spacing_xy_mm)
    drift_px = offsets[:, :2] / spacing_xy
    step = float(np.median(np.diff(offsets[:, 2])))
    flags: list[str] = []
    corner_px = np.zeros(2)
    if np.abs(drift_px).max() > MAX_DRIFT_PIXELS:
        run = offsets[-1]
        tilt = float(np.degrees(np.arctan2(np.hypot(run[0], run[1]), run[2])))
        flags.append(f"gantry tilt of {tilt:.1f} degrees straightened")
        corner_px = np.floor(drift_px.min(axis=0))
        margin = (np.ceil(drift_px.max(axis=0)) - corner_px).astype(int)
        volume = _moved(volume, drift_px - corner_px, margin)
    origin = np.asarray(first.position_xyz_mm) + axes[:, :2] @ (corner_px * spacing_xy)
    geometry = ScanGeometry(
        size_zyx=volume.shape,
        spacing_zyx_mm=(step, float(spacing_xy[1]), float(spacing_xy[0])),
        origin_xyz_mm=tuple(origin.tolist()),
        direction=tuple(axes.ravel().tolist()),
    )
    return volume, flags, geometry


def _moved(volume: np.ndarray, shifts_xy_px: np.ndarray, margin_xy_px: np.ndarray) -> np.ndarray:
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


def _even_steps(
    volume: np.ndarray, geometry: ScanGeometry, slices: Sequence[DicomSlice], series: DicomSeries
) -> tuple[np.ndarray, ScanGeometry, list[str]]:
    """Interpolate along z where the distance of slices changes or slices are missing."""
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
            f"{slices[0].path.parent}: series {series.uid} has a gap of {steps[widest]:.1f} mm "
            f"between {slices[widest].path.name} and {slices[widest + 1].path.name} (usual "
            f"distance {step:.2f} mm): slices are missing; export the whole series again"
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
