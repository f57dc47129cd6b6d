"""The images of a series that make up one volume: one per position, all of one kind."""

from __future__ import annotations

from collections import Counter

import numpy as np

from lungdet_mmdet.ct.dicom.header import POSITION_TOLERANCE_MM, DicomSlice
from lungdet_mmdet.ct.dicom.series import MIN_SLICES, DicomSeries
from lungdet_mmdet.ct.dicom.slice_pixels import slice_hu
from lungdet_mmdet.ct.file_geometry import MAX_VOXELS
from lungdet_mmdet.errors import LungDetError


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
