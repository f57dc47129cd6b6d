# SPDX-License-Identifier: Apache-2.0
"""Preparing a whole LUNA16-shaped folder: resume, progress, failures, manifest, report."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lungdet_mmdet.annotations.mark_places import question_of_lungs, question_of_scans
from lungdet_mmdet.annotations.slab_boxes import WELL_COVERED
from lungdet_mmdet.annotations.tables import Nodule, read_patients, write_patient_table
from lungdet_mmdet.ct.dicom.header import patient_digest
from lungdet_mmdet.ct.geometry import FileGrid
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import Luna16Folder
from lungdet_mmdet.preparation.manifest import (
    ManifestEntry,
    ScansWithoutSource,
    build_manifest,
    entry_of_record,
    failure_entries,
    sort_out,
)
from lungdet_mmdet.preparation.prep_pipeline import (
    NOT_PREPARED,
    PrepareJob,
    read_record,
    why_not_current,
)
from lungdet_mmdet.preparation.scan_job import ScanTiming, prepare_scan, preview_path
from lungdet_mmdet.reports.prep_report import prep_report_html
from lungdet_mmdet.runs.atomic_files import (
    only_run_in,
    output_error,
    read_json_or,
    sweep_leftovers,
    write_bytes,
    write_json,
)
from lungdet_mmdet.runs.files import (
    ANNOTATION_FOLDER,
    FAILURES_NAME,
    MANIFEST_NAME,
    PATIENT_TABLE,
    PREP_REPORT_NAME,
    SLAB_FOLDER,
)
from lungdet_mmdet.runs.scan_runs import (
    MISNAMED,
    RunSummary,
    ScanFailure,
    failure_of,
    run_per_scan,
    tally,
)
from lungdet_mmdet.runs.workplace import ExecutorFactory
from lungdet_mmdet.splits.prepared import UNFINISHED_NAME

_WRITTEN_INTO = (".", SLAB_FOLDER, ANNOTATION_FOLDER)


@dataclass
class PreparationSummary:
    """What a preparation did.

    Parameters
    ----------
    prepared : series prepared now.
    skipped : series that were up to date.
    failures : scans that could not be prepared.
    run : how the run over the scans ended.
    redone_because : number of scans prepared again, by reason in words.
    known : entries of the skipped series for the manifest.
    manifest : the manifest as written.
    """

    prepared: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    run: RunSummary = field(default_factory=RunSummary)
    redone_because: Counter = field(default_factory=Counter)
    known: dict[str, ManifestEntry] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether every scan was tried."""
        return not self.run.interrupted and self.run.stopped_by is None

    @property
    def exit_code(self) -> int:
        """0 if every scan on disk is prepared, 130 or 143 after an interrupt, else 1."""
        return self.run.exit_code or (1 if self.failures else 0)


