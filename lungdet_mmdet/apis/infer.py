"""Many scans through a detector: one folder of results each, resumable, failures told."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lungdet_mmdet.apis.candidate_files import (
    MORE_COLUMNS,
    candidate_records,
    candidates_csv,
    candidates_json,
    label_map,
    slicer_markups,
)
from lungdet_mmdet.apis.dicom_report import (
    DicomReportError,
    has_highdicom,
    write_dicom_sr,
)
from lungdet_mmdet.apis.report_scan import lung_warning, report_scan
from lungdet_mmdet.apis.scan_detector import ScanDetector, ScanFindings
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.files.metaimage_pixels import write_nifti
from lungdet_mmdet.ct.scan_inputs import InputList, ScanInput, list_inputs
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.preparation.prep_pipeline import CODE, check_code
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.reports.scan_report import ReportScan, report_html
from lungdet_mmdet.runs.atomic_files import (
    check_writable,
    read_json_or,
    replacing_folder,
    sweep_leftovers,
    write_bytes,
    write_json,
)
from lungdet_mmdet.runs.file_names import FAILURES_NAME, REPORT_NAME
from lungdet_mmdet.runs.scan_runs import ScanFailure, failure_of, run_per_scan, tally
from lungdet_mmdet.runs.workplace import find_workplace
from lungdet_mmdet.scoring.submission import COLUMNS
from lungdet_mmdet.series_name import series_name_of

CSV_NAME = "candidates.csv"
JSON_NAME = "candidates.json"
SLICER_NAME = "candidates.mrk.json"
DICOM_NAME = "candidates_sr.dcm"
LABEL_MAP_NAME = "candidates_boxes.nii.gz"
# In the folder of an earlier result whose scan could not be used this time.
OUTDATED_NAME = "outdated.txt"
OUTPUT_NAMES = frozenset(
    {CSV_NAME, JSON_NAME, SLICER_NAME, DICOM_NAME, REPORT_NAME, LABEL_MAP_NAME, OUTDATED_NAME}
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
    """One scan to look at, as it travels to a worker.

    ``code`` is the preparation code of whoever sends it; ``anonymous`` leaves out of the results
    where the scan lay and whose it is.
    """

    scan: ScanInput
    out_dir: Path
    options: DetectorOptions
    code: str = CODE
    anonymous: bool = False

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
    verdict: str = "ok"


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


def fingerprint(job: DetectJob, *, earlier: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return what the result depends on: the scan's bytes, the checkpoint's, options and code.

    Parameters
    ----------
    job : the scan and how to look at it.
    earlier : fingerprint of an earlier result; a scan whose files have not changed since is not
        read again.
    """
    options = job.options
    chosen = [
        options.threshold,
        options.stride_mm,
        has_highdicom(),
        options.label_map,
        job.anonymous,
    ]
    files = job.scan.files_digest()
    is_known = earlier is not None and earlier.get("files") == files and "scan" in earlier
    return {
        "scan": str(earlier["scan"]) if earlier and is_known else job.scan.content_digest(),
        "files": files,
        "checkpoint": options.checkpoint_sha256,
        "options": hashlib.sha256(json.dumps(chosen).encode()).hexdigest()[:16],
        "code": CODE,
    }


def earlier_result(folder: Path) -> dict | None:
    """Return the content of a result's ``candidates.json``; None where there is no whole one."""
    return read_json_or(folder / JSON_NAME, {}) or None


def finished(job: DetectJob) -> tuple[dict | None, dict[str, str]]:
    """Return the scan's earlier result where it is still right, else None, and its fingerprint."""
    content = earlier_result(job.folder)
    before = content.get("fingerprint") if content else None
    before = before if isinstance(before, dict) else None
    now = fingerprint(job, earlier=before)
    # Times of change are no part of what a result depends on.
    is_current = before is not None and all(
        before.get(key) == value for key, value in now.items() if key != "files"
    )
    is_current = is_current and not (job.folder / OUTDATED_NAME).exists()
    return (content if is_current else None), now


def is_result_of(scan: ScanInput, content: Mapping[str, Any]) -> bool:
    """Say whether an earlier result is this scan's: of the same place, or moved here as it was."""
    if content.get("place") == scan.place_digest():
        return True
    before = content.get("fingerprint")
    if not isinstance(before, dict):
        return False
    if "place" not in content and scan.name == anonymous_name(str(before.get("scan"))):
        return True
    # Two patients' files can have one name, size and time: their bytes decide.
    looks_the_same = before.get("files") == scan.files_digest()
    return looks_the_same and before.get("scan") == scan.content_digest()


