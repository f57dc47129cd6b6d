"""The table printed when a split is loaded."""

from __future__ import annotations

import io
import json
from pathlib import Path

from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from lungdet_mmdet.cohort.summary import CohortSummary, summarise

TABLE_WIDTH = 100


def summary_table(summary: CohortSummary) -> Table:
    """Return a summary as a two-column table."""
    title = f"{summary.split}: {summary.data} data, {summary.protocol} protocol"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    rate = "-" if summary.rate is None else f"{summary.rate:.1%}"
    bands = ", ".join(f"{count} {name}" for name, count in summary.nodules_by_band)
    for what, count in (
        ("slabs", summary.slabs),
        ("  with a nodule", summary.positives),
        ("  healthy", summary.healthy),
        ("  ignored (a nodule's edge, or an excluded finding)", summary.ignored),
        ("positive rate", rate),
        ("series", summary.series),
        ("  without a nodule", summary.series_without_nodules),
        ("nodules", f"{summary.nodules} ({bands})"),
        ("  in no slab (counted as missed)", summary.unseen),
        ("  covered by the lung mask to less than 90 %", summary.lost_to_mask),
    ):
        table.add_row(what, str(count))
    return table


def log_split_summary(ann_file: str | Path, *, logger: MMLogger) -> None:
    """Log what an annotation file holds."""
    summary = summarise(json.loads(Path(ann_file).read_text(encoding="utf-8")))
    console = Console(file=io.StringIO(), width=TABLE_WIDTH)
    console.print(summary_table(summary))
    logger.info("%s\n%s", ann_file, console.file.getvalue().rstrip())
    if summary.positives == 0:
        logger.warning("%s: no slab with a nodule: every score on it will be undefined", ann_file)
