# SPDX-License-Identifier: Apache-2.0
"""How long preparing a scan takes, measured against reading it, and how much memory.

Every measurement runs in a process of its own: imports and the building of the pipeline are done
before the clock starts, and the peak memory is that of this one scan, imports included. Each
process does its work once, as the first scan of a worker. The file has been read once before, so
that the disk's own speed is in neither figure.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measured_process import measure_in_process, peak_rss_mb
from lungdet_mmdet.errors import LungDetError


@dataclass(frozen=True)
class ScanBenchmark:
    """Figures of one scan; the best of all repeats for each time, the worst for memory.

    Parameters
    ----------
    scan : the file.
    threads : threads that the libraries could use.
    repeats : how often each was measured.
    read_s : ``SimpleITK.ReadImage`` alone.
    prepare_s : the whole preparation, from opening the file to the finished folder.
    steps_s : of the best preparation, per step.
    ratio_to_read : ``prepare_s / read_s``.
    peak_rss_mb : highest memory of a preparing process, libraries included, in MiB.
    read_all_s, prepare_all_s : all measurements, in order.
    """

    scan: str
    threads: int
    repeats: int
    read_s: float
    prepare_s: float
    steps_s: dict[str, float]
    ratio_to_read: float
    peak_rss_mb: float
    read_all_s: list[float]
    prepare_all_s: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Throughput:
    """How many scans one run over a folder prepared per minute, start of workers included."""

    workers: int
    scans: int
    seconds: float

    @property
    def scans_per_minute(self) -> float:
        """Scans per minute of the whole run."""
        return 60.0 * self.scans / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**asdict(self), "scans_per_minute": round(self.scans_per_minute, 2)}


def benchmark_scan(scan: Path, steps: list[dict], *, threads: int, repeats: int) -> ScanBenchmark:
    """Measure reading and preparing one scan, alternately.

    Raises
    ------
    LungDetError
        If the scan cannot be prepared.
    """
    if repeats < 1 or threads < 1:
        raise LungDetError(f"repeats {repeats}, threads {threads}: both must be at least 1")
    reads, preparations = [], []
    _measure({"scan": str(scan), "threads": threads, "steps": None})
    for _ in range(repeats):
        reads.append(_measure({"scan": str(scan), "threads": threads, "steps": None}))
        preparations.append(_measure({"scan": str(scan), "threads": threads, "steps": steps}))
    best = min(preparations, key=lambda run: run["seconds"])
    read_s = min(run["seconds"] for run in reads)
    return ScanBenchmark(
        scan=str(scan),
        threads=threads,
        repeats=repeats,
        read_s=round(read_s, 3),
        prepare_s=round(best["seconds"], 3),
        steps_s={name: round(value, 3) for name, value in best["steps"].items()},
        ratio_to_read=round(best["seconds"] / read_s, 2),
        peak_rss_mb=round(max(run["peak_rss_mb"] for run in preparations), 1),
        read_all_s=[round(run["seconds"], 3) for run in reads],
        prepare_all_s=[round(run["seconds"], 3) for run in preparations],
    )


def benchmark_folder(folder: Path, steps: list[dict], *, workers: int) -> Throughput:
    """Prepare a LUNA16-shaped folder into a temporary one and measure the whole run.

    Raises
    ------
    LungDetError
        If a scan of the folder cannot be prepared.
    """
    from lungdet_mmdet.luna16.folder import read_luna16_folder
    from lungdet_mmdet.preparation.cohort_preparation import prepare_cohort
    from lungdet_mmdet.preparation.scan_job import limit_threads
    from lungdet_mmdet.runs.workplace import process_pool

    source = read_luna16_folder(folder)
    with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as out_dir:
        began = time.perf_counter()
        summary = prepare_cohort(
            source,
            Path(out_dir),
            steps,
            process_pool(workers, limit_threads),
            workers=workers,
            tell=lambda line: None,
        )
        seconds = time.perf_counter() - began
    if summary.failures:
        raise LungDetError(
            f"{folder}: {len(summary.failures)} scans cannot be prepared, the first because "
            f"{summary.failures[0].reason}"
        )
    if summary.run.interrupted:
        raise KeyboardInterrupt
    return Throughput(workers, len(summary.prepared), round(seconds, 3))


def scan_lines(measured: ScanBenchmark) -> list[str]:
    """Return the figures of one scan as lines of text."""
    return [
        f"{Path(measured.scan).name}, {measured.threads} threads, best of {measured.repeats}",
        f"  {'SimpleITK.ReadImage':<22}{measured.read_s:8.3f} s",
        *(f"    {name:<20}{value:8.3f} s" for name, value in measured.steps_s.items()),
        f"  {'whole preparation':<22}{measured.prepare_s:8.3f} s",
        f"  {'ratio_to_read':<22}{measured.ratio_to_read:8.2f}",
        f"  {'peak_rss_mb':<22}{measured.peak_rss_mb:8.1f}",
    ]


def folder_lines(runs: Sequence[Throughput]) -> list[str]:
    """Return the figures of a folder as lines of text."""
    return [
        f"{run.workers} workers: {run.scans} scans in {run.seconds:.1f} s, "
        f"{run.scans_per_minute:.1f} scans/minute"
        for run in runs
    ]


def _measure(order: dict[str, Any]) -> dict[str, Any]:
    """Run one measurement in a fresh process."""
    return measure_in_process(__name__, order, about=order["scan"])


def _measured_process(order: dict[str, Any]) -> dict[str, Any]:
    """Do what an order says, in this process."""
    if order["steps"] is None:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(order["threads"])
        began = time.perf_counter()
        image = sitk.ReadImage(order["scan"])
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "voxels": image.GetNumberOfPixels(),
            "peak_rss_mb": peak_rss_mb(),
        }

    from lungdet_mmdet.luna16.folder import ScanOnDisk
    from lungdet_mmdet.preparation.prep_pipeline import PrepareJob, build_prep_pipeline
    from lungdet_mmdet.preparation.scan_job import prepare_scan, set_threads

    set_threads(order["threads"])
    path = Path(order["scan"])
    scan = ScanOnDisk(path.stem, path, None, None, (), ())
    build_prep_pipeline(order["steps"])
    with tempfile.TemporaryDirectory(prefix="lungdet-benchmark-") as out_dir:
        prepared = prepare_scan(PrepareJob(scan, Path(out_dir), order["steps"]))
    return {
        "seconds": prepared.seconds,
        "steps": prepared.step_seconds,
        "peak_rss_mb": peak_rss_mb(),
    }


if __name__ == "__main__":
    print(json.dumps(_measured_process(json.load(sys.stdin))))
