"""From the detector's findings to what the report page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.apis.candidate_files import NOTICE
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.reports.scan_report import (
    ReportBox,
    ReportCandidate,
    ReportScan,
    ReportSlab,
    nodule_crops,
    slab_middle,
)
from lungdet_mmdet.scoring.slab_records import SlabDetections

# Fainter boxes and candidates would only fill the page.
MIN_SCORE_SHOWN = 0.05
MAX_CROPPED = 30
OUTLINE_TOLERANCE_PX = 0.8


def report_scan(findings: ScanFindings, records: Sequence[Mapping[str, Any]]) -> ReportScan:
    """Return the report of one scan.

    Parameters
    ----------
    findings : the result.
    records : its candidates as plain values.
    """
    least = min(MIN_SCORE_SHOWN, findings.threshold)
    slabs = [
        ReportSlab(
            image=image,
            plain=slab_middle(findings.scan.volume_hu, findings.scan.geometry, geometry),
            z_range_mm=geometry.z_range_mm,
            boxes=_boxes(found, geometry, records, least),
            outline_xy_px=lung_outline(findings, geometry),
        )
        for image, geometry, found in zip(
            findings.slabs, findings.slab_geometries, findings.detections, strict=True
        )
    ]
    return ReportScan(
        title=findings.scan.seriesuid,
        notice=NOTICE,
        facts=_facts(findings),
        flags=[flag.replace("_", " ") for flag in findings.flags],
        threshold=findings.threshold,
        spacing_xy_mm=findings.slab_geometries[0].spacing_xy_mm,
        slabs=slabs,
        candidates=[_candidate(findings, r) for r in records if r["score"] >= least],
        warning=lung_warning(str(findings.lung_summary.get("verdict", "ok"))),
    )


def lung_warning(verdict: str) -> str:
    """Return what a verdict on the lung mask means for a result; "" where it is "ok"."""
    if verdict == "implausible":
        return (
            "no lungs were found (verdict: implausible): the result is of no worth; are the values "
            "Hounsfield units, and is this a chest CT?"
        )
    if verdict != "ok":
        return f"the lung mask is in doubt (verdict: {verdict}): look at it before the result"
    return ""


def lung_outline(findings: ScanFindings, geometry: SlabGeometry) -> list[np.ndarray]:
    """Return the outlines (N, 2) in pixels x, y of the lungs as far as they lie in a slab."""
    low, high = geometry.z_range_mm
    inside = (findings.lung_mask_z > low) & (findings.lung_mask_z < high)
    flat = np.ascontiguousarray(findings.lung_mask[inside].max(axis=0, initial=0), dtype=np.uint8)
    lines, _ = cv2.findContours(flat, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [cv2.approxPolyDP(line, OUTLINE_TOLERANCE_PX, True) for line in lines]
    return [line[:, 0, :] for line in lines if len(line) > 2]


def _boxes(
    found: SlabDetections,
    geometry: SlabGeometry,
    records: Sequence[Mapping[str, Any]],
    least: float,
) -> list[ReportBox]:
    kept = found.scores >= least
    here = [r for r in records if geometry.index in r["slab_indices"]]
    return [
        ReportBox(tuple(box.tolist()), float(score), _rank_of(box, geometry, here))
        for box, score in zip(found.boxes_xyxy_px[kept], found.scores[kept], strict=True)
    ]


def _rank_of(box: np.ndarray, geometry: SlabGeometry, here: Sequence[Mapping[str, Any]]) -> int:
    """Return the rank of the best candidate of this slab that the box's centre lies in, or 0."""
    centre = geometry.boxes_to_world(box[None])[0]
    axes = geometry.axes_xyz[:, :2]
    for record in here:
        offset = (centre - np.asarray(record["centre_xyz_mm"])) @ axes
        if np.hypot(*offset) <= record["diameter_mm"] / 2:
            return record["rank"]
    return 0


def _candidate(findings: ScanFindings, record: Mapping[str, Any]) -> ReportCandidate:
    normal = findings.slab_geometries[0].axes_xyz[:, 2]
    height = float(normal @ np.asarray(record["centre_xyz_mm"]))
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
        crops=crops,
    )


def _facts(findings: ScanFindings) -> list[tuple[str, str]]:
    grid, summary = findings.scan.file_geometry, findings.lung_summary
    columns, rows, slices = grid.size_zyx[::-1]
    dx, dy, dz = grid.spacing_xyz_mm
    low, high = findings.slab_geometries[0].z_range_mm
    data = findings.model.get("data") or {}
    facts = [
        ("series", findings.scan.seriesuid),
        ("read from", Path(findings.source).name),
        ("grid", f"{columns} x {rows} x {slices} voxels of {dx:g} x {dy:g} x {dz:g} mm"),
        ("origin (LPS)", ", ".join(f"{v:.2f}" for v in grid.origin_xyz_mm) + " mm"),
        ("direction", ", ".join(f"{v:.4g}" for v in grid.direction)),
        ("slabs", f"{len(findings.slab_geometries)} of {high - low:.2f} mm"),
        ("lung volume", f"{summary.get('volume_l', float('nan')):.2f} l"),
        ("lung mask", f"{summary.get('method', '?')}, verdict: {summary.get('verdict', '?')}"),
        ("model", str(findings.model.get("name", ""))),
        ("model trained on", str(data.get("name") or "not stated")),
        ("threshold", f"{findings.threshold:.3f}"),
    ]
    return [(name, value) for name, value in facts if value]
