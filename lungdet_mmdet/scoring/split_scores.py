# SPDX-License-Identifier: Apache-2.0
"""Everything a report says about one tested split, computed from its detections.

By what radiologists say of a nodule (texture, subtlety, spiculation, malignancy), and by where it
sits (:mod:`lungdet_mmdet.annotations.mask_nodules`), a group's own
nodules are to be found; all others are neither right nor wrong to find. False positives are those
of the whole split, whatever the group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.mask_nodules import LOCATIONS
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.ceiling import Ceiling, ReadDepths, split_ceiling
from lungdet_mmdet.scoring.froc import (
    FP_RATES,
    FrocMatches,
    FrocResult,
    evaluate_froc,
    match_marks_of_split,
)
from lungdet_mmdet.scoring.intervals import (
    DEFAULT_RESAMPLES,
    Interval,
    percentile_interval,
    resample_weights,
)
from lungdet_mmdet.scoring.run_files import Marks
from lungdet_mmdet.scoring.slab_matching import MatchedSlabs, match_slabs
from lungdet_mmdet.scoring.slab_outcomes import (
    PAPER_IOU,
    AnomalyUnits,
    anomaly_scores,
    scan_units,
    slab_units,
)
from lungdet_mmdet.scoring.slab_records import SizeBand, SlabDetections, SlabSet
from lungdet_mmdet.scoring.slab_scores import (
    key_suffix,
    operating_point_scores,
    size_band_counts,
    size_band_scores,
)

# Readers rate from 1 to 5; the mean of a nodule is rounded, halves upward. LIDC rates texture from
# 1 (ground-glass) over 3 (part-solid) to 5 (solid).
RATED: dict[str, tuple[str, str, str]] = {
    "texture": ("ground-glass", "part-solid", "solid"),
    "subtlety": ("1-2", "3", "4-5"),
    "spiculation": ("1-2", "3", "4-5"),
    "malignancy": ("1-2", "3", "4-5"),
}
_LIMITS = (2.5, 3.5)
LOCATION = "location"
GROUPS: dict[str, tuple[str, ...]] = {**RATED, LOCATION: LOCATIONS}
AT_RATE = 1.0
"""Sensitivity is that at one false positive per scan."""


@dataclass(frozen=True)
class RatedGroup:
    """The nodules of one group, and its name in figures: ``<rating>_<group>``.

    ``rating`` is one of the readers', or "location".
    """

    rating: str
    group: str
    nodule_ids: frozenset[str]

    @property
    def suffix(self) -> str:
        """What is put behind the name of a figure."""
        return f"_{self.rating}_{self.group}"


def rated_groups(slab_set: SlabSet) -> list[RatedGroup]:
    """Return the groups of a split; none where no nodule is known, else all, empty ones too."""
    groups = []
    if slab_set.locations:
        for place in LOCATIONS:
            members = frozenset(k for k, value in slab_set.locations.items() if value == place)
            groups.append(RatedGroup(LOCATION, place, members))
    for rating, names in RATED.items() if slab_set.ratings else ():
        rated = {
            nodule_id: float(values[rating])
            for nodule_id, values in slab_set.ratings.items()
            if rating in values
        }
        places = {key: int(np.searchsorted(_LIMITS, v, side="right")) for key, v in rated.items()}
        for number, name in enumerate(names):
            members = frozenset(key for key, value in places.items() if value == number)
            groups.append(RatedGroup(rating, name, members))
    return groups


def rated_scores(
    slab_set: SlabSet,
    detections: Sequence[SlabDetections],
    marks: Marks,
    *,
    max_detections: int,
    n_resamples: int,
    seed: int,
) -> tuple[dict[str, float], dict[str, Interval], dict[str, int]]:
    """Return figures, intervals and counts by name: ``AP50_``, ``sensitivity_`` and ``n_`` each.

    Parameters
    ----------
    slab_set : as far as it was looked at.
    detections, marks : boxes on slabs, and 3-D candidates, as many a scan as shall count.
    max_detections, n_resamples, seed : as for the whole split.
    """
    figures: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    counts: dict[str, int] = {}
    one = FP_RATES.index(AT_RATE)
    weights = None
    if n_resamples:
        rng = np.random.default_rng(seed)
        weights = resample_weights(len(slab_set.series), n_resamples, rng=rng)
    for group in rated_groups(slab_set):
        counts[f"n{group.suffix}"] = len(group.nodule_ids)
        matched = match_slabs(
            _only(slab_set, group),
            detections,
            edges_mm=(),
            iou_thresholds=(PAPER_IOU,),
            max_detections=max_detections,
        )
        name = f"AP50{group.suffix}"
        figures[name] = float(size_band_scores(matched)["AP50"][0])
        members = tuple(n for n in slab_set.nodules if n.nodule_id in group.nodule_ids)
        others = tuple(n for n in slab_set.nodules if n.nodule_id not in group.nodule_ids)
        matches = match_marks_of_split(
            replace(slab_set, nodules=members, discarded=(*slab_set.discarded, *others)),
            marks,
            max_marks_per_scan=len(marks.scores),
        )
        froc = evaluate_froc(matches, n_resamples=n_resamples, seed=seed)
        figures[f"sensitivity{group.suffix}"] = froc.sensitivities[one]
        if weights is not None:
            intervals[name] = percentile_interval(size_band_scores(matched, weights)["AP50"])
            intervals[f"sensitivity{group.suffix}"] = froc.sensitivity_intervals[one]
    return figures, intervals, counts


def _only(slab_set: SlabSet, group: RatedGroup) -> SlabSet:
    slabs = {
        img_id: replace(
            slab,
            boxes=tuple(
                replace(box, is_ignored=box.is_ignored or box.nodule_id not in group.nodule_ids)
                for box in slab.boxes
            ),
        )
        for img_id, slab in slab_set.slabs.items()
    }
    unseen = tuple(n for n in slab_set.unseen if n.nodule_id in group.nodule_ids)
    return replace(slab_set, slabs=slabs, unseen=unseen)


def group_names(counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield rating, group and suffix of every group that the counts of a split have."""
    for rating, names in GROUPS.items():
        for name in names:
            if f"n_{rating}_{name}" in counts:
                yield rating, name, f"_{rating}_{name}"


