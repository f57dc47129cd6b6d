"""Looking at one scan and writing its folder: what a worker does."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from lungdet_mmdet.ct.dicom.slice_stack import slice_stack
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import (
    replacing_folder,
    sweep_leftovers,
    write_bytes,
    write_json,
)
from lungdet_mmdet.figures.scan_report import ReportScan, report_html
from lungdet_mmdet.inference.candidate_files import (
    candidate_records,
    candidates_csv,
    candidates_json,
    slicer_markups,
)
from lungdet_mmdet.inference.dicom_report import has_highdicom, write_dicom_sr
from lungdet_mmdet.inference.report_scan import report_scan
from lungdet_mmdet.inference.scan_detector import ScanDetector
from lungdet_mmdet.inference.scan_findings import ScanFindings
from lungdet_mmdet.inference.scan_inputs import ScanInput
from lungdet_mmdet.preparation.prep_pipeline import code_version

CSV_NAME = "candidates.csv"
JSON_NAME = "candidates.json"
SLICER_NAME = "candidates.mrk.json"
DICOM_NAME = "candidates_sr.dcm"
REPORT_NAME = "report.html"
OUTPUT_NAMES = frozenset({CSV_NAME, JSON_NAME, SLICER_NAME, DICOM_NAME, REPORT_NAME})


@dataclass(frozen=True)
class DetectorOptions:
    """How the detector is made; the options of :class:`ScanDetector`."""

    checkpoint: Path
    checkpoint_sha256: str
    device: str = "auto"
    threshold: float | None = None
    batch_size: int | None = None
    stride_mm: float | None = None
    trust_checkpoint: bool = False


@dataclass(frozen=True)
class DetectJob:
    """One scan to look at, as it travels to a worker."""

    scan: ScanInput
    out_dir: Path
    options: DetectorOptions

    @property
    def seriesuid(self) -> str:
        """Name of the scan, for progress and failures."""
        return self.scan.name

    @property
    def folder(self) -> Path:
        """The scan's output folder."""
        return self.out_dir / self.scan.name


@dataclass(frozen=True)
class JobResult:
    """What a worker hands back: how many candidates, and whether there was anything to do."""

    name: str
    positives: int
    candidates: int
    skipped: bool
    flags: tuple[str, ...] = ()


@lru_cache(maxsize=1)
def detector_for(options: DetectorOptions) -> ScanDetector:
    """Return this process's detector; it is built once."""
    return ScanDetector(
        options.checkpoint,
        device=options.device,
        threshold=options.threshold,
        batch_size=options.batch_size,
        stride_mm=options.stride_mm,
        trust_checkpoint=options.trust_checkpoint,
    )


def fingerprint(job: DetectJob) -> dict[str, str]:
    """Return what the result depends on: the scan's bytes, the checkpoint's, options and code."""
    options = job.options
    chosen = [options.threshold, options.stride_mm, has_highdicom()]
    return {
        "scan": job.scan.content_digest(),
        "checkpoint": options.checkpoint_sha256,
        "options": hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16],
        "code": code_version(),
    }


def finished(job: DetectJob, now: dict[str, str]) -> dict | None:
    """Return the scan's earlier result where it is still right, else None."""
    try:
        content = json.loads((job.folder / JSON_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    is_current = isinstance(content, dict) and content.get("fingerprint") == now
    return content if is_current else None


def detect_scan(job: DetectJob) -> JobResult:
    """Look at one scan and write its folder as a whole.

    Raises
    ------
    LungDetError
        If the scan cannot be used, or a folder of other files is in the place of its results;
        nothing is written then.
    """
    # Only this scan's: other runs may be writing into the same output folder.
    sweep_leftovers(job.out_dir, of=job.scan.name)
    _refuse_foreign_folder(job.folder)
    now = fingerprint(job)
    earlier = finished(job, now)
    if earlier is not None:
        positives = sum(c["above_threshold"] for c in earlier["candidates"])
        return JobResult(job.scan.name, positives, len(earlier["candidates"]), skipped=True)
    detector = detector_for(job.options)
    began = time.perf_counter()
    scan = job.scan.load()
    reading = round(time.perf_counter() - began, 3)
    findings = detector.analyse(scan, source=str(job.scan.path))
    findings = replace(findings, seconds={**findings.seconds, "reading": reading})
    with replacing_folder(job.folder) as partial:
        write_findings(partial, findings, scan_input=job.scan, fingerprint=now)
    return JobResult(
        job.scan.name,
        len(findings.positives),
        len(findings.candidates),
        skipped=False,
        flags=findings.flags,
    )


def _refuse_foreign_folder(folder: Path) -> None:
    """Results replace a folder as a whole: never one that holds anything else, such as a scan."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if folder.is_file() or names - OUTPUT_NAMES:
        raise LungDetError(
            f"{folder}: {', '.join(sorted(names - OUTPUT_NAMES)[:3]) or 'a file'} lies where the "
            "results would go, and is none of them; choose another --out"
        )


def write_findings(
    folder: Path,
    findings: ScanFindings,
    *,
    scan_input: ScanInput | None = None,
    fingerprint: dict[str, str] | None = None,
) -> None:
    """Write all files of one scan's result into a folder.

    Parameters
    ----------
    folder : is made where it is not there.
    findings : the result.
    scan_input : where the scan came from; a DICOM series gets a DICOM report too.
    fingerprint : what the result depends on, see :func:`fingerprint`.
    """
    series = scan_input.series if scan_input is not None else None
    slices = slice_stack(series)[0] if series is not None else []
    records = candidate_records(findings, dicom_slices=slices)
    table = candidates_csv(findings.scan.seriesuid, records)
    write_bytes(folder / CSV_NAME, table.encode("utf-8"))
    write_json(folder / SLICER_NAME, slicer_markups(findings, records))
    shown: ReportScan = report_scan(findings, records)
    write_bytes(folder / REPORT_NAME, report_html(shown).encode("utf-8"))
    if slices and has_highdicom():
        write_dicom_sr(folder / DICOM_NAME, findings, records, slices)
    # Last: its presence says that all others are there.
    write_json(
        folder / JSON_NAME, candidates_json(findings, records, fingerprint=fingerprint or {})
    )


def check_out_dir(out_dir: Path) -> None:
    """Refuse an output folder that is a file.

    Raises
    ------
    LungDetError
        If it is one.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise LungDetError(f"{out_dir}: the output folder is a file; choose another --out")
