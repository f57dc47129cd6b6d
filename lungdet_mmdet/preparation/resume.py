# SPDX-License-Identifier: Apache-2.0
"""Whether a prepared scan is still right: decided by content, not by its being there."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES, scan_suffix
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import ScanOnDisk
from lungdet_mmdet.preparation.prep_pipeline import CODE, code_marks, digest
from lungdet_mmdet.runs.atomic_files import output_error, read_json_or
from lungdet_mmdet.runs.files import RECORD_NAME, SLAB_FOLDER

NOT_PREPARED = "not prepared yet"
_EXPLAINED = {
    "source": "the scan's file changed",
    "annotations": "its annotations changed",
    "nodule_mask": "its nodule mask changed",
}


@dataclass(frozen=True)
class PrepareJob:
    """One scan to prepare, as it travels to a worker.

    Parameters
    ----------
    scan : the file and its annotations.
    out_dir : the prepared dataset's folder.
    steps : the prep pipeline, plain dicts.
    imports : modules that register steps beyond this package's own.
    code : preparation code of whoever sends the job; a worker of another version refuses it.
    """

    scan: ScanOnDisk
    out_dir: Path
    steps: list[dict]
    imports: tuple[str, ...] = ()
    code: str = CODE

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
    """Return what the result depends on: source files, annotations, pipeline, pixels version.

    Two equal fingerprints mean that the prepared scan on disk is still right. Source files count
    by name, size and time of change, so that 120 GB need not be read to find nothing to do.

    Raises
    ------
    LungDetError
        If a file is missing or its header unusable.
    """
    scan = job.scan
    source = [_file_state(path) for path in (*_source_files(scan), scan.lung_mask_path)]
    annotations = [[*n.centre_xyz_mm, n.diameter_mm] for n in scan.nodules]
    annotations += [[*f.centre_xyz_mm, f.diameter_mm] for f in scan.findings]
    found = {
        "source": digest(source),
        "annotations": digest([len(scan.nodules), annotations, scan.subset]),
        **code_marks(job.steps),
    }
    if (mask := scan.nodule_mask_path) is not None:
        states = [_file_state(path) for path in mask_files(mask)]
        ratings = {str(label): dict(scan.ratings[label]) for label in scan.ratings}
        found["nodule_mask"] = digest([states, ratings])
    return found


def _source_files(scan: ScanOnDisk) -> list[Path]:
    if scan_suffix(scan.path) in METAIMAGE_SUFFIXES:
        return [scan.path, read_metaimage_header(scan.path).data_path]
    return scan.source.files()


def mask_files(mask: Path) -> list[Path]:
    """Return the files of a nodule mask: it, and the pixels beside a .mhd header."""
    if mask.suffix.lower() != ".mhd":
        return [mask]
    try:
        data = read_metaimage_header(mask).data_path
    except LungDetError:
        # What is wrong with it is said when it is read; the scan is prepared without it.
        return [mask]
    return [mask, data]


def read_record(folder: Path) -> dict | None:
    """Return a prepared scan's record, or None where there is no whole one."""
    record = read_json_or(folder / RECORD_NAME, {})
    return record if "slabs" in record else None


def why_not_current(job: PrepareJob, record: dict | None) -> list[str]:
    """Return why the scan has to be prepared (again), in words; empty where it is still right.

    Parameters
    ----------
    job : the scan.
    record : what :func:`read_record` finds in its folder.

    Raises
    ------
    LungDetError
        If the scan's files cannot be read.
    """
    now = fingerprint(job)
    if record is None:
        if (job.folder / RECORD_NAME).exists():
            return ["its record is damaged"]
        return [NOT_PREPARED]
    before = record.get("fingerprint") or {}
    reasons = [_EXPLAINED[key] for key in _EXPLAINED if before.get(key) != now.get(key)]
    if before.get("pipeline") != now["pipeline"]:
        changes = "; ".join(pipeline_changes(record.get("pipeline") or [], job.steps))
        reasons.append(f"the prep pipeline changed ({changes})")
    if before.get("pixels") != now["pixels"]:
        made_by = before.get("pixels") or "unknown"
        reasons.append(f"the package makes other pixels now (version {made_by} -> {now['pixels']})")
    if not reasons and not _images_are_there(job.folder, record):
        reasons.append("slab images are missing")
    return reasons


def _images_are_there(folder: Path, record: dict) -> bool:
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    names = (slab.get(key) for slab in record["slabs"] for key in ("file_name", "depth_file_name"))
    return all(sizes.get(name.rpartition("/")[2], 0) > 0 for name in names if name)


def pipeline_changes(before: list[dict], now: list[dict]) -> list[str]:
    """Say in words what differs between two pipelines, e.g. ``WindowHU.level_hu: -600 -> -500``."""
    names_before, names_now = ([step.get("type") for step in steps] for steps in (before, now))
    if names_before != names_now:
        added = [f"{name} added" for name in names_now if name not in names_before]
        dropped = [f"{name} dropped" for name in names_before if name not in names_now]
        return [*added, *dropped] or ["another order of steps"]
    changes = []
    for old, new in zip(before, now, strict=True):
        for key in sorted({*old, *new}):
            if old.get(key, _UNSET) != new.get(key, _UNSET):
                changes.append(f"{new['type']}.{key}: {_shown(old, key)} -> {_shown(new, key)}")
    return changes


_UNSET: Any = object()


def _shown(step: dict, key: str) -> str:
    return json.dumps(step[key]) if key in step else "default"


JOURNAL_NAME = ".seconds.jsonl"


class TimingJournal:
    """Seconds per scan of this run, added line by line: a killed run loses none of them.

    Parameters
    ----------
    out_dir : the prepared dataset's folder.
    earlier : seconds by series UID of runs before, as far as they are known.
    """

    def __init__(self, out_dir: Path, earlier: dict[str, float]) -> None:
        self.path = out_dir / JOURNAL_NAME
        self.seconds = {**earlier, **self._read()}

    def _read(self) -> dict[str, float]:
        """Return what a killed run left; a line cut off in the middle is dropped."""
        found: dict[str, float] = {}
        if not self.path.is_file():
            return found
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                uid, seconds = json.loads(line)
                found[str(uid)] = float(seconds)
            except (ValueError, TypeError):
                continue
        return found

    def add(self, seriesuid: str, seconds: float) -> None:
        """Note one scan."""
        self.seconds[seriesuid] = round(seconds, 3)
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # The first newline ends a line that a killed run may have left unfinished.
                file.write(f"\n{json.dumps([seriesuid, self.seconds[seriesuid]])}\n")
        except OSError as error:
            raise output_error(self.path, error) from error

    def close(self) -> None:
        """Remove the file; its content has gone into the manifest."""
        self.path.unlink(missing_ok=True)
