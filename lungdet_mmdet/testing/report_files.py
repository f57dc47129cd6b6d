"""Plots and the report page of a test."""

from __future__ import annotations

from pathlib import Path

from lungdet_mmdet.execution.atomic_files import write_bytes
from lungdet_mmdet.figures.review_figures import (
    ReviewedSplit,
    false_positive_figures,
    miss_figures,
)
from lungdet_mmdet.figures.score_plots import (
    save_froc_plot,
    save_precision_recall_plot,
    save_score_histogram,
    save_size_score_plot,
)
from lungdet_mmdet.figures.test_report import report_page
from lungdet_mmdet.scoring.review_cases import truth_scores
from lungdet_mmdet.testing.slab_test import SlabTestOutcome

REPORT_NAME = "report.html"
PLOT_FOLDER = "plots"
MAX_CASES = 12
PLOT_NAMES = {
    "precision_recall": "Boxes on slabs: precision and recall by size, IoU 0.5",
    "froc": "Nodules in space: FROC by LUNA16's rules",
    "slab_scores": "Does the slab hold a nodule? Its highest score",
    "scan_scores": "Does the scan hold a nodule? Its highest score",
    "size_score": "Boxes on slabs: size and best score of nodules",
}
"""File names of the plots, and what they show."""


def write_report(outcome: SlabTestOutcome, folder: Path, *, max_cases: int = MAX_CASES) -> Path:
    """Write ``report.html`` and the plots in ``plots/``; return the page's path.

    ``max_cases`` is the number of misses, and of false positives, that are shown as pictures.
    """
    plots = write_plots(outcome, folder / PLOT_FOLDER)
    split = ReviewedSplit(
        outcome.slab_set,
        outcome.detections,
        {item["id"]: outcome.slab_folder / item["file_name"] for item in outcome.coco["images"]},
        outcome.run.threshold,
    )
    text = report_page(
        outcome.run,
        outcome.scores,
        plots=[(title, path.read_bytes()) for title, path in plots],
        misses=miss_figures(split, count=max_cases),
        false_positives=false_positive_figures(split, count=max_cases),
        unseen=_unseen_nodules(outcome),
    )
    path = folder / REPORT_NAME
    write_bytes(path, text.encode("utf-8"))
    return path


def write_plots(outcome: SlabTestOutcome, folder: Path) -> list[tuple[str, Path]]:
    """Write the plots as PNG; return what each shows, and its path."""
    run, scores = outcome.run, outcome.scores
    title = f"{run.title(scores)}\n{run.threshold_text}, {run.checkpoint}"
    heads = {folder / f"{name}.png": f"{what}\n{title}" for name, what in PLOT_NAMES.items()}
    pr, froc, slabs, scans, sizes = heads
    save_precision_recall_plot(pr, scores.matched, title=heads[pr], threshold=run.threshold)
    save_froc_plot(froc, scores.froc, title=heads[froc])
    for path, units in ((slabs, scores.slabs), (scans, scores.scans)):
        save_score_histogram(path, units, title=heads[path], threshold=run.threshold)
    save_size_score_plot(
        sizes,
        truth_scores(outcome.slab_set, outcome.detections),
        title=heads[sizes],
        threshold=run.threshold,
        edges_mm=scores.options.bands_mm,
    )
    return [(head, path) for path, head in heads.items()]


def _unseen_nodules(outcome: SlabTestOutcome) -> list[str]:
    return [
        f"{item['diameter_mm']:.1f} mm at {', '.join(f'{v:.1f}' for v in item['centre_xyz_mm'])} "
        f"mm in {item['seriesuid']}: {item.get('reason', 'reason unknown')}"
        for item in outcome.coco.get("unseen_nodules", ())
    ]
