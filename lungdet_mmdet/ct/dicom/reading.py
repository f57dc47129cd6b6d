# SPDX-License-Identifier: Apache-2.0
"""The Hounsfield values of one DICOM image, or why it has none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.folder_files import pixel_damage
from lungdet_mmdet.ct.dicom.grid import even_steps, frame_of, unshear
from lungdet_mmdet.ct.dicom.header import POSITION_TOLERANCE_MM, DicomSlice
from lungdet_mmdet.ct.dicom.series import (
    MIN_SLICES,
    DicomSeries,
    choose_series,
    find_dicom_series,
)
from lungdet_mmdet.ct.geometry import MAX_VOXELS, to_canonical
from lungdet_mmdet.ct.scan import CTScan, as_int16_hu
from lungdet_mmdet.errors import LungDetError


def slice_hu(item: DicomSlice) -> np.ndarray:
    """Return a slice's Hounsfield values, int16 array (y, x); errors as `file_hu`."""
    return file_hu(item)[item.frame or 0]


def file_hu(item: DicomSlice) -> np.ndarray:
    """Return the Hounsfield values of a slice's file, slope and intercept applied.

    Returns
    -------
    int16 array (frames, y, x).

    Raises
    ------
    LungDetError
        If its pixels are cut off or damaged, its rescaling is none, or it is no grey image.
    """
    damage = pixel_damage(item.path, pixel_bytes=item.pixel_bytes)
    if damage:
        raise LungDetError(f"{item.path}: {damage}; export or copy the series again")
    if item.photometric == "MONOCHROME1":
        raise LungDetError(
            f"{item.path}: its photometric interpretation is MONOCHROME1 (white is low), which "
            "GDCM turns over, and the Hounsfield values with it; export the series again as "
            "MONOCHROME2"
        )
    if not item.has_sound_rescaling:
        raise LungDetError(
            f"{item.path}: rescale slope '{item.rescaling[0]}' and intercept '{item.rescaling[1]}' "
            "give no Hounsfield values; export the series again"
        )
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
    frames = 1 if item.frame is None else item.frames
    if values.size != frames * item.size_yx[0] * item.size_yx[1]:
        raise LungDetError(
            f"{item.path}: {values.shape} pixels; {frames} grey images of {item.size_yx} are needed"
        )
    return as_int16_hu(values, source=str(item.path)).reshape(frames, *item.size_yx)


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


# Slices thinner than this share of their distance leave gaps in which a nodule can lie.
MIN_FILLED_SHARE = 0.75


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
