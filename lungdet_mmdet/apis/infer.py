"""Many scans through a detector: one folder of results each, resumable, failures told."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import lungdet_mmdet
from lungdet_mmdet.apis.candidate_files import (
    candidate_records,
    candidates_csv,
    candidates_json,
    label_map,
    slicer_markups,
)
from lungdet_mmdet.apis.dicom_report import has_highdicom, write_dicom_sr
from lungdet_mmdet.apis.report_scan import report_scan
from lungdet_mmdet.apis.scan_detector import ScanDetector, ScanFindings
from lungdet_mmdet.apis.scan_inputs import ScanInput, list_inputs
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.files.metaimage_pixels import write_nifti
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.preparation.prep_pipeline import PIXELS_VERSION
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.reports.scan_report import ReportScan, report_html
from lungdet_mmdet.runs.atomic_files import (
    check_writable,
    replacing_folder,
    sweep_leftovers,
    write_bytes,
    write_json,
)
from lungdet_mmdet.runs.file_names import FAILURES_NAME, REPORT_NAME
from lungdet_mmdet.runs.scan_runs import ScanFailure, run_per_scan, tally
from lungdet_mmdet.runs.workplace import find_workplace

CSV_NAME = "candidates.csv"
JSON_NAME = "candidates.json"
SLICER_NAME = "candidates.mrk.json"
DICOM_NAME = "candidates_sr.dcm"
LABEL_MAP_NAME = "candidates_boxes.nii.gz"
OUTPUT_NAMES = frozenset(
    {CSV_NAME, JSON_NAME, SLICER_NAME, DICOM_NAME, REPORT_NAME, LABEL_MAP_NAME}
)


@dataclass(frozen=True)
class DetectorOptions:
    """How the detector is made, the options of :class:`ScanDetector`, and what is written."""

    checkpoint: Path
    checkpoint_sha256: str
    device: str = "auto"
    threshold: float | None = None
    batch_size: int | None = None
    stride_mm: float | None = None
    trust_checkpoint: bool = False
    label_map: bool = False


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
    chosen = [options.threshold, options.stride_mm, has_highdicom(), options.label_map]
    return {
        "scan": job.scan.content_digest(),
        "checkpoint": options.checkpoint_sha256,
        "options": hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16],
        "code": f"{lungdet_mmdet.__version__}, pixels {PIXELS_VERSION}",
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
        write_findings(
            partial,
            findings,
            scan_input=job.scan,
            fingerprint=now,
            with_label_map=job.options.label_map,
        )
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
    with_label_map: bool = False,
) -> None:
    """Write all files of one scan's result into a folder.

    Parameters
    ----------
    folder : is made where it is not there.
    findings : the result.
    scan_input : where the scan came from; a DICOM series gets a DICOM report too.
    fingerprint : what the result depends on, see :func:`fingerprint`.
    with_label_map : also write the boxes as an image on the input's own grid.
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
    if with_label_map:
        try:
            labels = label_map(findings, records)
            write_nifti(folder / LABEL_MAP_NAME, labels, findings.scan.file_geometry)
        except LungDetError as error:  # the candidates themselves are not to be lost for it
            flags = (*findings.flags, f"no {LABEL_MAP_NAME}: {error}")
            findings = replace(findings, flags=flags)
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


@dataclass
class BatchRun:
    """What a run over many scans did.

    Parameters
    ----------
    out_dir : folder of the results.
    results : scans that have a result, now or from before.
    failures : scans and inputs that could not be used.
    interrupted : stopped by Ctrl-C; running again goes on.
    """

    out_dir: Path
    results: list[JobResult] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """0 if every input has its result, 130 after Ctrl-C, else 1."""
        if self.interrupted:
            return 130
        return 1 if self.failures else 0

    def lines(self) -> list[str]:
        """Return the summary for the user."""
        lines = [
            f"{r.name}: {r.positives} of {r.candidates} candidates above the threshold"
            f"{' (from before)' if r.skipped else ''}  {self.out_dir / r.name / REPORT_NAME}"
            for r in self.results
        ]
        skipped = sum(r.skipped for r in self.results)
        lines.append(
            tally(
                "scans",
                done=len(self.results) - skipped,
                before=skipped,
                failed=len(self.failures),
            )
            + f"; table of all candidates: {self.out_dir / CSV_NAME}"
        )
        return lines


