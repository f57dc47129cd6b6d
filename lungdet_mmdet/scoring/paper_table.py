"""Table 1 of the Lung-DETR paper: its published values, by the names of our figures."""

from __future__ import annotations

import math

from lungdet_mmdet.scoring.size_bands import SizeBand, size_bands

PUBLISHED = {
    "paper_F1": 0.942,  # the harmonic mean of AP50 and AR50
    "AP50": 0.933,
    "AP50_small": 0.784,
    "AP50_medium": 0.967,
    "AP50_large": 0.978,
    "AR50": 0.952,
    "AR50_small": 0.833,
    "AR50_medium": 0.970,
    "AR50_large": 0.992,
}
"""On LUNA16, with the paper's own split."""


def published_value(key: str, band: SizeBand) -> float | None:
    """Return the paper's value of a figure, None where the paper has none for this band of sizes.

    A band of the same name but other limits is another band.
    """
    return PUBLISHED.get(key) if band in size_bands() else None


def band_label(band: SizeBand) -> str:
    """Return a band's name with its limits in mm, such as "medium (7-15 mm)"."""
    if band.name == "all":
        return "all sizes"
    if band.lower_mm <= 0:
        limits = f"<= {band.upper_mm:g} mm"
    elif math.isinf(band.upper_mm):
        limits = f"> {band.lower_mm:g} mm"
    else:
        limits = f"{band.lower_mm:g}-{band.upper_mm:g} mm"
    return f"{band.name} ({limits})" if band.name in ("small", "medium", "large") else limits


def percent(value: float | None) -> str:
    """Return a share as per cent with one digit, or "-" where it is not defined (None, NaN)."""
    return "-" if value is None or math.isnan(value) else f"{100 * value:.1f} %"
