# SPDX-License-Identifier: Apache-2.0
"""The account of a prepared cohort: manifest, failures, and scans that lost their source."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lungdet_mmdet
from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.errors import printable
from lungdet_mmdet.luna16.folder import Luna16Folder, ScanOnDisk
from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION, code_marks, is_of, read_record
from lungdet_mmdet.preparation.scan_job import findings_record, nodule_fields
from lungdet_mmdet.runs.atomic_files import output_error
from lungdet_mmdet.runs.files import SLAB_FOLDER
from lungdet_mmdet.runs.scan_runs import MISNAMED, ScanFailure
from lungdet_mmdet.splits.prepared import data_name
from lungdet_mmdet.versions import PIXEL_LIBRARIES, library_versions

OUTDATED_FOLDER = "outdated"


@dataclass(frozen=True)
class ScansWithoutSource:
    """Series UIDs of scans that are still right (kept), and of those moved aside (outdated)."""

    kept: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()


def sort_out(out_dir: Path, present: Collection[str], steps: list[dict]) -> ScansWithoutSource:
    """Find prepared scans without a source and move aside those that are out of date.

    Whoever lacks the space for all of LUNA16 prepares it subset by subset into one output folder,
    so such scans are kept and counted as long as the pipeline and the code are those they were made
    with. Once these change, the scans cannot be prepared again; left in place they would mix two
    kinds of images in one dataset. They are moved aside, never deleted.

    Parameters
    ----------
    out_dir : the prepared dataset's folder.
    present : series UIDs in the input folder.
    steps : the prep pipeline.

    Raises
    ------
    OutputError
        If a folder cannot be moved.
    """
    slabs = out_dir / SLAB_FOLDER
    if not slabs.is_dir():
        return ScansWithoutSource()
    kept, outdated = [], []
    now = code_marks(steps)
    for folder in sorted(slabs.iterdir()):
        if folder.name in present or folder.name.startswith(".") or not folder.is_dir():
            continue
        if is_of(read_record(folder), now):
            kept.append(folder.name)
        else:
            _move_aside(folder, out_dir / OUTDATED_FOLDER / folder.name)
            outdated.append(folder.name)
    return ScansWithoutSource(tuple(kept), tuple(outdated))


def _move_aside(folder: Path, target: Path) -> None:
    try:
        target.parent.mkdir(exist_ok=True)
        free, number = target, 1
        while free.exists():
            number += 1
            free = target.with_name(f"{target.name}.{number}")
        os.rename(folder, free)
    except OSError as error:
        raise output_error(target, error) from error


_FROM_RECORD = (
    "lung_volume_l",
    "lung_mask",
    "nonzero_before",
    "nonzero_after",
    "nonzero_share",
)

_OF_NODULE = ("nodule_id", "diameter_mm", "coverage", "hu", "hu_turned")


def build_manifest(
    folder: Luna16Folder,
    out_dir: Path,
    steps: list[dict],
    *,
    failures: Sequence[ScanFailure],
    without_source: ScansWithoutSource,
    seconds: Mapping[str, float],
    known: Mapping[str, ManifestEntry],
) -> dict[str, Any]:
    """Return the manifest, from the records on disk.

    Parameters
    ----------
    folder : the input.
    out_dir : the prepared dataset's folder.
    steps : the prep pipeline.
    failures : scans that could not be prepared.
    without_source : prepared scans that are not in `folder`.
    seconds : how long each scan took, where known.
    known : entries of scans whose records have been read, and are up to date.
    """
    failed = {failure.seriesuid: failure for failure in failures}
    entries, libraries = [], []
    now = code_marks(steps)
    kept = set(without_source.kept)
    outdated: set[str] = set()
    for uid in sorted([*(scan.seriesuid for scan in folder.scans), *kept]):
        found = known.get(uid)
        if found is None and uid not in failed:
            record = read_record(out_dir / SLAB_FOLDER / uid)
            if record is not None and is_of(record, now):
                found = entry_of_record(record)
            elif record is not None:
                # Not reached before the run ended: its slabs are those of another pipeline or code.
                outdated.add(uid)
        if found is not None:
            entries.append({**found.fields, "seconds": seconds.get(uid)})
            libraries.append(found.versions)
    recorded = {entry["seriesuid"] for entry in entries}
    for scan in folder.scans:
        if scan.seriesuid not in recorded:
            is_old = scan.seriesuid in outdated
            entries.append(_entry_without_record(scan, failed.get(scan.seriesuid), is_old=is_old))
    return {
        "data": data_name([entry["seriesuid"] for entry in entries]),
        "pipeline": steps,
        "code": lungdet_mmdet.__version__,
        "pixels_version": PIXELS_VERSION,
        "versions": {"python": platform.python_version(), **library_versions(PIXEL_LIBRARIES)},
        "prepared_with": _counted(libraries),
        "scans": sorted(entries, key=lambda entry: entry["seriesuid"]),
        "not_in_input": list(without_source.kept),
        "outdated": list(without_source.outdated),
        "missing_series": [uid for uid in folder.missing_series if uid not in kept],
        "misnamed": [printable(reason) for _, reason in folder.misnamed],
        "table_warnings": list(folder.warnings),
        **_cohort_figures(entries),
    }


@dataclass(frozen=True)
class ManifestEntry:
    """A prepared scan in the manifest, and the versions of the libraries that made its pixels."""

    fields: dict[str, Any]
    versions: dict[str, str]


def entry_of_record(record: dict) -> ManifestEntry:
    """Return what the manifest says of a prepared scan, but for the time that it took."""
    fields = {
        "seriesuid": record["seriesuid"],
        "subset": record["subset"],
        "status": record["status"],
        "slabs": len(record["slabs"]),
        **{key: record[key] for key in _FROM_RECORD},
        "nodules": [
            {key: nodule[key] for key in _OF_NODULE if key in nodule}
            for nodule in record["nodules"]
        ],
        "flags": record["flags"],
    }
    return ManifestEntry(fields, record.get("versions") or {})


def _entry_without_record(
    scan: ScanOnDisk, failure: ScanFailure | None, *, is_old: bool = False
) -> dict[str, Any]:
    return {
        "seriesuid": scan.seriesuid,
        "subset": scan.subset,
        "status": "failed" if failure else "outdated" if is_old else "not prepared",
        "stage": failure.stage if failure else None,
        "reason": failure.reason if failure else "the run ended before",
        "slabs": 0,
        **dict.fromkeys(_FROM_RECORD),
        "nodules": [
            {"nodule_id": nodule.nodule_id, "diameter_mm": nodule.diameter_mm, "coverage": None}
            for nodule in scan.nodules
        ],
        "flags": [],
        "seconds": None,
    }


def _counted(values: list[dict]) -> list[dict]:
    """Return the distinct values, each with the number of scans that have it."""
    counts: dict[str, int] = {}
    for value in values:
        text = json.dumps(value, sort_keys=True)
        counts[text] = counts.get(text, 0) + 1
    return [{**json.loads(text), "scans": count} for text, count in sorted(counts.items())]


def _cohort_figures(entries: list[dict]) -> dict[str, Any]:
    """Return the figures over all prepared scans: masking, and nodules that it cost."""
    done = [entry for entry in entries if entry["status"] == "ok"]
    nodules = [nodule for entry in done for nodule in entry["nodules"]]
    before = sum(entry["nonzero_before"] for entry in done)
    after = sum(entry["nonzero_after"] for entry in done)
    return {
        "mean_nonzero_before": round(before / len(done)) if done else 0,
        "mean_nonzero_after": round(after / len(done)) if done else 0,
        "nonzero_share": round(after / before, 4) if before else 0.0,
        "nodules": len(nodules),
        "nodules_poorly_covered": [n for n in nodules if 0 < n["coverage"] < WELL_COVERED],
        "nodules_lost": [n for n in nodules if n["coverage"] == 0],
    }


def failure_entries(
    failures: Sequence[ScanFailure], folder: Luna16Folder, earlier: Sequence[dict]
) -> list[dict[str, Any]]:
    """Return the content of ``failures.json``: each failure with the scan's nodules.

    The splits count these nodules as missed. Failures of scans that are not in the input this time
    are kept.

    Parameters
    ----------
    failures : of this run.
    folder : the input.
    earlier : entries of the run before.
    """
    scans = {scan.seriesuid: scan for scan in folder.scans}
    entries = [
        {
            **failure.as_dict(),
            "subset": scans[failure.seriesuid].subset,
            "nodules": [nodule_fields(n) for n in scans[failure.seriesuid].nodules],
            "excluded": findings_record(scans[failure.seriesuid]),
        }
        for failure in failures
        if failure.stage != MISNAMED
    ]
    entries += [failure.as_dict() for failure in failures if failure.stage == MISNAMED]
    entries += [
        entry
        for entry in earlier
        if entry.get("seriesuid") not in scans and entry.get("stage") != MISNAMED
    ]
    return sorted(entries, key=lambda entry: entry["seriesuid"])
