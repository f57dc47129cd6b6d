# SPDX-License-Identifier: Apache-2.0
"""A CT scan in memory: whether its values are believable, as grey levels, and written to files."""

from __future__ import annotations

import filecmp
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import FOLDER_SUFFIX, held, output_error

INT16 = np.iinfo(np.int16)
AIR_HU = -1000
PADDING_BELOW_HU = -1200
"""Scanners write -2000, -2048 or -3024 outside the field of view; air is never below -1100."""


@dataclass(frozen=True)
class CTScan:
    """Hounsfield values on a grid in canonical orientation.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x). Array axes point nearest to patient left (x), posterior (y)
        and superior (z), whatever the order in the file was.
    geometry : the grid of `volume_hu`.
    file_geometry : the grid as stored in the file, for results in the input's own voxels.
    seriesuid : series instance UID, or the file's stem where the format has none.
    flags : remarks about the input (e.g. "padding", "non-uniform spacing").
    """

    volume_hu: np.ndarray
    geometry: ScanGeometry
    file_geometry: ScanGeometry
    seriesuid: str
    flags: tuple[str, ...] = ()


def as_int16_hu(values: np.ndarray, *, source: str) -> np.ndarray:
    """Return Hounsfield values as int16 without a copy where they are int16 already.

    Values beyond the int16 range are clipped; floats are rounded. Raises LungDetError if a floating
    point volume holds NaN or infinity.
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


# Between lung tissue and fat; air and lungs lie below it, everything else above.
AIR_BELOW_HU = -500
# The lungs alone fill several per cent of any scan in which nodules can be looked for.
LEAST_AIR_SHARE = 0.005
# A chest fills a fifth of any field of view that it fits into.
LEAST_TISSUE_SHARE = 0.005
_EVERY_NTH_VOXEL = 7


def check_hounsfield(scan: CTScan, *, source: str) -> None:
    """Refuse a volume without air (MR, CT whose intercept was never applied) or without a patient.

    Raises LungDetError naming the file, its range of values and the remedy.
    """
    values = scan.volume_hu.reshape(-1)[::_EVERY_NTH_VOXEL]
    run = f"{source}: values run from {values.min()} to {values.max()} and hardly any lies"
    is_air = (values < AIR_BELOW_HU) & (values > PADDING_BELOW_HU)
    if np.count_nonzero(is_air) < LEAST_AIR_SHARE * values.size:
        raise LungDetError(
            f"{run} at air ({PADDING_BELOW_HU} to {AIR_BELOW_HU}): no chest CT in Hounsfield "
            "units. If it is CT stored without its rescale intercept (often -1024), convert it "
            "again from DICOM; MR and other modalities cannot be used"
        )
    if np.count_nonzero(values >= AIR_BELOW_HU) < LEAST_TISSUE_SHARE * values.size:
        raise LungDetError(
            f"{run} above air ({AIR_BELOW_HU}): nobody was scanned, or the pixels are lost. "
            "Convert the scan again from DICOM"
        )


LUNG_LEVEL_HU = -600.0
LUNG_WIDTH_HU = 1500.0


def window_hu(
    volume_hu: np.ndarray,
    *,
    level_hu: float = LUNG_LEVEL_HU,
    width_hu: float = LUNG_WIDTH_HU,
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Map a window of Hounsfield values linearly to 0..255, and zero outside a mask.

    Inside the mask the grey levels are 1..255, so that 0 means "not lung" and nothing else.

    Parameters
    ----------
    volume_hu : int16 array (z, y, x).
    level_hu, width_hu : centre and width of the window; the default is the usual lung window.
    mask : bool or uint8 array (z, y, x), or None to keep everything.

    Returns
    -------
    uint8 array (z, y, x).

    Raises
    ------
    LungDetError
        If the width is not positive.
    """
    if not width_hu > 0:
        raise LungDetError(f"window width is {width_hu} HU: it must be > 0")
    low = level_hu - width_hu / 2.0
    scale = 255.0 / width_hu
    grey = np.empty(volume_hu.shape, dtype=np.uint8)
    floor = 0 if mask is None else 1
    for z in range(volume_hu.shape[0]):
        scaled = np.multiply(volume_hu[z], np.float32(scale), dtype=np.float32)
        scaled -= np.float32(low * scale)
        np.clip(scaled, floor, 255, out=scaled)
        np.rint(scaled, out=scaled)
        np.copyto(grey[z], scaled, casting="unsafe")
        if mask is not None:
            grey[z] *= mask[z] != 0
    return grey


