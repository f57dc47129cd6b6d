"""The closing summary of a preparation, for the terminal."""

from __future__ import annotations

from pathlib import Path

from lungdet_mmdet.preparation.cohort_preparation import (
    REPORT_NAME,
    PreparationSummary,
)
from lungdet_mmdet.preparation.manifest import FAILURES_NAME
from lungdet_mmdet.preparation.scan_record import LOW_COVERAGE

# A summary is read, not scrolled through; the manifest lists everything.
MAX_LISTED = 20


def summary_lines(summary: PreparationSummary, out_dir: Path) -> list[str]:
    """Return the lines that say what was done, skipped and failed, and what masking cost."""
    manifest = summary.manifest
    lines = [
        f"{manifest['data']}: prepared {len(summary.prepared)}, up to date "
        f"{len(summary.skipped)}, failed {len(summary.failures)}, "
        f"named by the tables but not on disk {len(manifest['missing_series'])}"
    ]
    lines += _without_source_lines(manifest)
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
    lines += _listed(
        [
            f"  {n['nodule_id']}: {n['diameter_mm']:.1f} mm, coverage {n['coverage']:.2f}"
            for n in lost + poor
        ]
    )
    lines += _listed([f"failed: {f.seriesuid} [{f.stage}] {f.reason}" for f in summary.failures])
    if summary.failures:
        lines.append(f"details of the failures: {out_dir / FAILURES_NAME}")
    if summary.run.stopped_by is not None:
        lines.append("stopped early; finished scans are kept, the same command goes on from here")
    if summary.run.interrupted:
        lines.append("interrupted; finished scans are kept, the same command goes on from here")
    lines.append(f"look at the masks: {out_dir / REPORT_NAME}")
    return lines


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
