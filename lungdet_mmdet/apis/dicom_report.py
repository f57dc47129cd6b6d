"""Candidates as a DICOM structured report (TID 1500), next to the images they were found in.

Needs highdicom and pydicom: ``pip install 'lungdet-mmdet[dicom]'``.
"""

from __future__ import annotations

import importlib.util
import io
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


def has_highdicom() -> bool:
    """Say whether the packages for DICOM reports are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("highdicom", "pydicom"))


def write_dicom_sr(
    path: Path,
    findings: ScanFindings,
    records: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
) -> None:
    """Write the candidates above the threshold as a Comprehensive SR.

    Each is a circle on the image nearest to its centre, with diameter and score. The template knows
    no report without a finding: where no candidate is above the threshold, there is no file.

    Raises
    ------
    LungDetError
        If highdicom is not installed, or the images lack what a report has to repeat.
    """
    chosen = [r for r in records if r["above_threshold"]]
    if not chosen:
        return
    if not has_highdicom():
        raise LungDetError("DICOM reports need highdicom: pip install 'lungdet-mmdet[dicom]'")
    import highdicom as hd
    import pydicom

    by_uid = {s.instance_uid: s for s in slices}
    used = {r["dicom_image"]["sop_instance_uid"] for r in chosen}
    evidence = [pydicom.dcmread(by_uid[uid].path, stop_before_pixels=True) for uid in sorted(used)]
    try:
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
    except (AttributeError, KeyError, ValueError) as error:
        raise LungDetError(
            f"{slices[0].path.parent}: the images lack what a DICOM report repeats ({error}); "
            "uninstall highdicom to go without the report"
        ) from error
    content = io.BytesIO()
    report.save_as(content)
    write_bytes(path, content.getvalue())


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
