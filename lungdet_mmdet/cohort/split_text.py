"""Splits and expected counts as lines of text, for the terminal."""

from __future__ import annotations

from lungdet_mmdet.cohort.accounting import ExpectedCounts
from lungdet_mmdet.cohort.split_part import PARTS
from lungdet_mmdet.cohort.split_writer import SplitReport

_COLUMNS = ("slabs", "positives", "healthy", "ignored", "series", "nodules", "unseen")


def report_lines(report: SplitReport) -> list[str]:
    """Return the table of a written split, and its warnings."""
    lines = [
        f"{report.protocol} protocol on {report.data}, written to {report.folder}",
        f"{'':<7}" + "".join(f"{column:>10}" for column in _COLUMNS) + f"{'rate':>9}",
    ]
    for summary in report.summaries:
        cells = "".join(f"{getattr(summary, column):>10,}" for column in _COLUMNS)
        rate = "-" if summary.rate is None else f"{100 * summary.rate:.1f} %"
        lines.append(f"{summary.split:<7}{cells}{rate:>9}")
    return lines + [f"WARNING: {warning}" for warning in report.warnings]


def expectation_lines(
    counts: ExpectedCounts, *, slabs_per_scan: int, thickness_mm: float
) -> list[str]:
    """Return the expected counts as lines of text, assumptions included."""
    bands = ", ".join(f"{count} {name}" for name, count in counts.nodules_by_band)
    lines = [
        f"{counts.series} series, {counts.series_with_nodules} with nodules",
        f"{counts.nodules} nodules: {bands}",
        f"{counts.findings} distinct irrelevant findings outside nodules",
        "",
        f"Slabs of {thickness_mm:g} mm side by side, mean (range) over the unknown start:",
        f"  that show some nodule best   {counts.best}",
        f"  positive                     {counts.positive}",
        f"  touched by a nodule at all   {counts.touched}",
        f"  to be ignored                {counts.ignored}",
        f"Assumed: {slabs_per_scan} slabs per scan, so {counts.slabs:,} in all and "
        f"{counts.healthy:,} healthy.",
        "",
        f"{'protocol':<10}{'part':<8}{'slabs':>8}{'positive':>10}{'healthy':>9}{'rate':>9}",
    ]
    for protocol, parts in (("paper", counts.paper), ("strict", counts.strict)):
        for name, (positive, healthy) in zip(PARTS, parts, strict=True):
            total = positive + healthy
            rate = f"{100 * positive / total:.1f} %" if total else "-"
            lines.append(f"{protocol:<10}{name:<8}{total:>8,}{positive:>10,}{healthy:>9,}{rate:>9}")
    lines += [
        "",
        "Not in the tables: how many slabs a scan has, where its first slab begins, and which "
        "nodules the lung mask or the crop cuts away. Strict counts divide slabs evenly; whole "
        "series will differ by a few per cent.",
    ]
    return lines