@dataclass(frozen=True)
class ScoringOptions:
    """What the figures depend on beside what was matched.

    Parameters
    ----------
    threshold : score threshold of the figures that need one; None leaves them out.
    n_resamples : resamples of the scans for the intervals; 0 leaves the intervals out.
    seed : of the resampling.
    """

    threshold: float | None = None
    n_resamples: int = DEFAULT_RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_resamples < 0:
            raise LungDetError(f"{self.n_resamples} resamples: give 0 or more")
        if self.threshold is not None and not 0.0 <= self.threshold <= 1.0:
            raise LungDetError(f"threshold {self.threshold}: a score lies within 0 and 1")


@dataclass(frozen=True)
class SplitScores:
    """The figures of a split with their intervals, and what plots and tables are made from.

    Parameters
    ----------
    figures, intervals : by name, see ``size_band_scores``, ``operating_point_scores``,
        ``anomaly_scores``; ``CPM`` and ``sensitivity_at_<rate>`` of the FROC. No interval where
        none was asked for.
    counts : what they rest on: those of ``size_band_counts``; ``n_distinct_<band>``, nodules
        counted once however many slabs show them; ``n_kept_<band>``, boxes at the threshold;
        ``n_positive_slabs``, ``n_healthy_slabs`` and the same for scans; ``n_froc_nodules``.
    ceiling : what a perfect detector would reach on these very slabs.
    """

    figures: dict[str, float]
    intervals: dict[str, Interval]
    counts: dict[str, int]
    matched: MatchedSlabs
    slabs: AnomalyUnits
    scans: AnomalyUnits
    froc: FrocResult
    options: ScoringOptions
    ceiling: Ceiling


