"""Many scans: list them, look at each, go on after failures, sum up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.execution.atomic_files import (
    check_writable,
    sweep_leftovers,
    write_bytes,
    write_json,
)
from lungdet_mmdet.execution.scan_runs import ScanFailure, run_per_scan
from lungdet_mmdet.execution.workplace import find_workplace
from lungdet_mmdet.inference.scan_inputs import list_inputs
from lungdet_mmdet.inference.scan_job import (
    CSV_NAME,
    REPORT_NAME,
    DetectJob,
    DetectorOptions,
    JobResult,
    check_out_dir,
    detect_scan,
    detector_for,
)
from lungdet_mmdet.preparation.scan_job import limit_threads

FAILURES_NAME = "failures.json"


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
            f"{len(self.results) - skipped} scans done, {skipped} finished before, "
            f"{len(self.failures)} failed; table of all candidates: {self.out_dir / CSV_NAME}"
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
    from lungdet_mmdet.inference.model_file import file_sha256, read_model_file

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
    )
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
