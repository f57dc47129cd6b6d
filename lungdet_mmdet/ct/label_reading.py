# SPDX-License-Identifier: Apache-2.0
"""Reading a label volume: which voxel belongs to which nodule, organ or other object."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry, geometry_of_file
from lungdet_mmdet.ct.reading import read_volume, scan_suffix
from lungdet_mmdet.errors import LungDetError

DICOM_SUFFIX = ".dcm"


def label_suffix(path: Path) -> str:
    """Return the known suffix of a label volume (".nii.gz" counts as one), or "" if none."""
    return DICOM_SUFFIX if path.name.lower().endswith(DICOM_SUFFIX) else scan_suffix(path)


def read_labels(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    """Read a label volume: a MetaImage, NRRD or NIfTI file, or a DICOM segmentation.

    Returns
    -------
    labels : integer array (z, y, x) as stored; 0 is nothing. Segments of a DICOM segmentation have
        their segment numbers.
    geometry : its grid.

    Raises
    ------
    LungDetError
        If the file is damaged, or its values are not whole numbers.
    """
    if label_suffix(path) == DICOM_SUFFIX:
        return _read_dicom_seg(path)
    values, geometry = read_volume(path)
    if np.issubdtype(values.dtype, np.floating):
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            odd = values[whole != values]
            raise LungDetError(
                f"{path}: {odd.size} values are not whole numbers, e.g. {float(odd[0]):g}; labels "
                "are 0, 1, 2, ...: threshold probabilities first, and store integers"
            )
        values = whole.astype(np.int32)
    return values, geometry


def referenced_series(path: Path) -> str:
    """Return the UID of the series that a DICOM segmentation was made on.

    Raises
    ------
    LungDetError
        If the file is no DICOM segmentation, or names no series.
    """
    _check_packages()
    import pydicom

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
    except (pydicom.errors.InvalidDicomError, OSError) as error:
        raise LungDetError(
            f"{path}: cannot be read as DICOM ({error}); copy the segmentation again"
        ) from None
    series = header.get("ReferencedSeriesSequence")
    if header.get("Modality") != "SEG" or not series:
        raise LungDetError(
            f"{path}: Modality is {header.get('Modality')!r} and {len(series or ())} series are "
            "referenced; a DICOM segmentation (SEG) of one series is needed"
        )
    return str(series[0].SeriesInstanceUID)


def _check_packages() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("highdicom", "pydicom")):
        raise LungDetError("DICOM segmentations need highdicom: pip install 'lungdet-mmdet[dicom]'")


def _read_dicom_seg(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    _check_packages()
    import highdicom as hd

    try:
        volume = hd.seg.segread(path).get_volume(combine_segments=True)
    # highdicom has no error of its own: what is wrong in a file comes out as any of these.
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, OSError) as error:
        raise LungDetError(
            f"{path}: cannot be read as a DICOM segmentation on a regular grid ({error}); export "
            "it again, without overlapping segments"
        ) from error
    z, y, x = volume.spatial_shape
    dz, dy, dx = volume.spacing
    origin_x, origin_y, origin_z = (float(value) for value in volume.position)
    # highdicom's axes are those of the array; here the columns are x, y, z.
    direction = np.asarray(volume.direction)[:, ::-1]
    return np.asarray(volume.array), geometry_of_file(
        size_zyx=(z, y, x),
        spacing_zyx_mm=(dz, dy, dx),
        origin_xyz_mm=(origin_x, origin_y, origin_z),
        direction=tuple(direction.ravel().tolist()),
        source=str(path),
    )


def place_problem(labels: ScanGeometry, scan: ScanGeometry, *, source: str) -> str | None:
    """Say why a label volume cannot belong to a scan by its grid; None where it may.

    Any grid may carry labels, except one that is the scan's own but for its place: that is a lost
    or changed origin.
    """
    if labels.size_zyx == scan.size_zyx and np.allclose(
        labels.spacing_zyx_mm, scan.spacing_zyx_mm, rtol=1e-3
    ):
        corner = np.subtract(labels.size_zyx, 1)
        moved = [
            labels.voxel_to_world(point) - scan.voxel_to_world(point)
            for point in (np.zeros(3), corner)
        ]
        same_points = np.allclose(moved, 0.0, atol=0.5 * min(scan.spacing_zyx_mm))
        if not same_points and not _same_box(labels, scan):
            x, y, z = (round(float(value), 2) for value in moved[0])
            return (
                f"{source}: has the scan's size and spacing but lies ({x:g}, {y:g}, {z:g}) mm off; "
                "copy origin and direction from the scan"
            )
    low, high = _box(scan)
    own_low, own_high = _box(labels)
    if np.any(own_high < low) or np.any(own_low > high):
        return (
            f"{source}: spans {_shown(own_low)} to {_shown(own_high)} mm, the scan "
            f"{_shown(low)} to {_shown(high)} mm; it belongs to another scan"
        )
    return None


def _box(geometry: ScanGeometry) -> tuple[np.ndarray, np.ndarray]:
    ends = [(0, n - 1) for n in geometry.size_zyx]
    corners = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    world = geometry.voxel_to_world(corners)
    return world.min(axis=0), world.max(axis=0)


def _same_box(a: ScanGeometry, b: ScanGeometry) -> bool:
    # The same voxels in another order, as NIfTI tools store them.
    return all(
        np.allclose(p, q, atol=0.5 * min(b.spacing_zyx_mm))
        for p, q in zip(_box(a), _box(b), strict=True)
    )


def _shown(point: np.ndarray) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in point) + ")"
