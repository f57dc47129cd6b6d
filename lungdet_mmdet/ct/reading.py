"""Reading a CT scan file into Hounsfield values with a known place in the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.metaimage import read_metaimage_header
from lungdet_mmdet.ct.orientation import to_canonical
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError

METAIMAGE_SUFFIXES = (".mhd", ".mha")
SCAN_SUFFIXES = (*METAIMAGE_SUFFIXES, ".nrrd", ".nii", ".nii.gz")
INT16 = np.iinfo(np.int16)


def scan_suffix(path: Path) -> str:
    """Return the known scan suffix of `path` (".nii.gz" counts as one), or "" if there is none."""
    name = path.name.lower()
    return next((s for s in sorted(SCAN_SUFFIXES, key=len, reverse=True) if name.endswith(s)), "")


def image_geometry(image: sitk.Image) -> ScanGeometry:
    """Return the grid of a 3-D SimpleITK image; the only place where its axis order is turned."""
    return ScanGeometry(
        size_zyx=tuple(image.GetSize()[::-1]),
        spacing_zyx_mm=tuple(image.GetSpacing()[::-1]),
        origin_xyz_mm=tuple(image.GetOrigin()),
        direction=tuple(image.GetDirection()),
    )


def as_int16_hu(values: np.ndarray, *, source: str) -> np.ndarray:
    """Return Hounsfield values as int16 without a copy where they are int16 already.

    Values beyond the int16 range are clipped; floats are rounded.

    Raises
    ------
    LungDetError
        If a floating point volume holds NaN or infinity.
    """
    if values.dtype == np.int16:
        return values
    if np.issubdtype(values.dtype, np.floating):
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise LungDetError(
                f"{source}: {bad} voxels are NaN or infinite; Hounsfield values are needed: "
                "convert the scan again from its original"
            )
        values = np.rint(values)
    return np.clip(values, INT16.min, INT16.max).astype(np.int16)


def read_scan(path: Path | str) -> CTScan:
    """Read one scan file (.mhd, .mha, .nrrd, .nii, .nii.gz).

    Parameters
    ----------
    path : the file; for .mhd the data file lies beside it.

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
    suffix = scan_suffix(path)
    if not suffix:
        raise LungDetError(
            f"{path}: unknown scan format; known: {', '.join(SCAN_SUFFIXES)} or a DICOM folder"
        )
    if not path.is_file():
        raise LungDetError(f"{path}: no such file")
    if suffix in METAIMAGE_SUFFIXES:
        read_metaimage_header(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LungDetError(
            f"{path}: cannot be read ({reason}); the file is damaged: copy or convert it again"
        ) from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise LungDetError(
            f"{path}: {image.GetDimension()}-D with {image.GetNumberOfComponentsPerPixel()} "
            "values per pixel; one 3-D scalar CT volume is needed"
        )
    return scan_from_image(image, seriesuid=path.name[: -len(suffix)], source=str(path))


def scan_from_image(
    image: sitk.Image, *, seriesuid: str, source: str, flags: tuple[str, ...] = ()
) -> CTScan:
    """Turn a 3-D scalar SimpleITK image of Hounsfield values into a :class:`CTScan`."""
    file_geometry = image_geometry(image)
    values = as_int16_hu(sitk.GetArrayFromImage(image), source=source)
    volume_hu, geometry = to_canonical(values, file_geometry)
    return CTScan(
        volume_hu=np.ascontiguousarray(volume_hu),
        geometry=geometry,
        file_geometry=file_geometry,
        seriesuid=seriesuid,
        flags=flags,
    )
