# SPDX-License-Identifier: Apache-2.0
"""Reading a CT scan file into Hounsfield values with a known place in the patient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.reading import read_dicom_folder
from lungdet_mmdet.ct.file_grid import FileGrid, regular
from lungdet_mmdet.ct.files.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.files.metaimage_pixels import check_compressed_pixels
from lungdet_mmdet.ct.files.nifti import check_nifti, nifti_grid, read_nifti, read_nifti_header
from lungdet_mmdet.ct.files.nrrd_check import check_nrrd
from lungdet_mmdet.ct.geometry import MAX_VOXELS, ScanGeometry, to_canonical
from lungdet_mmdet.ct.scan import CTScan, as_int16_hu
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

METAIMAGE_SUFFIXES = (".mhd", ".mha")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
SCAN_SUFFIXES = (*METAIMAGE_SUFFIXES, ".nrrd", *NIFTI_SUFFIXES)
_IMAGE_IO = {
    **dict.fromkeys(METAIMAGE_SUFFIXES, "MetaImageIO"),
    ".nrrd": "NrrdImageIO",
}


def scan_suffix(path: Path) -> str:
    """Return the known scan suffix of `path` (".nii.gz" counts as one), or "" if there is none."""
    name = path.name.lower()
    return next((s for s in sorted(SCAN_SUFFIXES, key=len, reverse=True) if name.endswith(s)), "")


def grid_of_image(image: sitk.Image | sitk.ImageFileReader) -> FileGrid:
    """Return the grid of a 3-D image, or of a reader that knows its header.

    The only place where SimpleITK's axis order is turned.
    """
    x, y, z = image.GetSize()
    return FileGrid(
        size_zyx=(z, y, x),
        spacing_xyz_mm=np.array(image.GetSpacing()),
        origin_xyz_mm=np.array(image.GetOrigin()),
        axes_xyz=np.array(image.GetDirection()).reshape(3, 3),
    )


def read_scan(path: Path | str, *, series_uid: str | None = None) -> CTScan:
    """Read one scan file (.mhd, .mha, .nrrd, .nii, .nii.gz) or a DICOM folder.

    Parameters
    ----------
    path : the file; for .mhd the data file lies beside it.
    series_uid : which series of a DICOM folder; None takes the thinnest axial CT.

    Returns
    -------
    CTScan
        In canonical orientation, int16 Hounsfield values.

    Raises
    ------
    LungDetError
        If the file is missing, of unknown type, not a 3-D scalar image, damaged or truncated.
    """
    path = Path(path)
    if path.is_dir():
        return read_dicom_folder(path, series_uid=series_uid)
    values, grid, flags = _read_file(path)
    return _canonical_scan(
        values,
        grid,
        seriesuid=path.name[: -len(scan_suffix(path))],
        source=str(path),
        flags=flags,
    )


def read_volume(path: Path) -> tuple[np.ndarray, ScanGeometry]:
    """Read the values of one file as stored, after the checks of its format.

    Returns
    -------
    values : array (z, y, x) of the file's own type.
    geometry : its grid.

    Raises
    ------
    LungDetError
        As `read_scan`.
    """
    values, grid, _ = _read_file(path)
    return values, grid.checked(source=str(path))


def read_file_grid(path: Path) -> FileGrid:
    """Return the grid that a scan file states, without its pixels.

    Raises
    ------
    LungDetError
        As `read_scan`, but for what only the pixels can tell.
    """
    check_input_file(path)
    suffix = scan_suffix(path)
    if suffix in NIFTI_SUFFIXES:
        return nifti_grid(read_nifti_header(path))[0]
    if suffix in METAIMAGE_SUFFIXES:
        read_metaimage_header(path)
    with _itk_reader(path) as reader:
        reader.ReadImageInformation()
    if reader.GetDimension() != 3:
        raise LungDetError(f"{path}: {reader.GetDimension()}-D; one 3-D CT volume is needed")
    return grid_of_image(reader)


@contextmanager
def _itk_reader(path: Path) -> Iterator[sitk.ImageFileReader]:
    """Give a reader of one file; what ITK has to say of it becomes an error that names it."""
    reader = sitk.ImageFileReader()
    # Named, for ITK knows suffixes in small letters only.
    reader.SetImageIO(_IMAGE_IO[scan_suffix(path)])
    reader.SetFileName(str(path))
    try:
        yield reader
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LungDetError(
            f"{path}: cannot be read ({reason}); the file is damaged: copy or convert it again"
        ) from error


def _read_file(path: Path) -> tuple[np.ndarray, FileGrid, tuple[str, ...]]:
    """Return values (z, y, x), the grid that the file states, and remarks on it."""
    suffix = scan_suffix(path)
    if not suffix:
        raise LungDetError(
            f"{path}: unknown scan format; known: {', '.join(SCAN_SUFFIXES)} or a DICOM folder"
        )
    check_input_file(path)
    if suffix in NIFTI_SUFFIXES:
        return read_nifti(path, check_nifti(path))
    if suffix == ".nrrd":
        check_nrrd(path)
        values, grid = _read_pixels(path, size_xyz=None)
    else:
        header = read_metaimage_header(path)
        values, grid = _read_pixels(path, size_xyz=header.size_xyz)
        check_compressed_pixels(header, values)
    return values, grid, ()


def _read_pixels(
    path: Path, *, size_xyz: tuple[int, int, int] | None
) -> tuple[np.ndarray, FileGrid]:
    """Read a checked file; `size_xyz` is what the check found, None where it was not looked at."""
    with _itk_reader(path) as reader:
        reader.ReadImageInformation()
        size = reader.GetSize()
        if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 1:
            raise LungDetError(
                f"{path}: {reader.GetDimension()}-D with {reader.GetNumberOfComponents()} "
                "values per pixel; one 3-D scalar CT volume is needed: convert a single series"
            )
        if math.prod(size) > MAX_VOXELS:
            raise LungDetError(
                f"{path}: {size} voxels; at most {MAX_VOXELS} can be read: the header is damaged, "
                "or this is no chest CT; copy or convert it again"
            )
        if size_xyz is not None and size != size_xyz:
            # Two readings of one header: neither the checks nor the pixels could be trusted.
            raise LungDetError(
                f"{path}: the header is ambiguous, its size reads as {size_xyz} and as {size}; "
                "convert the scan again"
            )
        image = reader.Execute()
    return sitk.GetArrayFromImage(image), grid_of_image(image)


def scan_from_image(
    image: sitk.Image, *, seriesuid: str, source: str, flags: tuple[str, ...] = ()
) -> CTScan:
    """Turn a 3-D scalar SimpleITK image of Hounsfield values into a :class:`CTScan`."""
    values = sitk.GetArrayFromImage(image)
    return _canonical_scan(
        values, grid_of_image(image), seriesuid=seriesuid, source=source, flags=flags
    )


def _canonical_scan(
    values: np.ndarray,
    grid: FileGrid,
    *,
    seriesuid: str,
    source: str,
    flags: tuple[str, ...] = (),
) -> CTScan:
    volume, file_geometry, tilt_flags = regular(
        as_int16_hu(values, source=source), grid, source=source
    )
    volume_hu, geometry = to_canonical(volume, file_geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(volume_hu),
        geometry=geometry,
        file_geometry=file_geometry,
        seriesuid=seriesuid,
        flags=(*flags, *tilt_flags),
    )
