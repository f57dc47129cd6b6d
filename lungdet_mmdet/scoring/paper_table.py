"""Table 1 of the paper: its rows, its published values, and ours beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class PaperRow:
    """One row of Table 1.

    Parameters
    ----------
    label : as printed in the paper, with the size band in mm.
    key : name of the figure in :func:`size_band_scores`.
    count_key : name of the number of nodule boxes that it rests on.
    published : the paper's value on LUNA16, 0..1.
    """

    label: str
    key: str
    count_key: str
    published: float


PAPER_TABLE_1 = (
    PaperRow("F1 score (of AP and AR)", "paper_F1", "n_nodules", 0.942),
    PaperRow("AP @ IoU 0.5, all", "AP50", "n_nodules", 0.933),
    PaperRow("AP @ IoU 0.5, small (<= 7 mm)", "AP50_small", "n_nodules_small", 0.784),
    PaperRow("AP @ IoU 0.5, medium (7-15 mm)", "AP50_medium", "n_nodules_medium", 0.967),
    PaperRow("AP @ IoU 0.5, large (> 15 mm)", "AP50_large", "n_nodules_large", 0.978),
    PaperRow("AR @ IoU 0.5, all", "AR50", "n_nodules", 0.952),
    PaperRow("AR @ IoU 0.5, small (<= 7 mm)", "AR50_small", "n_nodules_small", 0.833),
    PaperRow("AR @ IoU 0.5, medium (7-15 mm)", "AR50_medium", "n_nodules_medium", 0.970),
    PaperRow("AR @ IoU 0.5, large (> 15 mm)", "AR50_large", "n_nodules_large", 0.992),
)


def percent(value: float) -> str:
    """Return a share as per cent with one digit, or "-" where it is not defined (NaN)."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def table_rows(metrics: Mapping[str, float]) -> list[tuple[str, str, str, str]]:
    """Return (label, published, measured, number of nodule boxes) per row of Table 1."""
    return [
        (
            row.label,
            percent(row.published),
            percent(metrics[row.key]),
            str(int(metrics[row.count_key])),
        )
        for row in PAPER_TABLE_1
    ]
