"""The record of a prepared scan (``scan.json``)."""

from __future__ import annotations

import math

import cv2
import numpy as np
import scipy
import SimpleITK as sitk
import skimage

from lungdet_mmdet.nodules.coverage import nodule_coverage
from lungdet_mmdet.preparation.luna16_folder import ScanOnDisk

# Covered by less than this, a nodule is reported; by nothing, it is lost.
LOW_COVERAGE = 0.9


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that make the pixels."""
    return {
        "numpy": np.__version__,
        "SimpleITK": sitk.Version.VersionString(),
        "opencv": cv2.__version__,
        "scikit-image": skimage.__version__,
        "scipy": scipy.__version__,
    }


def scan_record(
    scan: ScanOnDisk,
    results: dict,
    slabs: list[dict],
    *,
    fingerprint: dict[str, str],
    steps: list[dict],
) -> dict:
    """Return the record of a prepared scan: the same bytes for the same input.

    Parameters
    ----------
    scan : the scan and its annotations.
    results : of the prep pipeline.
    slabs : the geometry and file name of each slab image.
    fingerprint : what the result depends on.
    steps : the prep pipeline.
    """
    summary = results["lung_summary"]
    before, after = summary["tissue_voxels"], int(np.count_nonzero(results["lung_mask"]))
    return {
        "seriesuid": scan.seriesuid,
        "subset": scan.subset,
        "status": "ok",
        "fingerprint": fingerprint,
        "pipeline": steps,
        "versions": library_versions(),
        "geometry": results["geometry"].as_dict(),
        "source_geometry": results["file_geometry"].as_dict(),
        "lung_volume_l": summary["volume_l"],
        "lung_mask": {
            key: _null_for_nan(value)
            for key, value in summary.items()
            if key not in ("flags", "volume_l", "tissue_voxels")
        },
        "nonzero_before": before,
        "nonzero_after": after,
        "nonzero_share": round(after / before, 4) if before else 0.0,
        "flags": [*results["scan_flags"], *summary["flags"]],
        "slabs": slabs,
        "nodules": _nodules(scan, results),
        "excluded": findings_record(scan),
    }


def _null_for_nan(value: object) -> object:
    """JSON knows no NaN; a mask that needs no threshold has one."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _nodules(scan: ScanOnDisk, results: dict) -> list[dict]:
    mask, geometry = results["lung_mask"], results["geometry"]
    coverages = [
        nodule_coverage(
            mask,
            geometry.world_to_voxel(np.asarray(nodule.centre_xyz_mm)),
            nodule.diameter_mm,
            geometry.spacing_zyx_mm,
        )
        for nodule in scan.nodules
    ]
    return [
        {**fields, "coverage": round(coverage, 4)}
        for fields, coverage in zip(nodules_record(scan), coverages, strict=True)
    ]


def nodules_record(scan: ScanOnDisk) -> list[dict]:
    """Return a scan's annotated nodules as plain JSON values."""
    return [
        {
            "nodule_id": nodule.nodule_id,
            "centre_xyz_mm": list(nodule.centre_xyz_mm),
            "diameter_mm": nodule.diameter_mm,
        }
        for nodule in scan.nodules
    ]


def findings_record(scan: ScanOnDisk) -> list[dict]:
    """Return a scan's irrelevant findings as plain JSON values."""
    return [
        {"centre_xyz_mm": list(finding.centre_xyz_mm), "diameter_mm": finding.diameter_mm}
        for finding in scan.findings
    ]
