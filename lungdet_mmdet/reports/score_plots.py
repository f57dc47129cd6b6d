# SPDX-License-Identifier: Apache-2.0
"""Plots of scores: FROC, precision and recall, size, runs beside each other; and of labels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from lungdet_mmdet.annotations.label_study import LabelStudy
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.scoring.froc import FP_RATES, FrocResult
from lungdet_mmdet.scoring.intervals import Interval
from lungdet_mmdet.scoring.results import threshold_text
from lungdet_mmdet.scoring.run_files import RunScores
from lungdet_mmdet.scoring.slab_matching import MatchedSlabs
from lungdet_mmdet.scoring.slab_outcomes import PAPER_IOU, AnomalyUnits, TruthScore
from lungdet_mmdet.scoring.slab_records import PAPER_BANDS_MM
from lungdet_mmdet.scoring.slab_scores import precision_recall_curve

SIZE_INCHES = (5.0, 3.9)
DPI = 160
"""In a column of 85 mm, letters are 5.5 points high and more."""
LINEAR_COUNTS = 25
"""Counts above it are drawn on a logarithmic axis: few positives beside many healthy slabs."""
HISTOGRAM_BINS = np.linspace(0.0, 1.0, 41)


def save_precision_recall_plot(
    path: str | Path, matched: MatchedSlabs, *, title: str, threshold: float | None = None
) -> None:
    """Draw precision against recall at IoU 0.5, one line per size band, with its box count.

    A given threshold is marked by a dot on every line. Bands without a nodule get no line.
    """
    figure, axes = _labelled(title, "recall", "precision")
    iou_row = matched.iou_row(PAPER_IOU)
    for matches in matched.bands:
        n_nodules = int(matches.nodules_per_series.sum())
        curve = precision_recall_curve(matches, iou_row)
        if not n_nodules:
            continue
        label = f"{matches.band.name} (n = {n_nodules})"
        lines = axes.plot(curve.recall, curve.precision, drawstyle="steps-pre", label=label)
        kept = np.flatnonzero(curve.thresholds >= (np.inf if threshold is None else threshold))
        if len(kept):
            point = (curve.recall[kept[-1]], curve.precision[kept[-1]])
            axes.plot(*point, "o", color=lines[0].get_color())
    axes.set_xlim(0.0, 1.02)
    axes.set_ylim(0.0, 1.02)
    _legend(axes)
    _save(figure, path)


def save_froc_plot(path: str | Path, result: FrocResult, *, title: str) -> None:
    """Draw sensitivity against false positives per scan, with the 95 % band at the seven rates."""
    figure, axes = _labelled(title, "false positives per scan", "sensitivity")
    rates = np.geomspace(FP_RATES[0], FP_RATES[-1], 500)
    matches = result.matches
    n_scans = matches.counts()["n_scans"]
    label = f"CPM {result.cpm_text}\n{matches.n_nodules} nodules in {n_scans} scans"
    axes.plot(rates, result.curve.sensitivity_at(rates.tolist()), label=label)
    axes.plot(FP_RATES, result.sensitivities, "o", color="C0")
    if result.sensitivity_intervals:
        low = [item.low for item in result.sensitivity_intervals]
        high = [item.high for item in result.sensitivity_intervals]
        axes.fill_between(FP_RATES, low, high, alpha=0.2, color="C0", label="95 % interval")
    axes.set_xscale("log", base=2)
    axes.set_xticks(FP_RATES, [f"{rate:g}" for rate in FP_RATES])
    axes.set_ylim(0.0, 1.02)
    _legend(axes, "lower right" if result.cpm > 0.5 else "upper left")
    _save(figure, path)


def save_score_histogram(
    path: str | Path, units: AnomalyUnits, *, title: str, threshold: float | None = None
) -> None:
    """Draw how the highest scores of positive and of healthy slabs (or scans) are spread."""
    figure, axes = _labelled(title, f"highest box score of the {units.name}", f"{units.name}s")
    for name, chosen in (("healthy", ~units.is_positive), ("with a nodule", units.is_positive)):
        label = f"{name} (n = {int(np.count_nonzero(chosen))})"
        axes.hist(units.scores[chosen], bins=HISTOGRAM_BINS.tolist(), alpha=0.55, label=label)
    if axes.get_ylim()[1] > LINEAR_COUNTS:
        axes.set_yscale("symlog", linthresh=1.0)
        axes.yaxis.set_major_formatter(ScalarFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0.0)
    _mark_threshold(axes, threshold, vertical=True)
    _legend(axes)
    _save(figure, path)


def save_size_score_plot(
    path: str | Path,
    scored: Sequence[TruthScore],
    *,
    title: str,
    threshold: float | None = None,
    edges_mm: Sequence[float] = PAPER_BANDS_MM,
) -> None:
    """Draw the best score on each annotated nodule box against its diameter."""
    figure, axes = _labelled(title, "annotated diameter (mm)", "best score on the nodule")
    diameters = [item.box.diameter_mm for item in scored]
    axes.scatter(
        diameters,
        [item.score for item in scored],
        s=14,
        alpha=0.6,
        label=f"{len(scored)} boxes of nodules on slabs",
    )
    for edge in edges_mm:
        axes.axvline(edge, color="0.7", linewidth=0.8, linestyle=":")
    axes.set_xlim(left=0.0)
    axes.set_ylim(-0.02, 1.02)
    _mark_threshold(axes, threshold, vertical=False)
    _legend(axes)
    _save(figure, path)


def _labelled(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = _figure(title, size=SIZE_INCHES)
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def _figure(title: str, *, size: tuple[float, float]) -> tuple[Figure, Axes]:
    # A figure of its own, not pyplot's: nothing global, no window system.
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=8.5)
    return figure, axes


def _mark_threshold(axes: Axes, threshold: float | None, *, vertical: bool) -> None:
    if threshold is None or np.isnan(threshold):
        return
    draw = axes.axvline if vertical else axes.axhline
    draw(threshold, color="0.2", linestyle="--", linewidth=1.0, label=threshold_text(threshold))


def _legend(axes: Axes, place: Literal["best", "upper left", "lower right"] = "best") -> None:
    if axes.get_legend_handles_labels()[0]:
        # A curve under the legend can still be followed.
        axes.legend(fontsize=8, loc=place, framealpha=0.7)


def _save(figure: Figure, path: str | Path) -> None:
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise LungDetError(f"{path}: plots are written as PNG; let the name end in .png")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes(path, content.getvalue())


def save_comparison_plot(
    path: str | Path, runs: Sequence[RunScores], keys: Sequence[str], *, title: str
) -> None:
    """Draw one group per figure and one dot with its 95 % interval per run, as PNG."""
    figure, axes = _figure(title, size=(max(5.0, 0.8 * len(keys) + 1.5), 3.9))
    offsets = np.linspace(-0.3, 0.3, len(runs)) if len(runs) > 1 else np.zeros(1)
    for run, offset in zip(runs, offsets, strict=True):
        values = np.array([run.value(key) for key in keys])
        known = [run.intervals.get(key, Interval(np.nan, np.nan)) for key in keys]
        limits = np.array([(item.low, item.high) for item in known]).T
        # An interval of a bootstrap need not hold the figure itself.
        reach = np.nan_to_num(np.clip([values - limits[0], limits[1] - values], 0.0, None))
        x = np.arange(len(keys)) + offset
        axes.errorbar(x, values, yerr=reach, fmt="o", markersize=4, capsize=2, label=run.name)
    axes.set_xticks(range(len(keys)), keys, rotation=30, ha="right", fontsize=8)
    axes.set_ylim(0.0, 1.02)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=8)
    _save(figure, path)


def save_curve_plot(
    path: str | Path, curves: Mapping[str, Mapping[int, float]], *, title: str
) -> None:
    """Draw a figure (0 to 1) of every validation over epochs or iterations, a line per training."""
    figure, axes = _labelled(title, "after so many epochs, or iterations", "validation")
    for name, curve in curves.items():
        axes.plot(*zip(*sorted(curve.items()), strict=True), marker="o", markersize=4, label=name)
    axes.set_xlim(left=0)
    axes.set_ylim(0.0, 1.02)
    _legend(axes)
    _save(figure, path)


EDGES_MM = (3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 11.0, 15.0, 20.0, 35.0)
_SPHERE, _READER = "#b3560f", "#1f5fa8"


def label_study_png(study: LabelStudy) -> bytes:
    """Return a PNG: median, quartiles and the share below 0.5, by annotated diameter."""
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    overlap, misses = figure.subplots(1, 2)
    diameter = np.array([cut.diameter_mm for cut in study.cuts])
    sphere = np.array([cut.iou_sphere for cut in study.cuts])
    readers = [np.array(cut.iou_reader) for cut in study.cuts]
    of_reader = np.repeat(diameter, [len(values) for values in readers])
    reader = np.concatenate(readers) if readers else np.zeros(0)
    for where, values, colour, name in (
        (diameter, sphere, _SPHERE, "sphere's square"),
        (of_reader, reader, _READER, "one reader against the others"),
    ):
        rows = [
            (np.sqrt(low * high), *np.percentile(inside, (25, 50, 75)), np.mean(inside < 0.5))
            for low, high in zip(EDGES_MM, EDGES_MM[1:], strict=False)
            if len(inside := values[(where > low) & (where <= high)])
        ]
        if not rows:
            continue
        x, first, median, third, below = np.array(rows).T
        overlap.plot(x, median, color=colour, marker="o", label=name)
        overlap.fill_between(x, first, third, color=colour, alpha=0.18, linewidth=0)
        misses.plot(x, 100 * below, color=colour, marker="o", label=name)
    overlap.axhline(0.5, color="0.5", linewidth=0.8, linestyle=":")
    overlap.set(ylabel="IoU on a slab: median, quartiles", ylim=(0.3, 1.0))
    misses.set(ylabel="below IoU 0.5, % of slabs", ylim=(0, None))
    for axes in (overlap, misses):
        axes.set_xscale("log")
        axes.set_xticks([3, 5, 7, 10, 15, 20, 30], labels=["3", "5", "7", "10", "15", "20", "30"])
        axes.minorticks_off()
        axes.set_xlabel("annotated diameter, mm")
        axes.spines[["top", "right"]].set_visible(False)
    overlap.legend(frameon=False, loc="lower right")
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()
