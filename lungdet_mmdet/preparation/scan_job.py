# SPDX-License-Identifier: Apache-2.0
"""One scan prepared: its slabs, its record (``scan.json``) and its preview."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.annotations.mark_places import RAS_TO_LPS
from lungdet_mmdet.annotations.mask_nodules import LabelledNodule, nodule_location, on_grid
from lungdet_mmdet.annotations.scan_masks import ScanMasks, mask_record, masks_of_scan
from lungdet_mmdet.annotations.slab_boxes import core_value, nodule_coverage
from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import ScanOnDisk
from lungdet_mmdet.preparation.prep_pipeline import (
    PrepareJob,
    build_prep_pipeline,
    check_code,
    fingerprint,
    run_steps,
)
from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.prep_report import MaskPreview, PreviewNodule
from lungdet_mmdet.runs.atomic_files import replacing_folder, write_json
from lungdet_mmdet.runs.files import PREVIEW_NAME, RECORD_NAME
from lungdet_mmdet.versions import PIXEL_LIBRARIES, library_versions


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
        "versions": library_versions(PIXEL_LIBRARIES),
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
        "nodules": [covered_nodule(nodule, results) for nodule in scan.nodules],
        "excluded": findings_record(scan),
    }


def _null_for_nan(value: object) -> object:
    """JSON knows no NaN; a mask that needs no threshold has one."""
    return None if isinstance(value, float) and math.isnan(value) else value


def covered_nodule(nodule: Nodule, results: dict) -> dict[str, Any]:
    """Return a nodule as plain JSON values, with the share of it that the lung mask holds."""
    geometry = results["geometry"]
    centre = geometry.world_to_voxel(np.asarray(nodule.centre_xyz_mm))
    coverage = nodule_coverage(
        results["lung_mask"], centre, nodule.diameter_mm, geometry.spacing_zyx_mm
    )
    return {**nodule_fields(nodule), "coverage": round(coverage, 4)}


def nodule_fields(nodule: Nodule) -> dict[str, Any]:
    """Return an annotated nodule as plain JSON values."""
    return {
        "nodule_id": nodule.nodule_id,
        "centre_xyz_mm": list(nodule.centre_xyz_mm),
        "diameter_mm": nodule.diameter_mm,
    }


def findings_record(scan: ScanOnDisk) -> list[dict]:
    """Return a scan's irrelevant findings as plain JSON values."""
    return [
        {"centre_xyz_mm": list(finding.centre_xyz_mm), "diameter_mm": finding.diameter_mm}
        for finding in scan.findings
    ]


class _NoduleMasks:
    """The nodule masks of a scan that is being prepared; nothing for a scan without.

    They are read right after the step that finds the lungs, while the volume still holds HU: where
    a nodule sits is seen there.
    """

    def __init__(self, scan: ScanOnDisk) -> None:
        self.scan = scan
        self.seconds = 0.0
        self._masks: ScanMasks | None = None
        self._locations: dict[int, str] = {}

    def look(self, step: str, results: dict) -> None:
        """Read the masks once the lungs are known, and say where each nodule sits."""
        path = self.scan.nodule_mask_path
        if path is None or self._masks is not None or "lung_mask" not in results:
            return
        began = time.perf_counter()
        self._masks = masks = masks_of_scan(
            path,
            results["file_geometry"],
            self.scan.nodules,
            seriesuid=self.scan.seriesuid,
            ratings=self.scan.ratings,
        )
        grid, volume = results["geometry"], results["volume"]
        # Windowed grey levels, as a pipeline of another order has by now, are no HU.
        if masks.geometry is not None and np.issubdtype(volume.dtype, np.signedinteger):
            for found in masks.labelled:
                start, nodule = on_grid(found, masks.geometry, grid)
                self._locations[found.label] = nodule_location(
                    start, nodule, results["lung_mask"], volume, grid.spacing_zyx_mm
                )
        self.seconds = time.perf_counter() - began

    def add_to(self, record: dict[str, Any], results: dict) -> None:
        """Add to a record what each nodule's mask shows on every slab, for the splits.

        Nodules of the table get ``mask``; those that only the mask has are appended with an id of
        their own. Flags say what was wrong; a mask that cannot be used changes nothing else.
        """
        masks = self._masks
        if masks is None:
            return
        record["flags"] += masks.flags
        if masks.geometry is None:
            return
        for entry in record["nodules"]:
            found = masks.of_table.get(entry["nodule_id"])
            if found is not None:
                entry["mask"] = self._record(found, masks.geometry, results)
        for nodule, found in masks.others:
            mask = self._record(found, masks.geometry, results)
            entry = covered_nodule(nodule, results)
            record["nodules"].append({**entry, "only_in_mask": True, "mask": mask})

    def _record(
        self, found: LabelledNodule, geometry: ScanGeometry, results: dict
    ) -> dict[str, Any]:
        target, slabs = results["geometry"], results["slab_geometries"]
        record = mask_record(found, geometry, target, slabs, self.scan.ratings)
        if found.label in self._locations:
            record["location"] = self._locations[found.label]
        return record


