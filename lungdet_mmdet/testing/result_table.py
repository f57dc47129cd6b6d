"""The result table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lungdet_mmdet.scoring.paper_table import percent
from lungdet_mmdet.scoring.result_rows import FEW, SECTIONS, ResultRow, result_rows, section_title
from lungdet_mmdet.scoring.split_scores import SplitScores
from lungdet_mmdet.scoring.tested_run import TestedRun

MIN_WIDTH = 100
"""Narrower terminals, and files, get this width: a table with broken lines cannot be read."""
LABEL_WIDTH = 36


def print_table(run: TestedRun, scores: SplitScores, console: Console | None = None) -> None:
    """Print all rows, section by section, with protocol, data and threshold named."""
    console = console or Console()
    if console.width < MIN_WIDTH:
        console = Console(file=console.file, width=MIN_WIDTH)
    table = Table(
        title=run.title(scores),
        title_justify="left",
        caption=caption(run, scores),
        caption_justify="left",
        show_lines=False,
        pad_edge=False,
    )
    table.add_column("figure", max_width=LABEL_WIDTH)
    table.add_column("paper\nLUNA16", justify="right", no_wrap=True)
    table.add_column(f"here\n{run.data}", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("n", no_wrap=True)
    rows = result_rows(scores)
    for section in SECTIONS:
        members = [row for row in rows if row.section == section]
        table.add_section()
        table.add_row(f"[bold]{section_title(section, run.threshold)}[/bold]")
        for row in members:
            table.add_row(*_cells(row))
    console.print(table)
    for warning in run.warnings:
        console.print(f"[yellow]![/yellow] {warning}", highlight=False)


def _cells(row: ResultRow) -> tuple[str, ...]:
    published = percent(row.published) if row.published is not None else ""
    value = row.value_text(row.value)
    counted = f"[yellow]{row.counted} ![/yellow]" if row.is_few else row.counted
    return f"  {row.label}", published, value, row.interval_text(), counted


def caption(run: TestedRun, scores: SplitScores) -> str:
    """Return the lines under the table: threshold, intervals, model."""
    lines = [f"Threshold: {run.threshold_source}."]
    if scores.options.n_resamples:
        lines.append(
            f"95 % intervals from {scores.options.n_resamples} resamples of the "
            f"{len(scores.matched.series)} scans; * exact limits at n, where all resamples agree."
        )
    lines.append(f"!: n under {FEW}; the interval says more than the figure.")
    lines.append(f"Model: {run.checkpoint}, {run.config}, {run.parameters / 1e6:.1f} M parameters.")
    return "\n".join(lines)
