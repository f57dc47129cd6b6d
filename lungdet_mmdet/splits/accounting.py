# SPDX-License-Identifier: Apache-2.0
"""What the tables alone tell, without images: slabs of each kind, a perfect detector's ceiling.

Where a scan's first slab begins depends on its lungs, which only the images show. The counts are
therefore taken for slab grids shifted through one slab thickness, and given as mean and range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lungdet_mmdet.annotations.slab_boxes import (
    MIN_OVERLAP_MM,
    PositiveRule,
    cut_sphere,
    positive_slabs,
    positives_by_rule,
)
from lungdet_mmdet.annotations.tables import Finding, Nodule, by_series
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.slabs import SLAB_THICKNESS_MM, slab_geometries, slab_slices
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.ceiling import (
    Ceiling,
    perfect_detections,
    perfect_sensitivities,
    positive_boxes,
)
from lungdet_mmdet.scoring.slab_records import (
    PAPER_BANDS_MM,
    Slab,
    SlabDetections,
    SlabSet,
    TruthBox,
    count_by_band,
)
from lungdet_mmdet.splits.labels import findings_to_ignore, label_scan
from lungdet_mmdet.splits.prepared import PreparedScan, PreparedSlab
from lungdet_mmdet.splits.protocols import FOLD_RATES, N_FOLDS, PAPER_RATES, STRICT_RATES
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
# A hair more than a whole number of slabs is none more.
_WHOLE = 1e-6


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
    slabs, healthy : all slabs, and the rest of them.
    on_real_slices : series whose slices are known; the others have the assumed number of slabs.
    parts : by protocol, slabs (positive, healthy) per part.
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
    on_real_slices: int
    parts: Mapping[str, tuple[tuple[int, int], ...]]


def expect_counts(
    nodules: Sequence[Nodule],
    series: Sequence[str],
    findings: Sequence[Finding] = (),
    *,
    thickness_mm: float = SLAB_THICKNESS_MM,
    slabs_per_scan: int = SLABS_PER_SCAN,
    min_overlap_mm: float = MIN_OVERLAP_MM,
    n_shifts: int = N_SHIFTS,
    z_extents_mm: Mapping[str, tuple[float, float]] | None = None,
    rule: PositiveRule = "overlap",
    ratios: Sequence[float] = DEFAULT_RATIOS,
    add_healthy: bool = False,
) -> ExpectedCounts:
    """Return the expected counts for axial scans (slabs stacked along world z).

    Parameters
    ----------
    nodules, series, findings : rows of the tables.
    thickness_mm : slab thickness, slabs side by side.
    slabs_per_scan : assumed, since only the images tell.
    min_overlap_mm : as for the labels.
    z_extents_mm : lowest and highest face of each series' slices, where they are known: slabs are
        then counted on them, and laid from the lowest face on.
    rule, ratios, add_healthy : as for the splits.
    n_shifts : number of shifts of the slab grid, evenly spaced over one thickness.
    """
    if thickness_mm <= 0 or slabs_per_scan < 1 or n_shifts < 1:
        raise LungDetError(
            f"thickness {thickness_mm} mm, {slabs_per_scan} slabs per scan, {n_shifts} shifts: "
            "all must be above 0"
        )
    extents = z_extents_mm or {}
    starts = {uid: extents[uid][0] if uid in extents else 0.0 for uid in series}
    outside = _findings_outside_nodules(nodules, findings)
    shifts = np.arange(n_shifts) * thickness_mm / n_shifts
    grids = [
        _count_on_grid(nodules, outside, starts, shift, thickness_mm, min_overlap_mm, rule)
        for shift in shifts
    ]
    touched, positive, best, ignored = (
        Expected(float(np.mean(values)), min(values), max(values))
        for values in zip(*grids, strict=True)
    )
    slabs = sum(
        math.ceil((extents[uid][1] - extents[uid][0]) / thickness_mm - _WHOLE)
        if uid in extents
        else slabs_per_scan
        for uid in series
    )
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
        on_real_slices=sum(uid in extents for uid in series),
        parts={
            "paper": _paper_parts(len(nodules), n_positive, healthy, ratios, add_healthy),
            "strict": _parts(n_positive, healthy, STRICT_RATES, ratios),
            "fold": _parts(n_positive, healthy, FOLD_RATES, (N_FOLDS - 2, 1, 1)),
        },
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
    overlap, section = cut_sphere(z, radius, low, high)
    return overlap, 2 * section, slab


def _count_on_grid(
    nodules: Sequence[Nodule],
    findings: Sequence[Finding],
    starts_mm: Mapping[str, float],
    shift_mm: float,
    thickness_mm: float,
    min_overlap_mm: float,
    rule: PositiveRule,
) -> tuple[int, int, int, int]:
    """Return the number of touched, positive, best and ignored slabs for one slab grid."""
    series = list(starts_mm)
    z = np.array([n.centre_xyz_mm[2] - starts_mm[n.seriesuid] for n in nodules]) - shift_mm
    diameters = np.array([n.diameter_mm for n in nodules])
    overlap, section, slab = cut_by_grid(z, diameters, thickness_mm)
    codes = _codes([n.seriesuid for n in nodules], series, slab)
    middle = np.abs(z[:, None] - (slab + 0.5) * thickness_mm) < 0.5 * diameters[:, None]
    positive, best = set(), set()
    for row, width, code, cut in zip(overlap, section, codes, middle, strict=True):
        is_positive = positives_by_rule(
            rule,
            row,
            width,
            thickness_mm=thickness_mm,
            cuts_middle=cut,
            min_overlap_mm=min_overlap_mm,
        )
        positive |= set(code[is_positive].tolist())
        best |= set(code[positive_slabs(row, width, min_overlap_mm=np.inf)].tolist())
    touched = set(codes[overlap > 0].tolist())
    z = np.array([f.centre_xyz_mm[2] - starts_mm[f.seriesuid] for f in findings]) - shift_mm
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
    nodules_of = by_series(nodules)
    outside: list[Finding] = []
    for uid, found in by_series(findings).items():
        scan = PreparedScan(uid, None, (), tuple(nodules_of.get(uid, ())), tuple(found), {})
        outside.extend(findings_to_ignore(scan))
    return tuple(outside)


def _paper_parts(
    n_nodules: int, n_positive: int, n_healthy: int, ratios: Sequence[float], add_healthy: bool
) -> tuple[tuple[int, int], ...]:
    positives = min(n_positive, round(n_nodules * PAPER_POSITIVES / PAPER_NODULES))
    healthy = min(n_healthy, round(positives * PAPER_HEALTHY / PAPER_POSITIVES))
    if not add_healthy:
        return _parts(positives, healthy, PAPER_RATES, ratios)
    *kept, (test_positive, test_healthy) = zip(
        shares(positives, ratios), shares(healthy, ratios), strict=True
    )
    rate = PAPER_RATES["test"].rate
    assert rate is not None
    wanted = round(test_positive * (1 - rate) / rate)
    test_healthy = min(max(wanted, test_healthy), test_healthy + n_healthy - healthy)
    return (*kept, (test_positive, test_healthy))


def _parts(
    n_positive: int, n_healthy: int, rates: Mapping[str, RateRule], ratios: Sequence[float]
) -> tuple[tuple[int, int], ...]:
    parts = []
    counts = zip(shares(n_positive, ratios), shares(n_healthy, ratios), strict=True)
    for name, (positive, healthy) in zip(PARTS, counts, strict=True):
        rate = rates[name].rate
        if rate is not None and positive and healthy:
            kept = counts_at_positive_rate(positive, healthy, rate)
            if kept[0] == positive or rates[name].thin:
                positive, healthy = kept
        parts.append((positive, healthy))
    return tuple(parts)


# The grid of the default preparation, on which tables without images are laid out.
SPACING_ZYX_MM = (1.25, 0.7, 0.7)
# Where the slabs begin is chance; so many beginnings, evenly over a stride, are averaged.
N_BEGINNINGS = 6


def table_ceiling(
    nodules: Sequence[Nodule], series: Sequence[str], *, stride_mm: float = SLAB_THICKNESS_MM
) -> Ceiling:
    """Return the ceiling of nodule tables alone: axial slabs of the default grid, no lung mask.

    A perfect depth is the middle of what the slab holds of the nodule.

    Raises
    ------
    LungDetError
        If the stride makes no slabs.
    """
    totals: list[tuple[dict[str, float], dict[str, float]]] = []
    counts: dict[str, int] = {}
    for beginning in np.arange(N_BEGINNINGS) * stride_mm / N_BEGINNINGS:
        slab_set = _slab_set_of(nodules, series, stride_mm, float(beginning))
        found = [perfect_detections(slab) for slab in slab_set.slabs.values() if slab.has_nodule]
        by_id = {nodule.nodule_id: nodule for nodule in nodules}
        placed = [_with_true_depths(item, slab_set.slabs[item.img_id], by_id) for item in found]
        midplane, counts = perfect_sensitivities(slab_set, found, PAPER_BANDS_MM)
        totals.append((midplane, perfect_sensitivities(slab_set, placed, PAPER_BANDS_MM)[0]))
    means = [
        {name: float(np.mean([total[kind][name] for total in totals])) for name in counts}
        for kind in (0, 1)
    ]
    return Ceiling(means[0], means[1], counts)


def _with_true_depths(
    found: SlabDetections, slab: Slab, nodules: dict[str, Nodule]
) -> SlabDetections:
    low, high = slab.geometry.z_range_mm
    truth = [nodules[box.nodule_id] for box in positive_boxes(slab)]
    middle = np.array([nodule.centre_xyz_mm[2] for nodule in truth])
    radius = np.array([nodule.diameter_mm / 2 for nodule in truth])
    part = (np.maximum(middle - radius, low) + np.minimum(middle + radius, high)) / 2
    return replace(found, z_mm=part, z_sd_mm=np.zeros(len(part)))


def _slab_set_of(
    nodules: Sequence[Nodule], series: Sequence[str], stride_mm: float, beginning_mm: float
) -> SlabSet:
    """Lay slabs over the nodules of every series and label them."""
    slabs: dict[int, Slab] = {}
    for uid, members in by_series(nodules).items():
        scan = _slabbed(uid, members, stride_mm, beginning_mm)
        for labelled in label_scan(scan).slabs:
            geometry, number = labelled.slab.geometry, len(slabs)
            slabs[number] = Slab(
                img_id=number,
                seriesuid=uid,
                geometry=geometry,
                boxes=tuple(
                    TruthBox(
                        (x0, y0, x1 - x0, y1 - y0), label.diameter_mm, label.kind != "nodule",
                        label.kind, str(label.nodule_id),
                    )
                    for label in labelled.labels
                    for x0, y0, x1, y1 in (label.box_xyxy_px,)
                ),
            )  # fmt: skip
    return SlabSet(slabs=slabs, series=tuple(series), nodules=tuple(nodules))


def _slabbed(
    uid: str, nodules: list[Nodule], stride_mm: float, beginning_mm: float
) -> PreparedScan:
    """Return a scan that reaches a slab beyond its nodules on every side, without images."""
    centres = np.array([nodule.centre_xyz_mm for nodule in nodules])
    margin = max(nodule.diameter_mm for nodule in nodules) + 2 * SLAB_THICKNESS_MM
    low = centres.min(axis=0) - margin - (0, 0, beginning_mm)
    spacing_xyz = np.array(SPACING_ZYX_MM[::-1])
    size = np.ceil((centres.max(axis=0) + margin - low) / spacing_xyz).astype(int) + 1
    geometry = ScanGeometry(tuple(size[::-1].tolist()), SPACING_ZYX_MM, tuple(low.tolist()))
    ranges = slab_slices(
        int(size[2]), SPACING_ZYX_MM[0], thickness_mm=SLAB_THICKNESS_MM, stride_mm=stride_mm
    )
    slabs = tuple(PreparedSlab(item, {}) for item in slab_geometries(geometry, ranges))
    return PreparedScan(uid, None, slabs, tuple(nodules), (), {})


def expectation_lines(
    counts: ExpectedCounts,
    *,
    slabs_per_scan: int,
    thickness_mm: float,
    protocols: Sequence[str] = ("paper", "strict"),
) -> list[str]:
    """Return the expected counts as lines of text, assumptions included."""
    assumed = counts.series - counts.on_real_slices
    where = []
    if counts.on_real_slices:
        where.append(f"on the slices of {counts.on_real_slices} series")
    if assumed:
        where.append(f"Assumed: {slabs_per_scan} slabs per scan of {assumed} series")
    bands = ", ".join(f"{count} {name}" for name, count in counts.nodules_by_band)
    lines = [
        f"{counts.series} series, {counts.series_with_nodules} with nodules",
        f"{counts.nodules} nodules: {bands}",
        f"{counts.findings} distinct irrelevant findings outside nodules",
        "",
        f"Slabs of {thickness_mm:g} mm side by side, mean (range) over the unknown start:",
        f"  that show some nodule best   {counts.best}",
        f"  positive                     {counts.positive}",
        f"  touched by a nodule at all   {counts.touched}",
        f"  to be ignored                {counts.ignored}",
        f"Slabs {'; '.join(where)}: {counts.slabs:,} in all, {counts.healthy:,} healthy.",
        "",
        f"{'protocol':<10}{'part':<8}{'slabs':>8}{'positive':>10}{'healthy':>9}{'rate':>9}",
    ]
    for protocol in protocols:
        for name, (positive, healthy) in zip(PARTS, counts.parts[protocol], strict=True):
            total = positive + healthy
            rate = f"{100 * positive / total:.1f} %" if total else "-"
            lines.append(f"{protocol:<10}{name:<8}{total:>8,}{positive:>10,}{healthy:>9,}{rate:>9}")
    lines += [
        "",
        ("Not known here: " if not assumed else "Not in the tables: how many slabs a scan has, ")
        + "where its first slab begins once the slices above and below the lungs are dropped, and "
        "which nodules the lung mask or the crop cuts away. Strict and fold counts divide slabs "
        "evenly; whole series will differ by a few per cent.",
    ]
    return lines
