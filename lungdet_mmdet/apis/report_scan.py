# SPDX-License-Identifier: Apache-2.0
"""From the detector's findings to what the report page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lungdet_mmdet.apis.candidate_files import NOTICE, cautions
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.slabs import SlabGeometry
from lungdet_mmdet.reports.ct_planes import nodule_crops, overview, stored_slices
from lungdet_mmdet.reports.scan_report import (
    ReportBox,
    ReportCandidate,
    ReportScan,
    ReportSlab,
    ReportSlices,
)

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
