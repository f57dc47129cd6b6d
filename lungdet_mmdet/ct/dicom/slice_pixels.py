"""The Hounsfield values of one DICOM image, or why it has none."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.damage import pixel_damage
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.ct.scan import as_int16_hu
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
