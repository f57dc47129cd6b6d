"""Reading a DICOM series into Hounsfield values on a regular grid.

Scanners and archives deliver what a regular grid is not: slices twice, slices missing, distances
that change within a scan, slices sheared by a tilted gantry. All of it is repaired, with a flag
that says so, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.dicom.grid import even_steps, frame_of, unshear
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.ct.dicom.series import DicomSeries, choose_series, find_dicom_series
from lungdet_mmdet.ct.dicom.slice_pixels import slice_hu
from lungdet_mmdet.ct.dicom.slice_stack import slice_stack
from lungdet_mmdet.ct.orientation import to_canonical
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError


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
        raise LungDetError(f"{series.place} cannot be used: {series.why_unsuitable}")
    if series.damaged:
        raise LungDetError(
            f"{series.damaged[0]}: cannot be read, perhaps cut off ({len(series.damaged)} such "
            f"files in series {series.uid}); export or copy the series again"
        )
    slices, flags = slice_stack(series)
    source = series.place
    frame = frame_of(slices, source=source)
    volume = _read_pixels(slices)
    volume, shear_flags, geometry = unshear(volume, frame, slices, source=source)
    volume, geometry, step_flags = even_steps(volume, geometry, slices, source=source)
    canonical, canonical_geometry = to_canonical(volume, geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(canonical),
        geometry=canonical_geometry,
        file_geometry=geometry,
        seriesuid=series.uid,
        flags=(*flags, *shear_flags, *step_flags),
    )


def _read_pixels(slices: Sequence[DicomSlice]) -> np.ndarray:
    volume = np.empty((len(slices), *slices[0].size_yx), dtype=np.int16)
    for index, item in enumerate(slices):
        volume[index] = slice_hu(item)
    return volume
