# SPDX-License-Identifier: Apache-2.0
"""What a test leaves behind: the table, metrics.json, plots and page, overlays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lungdet_mmdet.evaluation.slab_test import SlabTestOutcome
from lungdet_mmdet.reports.score_plots import (
    save_froc_plot,
    save_precision_recall_plot,
    save_score_histogram,
    save_size_score_plot,
)
from lungdet_mmdet.reports.slab_overlays import (
    detection_boxes,
    draw_slab,
    read_slab,
    truth_boxes,
    write_png,
)
from lungdet_mmdet.reports.test_report import (
    ReviewedSplit,
    false_positive_figures,
    miss_figures,
    report_page,
)
from lungdet_mmdet.runs.atomic_files import write_bytes, write_json
from lungdet_mmdet.runs.files import METRICS_NAME, PLOT_FOLDER, REPORT_NAME
from lungdet_mmdet.scoring.intervals import finite_or_none, limits_or_none
from lungdet_mmdet.scoring.results import (
    FEW,
    LOCATED,
    PUBLISHED,
    RATED,
    SECTIONS,
    ResultRow,
    TestedRun,
    percent,
    result_rows,
    section_title,
    threshold_text,
)
from lungdet_mmdet.scoring.slab_outcomes import truth_scores
from lungdet_mmdet.scoring.split_scores import SplitScores


def write_metrics(outcome: SlabTestOutcome, folder: Path) -> Path:
    """Write ``metrics.json``; undefined figures (NaN) become null. Returns its path."""
    path = folder / METRICS_NAME
    write_json(path, metrics_content(outcome))
    return path


def metrics_content(outcome: SlabTestOutcome) -> dict[str, Any]:
    """Return the content of ``metrics.json``."""
    run, scores = outcome.run, outcome.scores
    shown = {row.key: row for row in result_rows(scores)}
    return {
        "data": run.data,
        "protocol": run.protocol,
        "split": run.split,
        "labels": run.labels,
        "checkpoint": run.checkpoint,
        "config": run.config,
        "parameters": run.parameters,
        "threshold": run.threshold,
        "threshold_source": run.threshold_source,
        "metrics": _finite(outcome.metrics),
        "by_rating": _of_section(shown.values(), RATED),
        "by_location": _of_section(shown.values(), LOCATED),
        "ci95": {key: limits_or_none(row.interval) for key, row in sorted(shown.items())},
        "ci95_exact": sorted(key for key, row in shown.items() if row.is_exact),
        "ceiling": scores.ceiling.as_json(),
        "depth_gain": outcome.depth_gain or None,
        "counts": dict(sorted(scores.counts.items())),
        "bootstrap": {"resamples": scores.options.n_resamples, "seed": scores.options.seed},
        "published": PUBLISHED,
        "seconds": outcome.seconds,
        "seconds_per_slab": run.seconds_per_slab,
        "warnings": list(run.warnings),
    }


def _of_section(rows: Iterable[ResultRow], section: str) -> dict[str, Any]:
    return {
        row.key: {
            "value": finite_or_none(row.value),
            "ci95": limits_or_none(row.interval),
            "n": row.n,
        }
        for row in rows
        if row.section == section
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: finite_or_none(float(value)) for key, value in sorted(values.items())}


MAX_CASES = 12
"""Misses, and false positives, that are shown as pictures."""
PLOT_NAMES = {
    "precision_recall": "Boxes on slabs: precision and recall by size, IoU 0.5",
    "froc": "Nodules in space: FROC by LUNA16's rules",
    "slab_scores": "Does the slab hold a nodule? Its highest score",
    "scan_scores": "Does the scan hold a nodule? Its highest score",
    "size_score": "Boxes on slabs: size and best score of nodules",
}
"""File names of the plots, and what they show."""


def write_report(outcome: SlabTestOutcome, folder: Path) -> Path:
    """Write ``report.html`` and the plots in ``plots/``; return the page's path."""
    plots = write_plots(outcome, folder / PLOT_FOLDER)
    split = ReviewedSplit(
        outcome.scores.matched.outcomes,
        {item["id"]: outcome.slab_folder / item["file_name"] for item in outcome.coco["images"]},
        outcome.run.threshold,
    )
    text = report_page(
        outcome.run,
        outcome.scores,
        plots=[(title, path.read_bytes()) for title, path in plots],
        misses=miss_figures(split, count=MAX_CASES),
        false_positives=false_positive_figures(split, count=MAX_CASES),
        unseen=_unseen_nodules(outcome),
    )
    path = folder / REPORT_NAME
    write_bytes(path, text.encode("utf-8"))
    return path


