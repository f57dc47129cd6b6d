# SPDX-License-Identifier: Apache-2.0
"""Many scans through a detector: one folder of results each, resumable, failures told."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lungdet_mmdet.apis.candidate_files import cautions
from lungdet_mmdet.apis.model_building import (
    check_precision,
    choose_device,
    device_of_worker,
    shared_gpus,
)
from lungdet_mmdet.apis.model_file import read_model_file
from lungdet_mmdet.apis.results_folder import (
    BatchRun,
    EarlierResult,
    ForeignFolderError,
    JobResult,
    earlier_result,
    files_in,
    mark_outdated,
    refuse_foreign_folder,
    refuse_named_results,
    scans_with_folders,
    write_summary,
)
from lungdet_mmdet.apis.scan_detector import (
    PreparedScan,
    ScanDetector,
    check_same_slabs,
    prepared_scan,
)
from lungdet_mmdet.apis.scan_results import (
    CSV_NAME,
    DICOM_NAMES,
    OUTDATED_NAME,
    REPORTS,
    has_highdicom,
    write_findings,
)
from lungdet_mmdet.ct.scan_inputs import ScanInput, anonymous_names, list_inputs, place_of
from lungdet_mmdet.engine.by_name import SHIPPED_MODEL
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.ops.attention_choice import describe_attention
from lungdet_mmdet.preparation.prep_pipeline import (
    CODE,
    build_prep_pipeline,
    check_code,
    with_stride,
)
from lungdet_mmdet.preparation.scan_job import limit_threads
from lungdet_mmdet.runs.atomic_files import check_writable, replacing_folder, sweep_leftovers
from lungdet_mmdet.runs.files import FAILURES_NAME, INDEX_NAME
from lungdet_mmdet.runs.scan_runs import failure_of, run_per_scan
from lungdet_mmdet.runs.workplace import find_workplace


@dataclass(frozen=True)
class DetectorOptions:
    """How scans are looked at, and what is written of each.

    Parameters
    ----------
    checkpoints : model files; none takes the model in the box.
    checkpoint_sha256 : of the files; `detect_scans` fills it in.
    device, threshold, batch_size, stride_mm, looks, trust_checkpoint, precision : see
        :class:`ScanDetector`.
    label_map : also write ``candidates_boxes.nii.gz``.
    report : page of each scan: "full", "slabs" (without the CT's slices) or "none".
    dicom : DICOM files for DICOM input: "sr", "sc", "seg".
    anonymous : results hold neither paths nor patient data; scans are named by their content.

    Raises
    ------
    LungDetError
        If there is no such page or DICOM file.
    """

    checkpoints: tuple[Path, ...] = ()
    checkpoint_sha256: str = ""
    device: str = "auto"
    threshold: float | None = None
    batch_size: int | None = None
    stride_mm: float | None = None
    looks: int = 1
    trust_checkpoint: bool = False
    label_map: bool = False
    precision: str = "fp32"
    report: str = "full"
    dicom: tuple[str, ...] = ("sr",)
    anonymous: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.dicom) - set(DICOM_NAMES)
        if unknown or self.report not in REPORTS:
            raise LungDetError(
                f"DICOM files {sorted(unknown)}, report {self.report!r}: known are "
                f"{', '.join(DICOM_NAMES)}, and {', '.join(REPORTS)}"
            )


@dataclass(frozen=True)
class DetectJob:
    """One scan to look at, as it travels to a worker.

    ``code`` is the preparation code of whoever sends it.
    """

    scan: ScanInput
    out_dir: Path
    options: DetectorOptions
    code: str = CODE

    @property
    def seriesuid(self) -> str:
        """Name of the scan, for progress and failures."""
        return self.scan.name

    @property
    def folder(self) -> Path:
        """The scan's output folder."""
        return self.out_dir / self.scan.name


@lru_cache(maxsize=1)
def detector_for(options: DetectorOptions) -> ScanDetector:
    """Return this process's detector; it is built once."""
    return ScanDetector(
        options.checkpoints,
        device=device_of_worker(options.device),
        threshold=options.threshold,
        batch_size=options.batch_size,
        stride_mm=options.stride_mm,
        looks=options.looks,
        trust_checkpoint=options.trust_checkpoint,
        precision=options.precision,
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
        options.report,
        sorted(options.dicom),
        options.anonymous,
        options.precision,
        options.looks,
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


def finished(job: DetectJob) -> tuple[EarlierResult | None, dict[str, str]]:
    """Return the scan's earlier result where it is still right, else None, and its fingerprint."""
    result = earlier_result(job.folder)
    now = fingerprint(job, earlier=result.fingerprint if result else None)
    files = files_in(job.folder)
    if result is None or not result.is_whole or OUTDATED_NAME in files or CSV_NAME not in files:
        return None, now
    # Times of change are no part of what a result depends on.
    is_current = all(result.fingerprint.get(k) == value for k, value in now.items() if k != "files")
    return (result if is_current else None), now


Ahead = dict[str, tuple[EarlierResult | None, dict[str, str], "Future[PreparedScan] | None"]]
"""What is known of scans before their turn, by name: see `finished`; and the scan, prepared."""


def detect_scan(job: DetectJob, ahead: Ahead | None = None) -> JobResult:
    """Look at one scan and write its folder as a whole.

    Raises
    ------
    LungDetError
        If the scan cannot be used, or a folder of other files is in the place of its results;
        nothing is written then.
    """
    check_code(job.code)
    try:
        return _detect(job, ahead or {})
    except ForeignFolderError:
        raise
    except Exception as error:
        failure = failure_of(job.seriesuid, error)
        told = failure.without_names() if job.options.anonymous else failure
        mark_outdated(job.folder, told.reason)
        raise


def _detect(job: DetectJob, ahead: Ahead) -> JobResult:
    earlier, now, begun = ahead.pop(job.scan.name, None) or (*finished(job), None)
    if earlier is not None:
        return JobResult(
            job.scan.name,
            earlier.positives,
            earlier.candidates,
            skipped=True,
            verdict=earlier.verdict,
            cautions=earlier.cautions,
        )
    refuse_foreign_folder(job.folder)
    detector = detector_for(job.options)
    findings = detector.look_at(
        _prepared(job, detector.pipeline) if begun is None else begun.result()
    )
    begun = None  # what was prepared has done its part
    with replacing_folder(job.folder) as partial:
        findings = write_findings(
            partial,
            findings,
            scan_input=job.scan,
            fingerprint=now,
            anonymous=job.options.anonymous,
            with_label_map=job.options.label_map,
            report=job.options.report,
            dicom=job.options.dicom,
        )
    return JobResult(
        job.scan.name,
        len(findings.positives),
        len(findings.candidates),
        skipped=False,
        flags=findings.flags,
        verdict=str(findings.lung_summary.get("verdict", "ok")),
        cautions=tuple(cautions(findings)),
    )


def _prepared(job: DetectJob, pipeline: Any) -> PreparedScan:
    return prepared_scan(job.scan.load, pipeline, source=str(job.scan.path))


def _build_detector(jobs: Sequence[DetectJob], steps: list[dict]) -> Ahead:
    """Build this process's detector, and meanwhile prepare the first scan that needs it.

    Most of the time goes into loading the network's modules; where every scan is finished, that is
    spared. The prep pipeline is built before, so that no module is loaded by both threads.
    """
    pipeline = build_prep_pipeline(steps)
    ahead: Ahead = {}
    for job in jobs:
        try:
            earlier, now = finished(job)
        except (LungDetError, OSError):
            continue  # told when its turn comes
        ahead[job.scan.name] = earlier, now, None
        if earlier is None:
            with ThreadPoolExecutor(1) as pool:
                ahead[job.scan.name] = None, now, pool.submit(_prepared, job, pipeline)
                detector_for(job.options)
            break
    return ahead


def detect_scans(
    inputs: Sequence[Path | str],
    out_dir: Path,
    options: DetectorOptions | None = None,
    *,
    workers: int = 0,
    dask: str | None = None,
    series_uid: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> BatchRun:
    """Look at every scan of the inputs and write one folder for each.

    Parameters
    ----------
    inputs : see :func:`list_inputs`.
    out_dir : gets a folder per scan; ``candidates.csv``, ``failures.json`` and a page over all.
    options : how, and what is written; None takes the defaults.
    workers : processes; 0 works in this one, or with several GPUs in one process for each. The
        processes share out the GPUs.
    dask : address of a Dask scheduler whose workers do the work instead.
    series_uid : which DICOM series to read.
    say : is told what the user should know before the work begins.

    Returns
    -------
    BatchRun

    Raises
    ------
    LungDetError
        If the checkpoint or the device cannot be used; a bad scan is recorded instead.
    """
    options = options or DetectorOptions()
    checkpoints = [Path(path) for path in options.checkpoints or [SHIPPED_MODEL]]
    if not options.checkpoints:
        say(
            f"no checkpoint named: the model in the box ({SHIPPED_MODEL.name}) is used, trained "
            f"on made-up and semi-real scans, see {SHIPPED_MODEL.with_name('README.md')}"
        )
    out_dir = Path(out_dir)
    if dask:
        # Workers on other machines start in another folder.
        out_dir, checkpoints = out_dir.resolve(), [path.resolve() for path in checkpoints]
        inputs = [Path(path).resolve() for path in inputs]
    if out_dir.exists() and not out_dir.is_dir():
        raise LungDetError(f"{out_dir}: the output folder is a file; choose another --out")
    if not dask:
        check_precision(options.precision, choose_device(options.device))
        if workers == 0 and (workers := shared_gpus(options.device)):
            say(f"{workers} GPUs: one process and one scan at a time for each")
    place = find_workplace(
        workers,
        dask=dask,
        setup=limit_threads,
        read_from=checkpoints,
        write_to=out_dir if dask else None,
        tell=say,
    )
    models = [read_model_file(path, trust=options.trust_checkpoint) for path in checkpoints]
    check_same_slabs(models)
    options = replace(
        options,
        checkpoints=tuple(checkpoints),
        checkpoint_sha256="+".join(model.sha256 for model in models),
    )
    if not dask:
        say(describe_attention(choose_device(options.device)))
    check_writable(out_dir)
    if options.anonymous:
        refuse_named_results(out_dir)
    listed = list_inputs(inputs, series_uid=series_uid)
    for note in listed.notes:
        say(note)
    if options.dicom and not has_highdicom() and any(scan.series for scan in listed.scans):
        say(
            f"no DICOM files ({','.join(options.dicom)}): highdicom is not installed; "
            "pip install 'lungdet-mmdet[dicom]'"
        )
    if options.anonymous:
        listed = anonymous_names(listed)
    scans, misplaced = scans_with_folders(listed.scans, out_dir)
    # Only these scans': other runs may be writing into the same output folder.
    sweep_leftovers(
        out_dir, of=[CSV_NAME, FAILURES_NAME, INDEX_NAME, *(scan.name for scan in scans)]
    )
    jobs = [DetectJob(scan, out_dir, options) for scan in scans]
    here = workers == 0 and not dask
    steps = with_stride(models[0].config["prep_pipeline"], options.stride_mm)
    ahead = _build_detector(jobs, steps) if here else None
    run = run_per_scan(
        functools.partial(detect_scan, ahead=ahead),
        jobs,
        place.make_executor,
        max_at_work=place.workers,
        description="detecting",
    )
    places = {scan.name: scan.places for scan in scans}
    failures = [replace(f, places=places[f.seriesuid]) for f in run.failures]
    batch = BatchRun(
        out_dir=out_dir,
        results=sorted(run.results, key=lambda r: r.name),
        failures=[*listed.failures, *misplaced, *failures],
        interrupted_by=run.interrupted_by,
    )
    if options.anonymous:
        names = {scan.name for scan in (*listed.scans, *scans)}
        batch.failures = [
            f if f.seriesuid in names else replace(f, seriesuid=_input_name(f.seriesuid))
            for f in batch.failures
        ]
    looked_at = {text for scan in scans for text in (scan.name, scan.place_digest())}
    looked_at |= {text for path in inputs for text in (printable(str(path)), place_of(path))}
    write_summary(batch, looked_at=looked_at, anonymous=options.anonymous)
    return batch


def _input_name(text: str) -> str:
    return f"input-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