PREVIEW_QUALITY = 80
# Level 1 is several times faster than the default and costs little space on masked slabs.
PNG_COMPRESSION = 1
# Few values, half of them noise, half of them one: run lengths beat prediction.
DEPTH_STRATEGY = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
# What the record and the images are made of, and the step that gives it.
_NEEDED = {
    "slabs": "MIPSlabs",
    "slab_geometries": "MIPSlabs",
    "lung_mask": "OtsuLungMask",
    "lung_summary": "OtsuLungMask",
    "geometry": "LoadCTScan",
}


@dataclass(frozen=True)
class ScanTiming:
    """A finished scan and how long it took.

    Parameters
    ----------
    seriesuid : the scan.
    seconds : from opening the file to the finished folder.
    step_seconds : of them, per pipeline step, for the preview, and for encoding and writing.
    """

    seriesuid: str
    seconds: float
    step_seconds: dict[str, float]


def set_threads(threads: int) -> None:
    """Let the libraries of this process use so many threads each.

    Raises
    ------
    LungDetError
        If it is less than 1.
    """
    if threads < 1:
        raise LungDetError(f"threads is {threads}: use at least 1")
    import torch

    cv2.setNumThreads(threads)
    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)


def limit_threads() -> None:
    """Keep a worker of a pool to one thread: the pool's processes are the parallelism."""
    set_threads(1)


def prepare_scan(job: PrepareJob) -> ScanTiming:
    """Prepare one scan and write its folder as a whole.

    Raises
    ------
    LungDetError
        If the scan cannot be prepared or written; nothing is left behind then.
    """
    check_code(job.code)
    pipeline = build_prep_pipeline(job.steps, imports=job.imports)
    began = time.perf_counter()
    # Before reading: a file that changes while it is read then counts as changed.
    identity = fingerprint(job)
    preview, masks = _Preview(job.scan), _NoduleMasks(job.scan)

    def look(step: str, results: dict) -> None:
        preview.look(step, results)
        masks.look(step, results)

    loaded: dict[str, Any] = {
        "scan_path": str(job.scan.path),
        "lung_mask_path": job.scan.lung_mask_path,
    }
    if job.scan.series is not None:
        loaded["scan"] = job.scan.source.load()
    results, seconds = run_steps(pipeline, loaded, after_step=look)
    _check_complete(results)
    written = time.perf_counter()
    images, slabs = _encoded_slabs(job, results)
    record = scan_record(job.scan, results, slabs, fingerprint=identity, steps=job.steps)
    masks.add_to(record, results)
    for nodule in record["nodules"]:
        nodule |= preview.density.get(nodule["nodule_id"], {})
    picture = preview.jpeg(record["nodules"])
    with replacing_folder(job.folder) as folder:
        for name, data in images.items():
            (folder / name).write_bytes(data)
        if picture is not None:
            (folder / PREVIEW_NAME).write_bytes(picture)
        write_json(folder / RECORD_NAME, record)
    ended = time.perf_counter()
    if job.scan.nodule_mask_path is not None:
        seconds["nodule masks"] = masks.seconds
    seconds |= {"preview": preview.seconds, "encode and write": ended - written}
    return ScanTiming(job.seriesuid, ended - began, seconds)


