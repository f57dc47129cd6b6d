"""How many slabs of which kind to expect from the tables alone, without any image.

Where a scan's first slab begins depends on its lungs, which only the images show. The counts are
therefore taken for slab grids shifted through one slab thickness, and given as mean and range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lungdet_mmdet.annotations.slab_boxes import MIN_OVERLAP_MM, positive_slabs
from lungdet_mmdet.annotations.tables import Finding, Nodule
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.size_bands import count_by_band
from lungdet_mmdet.splits.labels import findings_to_ignore
from lungdet_mmdet.splits.prepared import PreparedScan
from lungdet_mmdet.splits.protocols import PAPER_RATES, STRICT_RATES
from lungdet_mmdet.splits.split_part import (
    DEFAULT_RATIOS,
    PAPER_HEALTHY,
    PAPER_NODULES,
    PAPER_POSITIVES,
    PARTS,
    RateRule,
    counts_at_positive_rate,
    shares,
)

# Lungs some 300 mm high; the tables cannot tell.
SLABS_PER_SCAN = 40
N_SHIFTS = 15


@dataclass(frozen=True)
class Expected:
    """Mean and range over the shifts of the slab grid."""

    mean: float
    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.mean:,.0f} ({self.low:,}-{self.high:,})"


@dataclass(frozen=True)
class ExpectedCounts:
    """What the tables lead one to expect.

    Parameters
    ----------
    series, series_with_nodules, nodules, findings : what the tables hold; findings are distinct.
    nodules_by_band : name and number per size band.
    touched, positive, best : slabs that a nodule touches at all, positive slabs, and slabs that
        show some nodule best (fewer than nodules, where two nodules share one).
    ignored : slabs with only grazed or excluded content.
    slabs, healthy : all slabs under the assumed number per scan, and the rest of them.
    paper, strict : slabs (positive, healthy) per part.
    """

    series: int
    series_with_nodules: int
    nodules: int
    findings: int
    nodules_by_band: tuple[tuple[str, int], ...]
    touched: Expected
    positive: Expected
    best: Expected
    ignored: Expected
    slabs: int
    healthy: int
    paper: tuple[tuple[int, int], ...]
    strict: tuple[tuple[int, int], ...]


def expect_counts(
    nodules: Sequence[Nodule],
    series: Sequence[str],
    findings: Sequence[Finding] = (),
    *,
    thickness_mm: float = SLAB_THICKNESS_MM,
    slabs_per_scan: int = SLABS_PER_SCAN,
    min_overlap_mm: float = MIN_OVERLAP_MM,
    n_shifts: int = N_SHIFTS,
) -> ExpectedCounts:
    """Return the expected counts for axial scans (slabs stacked along world z).

    Parameters
    ----------
    nodules, series, findings : rows of the tables.
    thickness_mm : slab thickness, slabs side by side.
    slabs_per_scan : assumed, since only the images tell.
    min_overlap_mm : as for the labels.
    n_shifts : number of shifts of the slab grid, evenly spaced over one thickness.
    """
    if thickness_mm <= 0 or slabs_per_scan < 1 or n_shifts < 1:
        raise LungDetError(
            f"thickness {thickness_mm} mm, {slabs_per_scan} slabs per scan, {n_shifts} shifts: "
            "all must be above 0"
        )
    outside = _findings_outside_nodules(nodules, findings)
    shifts = np.arange(n_shifts) * thickness_mm / n_shifts
    grids = [
        _count_on_grid(nodules, outside, series, shift, thickness_mm, min_overlap_mm)
        for shift in shifts
    ]
    touched, positive, best, ignored = (
        Expected(float(np.mean(values)), min(values), max(values))
        for values in zip(*grids, strict=True)
    )
    slabs = len(series) * slabs_per_scan
    n_positive = round(positive.mean)
    healthy = max(0, slabs - n_positive - round(ignored.mean))
    return ExpectedCounts(
        series=len(series),
        series_with_nodules=len({nodule.seriesuid for nodule in nodules}),
        nodules=len(nodules),
        findings=len(outside),
        nodules_by_band=count_by_band([nodule.diameter_mm for nodule in nodules]),
        touched=touched,
        positive=positive,
        best=best,
        ignored=ignored,
        slabs=slabs,
        healthy=healthy,
        paper=_paper_parts(len(nodules), n_positive, healthy),
        strict=_strict_parts(n_positive, healthy),
    )


def cut_by_grid(
    z_mm: np.ndarray, diameter_mm: np.ndarray, thickness_mm: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut N spheres by an endless stack of slabs whose faces are multiples of the thickness.

    Returns
    -------
    overlap_mm, section_mm, slab : (N, S) depth inside the slab, width of the largest cross-section
    there, and number of the slab (slab k spans k to k + 1 thicknesses).
    """
    z, radius = z_mm[:, None], diameter_mm[:, None] / 2
    reach = int(np.ceil(radius.max(initial=0.0) / thickness_mm))
    slab = np.floor(z / thickness_mm).astype(np.int64) + np.arange(-reach, reach + 1)
    low, high = slab * thickness_mm, (slab + 1) * thickness_mm
    overlap = np.maximum(np.minimum(z + radius, high) - np.maximum(z - radius, low), 0.0)
    distance = np.maximum(np.maximum(low - z, z - high), 0.0)
    return overlap, 2 * np.sqrt(np.maximum(radius**2 - distance**2, 0.0)), slab


