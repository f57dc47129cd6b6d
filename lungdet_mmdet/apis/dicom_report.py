# SPDX-License-Identifier: Apache-2.0
"""Candidates as DICOM files next to the images they were found in: report, picture, segments.

The report is a TID 1500 measurement report. Needs highdicom and pydicom:
``pip install 'lungdet-mmdet[dicom]'``.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lungdet_mmdet
from lungdet_mmdet.apis.candidate_files import NOTICE, cautions, label_map, models_of
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.ct_planes import capture_picture
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.versions import UnsupportedVersionError

try:
    import highdicom as hd
    import pydicom
    from highdicom import seg, sr
    from pydicom.sr.codedict import codes
    from pydicom.valuerep import DA, TM
except ImportError as error:
    raise UnsupportedVersionError(
        "DICOM files need highdicom: pip install 'lungdet-mmdet[dicom]'"
    ) from error


# Clear of the numbers that scanners give their series.
SERIES_NUMBERS = {"sr": 9001, "sc": 9002, "seg": 9003}
DESCRIPTION = "Lung nodule candidates, RESEARCH ONLY, not for clinical use"
"""Series description: at most 64 characters."""

# What a report repeats of its images. Each may be empty, and where one is missing or no date at all
# it must be: a report without a birth date is a report.
_REPEATED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip

# All that an anonymous file takes from its images: which they are, and where their pixels lie.
_IMPERSONAL = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "Modality", "InstanceNumber", "Rows", "Columns",
    "PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip


class DicomReportError(LungDetError):
    """The images lack what a report cannot do without."""


def write_dicom(
    kind: str,
    path: Path,
    findings: ScanFindings,
    records: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
    *,
    anonymous: bool = False,
) -> None:
    """Write the candidates above the threshold as a DICOM file beside their images.

    All say that they are for research only, which software and model made them, and the threshold.

    ``sr`` : Comprehensive SR, TID 1500. Each candidate is a circle on the image nearest to its
    centre, with diameter and score. Where there is none, the report says so.

    ``sc`` : secondary capture, a colour picture of the best candidates with the notice burnt in.

    ``seg`` : segmentation, each candidate's box on the images that it touches. A segmentation needs
    a segment: where there is no candidate, there is no file.

    Parameters
    ----------
    kind : of ``DICOM_NAMES``.
    path : the file.
    findings, records : the result, and its candidates as plain values.
    slices : images of the series, upwards.
    anonymous : leave the patient and the visit blank; the UIDs stay, or the file would be of no
        images.

    Raises
    ------
    DicomReportError
        If the images lack what a file cannot do without, such as UIDs.
    """
    if any(s.frame is not None for s in slices):
        raise DicomReportError("the images are the frames of one file, which it cannot point at")
    chosen = [r for r in records if r["above_threshold"]]
    if kind == "seg" and not chosen:
        return
    make = {"sr": _structured_report, "sc": _secondary_capture, "seg": _segmentation}[kind]
    try:
        dataset = make(findings, chosen, slices, anonymous)
        # In the header: what the file is, and which software and model made it.
        dataset.SeriesDescription = DESCRIPTION
        dataset.ManufacturerModelName = model_name(findings)
        dataset.SoftwareVersions = lungdet_mmdet.__version__
        dataset.DeviceSerialNumber = model_digest(findings)[:16]
        content = io.BytesIO()
        dataset.save_as(content)
    except (AttributeError, KeyError, TypeError, ValueError, struct.error) as error:
        raise DicomReportError(
            f"the images lack what one has to repeat ({type(error).__name__}: {error})"
        ) from error
    write_bytes(path, content.getvalue())


def _identity(kind: str) -> dict[str, Any]:
    """Return what every DICOM file of this package says of its series and of itself."""
    return {
        "series_number": SERIES_NUMBERS[kind],
        "series_instance_uid": hd.UID(),
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": ALGORITHM_NAME,
    }


def _structured_report(
    findings: ScanFindings,
    chosen: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
    anonymous: bool,
) -> Any:
    by_uid = {s.instance_uid: s for s in slices}
    used = sorted({r["dicom_image"]["sop_instance_uid"] for r in chosen})
    shown = used or [slices[len(slices) // 2].instance_uid]
    evidence = [_evidence(by_uid[uid].path, anonymous=anonymous) for uid in shown]
    return sr.ComprehensiveSR(
        # All images were looked at, not only those with a candidate.
        evidence=evidence + [_reference(s) for s in slices if s.instance_uid not in shown],
        content=measurement_report(findings, chosen, by_uid, evidence),
        is_complete=True,
        **_identity("sr"),
    )


def _reference(image: DicomSlice) -> Any:
    """Return as much of an image as it takes to refer to it."""
    dataset = pydicom.Dataset()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = image.study_uid, image.series_uid
    dataset.SOPInstanceUID, dataset.SOPClassUID = image.instance_uid, image.sop_class_uid
    return dataset


def _secondary_capture(
    findings: ScanFindings,
    chosen: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
    anonymous: bool,
) -> Any:
    image = _evidence(slices[len(slices) // 2].path, anonymous=anonymous)
    capture = hd.sc.SCImage.from_ref_dataset(
        ref_dataset=image,
        pixel_array=capture_picture(
            findings.scan.volume_hu,
            findings.scan.geometry,
            [(_caption(r), tuple(r["centre_xyz_mm"]), r["diameter_mm"]) for r in chosen],
            heading=NOTICE,
            lines=[*provenance(findings, chosen), *cautions(findings)],
        ),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        **_identity("sc"),
    )
    capture.BurnedInAnnotation = "YES"
    capture.ConversionType = "WSD"
    capture.BodyPartExamined = "CHEST"
    return capture


def _caption(record: Mapping[str, Any]) -> str:
    number = record["dicom_image"]["instance_number"]
    return (
        f"#{record['rank']}  score {record['score']:.3f}  {record['diameter_mm']:.1f} mm  "
        f"image {number}"
    )


def _segmentation(
    findings: ScanFindings,
    chosen: Sequence[Mapping[str, Any]],
    slices: Sequence[DicomSlice],
    anonymous: bool,
) -> Any:
    labels = label_map(findings, chosen)
    grid = findings.scan.file_geometry
    if grid.size_zyx[1:] != slices[0].size_yx:
        raise DicomReportError("the slices were straightened, so that no image is one of theirs")
    # Missing slices were filled in: each image has its own place among those of the grid.
    points = np.array([image.position_xyz_mm for image in slices])
    rows = np.rint(grid.world_to_voxel(points)[:, 0]).astype(int)
    mask = labels[np.clip(rows, 0, len(labels) - 1)]
    ranks = sorted(set(np.unique(mask).tolist()) - {0})
    planes = [i for i in range(len(slices)) if mask[i].any()]
    if not planes:
        raise DicomReportError("no image lies within a candidate's box")
    numbers = np.zeros(max(ranks) + 1, dtype=np.uint8 if len(ranks) < 256 else np.uint16)
    numbers[ranks] = np.arange(1, len(ranks) + 1)
    by_rank = {record["rank"]: record for record in chosen}
    segments = [
        seg.SegmentDescription(
            segment_number=number,
            segment_label=f"candidate {rank}, score {by_rank[rank]['score']:.3f}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Nodule,
            algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name=ALGORITHM_NAME,
                version=lungdet_mmdet.__version__,
                family=codes.DCM.ArtificialIntelligence,
            ),
            tracking_uid=hd.UID(),
            tracking_id=f"candidate {rank}",
            anatomic_regions=[codes.SCT.Lung],
        )
        for number, rank in enumerate(ranks, start=1)
    ]
    return seg.Segmentation(
        source_images=[_evidence(slices[i].path, anonymous=anonymous) for i in planes],
        pixel_array=numbers[mask[planes]],
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        manufacturer_model_name=model_name(findings),
        software_versions=lungdet_mmdet.__version__,
        device_serial_number=model_digest(findings)[:16],
        content_label="CANDIDATES",
        content_description=DESCRIPTION,
        **_identity("seg"),
    )


def _evidence(path: Path, *, anonymous: bool) -> Any:
    """Read an image's header, and blank what is missing in it or malformed.

    Nothing else is read than what a file of ours has to repeat, and where `anonymous` nothing of a
    person: highdicom would repeat whatever the images say of patient, visit and scanner.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about values that are blanked here
        tags = [*_IMPERSONAL, *(() if anonymous else _REPEATED)]
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=tags, force=True)
        for keyword in (k for k in _REPEATED if not _is_sound(dataset, k)):
            setattr(dataset, keyword, "")
    return dataset


def _is_sound(dataset: Any, keyword: str) -> bool:
    """Say whether a header has a value that can be repeated."""
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


ALGORITHM_NAME = "lungdet_mmdet"


def _models(findings: ScanFindings) -> list[tuple[str, str]]:
    """Return name and digest of the model, or of each of several."""
    models = models_of(findings.model)
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
    return sr.CodedConcept(value, "99LUNGDET", meaning)


def _number(name: Any, value: float) -> Any:
    return sr.Measurement(name, value, codes.UCUM.NoUnits)