def split_figures(
    matched: MatchedSlabs,
    units: Sequence[AnomalyUnits],
    threshold: float | None,
    weights: NDArray[np.float64] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return the figures of boxes and of the anomaly view, one value for each resample.

    Parameters
    ----------
    matched : detections matched to the boxes of their slabs.
    units : of ``slab_units`` and ``scan_units``.
    threshold : adds the figures that need one; None leaves them out.
    weights : (S, B) resamples of the scans; left out, the data as they are (B = 1).
    """
    figures = size_band_scores(matched, weights)
    if threshold is not None:
        figures |= operating_point_scores(matched, threshold, weights)
    for kind in units:
        figures |= anomaly_scores(kind, weights, threshold=threshold)
    return figures


def score_split(
    slab_set: SlabSet,
    detections: Sequence[SlabDetections],
    matched: MatchedSlabs,
    matches: FrocMatches,
    options: ScoringOptions,
    *,
    marks: Marks,
    read_depths: ReadDepths = lambda slab: None,
) -> SplitScores:
    """Compute every figure of a split, with 95 % intervals from resampling scans.

    Parameters
    ----------
    slab_set : the split's annotations.
    detections : one record per slab that the model saw.
    matched : the same matched to the boxes of their slabs, see ``match_slabs``.
    matches : the 3-D candidates merged from them, matched to the nodules, see
        ``match_marks_of_split``.
    marks : those candidates, for the scores by the readers' ratings.
    read_depths : gives the depth of the maximum of a slab, for the ceiling.
    """
    seen = slab_set.seen_by(detections)
    slabs, scans = slab_units(slab_set, detections), scan_units(slab_set, detections)
    both = (slabs, scans)
    point = split_figures(matched, both, options.threshold)
    figures = {name: float(values[0]) for name, values in point.items()}
    intervals: dict[str, Interval] = {}
    if options.n_resamples:
        rng = np.random.default_rng(options.seed)
        weights = resample_weights(len(matched.series), options.n_resamples, rng=rng)
        resampled = split_figures(matched, both, options.threshold, weights)
        intervals = {name: percentile_interval(values) for name, values in resampled.items()}
    froc = evaluate_froc(matches, n_resamples=options.n_resamples, seed=options.seed)
    rates = [f"sensitivity_at_{rate:g}" for rate in FP_RATES]
    figures |= {"CPM": froc.cpm} | dict(zip(rates, froc.sensitivities, strict=True))
    if froc.cpm_interval is not None:
        intervals["CPM"] = froc.cpm_interval
        intervals |= dict(zip(rates, froc.sensitivity_intervals, strict=True))
    rated, rated_intervals, rated_counts = rated_scores(
        seen,
        detections,
        marks,
        max_detections=matched.max_detections,
        n_resamples=options.n_resamples,
        seed=options.seed,
    )
    return SplitScores(
        figures | rated,
        intervals | rated_intervals,
        _counts(seen, matched, slabs, scans, froc, options) | rated_counts,
        matched,
        slabs,
        scans,
        froc,
        options,
        split_ceiling(seen, read_depths, edges_mm=matched.edges_mm),
    )


def _counts(
    seen: SlabSet,
    matched: MatchedSlabs,
    slabs: AnomalyUnits,
    scans: AnomalyUnits,
    froc: FrocResult,
    options: ScoringOptions,
) -> dict[str, int]:
    counts = size_band_counts(matched)
    row = matched.iou_row(PAPER_IOU)
    for matches in matched.bands:
        suffix = key_suffix(matches.band.name)
        counts[f"n_distinct{suffix}"] = _distinct_nodules(
            seen, matches.band, count_unseen=matched.n_unseen > 0
        )
        if options.threshold is not None:
            kept = (matches.scores >= options.threshold) & ~matches.is_ignored[row]
            counts[f"n_kept{suffix}"] = int(np.count_nonzero(kept))
    for units in (slabs, scans):
        counts[f"n_positive_{units.name}s"] = int(np.count_nonzero(units.is_positive))
        counts[f"n_healthy_{units.name}s"] = int(np.count_nonzero(~units.is_positive))
    counts["n_froc_nodules"] = froc.matches.n_nodules
    return counts


def _distinct_nodules(seen: SlabSet, band: SizeBand, *, count_unseen: bool) -> int:
    diameters: dict[tuple[str, str, int], float] = {}
    for slab in seen.slabs.values():
        for number, box in enumerate(slab.boxes):
            if not box.is_ignored:
                # A box without a nodule's name counts by itself.
                key = ("", box.nodule_id, 0) if box.nodule_id else ("box", str(slab.img_id), number)
                diameters[key] = box.diameter_mm
    values = list(diameters.values())
    if count_unseen:
        values += [item.diameter_mm for item in seen.unseen]
    return int(np.count_nonzero(band.holds(np.array(values, dtype=np.float64))))


def pooled_marks(parts: Sequence[Marks]) -> Marks:
    """Put the marks of several files one after the other."""
    return Marks(
        seriesuids=tuple(uid for marks in parts for uid in marks.seriesuids),
        centres_xyz_mm=np.concatenate([marks.centres_xyz_mm for marks in parts]),
        scores=np.concatenate([marks.scores for marks in parts]),
        warnings=tuple(warning for marks in parts for warning in marks.warnings),
    )


def pooled_froc(
    folds: Sequence[tuple[SlabSet, Marks]],
    *,
    n_resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> FrocResult:
    """Evaluate the marks of all folds as LUNA16 does: one list, one threshold for all of them.

    The scores come from one model per fold, so the pooled curve also charges for models that are
    not calibrated alike.

    Parameters
    ----------
    folds : what each fold tested on, and the marks it made there.
    n_resamples, seed : of the bootstrap over scans; 0 resamples for no intervals.

    Raises
    ------
    LungDetError
        If there is no fold, or a series was tested in two of them.
    """
    sets = [slab_set for slab_set, _ in folds]
    tested = Counter(uid for slab_set in sets for uid in slab_set.series)
    twice = sorted(uid for uid, count in tested.items() if count > 1)
    if not folds or twice:
        raise LungDetError(
            f"{len(folds)} folds, {len(twice)} series in several of them {twice[:3]}: a "
            "cross-validation tests each series once; make the splits with --protocol fold"
        )
    together = SlabSet(
        slabs={},
        series=tuple(tested),
        nodules=tuple(item for slab_set in sets for item in slab_set.nodules),
        excluded=tuple(item for slab_set in sets for item in slab_set.excluded),
        discarded=tuple(item for slab_set in sets for item in slab_set.discarded),
        failed=tuple(uid for slab_set in sets for uid in slab_set.not_looked_at),
    )
    matches = match_marks_of_split(together, pooled_marks([marks for _, marks in folds]))
    return evaluate_froc(matches, n_resamples=n_resamples, seed=seed)