def _count_on_grid(
    nodules: Sequence[Nodule],
    findings: Sequence[Finding],
    series: Sequence[str],
    shift_mm: float,
    thickness_mm: float,
    min_overlap_mm: float,
) -> tuple[int, int, int, int]:
    """Return the number of touched, positive, best and ignored slabs for one slab grid."""
    z = np.array([n.centre_xyz_mm[2] for n in nodules]) - shift_mm
    diameters = np.array([n.diameter_mm for n in nodules])
    overlap, section, slab = cut_by_grid(z, diameters, thickness_mm)
    codes = _codes([n.seriesuid for n in nodules], series, slab)
    positive, best = set(), set()
    for row, width, code in zip(overlap, section, codes, strict=True):
        positive |= set(code[positive_slabs(row, width, min_overlap_mm=min_overlap_mm)].tolist())
        best |= set(code[positive_slabs(row, width, min_overlap_mm=np.inf)].tolist())
    touched = set(codes[overlap > 0].tolist())
    z = np.array([f.centre_xyz_mm[2] for f in findings]) - shift_mm
    overlap, _, slab = cut_by_grid(z, np.array([f.extent_mm for f in findings]), thickness_mm)
    excluded = set(_codes([f.seriesuid for f in findings], series, slab)[overlap > 0].tolist())
    return len(touched), len(positive), len(best), len((touched | excluded) - positive)


def _codes(uids: Sequence[str], series: Sequence[str], slab: np.ndarray) -> np.ndarray:
    """Return one integer per (series, slab), the same for the same slab of the same series."""
    number = {uid: place for place, uid in enumerate(series)}
    row = np.array([number[uid] for uid in uids], dtype=np.int64).reshape(-1, 1)
    return row * 1_000_000 + slab


def _findings_outside_nodules(
    nodules: Sequence[Nodule], findings: Sequence[Finding]
) -> tuple[Finding, ...]:
    nodules_of: dict[str, list[Nodule]] = defaultdict(list)
    findings_of: dict[str, list[Finding]] = defaultdict(list)
    for nodule in nodules:
        nodules_of[nodule.seriesuid].append(nodule)
    for finding in findings:
        findings_of[finding.seriesuid].append(finding)
    outside: list[Finding] = []
    for uid, found in findings_of.items():
        scan = PreparedScan(uid, None, (), tuple(nodules_of[uid]), tuple(found), {})
        outside.extend(findings_to_ignore(scan))
    return tuple(outside)


def _paper_parts(n_nodules: int, n_positive: int, n_healthy: int) -> tuple[tuple[int, int], ...]:
    positives = min(n_positive, round(n_nodules * PAPER_POSITIVES / PAPER_NODULES))
    healthy = min(n_healthy, round(positives * PAPER_HEALTHY / PAPER_POSITIVES))
    return _parts(positives, healthy, PAPER_RATES)


def _strict_parts(n_positive: int, n_healthy: int) -> tuple[tuple[int, int], ...]:
    return _parts(n_positive, n_healthy, STRICT_RATES)


def _parts(
    n_positive: int, n_healthy: int, rates: Mapping[str, RateRule]
) -> tuple[tuple[int, int], ...]:
    parts = []
    counts = zip(shares(n_positive, DEFAULT_RATIOS), shares(n_healthy, DEFAULT_RATIOS), strict=True)
    for name, (positive, healthy) in zip(PARTS, counts, strict=True):
        rate = rates[name].rate
        if rate is not None and positive and healthy:
            kept = counts_at_positive_rate(positive, healthy, rate)
            if kept[0] == positive or rates[name].thin:
                positive, healthy = kept
        parts.append((positive, healthy))
    return tuple(parts)