def anonymous_name(content_digest: str) -> str:
    """Return the name of a scan that tells nothing but what its bytes are."""
    return f"scan-{content_digest[:12]}"


def detect_scan(job: DetectJob) -> JobResult:
    """Look at one scan and write its folder as a whole.

    Raises
    ------
    LungDetError
        If the scan cannot be used, or a folder of other files is in the place of its results;
        nothing is written then.
    """
    check_code(job.code)
    _refuse_foreign_folder(job.folder)
    try:
        return _detect(job)
    except Exception as error:
        _mark_outdated(job.folder, error)
        raise


def _detect(job: DetectJob) -> JobResult:
    earlier, now = finished(job)
    if earlier is not None:
        return JobResult(
            job.scan.name,
            sum(c["above_threshold"] for c in earlier["candidates"]),
            len(earlier["candidates"]),
            skipped=True,
            verdict=str(earlier.get("lungs", {}).get("verdict", "ok")),
        )
    detector = detector_for(job.options)
    began = time.perf_counter()
    scan = job.scan.load()
    reading = round(time.perf_counter() - began, 3)
    findings = detector.analyse(scan, source=str(job.scan.path))
    findings = replace(findings, seconds={**findings.seconds, "reading": reading})
    with replacing_folder(job.folder) as partial:
        findings = write_findings(
            partial,
            findings,
            scan_input=job.scan,
            fingerprint=now,
            anonymous=job.anonymous,
            with_label_map=job.options.label_map,
        )
    return JobResult(
        job.scan.name,
        len(findings.positives),
        len(findings.candidates),
        skipped=False,
        flags=findings.flags,
        verdict=str(findings.lung_summary.get("verdict", "ok")),
    )


def _mark_outdated(folder: Path, error: Exception) -> None:
    """Leave a word in the folder of an earlier result: it is not of the scan as it is now."""
    if (folder / JSON_NAME).is_file():
        text = f"This result is of an earlier run. The last one failed:\n{printable(str(error))}\n"
        write_bytes(folder / OUTDATED_NAME, text.encode("utf-8"))


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
    anonymous: bool = False,
    with_label_map: bool = False,
) -> ScanFindings:
    """Write all files of one scan's result into a folder; return what was written.

    An output that cannot be made (a DICOM report of images that lack what it repeats) is flagged
    and left out: it never costs the others.

    Parameters
    ----------
    folder : is made where it is not there.
    findings : the result.
    scan_input : where the scan came from; a DICOM series gets a DICOM report too.
    fingerprint : what the result depends on, see :func:`fingerprint`.
    anonymous : leave out where the scan lay, its name, and whose it is.
    with_label_map : also write the boxes as an image on the input's own grid.
    """
    series = scan_input.series if scan_input is not None else None
    name = scan_input.name if scan_input else series_name_of(findings.scan.seriesuid)
    if anonymous:
        findings = replace(findings, source="", scan=replace(findings.scan, seriesuid=name))
    slices = slice_stack(series)[0] if series is not None else []
    records = candidate_records(findings, dicom_slices=slices)
    if anonymous:
        for record in records:
            record.get("dicom_image", {}).pop("file", None)
    if slices and has_highdicom():
        try:
            write_dicom_sr(folder / DICOM_NAME, findings, records, slices, anonymous=anonymous)
        except DicomReportError as error:
            findings = replace(findings, flags=(*findings.flags, f"no DICOM report: {error}"))
    verdict = str(findings.lung_summary.get("verdict", ""))
    table = candidates_csv(name, records, verdict=verdict)
    write_bytes(folder / CSV_NAME, table.encode("utf-8"))
    write_json(folder / SLICER_NAME, slicer_markups(findings, records))
    shown: ReportScan = report_scan(findings, records)
    write_bytes(folder / REPORT_NAME, report_html(shown).encode("utf-8"))
    if with_label_map:
        try:
            labels = label_map(findings, records)
            write_nifti(folder / LABEL_MAP_NAME, labels, findings.scan.file_geometry)
        except LungDetError as error:  # the candidates themselves are not to be lost for it
            flags = (*findings.flags, f"no {LABEL_MAP_NAME}: {error}")
            findings = replace(findings, flags=flags)
    content = candidates_json(findings, records, fingerprint=fingerprint or {}, name=name)
    if scan_input is not None and not anonymous:
        content["place"] = scan_input.place_digest()
    # Last: its presence says that all others are there.
    write_json(folder / JSON_NAME, content)
    return findings


