"""Preparing one scan: pipeline in, slab PNGs and a record out."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lungdet_mmdet.ct.metaimage import read_metaimage_header
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import write_json
from lungdet_mmdet.nodules.coverage import nodule_coverage
from lungdet_mmdet.preparation.luna16_folder import ScanOnDisk
from lungdet_mmdet.preparation.prep_pipeline import build_prep_pipeline, code_version

SLAB_FOLDER = "slabs"
RECORD_NAME = "scan.json"
TIMING_NAME = "timing.json"
# Level 1 is several times faster than the default and costs little space on masked slabs.
PNG_COMPRESSION = 1
# Covered by less than this, a nodule is reported; by nothing, it is lost.
LOW_COVERAGE = 0.9


@dataclass(frozen=True)
class PrepareJob:
    """One scan to prepare, as it travels to a worker.

    Parameters
    ----------
    scan : the file and its annotations.
    out_dir : the prepared dataset's folder.
    steps : the prep pipeline, plain dicts.
    """

    scan: ScanOnDisk
    out_dir: Path
    steps: list[dict]

    @property
    def seriesuid(self) -> str:
        """Series UID of the scan."""
        return self.scan.seriesuid

    @property
    def folder(self) -> Path:
        """Folder of the scan's slabs and record."""
        return self.out_dir / SLAB_FOLDER / self.scan.seriesuid


def _file_state(path: Path | None) -> list | None:
    if path is None:
        return None
    try:
        stat = path.stat()
    except OSError as error:
        raise LungDetError(f"{path}: cannot be read ({error.strerror})") from error
    return [path.name, stat.st_size, stat.st_mtime_ns]


def fingerprint(job: PrepareJob) -> dict[str, str]:
    """Return what the result depends on: source files, annotations, pipeline, code.

    Two equal fingerprints mean that the prepared scan on disk is still right.
    """

    def digest(value: object) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]

    scan = job.scan
    header = read_metaimage_header(scan.path)
    annotations = [[*n.centre_xyz_mm, n.diameter_mm] for n in (*scan.nodules, *scan.findings)]
    return {
        "source": digest(
            [_file_state(p) for p in (scan.path, header.data_path, scan.lung_mask_path)]
        ),
        "annotations": digest([len(scan.nodules), annotations, scan.subset]),
        "pipeline": digest(job.steps),
        "code": code_version(),
    }


def read_record(folder: Path) -> dict | None:
    """Return a prepared scan's record, or None where there is no whole one."""
    try:
        return json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def why_not_current(job: PrepareJob) -> list[str]:
    """Return what changed since the scan was prepared; empty where it is still right."""
    record = read_record(job.folder)
    if record is None:
        return ["not prepared"]
    now = fingerprint(job)
    return [key for key, value in now.items() if record.get("fingerprint", {}).get(key) != value]


def limit_threads() -> None:
    """Keep a worker of a pool to one thread: the pool's processes are the parallelism."""
    import SimpleITK as sitk
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def prepare_scan(job: PrepareJob) -> str:
    """Prepare one scan and write its folder as a whole.

    Returns
    -------
    str
        The series UID.

    Raises
    ------
    LungDetError
        If the scan cannot be prepared; nothing is written then.
    """
    began = time.perf_counter()
    scan = job.scan
    results = build_prep_pipeline(job.steps)(
        {"scan_path": str(scan.path), "lung_mask_path": scan.lung_mask_path}
    )
    partial = job.folder.with_name(f".{scan.seriesuid}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    slabs = []
    for image, geometry in zip(results["slabs"], results["slab_geometries"], strict=True):
        name = f"{geometry.index:03d}.png"
        ok, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
        if not ok:
            raise LungDetError(f"{scan.path}: slab {geometry.index} cannot be encoded as PNG")
        (partial / name).write_bytes(png.tobytes())
        slabs.append({**geometry.as_record(), "file_name": f"{scan.seriesuid}/{name}"})
    write_json(partial / RECORD_NAME, scan_record(job, results, slabs))
    write_json(partial / TIMING_NAME, {"seconds": round(time.perf_counter() - began, 3)})
    if job.folder.exists():
        shutil.rmtree(job.folder)
    os.rename(partial, job.folder)
    return scan.seriesuid


def scan_record(job: PrepareJob, results: dict, slabs: list[dict]) -> dict:
    """Return the record of a prepared scan (``scan.json``): the same bytes for the same input."""
    scan = job.scan
    mask, geometry = results["lung_mask"], results["geometry"]
    nodules = [
        {
            "nodule_id": nodule.nodule_id,
            "centre_xyz_mm": list(nodule.centre_xyz_mm),
            "diameter_mm": nodule.diameter_mm,
            "coverage": round(
                nodule_coverage(
                    mask,
                    geometry.world_to_voxel(np.asarray(nodule.centre_xyz_mm)),
                    nodule.diameter_mm,
                    geometry.spacing_zyx_mm,
                ),
                4,
            ),
        }
        for nodule in scan.nodules
    ]
    summary = results["lung_summary"]
    flags = list(results["scan_flags"]) + list(summary["flags"])
    before, after = summary["tissue_voxels"], int(np.count_nonzero(mask))
    return {
        "seriesuid": scan.seriesuid,
        "subset": scan.subset,
        "status": "ok",
        "fingerprint": fingerprint(job),
        "geometry": geometry.as_dict(),
        "source_geometry": results["file_geometry"].as_dict(),
        "lung_volume_l": summary["volume_l"],
        "lung_mask": {k: v for k, v in summary.items() if k not in ("flags", "volume_l")},
        "nonzero_before": before,
        "nonzero_after": after,
        "nonzero_share": round(after / before, 4) if before else 0.0,
        "flags": flags,
        "slabs": slabs,
        "nodules": nodules,
        "excluded": [
            {"centre_xyz_mm": list(f.centre_xyz_mm), "diameter_mm": f.diameter_mm}
            for f in scan.findings
        ],
    }
