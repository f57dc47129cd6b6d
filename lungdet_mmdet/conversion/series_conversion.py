"""Converting one DICOM series to a MetaImage: what a worker does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from lungdet_mmdet.conversion.accounts import ConvertedSeries
from lungdet_mmdet.conversion.dicom_index import SeriesFiles
from lungdet_mmdet.ct.dicom.header import read_dicom_header
from lungdet_mmdet.ct.dicom.reading import read_dicom_series
from lungdet_mmdet.ct.dicom.series import DicomSeries, lost_series_message
from lungdet_mmdet.ct.files.metaimage_writing import write_metaimage
from lungdet_mmdet.ct.hounsfield_check import check_hounsfield
from lungdet_mmdet.errors import LungDetError

_PATIENT_ID = "0010|0020"
# A UID names files here: nothing in it may lead elsewhere.
_PLAIN_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*")


@dataclass(frozen=True)
class SeriesJob:
    """One series to convert, as it travels to a worker."""

    seriesuid: str
    root: Path
    files: SeriesFiles
    folder: Path
    compress: bool


def convert_series(job: SeriesJob) -> ConvertedSeries:
    """Convert one series, or say why it is not suitable.

    Raises
    ------
    LungDetError
        If the series is a CT that cannot be brought to a regular grid, is not in Hounsfield units,
        or cannot be written.
    """
    if not _PLAIN_UID.fullmatch(job.seriesuid):
        raise LungDetError(f"series UID {job.seriesuid!r} cannot name a file; repair the DICOM")
    paths = [job.root / path for path in job.files.paths()]
    headers = {path: read_dicom_header(path) for path in paths}
    slices = tuple(header for header in headers.values() if header is not None)
    damaged = tuple(path for path, header in headers.items() if header is None)
    if not slices:
        raise LungDetError(lost_series_message(damaged))
    series = DicomSeries(job.seriesuid, slices, damaged)
    if series.why_unsuitable:
        return ConvertedSeries(job.seriesuid, "", len(paths), unsuitable=series.why_unsuitable)
    scan = read_dicom_series(series)
    check_hounsfield(scan, source=series.place)
    path = write_metaimage(
        job.folder, job.seriesuid, scan.volume_hu, scan.geometry, compress=job.compress
    )
    return ConvertedSeries(
        job.seriesuid,
        f"{job.folder.name}/{path.name}",
        len(paths),
        scan.flags,
        _patient_id(slices[0].path),
    )


def _patient_id(path: Path) -> str:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return (
        reader.GetMetaData(_PATIENT_ID).strip(" \0") if reader.HasMetaDataKey(_PATIENT_ID) else ""
    )