def check_out_dir(out_dir: Path) -> None:
    """Refuse an output folder that is a file.

    Raises
    ------
    LungDetError
        If it is one.
    """
    if out_dir.exists() and not out_dir.is_dir():
        raise LungDetError(f"{out_dir}: the output folder is a file; choose another --out")


# Whatever else looks like a path, in texts that must hold none.
_PATH = re.compile(r"[^\s'\"]*[/\\][^\s'\"]*")


@dataclass
class BatchRun:
    """What a run over many scans did.

    Parameters
    ----------
    out_dir : folder of the results.
    results : scans that have a result, now or from before.
    failures : scans and inputs that could not be used.
    notes : what else the user should know.
    interrupted_by : signal that cut the run short; running again goes on.
    """

    out_dir: Path
    results: list[JobResult] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted_by: int | None = None

    @property
    def exit_code(self) -> int:
        """0 if every input has its result, 130 or 143 after an interrupt, else 1."""
        if self.interrupted_by is not None:
            return 128 + self.interrupted_by
        return 1 if self.failures else 0

    def lines(self) -> list[str]:
        """Return the summary for the user."""
        lines = []
        for r in self.results:
            before = " (from before)" if r.skipped else ""
            lines.append(
                f"{r.name}: {r.positives} of {r.candidates} candidates above the threshold{before}"
                f"  {self.out_dir / r.name / REPORT_NAME}"
            )
            if r.verdict != "ok":
                lines.append(f"  WARNING: {lung_warning(r.verdict)}")
        doubtful = [r.name for r in self.results if r.verdict != "ok"]
        if doubtful:
            lines.append(f"WARNING: the lungs of {len(doubtful)} scans are in doubt: see above")
        skipped = sum(r.skipped for r in self.results)
        lines += [f"note: {note}" for note in self.notes]
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
    checkpoint: Path | None = None,
    device: str = "auto",
    threshold: float | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    dask: str | None = None,
    stride_mm: float | None = None,
    series_uid: str | None = None,
    trust_checkpoint: bool = False,
    label_map: bool = False,
    anonymous: bool = False,
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
    anonymous : results hold neither paths nor patient data; scans are named by their content.
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
    from lungdet_mmdet.apis.model_file import read_model_file
    from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
    from lungdet_mmdet.ops.attention_choice import describe_attention

    if checkpoint is None:
        checkpoint = SHIPPED_MODEL
        say(
            f"no checkpoint named: the model in the box ({checkpoint.name}) is used, trained "
            "on made-up and semi-real scans, see lungdet_mmdet/weights/README.md"
        )
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
    model = read_model_file(checkpoint, trust=trust_checkpoint)
    options = DetectorOptions(
        checkpoint=Path(checkpoint),
        checkpoint_sha256=model.sha256,
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
    listed = list_inputs(inputs, series_uid=series_uid)
    for note in listed.notes:
        say(note)
    if anonymous:
        listed = anonymous_names(listed)
    scans, misplaced = scans_with_folders(listed.scans, out_dir)
    # Only these scans': other runs may be writing into the same output folder.
    sweep_leftovers(out_dir, of=[CSV_NAME, FAILURES_NAME, *(scan.name for scan in scans)])
    jobs = [DetectJob(scan, out_dir, options, anonymous=anonymous) for scan in scans]
    run = run_per_scan(
        detect_scan, jobs, place.make_executor, max_at_work=place.workers, description="detecting"
    )
    batch = BatchRun(
        out_dir=out_dir,
        results=sorted(run.results, key=lambda r: r.name),
        failures=[*listed.failures, *misplaced, *run.failures],
        interrupted_by=run.interrupted_by,
    )
    if anonymous:
        batch.failures = [_without_paths(f, inputs, listed.scans) for f in batch.failures]
    known = {scan.name for scan in scans} | {printable(str(path)) for path in inputs}
    paths = [*(scan.path for scan in scans), *map(Path, inputs)]
    _write_summary(batch, names=known, paths=paths)
    return batch


def anonymous_names(listed: InputList) -> InputList:
    """Return the inputs under names that tell nothing but that two scans are the same."""
    scans, failures = [], list(listed.failures)
    for scan in listed.scans:
        try:
            name = anonymous_name(scan.content_digest())
        except (LungDetError, OSError) as error:
            failures.append(failure_of(scan.name, error))
            continue
        scans.append(replace(scan, name=name, title=name))
    return InputList(scans, failures, listed.notes)


def scans_with_folders(
    scans: Sequence[ScanInput], out_dir: Path
) -> tuple[list[ScanInput], list[ScanFailure]]:
    """Name each scan by the folder that is its own, or free: never by that of another scan.

    A name such as ``ct`` is of many scans, in this run and in those before.
    """
    placed: list[ScanInput] = []
    failures: list[ScanFailure] = []
    taken: set[str] = set()
    for scan in scans:
        names = dict.fromkeys((scan.name, scan.title or scan.name, scan.long_name))
        names = [name for name in names if name.lower() not in taken]
        try:
            found = {name: earlier_result(out_dir / name) for name in names}
            own = [n for n, content in found.items() if content and is_result_of(scan, content)]
        except (LungDetError, OSError) as error:
            failures.append(failure_of(scan.name, error))
            continue
        free = [n for n in names if found[n] is None and n in (scan.name, scan.long_name)]
        name = next(iter([*own, *free]), None)
        if name is None:
            reason = f"{scan.path}: the same scan as another input, whose result it shares"
            failures.append(ScanFailure(scan.name, "input", reason))
            continue
        taken.add(name.lower())
        placed.append(replace(scan, name=name))
    return placed, failures


def _without_paths(
    failure: ScanFailure, inputs: Sequence[Path | str], scans: Sequence[ScanInput]
) -> ScanFailure:
    """Return a failure that does not say where the scan lay or what it was called."""
    named = [Path(path) for path in inputs]
    for scan in scans:
        named.append(scan.path)
        named += [s.path for s in scan.series.slices] if scan.series else []
    texts = {text for path in named for text in (str(path.resolve()), str(path), path.name)}
    reason = failure.reason
    for text in sorted(texts - {"", "."}, key=len, reverse=True):
        reason = reason.replace(text, "...")
    reason = _PATH.sub("...", reason)
    if failure.seriesuid in {scan.name for scan in scans}:
        return replace(failure, reason=reason, details="")
    digest = hashlib.sha256(failure.seriesuid.encode()).hexdigest()[:12]
    return replace(failure, seriesuid=f"input-{digest}", reason=reason, details="")


def _is_superseded(failure: dict, names: set[str], paths: Sequence[Path]) -> bool:
    """Say whether an earlier failure is of a scan that was looked at in this run."""
    reason = str(failure.get("reason", ""))
    if "/" in reason or "\\" in reason:
        # The reason names the file; the name alone may be another scan's.
        return any(str(path) in reason for path in paths)
    return failure["seriesuid"] in names


def _write_summary(batch: BatchRun, *, names: set[str], paths: Sequence[Path]) -> None:
    """Join the tables of all scans in the folder, and list what failed, runs before included."""
    header = ",".join([*COLUMNS, *MORE_COLUMNS])
    rows: list[str] = []
    results: list[str] = []
    for folder in sorted(batch.out_dir.iterdir()):
        is_result = (folder / CSV_NAME).is_file() and (folder / JSON_NAME).is_file()
        if folder.name.startswith(".") or not is_result or (folder / OUTDATED_NAME).exists():
            continue
        first, *others = (folder / CSV_NAME).read_text(encoding="utf-8").split("\n")
        if first != header:
            batch.notes.append(
                f"{folder.name}: its table is of another version of this package and not in the "
                "joined one; run this scan again"
            )
            continue
        results.append(folder.name)
        rows += [line for line in others if line]
    if results or (batch.out_dir / CSV_NAME).is_file():
        write_bytes(batch.out_dir / CSV_NAME, ("\n".join([header, *rows]) + "\n").encode("utf-8"))
    failures = {f["seriesuid"]: f for f in read_json_or(batch.out_dir / FAILURES_NAME, [])}
    now = {f.seriesuid: f.as_dict() for f in batch.failures}
    kept = {uid: f for uid, f in failures.items() if not _is_superseded(f, names, paths)}
    write_json(batch.out_dir / FAILURES_NAME, [v for _, v in sorted({**kept, **now}.items())])
