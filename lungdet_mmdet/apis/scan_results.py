# SPDX-License-Identifier: Apache-2.0
"""The files of one scan's result: their names, the page's content, and how they are written."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.apis.candidate_files import (
    NOTICE,
    candidate_records,
    candidates_csv,
    candidates_json,
    cautions,
    label_map,
    models_of,
    slicer_markups,
)
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.scan import write_nifti
from lungdet_mmdet.ct.scan_inputs import ScanInput
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.reports.ct_planes import nodule_crops, overview, stored_slices
from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.scan_report import (
    ReportBox,
    ReportCandidate,
    ReportScan,
    ReportSlab,
    ReportSlices,
    report_html,
)
from lungdet_mmdet.runs.atomic_files import OutputError, write_bytes, write_json
from lungdet_mmdet.runs.files import CANDIDATES_NAME, REPORT_NAME, series_name_of
from lungdet_mmdet.splits.prepared import NOT_PATIENTS

CSV_NAME = "candidates.csv"
SLICER_NAME = "candidates.mrk.json"
LABEL_MAP_NAME = "candidates_boxes.nii.gz"
THUMBNAIL_NAME = "thumbnail.jpg"

DICOM_NAMES = {
    "sr": "candidates_sr.dcm",
    "sc": "candidates_sc.dcm",
    "seg": "candidates_seg.dcm",
}
"""Kinds of DICOM files: structured report, secondary capture, segmentation."""

# In the folder of an earlier result whose scan could not be used this time.
OUTDATED_NAME = "outdated.txt"

OUTPUT_NAMES = frozenset(
    {
        CSV_NAME,
        CANDIDATES_NAME,
        SLICER_NAME,
        REPORT_NAME,
        LABEL_MAP_NAME,
        THUMBNAIL_NAME,
        OUTDATED_NAME,
        *DICOM_NAMES.values(),
    }
)

REPORTS = ("full", "slabs", "none")
"""Kinds of page: with all slices of the CT, with the detector's slabs alone, no page."""


