# SPDX-License-Identifier: Apache-2.0
"""Candidates of one scan as files: a table, JSON, and markups for 3D Slicer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.runs.atomic_files import csv_text
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.run_files import COLUMNS
from lungdet_mmdet.splits.prepared import NOT_PATIENTS

NOTICE = "Research software. Not a medical device and not for clinical use."
MORE_COLUMNS = (
    "diameter_mm",
    "z_min_mm",
    "z_max_mm",
    "z_sd_mm",
    "z_from",
    "slab_ids",
    "rank",
    "above_threshold",
    "lungs",
    "caution",
)
SLICER_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/"
    "Schema/markups-schema-v1.0.3.json#"
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


def models_of(model: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return what a result says of its model, or of each of several."""
    return model.get("ensemble") or [model]


def cautions(findings: ScanFindings) -> list[str]:
    """Return why a result is not to be trusted, for the head of all that shows it."""
    warning = lung_warning(str(findings.lung_summary.get("verdict", "ok")))
    of_model = [flag for flag in findings.flags if flag.startswith(NOT_PATIENTS)]
    return ([warning] if warning else []) + of_model


def candidate_records(
    findings: ScanFindings, *, dicom_slices: Sequence[DicomSlice] = ()
) -> list[dict[str, Any]]:
    """Return the candidates as plain values, best first.

    Parameters
    ----------
    findings : the scan's result.
    dicom_slices : the images of the series; each candidate then names the image nearest to it, and
        the pixel there.

    Returns
    -------
    list of dict
        ``voxel_xyz`` is column, row, slice of the input's own grid, the centre of the first voxel
        being 0.
    """
    records = []
    for rank, candidate in enumerate(findings.candidates, start=1):
        centre = np.asarray(candidate.centre_xyz_mm)
        voxel_zyx = findings.scan.file_geometry.world_to_voxel(centre)
        low, high = candidate.z_range_mm
        record: dict[str, Any] = {
            "rank": rank,
            "score": round(candidate.score, 6),
            "above_threshold": candidate.score >= findings.threshold,
            "centre_xyz_mm": [round(float(v), 4) for v in centre],
            "voxel_xyz": [round(float(v), 3) for v in voxel_zyx[::-1]],
            "diameter_mm": round(candidate.diameter_mm, 3),
            "z_range_mm": [round(low, 4), round(high, 4)],
            "z_sd_mm": round(candidate.z_sd_mm, 3),
            "z_from": "depth" if candidate.z_from_depth else "mid-plane",
            "box": _box(candidate, findings),
            "slab_indices": list(candidate.slab_indices),
            "n_boxes": candidate.n_boxes,
        }
        if dicom_slices:
            record["dicom_image"] = nearest_image(dicom_slices, centre)
        records.append(record)
    return records


def _box(candidate: Candidate, findings: ScanFindings) -> dict[str, Any]:
    """Return a candidate's box in space: its centre and its sizes along the axes of the slabs."""
    axes = findings.slab_geometries[0].axes_xyz
    low, high = candidate.z_range_mm
    centre = np.asarray(candidate.centre_xyz_mm)
    # Without a depth the box is as deep as the slabs that saw it, and they need not lie around z.
    centre = centre + ((low + high) / 2 - axes[:, 2] @ centre) * axes[:, 2]
    sides = [side or candidate.diameter_mm for side in candidate.sides_mm]
    return {
        "centre_xyz_mm": [round(float(v), 4) for v in centre],
        "size_mm": [round(float(v), 3) for v in (*sides, high - low)],
        "axes": axes.ravel().tolist(),
    }


