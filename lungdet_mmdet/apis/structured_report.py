# SPDX-License-Identifier: Apache-2.0
"""What a DICOM report says of a scan, in the terms of TID 1500, and which model said it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import lungdet_mmdet
from lungdet_mmdet.apis.candidate_files import NOTICE, cautions
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice

ALGORITHM_NAME = "lungdet_mmdet"


def _models(findings: ScanFindings) -> list[tuple[str, str]]:
    """Return name and digest of the model, or of each of several."""
    models = findings.model.get("ensemble") or [findings.model]
    return [(str(m.get("name") or "model"), str(m.get("sha256") or "unknown")) for m in models]


def model_name(findings: ScanFindings) -> str:
    """Return the names of the model, or of several, as far as DICOM has room."""
    return " + ".join(name for name, _ in _models(findings))[:64]


def model_digest(findings: ScanFindings) -> str:
    """Return the digest of the model, or of the first of several."""
    return _models(findings)[0][1]


def provenance(findings: ScanFindings, chosen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what was found by what, in a few lines."""
    found = f"{len(chosen)} candidates" if chosen else "nothing found"
    return [
        f"{found} at or above the threshold {findings.threshold:.3f}",
        f"{ALGORITHM_NAME} {lungdet_mmdet.__version__}",
        *(f"model {name}, SHA-256 {digest}" for name, digest in _models(findings)),
    ]


def measurement_report(
    findings: ScanFindings,
    chosen: Sequence[Mapping[str, Any]],
    by_uid: Mapping[str, DicomSlice],
    evidence: Sequence[Any],
) -> Any:
    """Return the content of a structured report: the whole scan, each candidate, the notes."""
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    observer = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(),
            name=ALGORITHM_NAME,
            manufacturer_name=ALGORITHM_NAME,
            model_name=model_name(findings),
            serial_number=model_digest(findings)[:64],
        ),
    )
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[
            _summary(findings, chosen),
            *(_finding(r, by_uid, findings) for r in chosen),
        ],
        referenced_images=evidence,
    )
    # The template may be extended; a reader shows these texts with the report.
    notes = [NOTICE, *provenance(findings, chosen), *cautions(findings), *findings.flags]
    report[0].ContentSequence.extend(
        sr.TextContentItem(
            name=codes.DCM.Comment, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
        for text in dict.fromkeys(notes)
    )
    return report


def _algorithm(findings: ScanFindings) -> Any:
    from highdicom import sr

    return sr.AlgorithmIdentification(
        ALGORITHM_NAME,
        lungdet_mmdet.__version__,
        parameters=[
            f"threshold {findings.threshold:.6g}",
            *(f"model {name}, SHA-256 {digest}" for name, digest in _models(findings)),
        ],
    )


def _summary(findings: ScanFindings, chosen: Sequence[Mapping[str, Any]]) -> Any:
    """Return a group on the whole scan, which is there also where nothing was found."""
    import highdicom as hd
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=hd.UID(), identifier="whole scan"),
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=_algorithm(findings),
        measurements=[
            _number(_code("count", "Candidates at or above the threshold"), len(chosen)),
            _number(
                _code("threshold", "Threshold of the detection score"),
                round(findings.threshold, 6),
            ),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                _code("use", "Permitted use"),
                _code("research", "Research only, not for clinical use"),
            ),
        ],
    )


def _finding(
    record: Mapping[str, Any], by_uid: Mapping[str, DicomSlice], findings: ScanFindings
) -> Any:
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
    return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=hd.UID(), identifier=f"candidate {record['rank']}"
        ),
        referenced_region=region,
        finding_type=codes.SCT.Nodule,
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        algorithm_id=_algorithm(findings),
        measurements=[
            sr.Measurement(codes.SCT.Diameter, record["diameter_mm"], codes.UCUM.Millimeter),
            _number(_code("score", "Detection score"), record["score"]),
        ],
    )


def _code(value: str, meaning: str) -> Any:
    """Return a code of this package's own scheme: no standard one says it."""
    from highdicom import sr

    return sr.CodedConcept(value, "99LUNGDET", meaning)


def _number(name: Any, value: float) -> Any:
    from highdicom import sr
    from pydicom.sr.codedict import codes

    return sr.Measurement(name, value, codes.UCUM.NoUnits)
