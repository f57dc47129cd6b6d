# SPDX-License-Identifier: Apache-2.0
"""How long a scan takes from file to candidates, beside mmdet's stock way, and whether both agree.

Three ways through one scan, each in a fresh process:

- *stock*: mmcv's own attention on whole slabs, as they are without ``CropToLungs``;
- *stock, cropped*: the same on the slabs that the model was trained on;
- *ours*: those slabs with this package's attention, as ``tools/infer.py`` works.

The last two see the same pixels, so their boxes are compared.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured_process import measure_in_process
from lungdet_mmdet.apis import scan_detector as scan_findings

PROCESS = "benchmarks.infer_process"
STAGES = (*scan_findings.STAGES, "writing")
WAYS = {
    "stock": {"mmcv_attention": True, "crop": False},
    "stock, cropped": {"mmcv_attention": True, "crop": True},
    "ours": {"mmcv_attention": False, "crop": True},
}
COMPARED_CANDIDATES = 20
"""Best candidates whose positions are compared; the ones far below any threshold do not matter."""


@dataclass(frozen=True)
class InferRun:
    """One way through the scan.

    Parameters
    ----------
    way : one of `WAYS`.
    seconds : by stage, see `STAGES`.
    total_s : their sum.
    slabs : number of slabs.
    slab_px : their height and width.
    peak_rss_mb : highest memory, libraries included, in MiB.
    """

    way: str
    seconds: dict[str, float]
    total_s: float
    slabs: int
    slab_px: tuple[int, int]
    peak_rss_mb: float

    @property
    def scans_per_hour(self) -> float:
        """Scans that one such process gets through in an hour."""
        return 3600.0 / self.total_s


@dataclass(frozen=True)
class Differences:
    """Largest differences between stock and ours on the same slabs.

    Parameters
    ----------
    box_px, score : over all boxes of all queries; each box is compared with the nearest.
    candidate_mm : distance of the best candidates' centres.
    candidates : how many candidates were compared.
    """

    box_px: float
    score: float
    candidate_mm: float
    candidates: int


@dataclass(frozen=True)
class InferBenchmark:
    """All ways through one scan; for each the run with the least total time counts."""

    scan: str
    checkpoint: str
    threads: int
    repeats: int
    runs: dict[str, InferRun]
    differences: Differences

    @property
    def ratio(self) -> float:
        """How many times faster than stock on whole slabs."""
        return self.runs["stock"].total_s / self.runs["ours"].total_s

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {**asdict(self), "ratio": round(self.ratio, 2)}


def benchmark_inference(
    scan: Path,
    checkpoint: Path,
    *,
    threads: int,
    repeats: int = 1,
    batch_size: int | None = None,
    trust_checkpoint: bool = False,
) -> InferBenchmark:
    """Measure all ways through one scan on the CPU, alternately.

    Raises
    ------
    LungDetError
        If the scan or the checkpoint cannot be used.
    """
    order = {
        "scan": str(scan),
        "checkpoint": str(checkpoint),
        "threads": threads,
        "trust": trust_checkpoint,
        "batch_size": batch_size,
    }
    measured: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, settings in WAYS.items():
            measured[way].append(
                measure_in_process(PROCESS, {**order, **settings, "way": way}, about=str(scan))
            )
    runs = {way: min(found, key=lambda r: r["run"]["total_s"]) for way, found in measured.items()}
    compared = measure_in_process(PROCESS, {**order, "way": "compare"}, about=str(scan))
    distance, count = candidate_distance(
        runs["stock, cropped"]["candidates"], runs["ours"]["candidates"]
    )
    return InferBenchmark(
        scan=str(scan),
        checkpoint=str(checkpoint),
        threads=threads,
        repeats=repeats,
        runs={way: InferRun(**found["run"]) for way, found in runs.items()},
        differences=Differences(**compared, candidate_mm=distance, candidates=count),
    )


def candidate_distance(theirs: list[list[float]], ours: list[list[float]]) -> tuple[float, int]:
    """Return how far the nearest of our candidates lies from theirs, at worst, and their number.

    Parameters
    ----------
    theirs, ours : world centres (x, y, z) in mm, best first.
    """
    if not theirs or not ours:
        return (0.0 if not theirs and not ours else float("inf")), 0
    best = np.asarray(theirs)[:COMPARED_CANDIDATES]
    apart = np.linalg.norm(best[:, None] - np.asarray(ours)[None], axis=2)
    return float(apart.min(axis=1).max()), len(best)


def report_lines(measured: InferBenchmark) -> list[str]:
    """Return the figures as lines of text."""
    runs = measured.runs
    lines = [
        f"{Path(measured.scan).name}, {measured.threads} threads, best of {measured.repeats}",
        f"{'seconds':<16}" + "".join(f"{way:>16}" for way in runs),
    ]
    for stage in STAGES:
        lines.append(f"{stage:<16}" + "".join(f"{r.seconds[stage]:16.2f}" for r in runs.values()))
    rows = {
        "whole scan": [f"{r.total_s:.2f}" for r in runs.values()],
        "slabs": [f"{r.slabs} of {r.slab_px[0]}x{r.slab_px[1]}" for r in runs.values()],
        "scans/hour": [f"{r.scans_per_hour:.0f}" for r in runs.values()],
        "peak MiB": [f"{r.peak_rss_mb:.0f}" for r in runs.values()],
    }
    lines += [f"{name:<16}" + "".join(f"{v:>16}" for v in row) for name, row in rows.items()]
    apart = measured.differences
    return [
        *lines,
        f"ours is {measured.ratio:.1f} times as fast as stock on whole slabs",
        f"largest differences on the same slabs: boxes {apart.box_px:.2g} px, scores "
        f"{apart.score:.2g}, the {apart.candidates} best candidates {apart.candidate_mm:.2g} mm",
    ]
