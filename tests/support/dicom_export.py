"""Write a volume as a DICOM series, one file a slice: phantoms for readers of DICOM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"


def write_dicom_series(
    folder: Path,
    volume_hu: np.ndarray,
    geometry: ScanGeometry,
    *,
    seriesuid: str,
    intercept: int = -1024,
    signed: bool = False,
    description: str = "phantom",
) -> list[Path]:
    """Write slices ``0000.dcm``, ``0001.dcm``, ... in the order of the volume.

    Parameters
    ----------
    folder : is made where it is not there.
    volume_hu : int16 array (z, y, x).
    geometry : its grid; the slice normal must be the cross product of its x and y axes or opposite.
    seriesuid : series UID; study, frame of reference and image UIDs are derived from it.
    intercept : rescale intercept; stored values are ``hu - intercept``.
    signed : store signed instead of unsigned values.
    description : series description.

    Returns
    -------
    list of Path
        One file per slice.

    Raises
    ------
    LungDetError
        If pydicom is not installed (``pip install 'lungdet-mmdet[dicom]'``), or stored values do
        not fit into 16 bits.
    """
    try:
        import pydicom
    except ImportError as error:
        raise LungDetError(
            "writing DICOM needs pydicom: pip install 'lungdet-mmdet[dicom]'"
        ) from error
    stored_type = np.dtype(np.int16 if signed else np.uint16)
    stored = volume_hu.astype(np.int32) - intercept
    limits = np.iinfo(stored_type)
    if stored.min() < limits.min or stored.max() > limits.max:
        raise LungDetError(
            f"values {volume_hu.min()} to {volume_hu.max()} HU with intercept {intercept} do not "
            f"fit into {stored_type}: choose another intercept, or signed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, pixels in enumerate(stored.astype(stored_type)):
        dataset = _header(geometry, index, seriesuid, description)
        dataset.PixelRepresentation = int(signed)
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = intercept, 1, "HU"
        dataset.PixelData = pixels.tobytes()
        dataset["PixelData"].VR = "OW"
        paths.append(folder / f"{index:04d}.dcm")
        pydicom.dcmwrite(paths[-1], dataset, enforce_file_format=True)
    return paths


def _header(geometry: ScanGeometry, index: int, seriesuid: str, description: str) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    axes = geometry.axes_xyz
    position = geometry.voxel_to_world(np.array([index, 0.0, 0.0]))
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE_ENDIAN)
    dataset.file_meta.MediaStorageSOPClassUID = UID(CT_IMAGE_STORAGE)
    dataset.SOPClassUID = CT_IMAGE_STORAGE
    dataset.SOPInstanceUID = f"{seriesuid}.{index + 1}"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID = f"{seriesuid}.0.1"
    dataset.SeriesInstanceUID = seriesuid
    dataset.FrameOfReferenceUID = f"{seriesuid}.0.2"
    dataset.Modality = "CT"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription = description
    dataset.PatientName, dataset.PatientID = "Phantom", seriesuid[-16:]
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "", "", ""
    dataset.StudyDate, dataset.StudyTime = "20000101", "000000"
    dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = 1, 1, index + 1
    dataset.ImagePositionPatient = [_decimal(v) for v in position]
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*axes[:, 0], *axes[:, 1])]
    dataset.PixelSpacing = [_decimal(s) for s in geometry.spacing_zyx_mm[1:]]
    dataset.SliceThickness = _decimal(geometry.spacing_zyx_mm[0])
    dataset.Rows, dataset.Columns = geometry.size_zyx[1:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    return dataset


def _decimal(value: float) -> str:
    """Return a number as DICOM's decimal string: at most 16 characters."""
    return f"{float(value):.10g}"[:16]
