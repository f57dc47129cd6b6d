"""Preparing a whole LUNA16-shaped folder: resume, progress, failures, manifest."""

from __future__ import annotations

import json
import platform
from collections import Counter
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from lungdet_mmdet.cohort.prepared import data_name
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import write_json
from lungdet_mmdet.execution.scan_runs import ExecutorFactory, ScanFailure, run_per_scan
from lungdet_mmdet.preparation.luna16_folder import Luna16Folder, ScanOnDisk
from lungdet_mmdet.preparation.prep_pipeline import code_version
from lungdet_mmdet.preparation.scan_job import (
    LOW_COVERAGE,
    SLAB_FOLDER,
    TIMING_NAME,
    PrepareJob,
    prepare_scan,
    read_record,
    why_not_current,
)

MANIFEST_NAME = "manifest.json"
FAILURES_NAME = "failures.json"
_LIBRARIES = ("numpy", "SimpleITK", "opencv-python", "scikit-image", "scipy")


@dataclass
class PreparationSummary:
    """What a preparation did.

    Parameters
    ----------
    prepared : series prepared now.
    skipped : series that were up to date.
    failures : scans that could not be prepared.
    missing_series : series in the tables that are not on disk.
    interrupted : stopped by Ctrl-C; running again goes on.
    redone_because : how many scans were prepared again for which change.
    manifest : the manifest as written.
    """

    prepared: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    missing_series: tuple[str, ...] = ()
    interrupted: bool = False
    redone_because: Counter = field(default_factory=Counter)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every scan on disk is prepared, 130 after Ctrl-C, else 1."""
        if self.interrupted:
            return 130
        return 1 if self.failures else 0


def prepare_cohort(
    folder: Luna16Folder,
    out_dir: Path,
    steps: list[dict],
    make_executor: ExecutorFactory,
    *,
    workers: int,
) -> PreparationSummary:
    """Prepare every scan of a folder that is not prepared yet or no longer up to date.

    Parameters
    ----------
    folder : the scans and their tables.
    out_dir : where the prepared dataset goes; must not be inside `folder`.
    steps : the prep pipeline.
    make_executor, workers : where the work is done.

    Returns
    -------
    PreparationSummary
        ``manifest.json`` and ``failures.json`` have been written.
    """
    out_dir = Path(out_dir)
    if folder.root.resolve() == out_dir.resolve():
        raise LungDetError(f"{out_dir}: the output folder is the input folder; choose another one")
    summary = PreparationSummary(missing_series=folder.missing_series)
    jobs = []
    for scan in folder.scans:
        job = PrepareJob(scan, out_dir, steps)
        try:
            changes = why_not_current(job)
        except LungDetError as error:
            summary.failures.append(ScanFailure(scan.seriesuid, "input", str(error)))
            continue
        if changes:
            jobs.append(job)
            summary.redone_because.update(c for c in changes if c != "not prepared")
        else:
            summary.skipped.append(scan.seriesuid)
    run = run_per_scan(
        prepare_scan, jobs, make_executor, max_at_work=workers, description="preparing"
    )
    summary.prepared = sorted(run.results)
    summary.failures += run.failures
    summary.interrupted = run.interrupted
    summary.manifest = write_manifest(folder, out_dir, steps, summary.failures)
    return summary


def write_manifest(
    folder: Luna16Folder, out_dir: Path, steps: list[dict], failures: list[ScanFailure]
) -> dict[str, Any]:
    """Write ``manifest.json`` and ``failures.json`` from the records on disk."""
    failed = {failure.seriesuid: failure for failure in failures}
    scans = []
    for scan in folder.scans:
        slab_folder = out_dir / SLAB_FOLDER / scan.seriesuid
        record = None if scan.seriesuid in failed else read_record(slab_folder)
        if record is not None:
            scans.append(_manifest_entry(record, slab_folder))
        elif scan.seriesuid in failed:
            reason = failed[scan.seriesuid].reason
            scans.append({"seriesuid": scan.seriesuid, "status": "failed", "reason": reason})
        else:
            scans.append({"seriesuid": scan.seriesuid, "status": "not prepared"})
    manifest = {
        "data": data_name([scan.seriesuid for scan in folder.scans]),
        "pipeline": steps,
        "code": code_version(),
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in _LIBRARIES},
        "scans": scans,
        "missing_series": list(folder.missing_series),
        "table_warnings": list(folder.warnings),
        **_cohort_figures(scans),
    }
    write_json(out_dir / MANIFEST_NAME, manifest)
    scan_of = {scan.seriesuid: scan for scan in folder.scans}
    ordered = sorted(failures, key=lambda failure: failure.seriesuid)
    write_json(out_dir / FAILURES_NAME, [_failure_entry(f, scan_of[f.seriesuid]) for f in ordered])
    return manifest


def _failure_entry(failure: ScanFailure, scan: ScanOnDisk) -> dict[str, Any]:
    """Return a failure with the scan's nodules: the splits count these as missed."""
    return {
        **failure.as_dict(),
        "subset": scan.subset,
        "nodules": [
            {
                "nodule_id": nodule.nodule_id,
                "centre_xyz_mm": list(nodule.centre_xyz_mm),
                "diameter_mm": nodule.diameter_mm,
            }
            for nodule in scan.nodules
        ],
        "excluded": [
            {"centre_xyz_mm": list(f.centre_xyz_mm), "diameter_mm": f.diameter_mm}
            for f in scan.findings
        ],
    }


def _manifest_entry(record: dict, slab_folder: Path) -> dict:
    timing = read_record_timing(slab_folder)
    return {
        "seriesuid": record["seriesuid"],
        "subset": record["subset"],
        "status": record["status"],
        "slabs": len(record["slabs"]),
        "lung_volume_l": record["lung_volume_l"],
        "lung_mask": record["lung_mask"],
        "nodules": [
            {key: nodule[key] for key in ("nodule_id", "diameter_mm", "coverage")}
            for nodule in record["nodules"]
        ],
        "nonzero_before": record["nonzero_before"],
        "nonzero_after": record["nonzero_after"],
        "nonzero_share": record["nonzero_share"],
        "flags": record["flags"],
        "seconds": timing,
    }


def read_record_timing(slab_folder: Path) -> float | None:
    """Return how long a scan's preparation took in seconds, None where that is not known."""
    path = slab_folder / TIMING_NAME
    return json.loads(path.read_text())["seconds"] if path.is_file() else None


def _cohort_figures(scans: list[dict]) -> dict[str, Any]:
    """Return the figures over all prepared scans: masking, and nodules that it cost."""
    done = [scan for scan in scans if scan["status"] == "ok"]
    nodules = [nodule for scan in done for nodule in scan["nodules"]]
    before = sum(scan["nonzero_before"] for scan in done)
    after = sum(scan["nonzero_after"] for scan in done)
    return {
        "mean_nonzero_before": round(before / len(done)) if done else 0,
        "mean_nonzero_after": round(after / len(done)) if done else 0,
        "nonzero_share": round(after / before, 4) if before else 0.0,
        "nodules": len(nodules),
        "nodules_poorly_covered": [n for n in nodules if 0 < n["coverage"] < LOW_COVERAGE],
        "nodules_lost": [n for n in nodules if n["coverage"] == 0],
    }
