"""The Hounsfield values of one DICOM image, or why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.grid import even_steps, frame_of, unshear
from lungdet_mmdet.ct.dicom.header import POSITION_TOLERANCE_MM, DicomSlice
from lungdet_mmdet.ct.dicom.series import (
    MIN_SLICES,
    DicomSeries,
    choose_series,
    find_dicom_series,
    pixel_damage,
)
from lungdet_mmdet.ct.geometry import MAX_VOXELS, to_canonical
from lungdet_mmdet.ct.scan import CTScan, as_int16_hu
from lungdet_mmdet.errors import LungDetError


def slice_hu(item: DicomSlice) -> np.ndarray:
    """Return a slice's Hounsfield values, slope and intercept applied.

    Returns
    -------
    int16 array (y, x).

    Raises
    ------
    LungDetError
        If its pixels are cut off or damaged, its rescaling is none, or it is no grey image.
    """
    damage = pixel_damage(item.path, pixel_bytes=item.pixel_bytes)
    if damage:
        raise LungDetError(f"{item.path}: {damage}; export or copy the series again")
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
    if values.size != item.size_yx[0] * item.size_yx[1]:
        raise LungDetError(f"{item.path}: {values.shape} pixels; one grey image is needed")
    return as_int16_hu(values, source=str(item.path)).reshape(item.size_yx)


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
    keys = [tuple(np.round(s.orientation, 2)) for s in slices]
    usual = Counter(keys).most_common(1)[0][0]
    slices = [s for s, key in zip(slices, keys, strict=True) if key == usual]
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
        a.instance_uid == b.instance_uid or np.array_equal(slice_hu(a), slice_hu(b))
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
