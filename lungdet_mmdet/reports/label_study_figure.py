"""The figure of the label study: overlap of sphere boxes, and of readers, by diameter."""

from __future__ import annotations

import io

import numpy as np

from lungdet_mmdet.annotations.label_study import LabelStudy

EDGES_MM = (3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 11.0, 15.0, 20.0, 35.0)
_SPHERE, _READER = "#b3560f", "#1f5fa8"


def label_study_png(study: LabelStudy) -> bytes:
    """Return a PNG: median, quartiles and the share below 0.5, by annotated diameter."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
