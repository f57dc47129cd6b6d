"""Figures of several runs beside each other, with their intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lungdet_mmdet.execution.atomic_files import write_bytes
from lungdet_mmdet.scoring.run_comparison import RunScores

DPI = 160


def save_comparison_plot(
    path: str | Path, runs: Sequence[RunScores], keys: Sequence[str], *, title: str
) -> None:
    """Draw one group per figure and one dot with its 95 % interval per run, as PNG."""
    figure = Figure(figsize=(max(5.0, 0.8 * len(keys) + 1.5), 3.9), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    offsets = np.linspace(-0.3, 0.3, len(runs)) if len(runs) > 1 else np.zeros(1)
    for run, offset in zip(runs, offsets, strict=True):
        values = np.array([run.value(key) for key in keys])
        limits = np.array([run.intervals.get(key, (np.nan, np.nan)) for key in keys]).T
        # An interval of a bootstrap need not hold the figure itself.
        reach = np.nan_to_num(np.clip([values - limits[0], limits[1] - values], 0.0, None))
        x = np.arange(len(keys)) + offset
        axes.errorbar(x, values, yerr=reach, fmt="o", markersize=4, capsize=2, label=run.name)
    axes.set_xticks(range(len(keys)), keys, rotation=30, ha="right", fontsize=8)
    axes.set_ylim(0.0, 1.02)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title, fontsize=8.5)
    axes.legend(fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_bytes(Path(path), content.getvalue())