def detect_scans(
    inputs: Sequence[Path | str],
    out_dir: Path,
    *,
    checkpoint: Path,
    device: str = "auto",
    threshold: float | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    dask: str | None = None,
    stride_mm: float | None = None,
    series_uid: str | None = None,
    trust_checkpoint: bool = False,
    label_map: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> BatchRun:
    """Look at every scan of the inputs and write one folder for each.

    Parameters
    ----------
    inputs : see :func:`list_inputs`.
    out_dir : gets a folder per scan, ``candidates.csv`` over all, and ``failures.json``.
    checkpoint, device, threshold, batch_size, stride_mm, trust_checkpoint : see
        :class:`ScanDetector`.
    workers : processes; 0 works in this one.
    dask : address of a Dask scheduler whose workers do the work instead.
    series_uid : which DICOM series to read.
    label_map : also write ``candidates_boxes.nii.gz``.
    say : is told what the user should know before the work begins.

    Returns
    -------
    BatchRun

    Raises
    ------
    LungDetError
        If the checkpoint or an option cannot be used; a bad scan is recorded instead.
    """
    # Here and not where the name is exported: the file's digest belongs to the options.
    from lungdet_mmdet.apis.model_building import choose_device
    from lungdet_mmdet.apis.model_file import file_sha256, read_model_file
    from lungdet_mmdet.ops.attention_choice import describe_attention

    out_dir = Path(out_dir)
    if dask:
        # Workers on other machines start in another folder.
        out_dir, checkpoint = out_dir.resolve(), Path(checkpoint).resolve()
        inputs = [Path(path).resolve() for path in inputs]
    check_out_dir(out_dir)
    place = find_workplace(
        workers,
        dask=dask,
        setup=limit_threads,
        read_from=[checkpoint],
        write_to=out_dir if dask else None,
        tell=say,
    )
    read_model_file(checkpoint, trust=trust_checkpoint)
    options = DetectorOptions(
        checkpoint=Path(checkpoint),
        checkpoint_sha256=file_sha256(Path(checkpoint)),
        device=device,
        threshold=threshold,
        batch_size=batch_size,
        stride_mm=stride_mm,
        trust_checkpoint=trust_checkpoint,
        label_map=label_map,
    )
    if not dask:
        say(describe_attention(choose_device(device)))
    if workers == 0 and not dask:
        detector_for(options)
    check_writable(out_dir)
    for name in (CSV_NAME, FAILURES_NAME):
        sweep_leftovers(out_dir, of=name)
    listed = list_inputs(inputs, series_uid=series_uid)
    for note in listed.notes:
        say(note)
    jobs = [DetectJob(scan, out_dir, options) for scan in listed.scans]
    run = run_per_scan(
        detect_scan, jobs, place.make_executor, max_at_work=place.workers, description="detecting"
    )
    batch = BatchRun(
        out_dir=out_dir,
        results=sorted(run.results, key=lambda r: r.name),
        failures=[*listed.failures, *run.failures],
        interrupted=run.interrupted,
    )
    _write_summary(batch)
    return batch


def _write_summary(batch: BatchRun) -> None:
    """Join the tables of all scans, and list what failed."""
    tables = [
        (batch.out_dir / r.name / CSV_NAME).read_text(encoding="utf-8").splitlines()
        for r in batch.results
    ]
    if tables:
        lines = [tables[0][0], *(line for table in tables for line in table[1:])]
        write_bytes(batch.out_dir / CSV_NAME, ("\n".join(lines) + "\n").encode("utf-8"))
    failures = sorted((f.as_dict() for f in batch.failures), key=lambda f: f["seriesuid"])
    write_json(batch.out_dir / FAILURES_NAME, failures)