def write_plots(outcome: SlabTestOutcome, folder: Path) -> list[tuple[str, Path]]:
    """Write the plots as PNG; return what each shows, and its path."""
    run, scores = outcome.run, outcome.scores
    title = f"{run.title(scores)}\n{threshold_text(run.threshold)}, {run.checkpoint}"
    heads = {folder / f"{name}.png": f"{what}\n{title}" for name, what in PLOT_NAMES.items()}
    pr, froc, slabs, scans, sizes = heads
    save_precision_recall_plot(pr, scores.matched, title=heads[pr], threshold=run.threshold)
    save_froc_plot(froc, scores.froc, title=heads[froc])
    for path, units in ((slabs, scores.slabs), (scans, scores.scans)):
        save_score_histogram(path, units, title=heads[path], threshold=run.threshold)
    save_size_score_plot(
        sizes,
        truth_scores(scores.matched.outcomes),
        title=heads[sizes],
        threshold=run.threshold,
        edges_mm=scores.matched.edges_mm,
    )
    return [(head, path) for path, head in heads.items()]


def _unseen_nodules(outcome: SlabTestOutcome) -> list[str]:
    return [
        f"{item['diameter_mm']:.1f} mm at {', '.join(f'{v:.1f}' for v in item['centre_xyz_mm'])} "
        f"mm in {item['seriesuid']}: {item.get('reason', 'reason unknown')}"
        for item in outcome.coco.get("unseen_nodules", ())
    ]


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
        if not members:
            continue
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
    lines = [f"Threshold: {run.threshold_source}.", f"Labels: {run.labels}."]
    if scores.options.n_resamples:
        lines.append(
            f"95 % intervals from {scores.options.n_resamples} resamples of the "
            f"{len(scores.matched.series)} scans; * exact limits at n, where all resamples agree."
        )
    lines.append(f"!: n under {FEW}; the interval says more than the figure.")
    lines.append(f"Model: {run.checkpoint}, {run.config}, {run.parameters / 1e6:.1f} M parameters.")
    return "\n".join(lines)


def write_overlays(outcome: SlabTestOutcome, folder: Path, *, min_score: float) -> int:
    """Write one PNG per slab that has a nodule or a detection of at least `min_score`.

    Returns
    -------
    int
        Number of pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    annotations = defaultdict(list)
    for annotation in outcome.coco["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    images = {image["id"]: image for image in outcome.coco["images"]}
    written = 0
    for found in outcome.detections:
        image = images[found.img_id]
        kept = found.scores >= min_score
        if not kept.any() and not any(not a["iscrowd"] for a in annotations[found.img_id]):
            continue
        low, high = image["z_range_mm"]
        boxes = np.asarray(found.boxes_xyxy_px, dtype=float).reshape(-1, 4)
        picture = draw_slab(
            read_slab(outcome.slab_folder / image["file_name"]),
            truth_boxes(annotations[found.img_id])
            + detection_boxes(boxes[kept], found.scores[kept]),
            spacing_x_mm=image["spacing"][0],
            caption=f"{outcome.run.data}  ...{image['seriesuid'][-12:]}  "
            f"slab {image['slab_index']}  z {low:.1f} to {high:.1f} mm",
        )
        name = f"{image['seriesuid']}_{image['slab_index']:03d}.png"
        write_png(folder / name, picture)
        written += 1
    return written