def _check_complete(results: dict) -> None:
    missing = {step for key, step in _NEEDED.items() if key not in results}
    if missing:
        raise LungDetError(
            f"the prep pipeline lacks what gives slabs and their record: {', '.join(missing)}; "
            "add the step to prep_pipeline in the config"
        )


def _encoded_slabs(job: PrepareJob, results: dict) -> tuple[dict[str, bytes], list[dict]]:
    """Return the PNG files by name, and the record of each slab."""
    images, slabs = {}, []
    for place, geometry in enumerate(results["slab_geometries"]):
        name, depth_name = f"{geometry.index:03d}.png", f"{geometry.index:03d}.depth.png"
        record = {**geometry.as_record(), "file_name": f"{job.seriesuid}/{name}"}
        images[name] = _png(job, results["slabs"][place])
        if "slab_depths" in results:
            images[depth_name] = _png(job, results["slab_depths"][place], *DEPTH_STRATEGY)
            record["depth_file_name"] = f"{job.seriesuid}/{depth_name}"
        slabs.append(record)
    return images, slabs


def _png(job: PrepareJob, image: np.ndarray, *options: int) -> bytes:
    ok, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION, *options])
    if not ok:
        raise LungDetError(
            f"{job.scan.path}: a slab of {image.shape} {image.dtype} cannot be encoded as PNG; "
            "8-bit slabs are needed"
        )
    return png.tobytes()


class _Preview:
    """Keeps what the preview shows while the scan and its mask are at hand: before masking."""

    def __init__(self, scan: ScanOnDisk) -> None:
        self.scan = scan
        self.seconds = 0.0
        self.density: dict[str, dict[str, float | None]] = {}
        self._kept: tuple[MaskPreview, ScanGeometry] | None = None

    def look(self, step: str, results: dict) -> None:
        """Keep slabs right after the step that found the lungs."""
        if self._kept is not None or "lung_mask" not in results:
            return
        began = time.perf_counter()
        geometry = results["geometry"]
        centres = [geometry.world_to_voxel(np.asarray(n.centre_xyz_mm)) for n in self.scan.nodules]
        found = results.get("lung_segmentation")
        preview = MaskPreview(
            results["volume"],
            results["lung_mask"],
            geometry.spacing_zyx_mm,
            [centre[0] for centre in centres],
            filled=None if found is None else found.filled_mask,
        )
        self._kept = preview, geometry
        for nodule in self.scan.nodules:
            values = [
                core_value(
                    results["volume"],
                    geometry.world_to_voxel(point),
                    nodule.diameter_mm,
                    geometry.spacing_zyx_mm,
                )
                for point in (nodule.centre_xyz_mm, RAS_TO_LPS * nodule.centre_xyz_mm)
            ]
            hu, turned = (None if math.isnan(v) else round(v, 1) for v in values)
            self.density[nodule.nodule_id] = {"hu": hu, "hu_turned": turned}
        self.seconds = time.perf_counter() - began

    def jpeg(self, nodules: list[dict]) -> bytes | None:
        """Draw it, with the coverage of the nodules as the record of the scan has it."""
        if self._kept is None:
            return None
        began = time.perf_counter()
        preview, geometry = self._kept
        marked = []
        for nodule in nodules:
            centre = geometry.world_to_voxel(np.asarray(nodule["centre_xyz_mm"]))
            marked.append(
                PreviewNodule(tuple(centre.tolist()), nodule["diameter_mm"], nodule["coverage"])
            )
        picture = preview.draw(marked)
        self.seconds += time.perf_counter() - began
        return encoded_jpeg(picture, quality=PREVIEW_QUALITY, thin_colours=False)


def preview_path(slab_folder: Path) -> Path:
    """Return where the preview of a prepared scan lies."""
    return slab_folder / PREVIEW_NAME