def label_map(
    findings: ScanFindings, records: Iterable[Mapping[str, Any]]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the boxes of the candidates above the threshold on the input's own grid.

    Returns
    -------
    array (z, y, x) : 0, or the rank of the candidate; of two boxes that meet, the smaller one's. A
        voxel belongs to a box when its centre does, and every box holds at least its centre.
    """
    grid = findings.scan.file_geometry
    shown = [record for record in records if record["above_threshold"]]
    number = np.uint8 if all(record["rank"] < 256 for record in shown) else np.uint16
    labels = np.zeros(grid.size_zyx, dtype=number)
    signs = np.array(list(itertools.product((-0.5, 0.5), repeat=3)))
    for record in sorted(shown, key=lambda r: (-np.prod(r["box"]["size_mm"]), -r["rank"])):
        box = record["box"]
        axes = np.asarray(box["axes"]).reshape(3, 3)
        corners = box["centre_xyz_mm"] + (signs * box["size_mm"]) @ axes.T
        # The slabs' axes are the file's own, but for their order and sign.
        voxels = grid.world_to_voxel(np.concatenate([corners, [box["centre_xyz_mm"]]]))
        middle = np.round(voxels[-1])
        first = np.minimum(np.ceil(voxels[:-1].min(axis=0)), middle)
        last = np.maximum(np.floor(voxels[:-1].max(axis=0)), middle)
        slices = tuple(
            slice(max(int(a), 0), max(int(b) + 1, 0)) for a, b in zip(first, last, strict=True)
        )
        labels[slices] = record["rank"]
    return labels


def nearest_image(slices: Sequence[DicomSlice], point_xyz_mm: np.ndarray) -> dict[str, Any]:
    """Return the image whose plane lies nearest to a point, and the pixel (column, row) there."""
    heights = np.array([s.height_mm for s in slices])
    item = slices[int(np.argmin(np.abs(heights - slices[0].normal_xyz @ point_xyz_mm)))]
    offset = np.asarray(point_xyz_mm) - np.asarray(item.position_xyz_mm)
    column = float(offset @ np.asarray(item.orientation[:3]) / item.spacing_xy_mm[0])
    row = float(offset @ np.asarray(item.orientation[3:]) / item.spacing_xy_mm[1])
    return {
        "sop_instance_uid": item.instance_uid,
        "instance_number": item.instance_number,
        "file": item.path.name,
        **({} if item.frame is None else {"frame": item.frame + 1}),
        "column_row": [round(column, 3), round(row, 3)],
    }


def candidates_csv(
    seriesuid: str, records: Iterable[Mapping[str, Any]], *, verdict: str = "", caution: str = ""
) -> str:
    """Return the candidates as a table that begins with the columns of a LUNA16 submission.

    Parameters
    ----------
    seriesuid : the scan's name, the same in no other scan of a table; see ``series_name_of``.
    records : of :func:`candidate_records`.
    verdict : on the lung mask: candidates outside the lungs are of no worth.
    caution : of the model, in a few words.
    """
    rows = [
        [
            seriesuid,
            *record["centre_xyz_mm"],
            record["score"],
            record["diameter_mm"],
            *record["z_range_mm"],
            record["z_sd_mm"],
            record["z_from"],
            " ".join(map(str, record["slab_indices"])),
            record["rank"],
            int(record["above_threshold"]),
            verdict,
            caution,
        ]
        for record in records
    ]
    return csv_text([*COLUMNS, *MORE_COLUMNS], rows)


def candidates_json(
    findings: ScanFindings,
    records: Sequence[Mapping[str, Any]],
    *,
    fingerprint: Mapping[str, str],
    name: str = "",
) -> dict[str, Any]:
    """Return all about a scan's result, but for its pictures; `name` is that of its folder."""
    return {
        "format": "lungdet_mmdet candidates",
        "format_version": 1,
        "notice": NOTICE,
        "seriesuid": findings.scan.seriesuid,
        "name": name or findings.scan.seriesuid,
        "source": findings.source,
        "coordinates": {
            "centre_xyz_mm": "world point in LPS millimetres (left, posterior, superior)",
            "voxel_xyz": "column, row, slice on 'geometry'; the first voxel's centre is 0",
            "z_range_mm": "along the slab normal; world z of an axial scan. The candidate's own "
            "extent where z comes from the depth of the maximum, else that of its slabs",
            "z_sd_mm": "standard deviation of the centre along the slab normal",
            "box": "in space; size along the columns of 'axes' (row-major 3x3), LPS",
        },
        "geometry": findings.scan.file_geometry.as_dict(),
        "cautions": cautions(findings),
        "flags": list(findings.flags),
        "lungs": {k: v for k, v in findings.lung_summary.items() if k != "flags"},
        "model": findings.model,
        "threshold": findings.threshold,
        "n_slabs": len(findings.slab_geometries),
        "seconds": findings.seconds,
        "candidates": list(records),
        "fingerprint": dict(fingerprint),
    }


def slicer_markups(findings: ScanFindings, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the candidates above the threshold for 3D Slicer (.mrk.json).

    A list of points, and a box of its own (ROI) for each of them.
    """
    records = [record for record in records if record["above_threshold"]]
    points = [
        {
            "id": str(record["rank"]),
            "label": f"{record['rank']}: {record['score']:.2f}",
            "description": f"{record['diameter_mm']:.1f} mm, score {record['score']:.3f}",
            "associatedNodeID": "",
            "position": record["centre_xyz_mm"],
            "orientation": [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0],
            "selected": True,
            "locked": True,
            "visibility": True,
            "positionStatus": "defined",
        }
        for record in records
    ]
    boxes = [
        {
            "type": "ROI",
            "name": f"Candidate {record['rank']}",
            "coordinateSystem": "LPS",
            "coordinateUnits": "mm",
            "locked": True,
            "roiType": "Box",
            "center": record["box"]["centre_xyz_mm"],
            "orientation": record["box"]["axes"],
            "size": record["box"]["size_mm"],
            "insideOut": False,
            "controlPoints": [{"id": "1", "position": record["box"]["centre_xyz_mm"]}],
            "display": {"fillVisibility": False, "propertiesLabelVisibility": True},
        }
        for record in records
    ]
    markup = {
        "type": "Fiducial",
        "name": f"Nodule candidates {findings.scan.seriesuid}",
        "coordinateSystem": "LPS",
        "coordinateUnits": "mm",
        "locked": True,
        "fixedNumberOfControlPoints": False,
        "labelFormat": "%N-%d",
        "lastUsedControlPointNumber": len(points),
        "controlPoints": points,
    }
    return {"@schema": SLICER_SCHEMA, "markups": [markup, *boxes]}
