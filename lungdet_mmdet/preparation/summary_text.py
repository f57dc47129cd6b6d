"""The closing summary of a preparation, for the terminal."""

from __future__ import annotations

from pathlib import Path

from lungdet_mmdet.preparation.cohort_preparation import FAILURES_NAME, PreparationSummary
from lungdet_mmdet.preparation.scan_job import LOW_COVERAGE


def summary_lines(summary: PreparationSummary, out_dir: Path) -> list[str]:
    """Return the lines that say what was done, skipped and failed, and what masking cost."""
    manifest = summary.manifest
    lines = [
        f"prepared {len(summary.prepared)}, up to date {len(summary.skipped)}, "
        f"failed {len(summary.failures)}, not on disk {len(summary.missing_series)}"
    ]
    if summary.redone_because:
        changes = ", ".join(f"{key} ({n})" for key, n in sorted(summary.redone_because.items()))
        lines.append(f"prepared again because these changed (scans): {changes}")
    lines.append(
        f"voxels per scan: {manifest['mean_nonzero_before'] / 1e6:.2f} M above air before the lung "
        f"mask, {manifest['mean_nonzero_after'] / 1e6:.2f} M after "
        f"({manifest['nonzero_share']:.0%}; the paper reports 15 M to 5.25 M, 35 %)"
    )
    poor, lost = manifest["nodules_poorly_covered"], manifest["nodules_lost"]
    lines.append(
        f"nodules: {manifest['nodules']}; covered by the mask to less than {LOW_COVERAGE:.0%}: "
        f"{len(poor)}; lost: {len(lost)}"
    )
    lines += [
        f"  {n['nodule_id']}: {n['diameter_mm']:.1f} mm, coverage {n['coverage']:.2f}"
        for n in lost + poor
    ]
    lines += [f"failed: {f.seriesuid} [{f.stage}] {f.reason}" for f in summary.failures]
    if summary.failures:
        lines.append(f"details of the failures: {out_dir / FAILURES_NAME}")
    if summary.interrupted:
        lines.append("interrupted: finished scans are kept; the same command goes on from here")
    return lines
