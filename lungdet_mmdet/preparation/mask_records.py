"""Nodule masks in the record of a prepared scan: by nodule and slab, for the splits."""

from __future__ import annotations

from typing import Any

import numpy as np

from lungdet_mmdet.annotations.scan_masks import mask_record, masks_of_scan
from lungdet_mmdet.annotations.slab_boxes import nodule_coverage
from lungdet_mmdet.luna16.folder import ScanOnDisk


def add_masks(record: dict[str, Any], scan: ScanOnDisk, results: dict) -> None:
    """Add to a record what each nodule's mask shows on every slab.

    Nodules of the table get ``mask``; those that only the mask has are appended with an id of their
    own. Flags say what was wrong; a mask that cannot be used changes nothing else.

    Parameters
    ----------
    record : of the scan.
    scan : with the mask's path and ratings.
    results : of the prep pipeline.
    """
    assert scan.nodule_mask_path is not None
    masks = masks_of_scan(
        scan.nodule_mask_path,
        results["file_geometry"],
        scan.nodules,
        seriesuid=scan.seriesuid,
        ratings=scan.ratings,
    )
    record["flags"] += masks.flags
    if masks.geometry is None:
        return
    target, slabs = results["geometry"], results["slab_geometries"]
    for entry in record["nodules"]:
        found = masks.of_table.get(entry["nodule_id"])
        if found is not None:
            entry["mask"] = mask_record(found, masks.geometry, target, slabs, scan.ratings)
    for nodule, found in masks.others:
        centre = target.world_to_voxel(np.asarray(nodule.centre_xyz_mm))
        coverage = nodule_coverage(
            results["lung_mask"], centre, nodule.diameter_mm, target.spacing_zyx_mm
        )
        record["nodules"].append(
            {
                "nodule_id": nodule.nodule_id,
                "centre_xyz_mm": list(nodule.centre_xyz_mm),
                "diameter_mm": nodule.diameter_mm,
                "coverage": round(coverage, 4),
                "only_in_mask": True,
                "mask": mask_record(found, masks.geometry, target, slabs, scan.ratings),
            }
        )