def apply_clahe(
    volume: np.ndarray,
    *,
    clip_limit: float = 2.0,
    tiles_yx: tuple[int, int] = (8, 8),
    keep_zero: bool = True,
) -> np.ndarray:
    """Contrast Limited Adaptive Histogram Equalisation, slice by slice (OpenCV's).

    Parameters
    ----------
    volume : uint8 array (z, y, x), already windowed: equal grey levels mean equal HU in all slices.
    clip_limit : OpenCV's clip limit, in multiples of a flat histogram.
    tiles_yx : number of tiles along y and x.
    keep_zero : pixels of grey level 0 (outside the lungs) stay 0.

    Returns
    -------
    uint8 array (z, y, x).

    Raises
    ------
    LungDetError
        If the array is not uint8.
    """
    if volume.dtype != np.uint8:
        raise LungDetError(f"CLAHE works on 8-bit grey levels, not {volume.dtype}: window first")
    clahe = cv2.createCLAHE(clipLimit=clip_limit, tileGridSize=(tiles_yx[1], tiles_yx[0]))
    out = np.empty(volume.shape, dtype=np.uint8)
    for source, target in zip(volume, out, strict=True):
        source = np.ascontiguousarray(source)
        clahe.apply(source, target)
        if keep_zero:
            target *= source != 0
    return out


def write_metaimage(
    folder: Path, name: str, volume: np.ndarray, geometry: ScanGeometry, *, compress: bool = False
) -> Path:
    """Write ``<name>.mhd`` with ``<name>.raw`` (``.zraw`` if compressed); return the header.

    The header, by which readers find a scan, comes last: a scan is there whole or not at all. Files
    that are there already, and equal, keep their time of change.

    Parameters
    ----------
    folder, name : where to; the folder is made.
    volume : array (z, y, x), Hounsfield units or labels.
    geometry : its grid.
    compress : whether to compress the pixels.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    suffixes = (".zraw" if compress else ".raw", ".mhd")
    _write(folder, name, volume, geometry, suffixes, compress)
    return folder / f"{name}.mhd"


def write_mha(folder: Path, name: str, volume: np.ndarray, geometry: ScanGeometry) -> Path:
    """Write ``<name>.mha``, header and compressed pixels in one file; return its path.

    Parameters and errors as of `write_metaimage`.
    """
    _write(folder, name, volume, geometry, (".mha",), True)
    return folder / f"{name}.mha"


def _write(
    folder: Path,
    name: str,
    volume: np.ndarray,
    geometry: ScanGeometry,
    suffixes: tuple[str, ...],
    compress: bool,
) -> None:
    """Write beside the target and rename the files of `suffixes`, the header last."""
    scratch = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder, prefix=f".{name}.lungdet-", suffix=FOLDER_SUFFIX)
        # Level 1: noise hardly compresses, higher levels only take longer.
        names = [f"{name}{suffix}" for suffix in suffixes]
        with held(scratch):
            _write_image(f"{scratch}/{names[-1]}", volume, geometry, compress=compress, level=1)
            if names == filecmp.cmpfiles(scratch, folder, names, shallow=False)[0]:
                return
            if len(names) > 1:
                # The old header must not stand beside the new pixels, not for a moment.
                (folder / names[-1]).unlink(missing_ok=True)
            for each in names:
                os.replace(f"{scratch}/{each}", folder / each)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_nifti(path: Path, volume: np.ndarray, geometry: ScanGeometry) -> None:
    """Write an image such as a label map as ``.nii.gz``.

    Parameters
    ----------
    path : where to, within a folder that appears as a whole.
    volume : array (z, y, x).
    geometry : its grid.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    try:
        _write_image(str(path), volume, geometry, compress=True)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise output_error(path, error) from error


def _write_image(
    path: str, volume: np.ndarray, geometry: ScanGeometry, *, compress: bool, level: int = -1
) -> None:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    try:
        sitk.WriteImage(image, path, compress, level)
    except RuntimeError as error:  # SimpleITK's way to say that it cannot write
        raise OSError(None, str(error).strip().splitlines()[-1]) from error