def prepare_cohort(
    folder: Luna16Folder,
    out_dir: Path,
    steps: list[dict],
    make_executor: ExecutorFactory,
    *,
    workers: int,
    imports: tuple[str, ...] = (),
    tell: Callable[[str], None] = print,
) -> PreparationSummary:
    """Prepare every scan of a folder that is not prepared yet or no longer up to date.

    Parameters
    ----------
    folder : the scans and their tables.
    out_dir : where the prepared dataset goes.
    steps : the prep pipeline.
    make_executor, workers : where the work is done.
    imports : modules that register steps beyond this package's own.
    tell : takes a line for the user before the work begins.

    Returns
    -------
    PreparationSummary
        ``manifest.json``, ``failures.json`` and ``prep_report.html`` have been written.

    Raises
    ------
    LungDetError
        If the output folder cannot be used, or is in use by another run.
    """
    out_dir = Path(out_dir)
    if folder.root.resolve() == out_dir.resolve():
        raise LungDetError(f"{out_dir}: the output folder is the input folder; choose another one")
    with only_run_in(out_dir):
        for name in _WRITTEN_INTO:
            sweep_leftovers(out_dir / name)
        present = {scan.seriesuid for scan in folder.scans}
        # The table may tell of scans that were prepared from another folder. Headers give digests
        # and tables ids: one patient has one name.
        table = out_dir / PATIENT_TABLE
        patients = (read_patients(table) if table.is_file() else {}) | dict(folder.patients)
        patients = {uid: patient_digest(name) for uid, name in patients.items()}
        without_source = sort_out(out_dir, present, steps)
        summary, jobs = _plan(folder, out_dir, steps, imports)
        for line in plan_lines(summary, len(jobs)):
            tell(line)
        if question := question_of_scans(_annotated(jobs)):
            tell(f"WARNING: {question}")
        if summary.redone_because:
            # From here on the folder holds two kinds of slabs until the run has ended.
            write_json(out_dir / UNFINISHED_NAME, dict(summary.redone_because))
        journal = TimingJournal(out_dir, _seconds_of_manifest(out_dir))

        def note(scan: ScanTiming) -> None:
            journal.add(scan.seriesuid, scan.seconds)

        summary.run = run_per_scan(
            prepare_scan,
            jobs,
            make_executor,
            max_at_work=workers,
            description="preparing",
            on_result=note,
        )
        summary.prepared = sorted(scan.seriesuid for scan in summary.run.results)
        summary.failures += summary.run.failures
        if summary.run.interrupted:
            # Workers were stopped in the midst of scans.
            sweep_leftovers(out_dir / SLAB_FOLDER)
        _write_accounts(folder, out_dir, steps, summary, without_source, patients, journal)
        if summary.finished:
            (out_dir / UNFINISHED_NAME).unlink(missing_ok=True)
    return summary


def _plan(
    folder: Luna16Folder, out_dir: Path, steps: list[dict], imports: tuple[str, ...]
) -> tuple[PreparationSummary, list[PrepareJob]]:
    """Decide by content which scans have to be prepared."""
    summary = PreparationSummary()
    summary.failures += [ScanFailure(name, MISNAMED, reason) for name, reason in folder.misnamed]
    jobs = []
    for scan in folder.scans:
        job = PrepareJob(scan, out_dir, steps, imports)
        try:
            record = read_record(job.folder)
            reasons = why_not_current(job, record)
        except LungDetError as error:
            summary.failures.append(failure_of(scan.seriesuid, error))
            continue
        if record is None or reasons:
            jobs.append(job)
            summary.redone_because.update(r for r in reasons if r != NOT_PREPARED)
        else:
            summary.skipped.append(scan.seriesuid)
            summary.known[scan.seriesuid] = entry_of_record(record)
    return summary, jobs


# Enough of them to see that coordinates are in another system; each costs the reading of a header.
_SCANS_LOOKED_AT = 50


def _annotated(jobs: list[PrepareJob]) -> Iterator[tuple[Sequence[Nodule], FileGrid]]:
    for scan in [job.scan for job in jobs if job.scan.nodules][:_SCANS_LOOKED_AT]:
        # What is wrong with a scan is told when it is prepared.
        with contextlib.suppress(LungDetError):
            grid = scan.source.grid()
            grid.checked(source=str(scan.path))
            yield scan.nodules, grid


def plan_lines(summary: PreparationSummary, to_do: int) -> list[str]:
    """Return the lines that say what will be done and why, before it is done."""
    lines = [f"to prepare: {to_do} scans; up to date: {len(summary.skipped)}"]
    lines += [
        f"prepared again, because {reason}: {count} scans"
        for reason, count in sorted(summary.redone_because.items())
    ]
    return lines


def _seconds_of_manifest(out_dir: Path) -> dict[str, float]:
    manifest = read_json_or(out_dir / MANIFEST_NAME, {})
    return {
        scan["seriesuid"]: scan["seconds"]
        for scan in manifest.get("scans", [])
        if scan.get("seconds") is not None
    }