@lru_cache(maxsize=1)
def has_highdicom() -> bool:
    """Say whether the packages for DICOM reports are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("highdicom", "pydicom"))


def write_findings(
    folder: Path,
    findings: ScanFindings,
    *,
    scan_input: ScanInput | None = None,
    fingerprint: dict[str, str] | None = None,
    anonymous: bool = False,
    with_label_map: bool = False,
    report: str = "full",
    dicom: Sequence[str] = ("sr",),
) -> ScanFindings:
    """Write all files of one scan's result into a folder; return what was written.

    Tables and JSON are the result. Any other file that cannot be made (a DICOM report of images
    that lack what it repeats, a page) is flagged and left out: it never costs the others.

    Parameters
    ----------
    folder : is made where it is not there.
    findings : the result.
    scan_input : where the scan came from; a DICOM series gets DICOM files too.
    fingerprint : what the result depends on.
    anonymous : leave out where the scan lay, its name, and whose it is.
    with_label_map : also write the boxes as an image on the input's own grid.
    report : one of ``REPORTS``.
    dicom : kinds of DICOM files, of ``DICOM_NAMES``.
    """
    series = scan_input.series if scan_input is not None else None
    name = scan_input.name if scan_input else series_name_of(findings.scan.seriesuid)
    if anonymous:
        findings = replace(findings, source="", scan=replace(findings.scan, seriesuid=name))
    slices = slice_stack(series)[0] if series is not None else []
    records = candidate_records(findings, dicom_slices=slices)
    if anonymous:
        for record in records:
            record.get("dicom_image", {}).pop("file", None)
    verdict = str(findings.lung_summary.get("verdict", ""))
    is_made_up = any(text.startswith(NOT_PATIENTS) for text in cautions(findings))
    table = candidates_csv(
        name, records, verdict=verdict, caution=NOT_PATIENTS if is_made_up else ""
    )
    write_bytes(folder / CSV_NAME, table.encode("utf-8"))
    write_json(folder / SLICER_NAME, slicer_markups(findings, records))

    optional: dict[str, _Maker] = {}
    if slices and has_highdicom():
        optional |= {DICOM_NAMES[kind]: _dicom_maker(kind, slices, anonymous) for kind in dicom}
    if with_label_map:
        optional[LABEL_MAP_NAME] = _make_label_map
    optional[THUMBNAIL_NAME] = _make_thumbnail
    if report != "none":  # last: it shows what could not be made
        optional[REPORT_NAME] = partial(_make_report, name=name, with_slices=report == "full")
    unwritten = []
    for file_name, make in optional.items():
        try:
            make(folder / file_name, findings, records)
        except Exception as error:  # whatever a library makes of a scan: the result is there
            (folder / file_name).unlink(missing_ok=True)
            unwritten += [file_name] if isinstance(error, (OSError, OutputError)) else []
            # Errors of others, and of a place, may name files.
            names_none = isinstance(error, LungDetError) and not isinstance(error, OutputError)
            text = printable(str(error)) if names_none or not anonymous else ""
            reason = f"no {file_name}: {text or type(error).__name__}"
            findings = replace(findings, flags=(*findings.flags, reason))
    content = candidates_json(findings, records, fingerprint=fingerprint or {}, name=name)
    if unwritten:  # with room on the disk, the next run writes them
        content["unwritten"] = unwritten
    if scan_input is not None and not anonymous:
        content["place"] = scan_input.place_digest()
    # Last: its presence says that all others are there.
    write_json(folder / CANDIDATES_NAME, content)
    return findings


_Records = Sequence[Mapping[str, Any]]
_Maker = Callable[[Path, ScanFindings, _Records], None]


def _dicom_maker(kind: str, slices: Sequence[DicomSlice], anonymous: bool) -> _Maker:
    def make(path: Path, findings: ScanFindings, records: _Records) -> None:
        from lungdet_mmdet.apis.dicom_report import write_dicom  # needs highdicom

        write_dicom(kind, path, findings, records, slices, anonymous=anonymous)

    return make


def _make_label_map(path: Path, findings: ScanFindings, records: _Records) -> None:
    write_nifti(path, label_map(findings, records), findings.scan.file_geometry)


def _make_thumbnail(path: Path, findings: ScanFindings, records: _Records) -> None:
    write_bytes(path, encoded_jpeg(scan_overview(findings)))


def _make_report(
    path: Path, findings: ScanFindings, records: _Records, *, name: str, with_slices: bool
) -> None:
    page = report_scan(findings, records, name=name, with_slices=with_slices)
    write_bytes(path, report_html(page).encode("utf-8"))


MAX_CROPPED = 30
OUTLINE_TOLERANCE_PX = 0.8


def report_scan(
    findings: ScanFindings,
    records: Sequence[Mapping[str, Any]],
    *,
    name: str = "",
    with_slices: bool = True,
) -> ReportScan:
    """Return the report of one scan.

    Parameters
    ----------
    findings : the result.
    records : its candidates as plain values.
    name : the scan's name in the tables.
    with_slices : put the CT itself into the page; without it the page shows slabs alone.
    """
    boxes = _boxes_of_slabs(findings)
    slabs = [
        ReportSlab(
            image=image,
            z_range_mm=geometry.z_range_mm,
            boxes=boxes.get(geometry.index, ()),
            outline_xy_px=lung_outline(findings, geometry),
        )
        for image, geometry in zip(findings.slabs, findings.slab_geometries, strict=True)
    ]
    return ReportScan(
        title=findings.scan.seriesuid,
        notice=NOTICE,
        facts=_facts(findings),
        flags=[flag.replace("_", " ") for flag in findings.flags],
        threshold=findings.threshold,
        spacing_xy_mm=findings.slab_geometries[0].spacing_xy_mm,
        slabs=slabs,
        candidates=[_candidate(findings, record) for record in records],
        warnings=cautions(findings),
        slices=_slices(findings) if with_slices else None,
        name=name,
        model_sha256=str(findings.model.get("sha256", "")),
    )


def _slices(findings: ScanFindings) -> ReportSlices:
    scan = findings.scan
    jpegs, quality = stored_slices(scan.volume_hu)
    middle = [(n - 1) / 2 for n in scan.geometry.size_zyx]
    points = scan.geometry.voxel_to_world([[k, *middle[1:]] for k in range(len(jpegs))])
    in_file = scan.file_geometry.world_to_voxel(points)[:, 0]
    # A file whose slices run from ear to ear has no number for one from front to back.
    is_same_way = np.allclose(in_file, np.rint(in_file), atol=0.01) and len(
        np.unique(np.rint(in_file))
    ) == len(jpegs)
    return ReportSlices(
        jpegs=jpegs,
        quality=quality,
        geometry=scan.geometry,
        file_slices=np.rint(in_file).astype(int).tolist() if is_same_way else None,
    )


def scan_overview(findings: ScanFindings) -> np.ndarray:
    """Return a small RGB picture of the scan through its best candidate, or through its middle."""
    best = findings.candidates[0] if findings.candidates else None
    grid = findings.scan.geometry
    middle = grid.voxel_to_world((np.asarray(grid.size_zyx) - 1) / 2)
    return overview(
        findings.scan.volume_hu,
        grid,
        best.centre_xyz_mm if best else tuple(middle.tolist()),
        mark_mm=best.diameter_mm if best else None,
    )


def lung_outline(findings: ScanFindings, geometry: SlabGeometry) -> list[np.ndarray]:
    """Return the outlines (N, 2) in pixels x, y of the lungs as far as they lie in a slab."""
    low, high = geometry.z_range_mm
    inside = (findings.lung_mask_z > low) & (findings.lung_mask_z < high)
    flat = np.ascontiguousarray(findings.lung_mask[inside].max(axis=0, initial=0), dtype=np.uint8)
    lines, _ = cv2.findContours(flat, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [cv2.approxPolyDP(line, OUTLINE_TOLERANCE_PX, True) for line in lines]
    return [line[:, 0, :] for line in lines if len(line) > 2]


def _boxes_of_slabs(findings: ScanFindings) -> dict[int, list[ReportBox]]:
    """Return the best box of each candidate on each slab, by slab."""
    found = {detection.img_id: detection for detection in findings.detections}
    boxes: dict[int, list[ReportBox]] = {}
    for rank, joined in enumerate(findings.joined, start=1):
        best: dict[int, int] = {}
        for slab, row in joined.tolist():
            scores = found[slab].scores
            if slab not in best or scores[row] > scores[best[slab]]:
                best[slab] = row
        for slab, row in best.items():
            corners = tuple(found[slab].boxes_xyxy_px[row].tolist())
            boxes.setdefault(slab, []).append(
                ReportBox(corners, float(found[slab].scores[row]), rank)
            )
    return boxes


def _candidate(findings: ScanFindings, record: Mapping[str, Any]) -> ReportCandidate:
    normal = findings.slab_geometries[0].axes_xyz[:, 2]
    centre = np.asarray(record["centre_xyz_mm"])
    height = float(normal @ centre)
    middles = [float(np.mean(g.z_range_mm)) for g in findings.slab_geometries]
    crops: dict[str, np.ndarray] = {}
    if record["rank"] <= MAX_CROPPED:
        crops = nodule_crops(
            findings.scan.volume_hu, findings.scan.geometry, tuple(record["centre_xyz_mm"])
        )
    return ReportCandidate(
        rank=record["rank"],
        score=record["score"],
        diameter_mm=record["diameter_mm"],
        centre_xyz_mm=tuple(record["centre_xyz_mm"]),
        voxel_xyz=tuple(record["voxel_xyz"]),
        slab=min(record["slab_indices"], key=lambda i: abs(middles[i] - height)),
        slab_indices=record["slab_indices"],
        is_positive=record["above_threshold"],
        at_xyz=tuple(findings.scan.geometry.world_to_voxel(centre)[::-1].tolist()),
        image=record.get("dicom_image", {}).get("instance_number"),
        crops=crops,
    )


def _facts(findings: ScanFindings) -> list[tuple[str, str]]:
    grid, summary = findings.scan.file_geometry, findings.lung_summary
    columns, rows, slices = grid.size_zyx[::-1]
    dx, dy, dz = grid.spacing_xyz_mm
    low, high = findings.slab_geometries[0].z_range_mm
    models = models_of(findings.model)
    learnt = [str((model.get("data") or {}).get("name") or "not stated") for model in models]
    facts = [
        ("series", findings.scan.seriesuid),
        ("read from", Path(findings.source).name),
        ("grid", f"{columns} x {rows} x {slices} voxels of {dx:g} x {dy:g} x {dz:g} mm"),
        ("origin (LPS)", ", ".join(f"{v:.2f}" for v in grid.origin_xyz_mm) + " mm"),
        ("direction", ", ".join(f"{v:.4g}" for v in grid.direction)),
        ("slabs", f"{len(findings.slab_geometries)} of {high - low:.2f} mm"),
        ("lung volume", f"{summary.get('volume_l', float('nan')):.2f} l"),
        ("lung mask", f"{summary.get('method', '?')}, verdict: {summary.get('verdict', '?')}"),
        ("model", " + ".join(str(model.get("name", "")) for model in models)),
        ("model trained on", "; ".join(dict.fromkeys(learnt))),
        ("looks at a slab", str(findings.model.get("looks", 1))),
        ("threshold", f"{findings.threshold:.3f}"),
    ]
    return [(name, value) for name, value in facts if value]
