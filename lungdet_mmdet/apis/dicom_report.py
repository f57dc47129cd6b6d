"""Candidates as a DICOM structured report (TID 1500), next to the images they were found in.

Needs highdicom and pydicom: ``pip install 'lungdet-mmdet[dicom]'``.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lungdet_mmdet
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes

ALGORITHM_NAME = "lungdet_mmdet"
# Clear of the numbers that scanners give their series.
SERIES_NUMBER = 9001


# What a report repeats of its images. Each may be empty, and where one is missing or no date at all
# it must be: a report without a birth date is a report.
_REPEATED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
# Whose images they are, and when and where they were made.
_PERSONAL = (*_REPEATED, "PatientAge", "PatientAddress", "OtherPatientIDs", "InstitutionName")


class DicomReportError(LungDetError):
    """The images lack what a report cannot do without."""


def has_highdicom() -> bool:
    """Say whether the packages for DICOM reports are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("highdicom", "pydicom"))


def write_dicom_sr(
    path: Path,
    findings: ScanFindings,
    records: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
    *,
    anonymous: bool = False,
) -> None:
    """Write the candidates above the threshold as a Comprehensive SR.

    Each is a circle on the image nearest to its centre, with diameter and score. The template knows
    no report without a finding: where no candidate is above the threshold, there is no file.
    ``anonymous`` leaves the patient and the visit blank; the UIDs stay, or the report would be of
    no images.

    Raises
    ------
    LungDetError
        If highdicom is not installed.
    DicomReportError
        If the images lack what a report cannot do without, such as UIDs.
    """
    chosen = [r for r in records if r["above_threshold"]]
    if not chosen:
        return
    if not has_highdicom():
        raise LungDetError("DICOM reports need highdicom: pip install 'lungdet-mmdet[dicom]'")
    import highdicom as hd

    if any(s.frame is not None for s in slices):
        raise DicomReportError("the images are the frames of one file, which it cannot point at")
    by_uid = {s.instance_uid: s for s in slices}
    used = {r["dicom_image"]["sop_instance_uid"] for r in chosen}
    try:
        evidence = [_evidence(by_uid[uid].path, anonymous=anonymous) for uid in sorted(used)]
        report = hd.sr.ComprehensiveSR(
            evidence=evidence,
            content=_measurement_report(findings, chosen, by_uid, evidence),
            series_number=SERIES_NUMBER,
            series_instance_uid=hd.UID(),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=ALGORITHM_NAME,
            is_complete=True,
        )
        content = io.BytesIO()
        report.save_as(content)
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise DicomReportError(
            f"the images lack what one has to repeat ({type(error).__name__}: {error})"
        ) from error
    write_bytes(path, content.getvalue())


def _evidence(path: Path, *, anonymous: bool) -> Any:
    """Read an image's header, and blank what is missing in it, malformed or personal."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are blanked here
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in _REPEATED:
            if anonymous or not _is_sound(dataset, keyword):
                setattr(dataset, keyword, "")
    if anonymous:
        for keyword in _PERSONAL:
            if keyword in dataset:
                setattr(dataset, keyword, "")
    return dataset


def _is_sound(dataset: Any, keyword: str) -> bool:
    """Say whether a header has a value that can be repeated."""
    from pydicom.valuerep import DA, TM

    try:
        value = getattr(dataset, keyword)
        if value is None:
            return False
        if keyword.endswith("Date"):
            DA(value)
        elif keyword.endswith("Time"):
            TM(value)
        str(value).encode("utf-8")
    except (AttributeError, ValueError, TypeError, LookupError):
        return False
    return True


def _measurement_report(
    findings: ScanFindings,
    chosen: Sequence[Mapping[str, Any]],
    by_uid: Mapping[str, DicomSlice],
    evidence: Sequence[Any],
) -> Any:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name=ALGORITHM_NAME, model_name=str(findings.model.get("name", ""))[:64]
        ),
    )
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[_finding(r, by_uid) for r in chosen],
        referenced_images=evidence,
    )


def _finding(record: Mapping[str, Any], by_uid: Mapping[str, DicomSlice]) -> Any:
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    image = by_uid[record["dicom_image"]["sop_instance_uid"]]
    # DICOM counts from the corner of the first pixel, voxel coordinates from its centre.
    centre = np.asarray(record["dicom_image"]["column_row"]) + 0.5
    rim = centre + (record["diameter_mm"] / 2 / image.spacing_xy_mm[0], 0.0)
    region = sr.ImageRegion(
        graphic_type=sr.GraphicTypeValues.CIRCLE,
        graphic_data=np.stack([centre, rim]),
        source_image=sr.SourceImageForRegion(image.sop_class_uid, image.instance_uid),
    )
    algorithm = sr.AlgorithmIdentification(ALGORITHM_NAME, lungdet_mmdet.__version__)
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=hd.UID(), identifier=f"candidate {record['rank']}"
        ),
        referenced_region=region,
        finding_type=codes.SCT.Nodule,
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=algorithm,
        measurements=[
            sr.Measurement(codes.SCT.Diameter, record["diameter_mm"], codes.UCUM.Millimeter),
            sr.Measurement(
                # No standard code says "how sure a detector is": a private one, by its own scheme.
                sr.CodedConcept("score", "99LUNGDET", "Detection score"),
                record["score"],
                codes.UCUM.NoUnits,
            ),
        ],
    )
