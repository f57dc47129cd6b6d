"""Windows of one size that cover a slab, and which of them answers for which part of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np


@dataclass(frozen=True)
class SlabWindow:
    """One window of a slab, in pixels.

    Parameters
    ----------
    start_yx : its first row and column.
    core_low_yx, core_high_yx : it answers for centres from low up to, but without, high.
    """

    start_yx: tuple[int, int]
    core_low_yx: tuple[float, float]
    core_high_yx: tuple[float, float]


def slab_windows(size_yx: tuple[int, int], *, window_px: int, overlap_px: int) -> list[SlabWindow]:
    """Cover a slab with windows; their cores share it out without gap or overlap.

    Windows are spread evenly and overlap by ``overlap_px`` at least. A slab smaller than a window
    gets one that reaches beyond it.

    Parameters
    ----------
    size_yx : height and width of the slab.
    window_px : side of the square windows.
    overlap_px : least overlap of neighbours, smaller than the window.
    """
    rows, columns = (
        _along_one_axis(size, window_px=window_px, overlap_px=overlap_px) for size in size_yx
    )
    return [SlabWindow((y[0], x[0]), (y[1], x[1]), (y[2], x[2])) for y, x in product(rows, columns)]


def _along_one_axis(
    size: int, *, window_px: int, overlap_px: int
) -> list[tuple[int, float, float]]:
    """Return start, and the core's ends, of every window along one axis."""
    count = max(1, -(-(size - overlap_px) // (window_px - overlap_px)))
    starts = np.rint(np.linspace(0, max(0, size - window_px), count)).astype(int)
    # The border between two cores is the middle of their windows' overlap.
    borders = 0.5 * (starts[1:] + starts[:-1] + window_px)
    lows, highs = (-np.inf, *borders), (*borders, np.inf)
    return [(int(s), float(a), float(b)) for s, a, b in zip(starts, lows, highs, strict=True)]