def _write_accounts(
    folder: Luna16Folder,
    out_dir: Path,
    steps: list[dict],
    summary: PreparationSummary,
    without_source: ScansWithoutSource,
    patients: Mapping[str, str],
    journal: TimingJournal,
) -> None:
    summary.manifest = build_manifest(
        folder,
        out_dir,
        steps,
        failures=summary.failures,
        without_source=without_source,
        seconds=journal.seconds,
        known=summary.known,
    )
    earlier = read_json_or(out_dir / FAILURES_NAME, [])
    failures = failure_entries(summary.failures, folder, earlier)
    write_json(out_dir / FAILURES_NAME, failures)
    there = {scan["seriesuid"] for scan in (*summary.manifest["scans"], *failures)}
    if patients := {uid: name for uid, name in patients.items() if uid in there}:
        write_patient_table(out_dir / PATIENT_TABLE, patients)
    write_json(out_dir / MANIFEST_NAME, summary.manifest)
    journal.close()

    def read_preview(uid: str) -> bytes | None:
        path = preview_path(out_dir / SLAB_FOLDER / uid)
        return path.read_bytes() if path.is_file() else None

    page = prep_report_html(summary.manifest, read_preview)
    write_bytes(out_dir / PREP_REPORT_NAME, page.encode("utf-8"))


# A summary is read, not scrolled through; the manifest lists everything.
MAX_LISTED = 20


def summary_lines(summary: PreparationSummary, out_dir: Path) -> list[str]:
    """Return the lines that say what was done, skipped and failed, and what masking cost."""
    manifest = summary.manifest
    lines = [
        f"{manifest['data']}: "
        + tally(
            "scans",
            done=len(summary.prepared),
            before=len(summary.skipped),
            failed=len(summary.failures),
            others={"named by the tables but not on disk": len(manifest["missing_series"])},
            interrupted=summary.run.interrupted,
        )
    ]
    lines += _without_source_lines(manifest)
    lines.append(
        f"voxels per scan: {manifest['mean_nonzero_before'] / 1e6:.2f} M above air before the lung "
        f"mask, {manifest['mean_nonzero_after'] / 1e6:.2f} M after "
        f"({manifest['nonzero_share']:.0%}; the paper reports 15 M to 5.25 M, 35 %)"
    )
    poor, lost = manifest["nodules_poorly_covered"], manifest["nodules_lost"]
    lines.append(
        f"nodules: {manifest['nodules']}; covered by the mask to less than {WELL_COVERED:.0%}: "
        f"{len(poor)}; lost: {len(lost)}"
    )
    lines += _listed(
        [
            f"  {n['nodule_id']}: {n['diameter_mm']:.1f} mm, coverage {n['coverage']:.2f}"
            for n in lost + poor
        ]
    )
    if question := question_of_lungs(
        [n for s in manifest["scans"] if s["status"] == "ok" for n in s["nodules"]]
    ):
        lines.append(f"WARNING: {question}")
    lines += _mask_lines(manifest)
    lines += _listed([f"failed: {f.seriesuid} [{f.stage}] {f.reason}" for f in summary.failures])
    if summary.failures:
        lines.append(f"details of the failures: {out_dir / FAILURES_NAME}")
    if summary.run.stopped_by is not None:
        lines.append("stopped early; finished scans are kept, the same command goes on from here")
    lines.append(f"look at the masks: {out_dir / PREP_REPORT_NAME}")
    return lines


def _mask_lines(manifest: dict) -> list[str]:
    """Name every scan whose lung mask is not plainly right, and why."""
    doubtful = [
        f"  {scan['lung_mask']['verdict']}: {scan['seriesuid']} ({', '.join(scan['flags'])})"
        for scan in manifest["scans"]
        if scan["status"] == "ok" and scan["lung_mask"]["verdict"] != "ok"
    ]
    if not doubtful:
        return []
    return [f"lung masks worth a look: {len(doubtful)}", *_listed(sorted(doubtful))]


def _without_source_lines(manifest: dict) -> list[str]:
    lines = []
    if manifest["not_in_input"]:
        lines.append(
            f"{len(manifest['not_in_input'])} scans prepared earlier are not in the input folder; "
            "they are up to date and stay in the dataset"
        )
    if manifest["outdated"]:
        lines.append(
            f"{len(manifest['outdated'])} scans prepared earlier are not in the input folder and "
            "were made by another pipeline or code; they were moved to outdated/"
        )
    return lines


def _listed(lines: list[str]) -> list[str]:
    if len(lines) <= MAX_LISTED:
        return lines
    return [*lines[:MAX_LISTED], f"  ... and {len(lines) - MAX_LISTED} more"]


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
