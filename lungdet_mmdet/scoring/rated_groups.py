"""Scores by what radiologists say of a nodule: texture, subtlety, spiculation, malignancy.

A group's own nodules are to be found; all others are neither right nor wrong to find. False
positives are those of the whole split, whatever the group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lungdet_mmdet.scoring.average_precision import size_band_scores
from lungdet_mmdet.scoring.froc import (
    FP_RATES,
    MAX_MARKS_PER_SCAN,
    evaluate_froc,
    match_marks_of_split,
)
from lungdet_mmdet.scoring.intervals import Interval, percentile_interval, resample_weights
from lungdet_mmdet.scoring.slab_matching import DEFAULT_MAX_DETECTIONS, PAPER_IOU, match_slabs
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet
from lungdet_mmdet.scoring.submission import Marks

# Readers rate from 1 to 5; the mean of a nodule is rounded, halves upward. LIDC rates texture from
# 1 (ground-glass) over 3 (part-solid) to 5 (solid).
RATED: dict[str, tuple[str, str, str]] = {
    "texture": ("ground-glass", "part-solid", "solid"),
    "subtlety": ("1-2", "3", "4-5"),
    "spiculation": ("1-2", "3", "4-5"),
    "malignancy": ("1-2", "3", "4-5"),
}
_LIMITS = (2.5, 3.5)
AT_RATE = 1.0
"""Sensitivity is that at one false positive per scan."""


@dataclass(frozen=True)
class RatedGroup:
    """The nodules of one group, and its name in figures: ``<rating>_<group>``."""

    rating: str
    group: str
    nodule_ids: frozenset[str]

    @property
    def suffix(self) -> str:
        """What is put behind the name of a figure."""
        return f"_{self.rating}_{self.group}"


def rated_groups(slab_set: SlabSet) -> list[RatedGroup]:
    """Return the groups of a split; none where no nodule is rated, else all, empty ones too."""
    if not slab_set.ratings:
        return []
    groups = []
    for rating, names in RATED.items():
        rated = {
            nodule_id: float(values[rating])
            for nodule_id, values in slab_set.ratings.items()
            if rating in values
        }
        places = {key: int(np.searchsorted(_LIMITS, v, side="right")) for key, v in rated.items()}
        for place, name in enumerate(names):
            members = frozenset(key for key, value in places.items() if value == place)
            groups.append(RatedGroup(rating, name, members))
    return groups


def rated_scores(
    slab_set: SlabSet,
    detections: Sequence[SlabDetections],
    marks: Marks,
    *,
    max_detections: int = DEFAULT_MAX_DETECTIONS,
    max_marks_per_scan: int = MAX_MARKS_PER_SCAN,
    n_resamples: int,
    seed: int,
) -> tuple[dict[str, float], dict[str, Interval], dict[str, int]]:
    """Return figures, intervals and counts by name: ``AP50_``, ``sensitivity_`` and ``n_`` each.

    Parameters
    ----------
    slab_set : as far as it was looked at.
    detections, marks : boxes on slabs, and 3-D candidates.
    max_detections, max_marks_per_scan, n_resamples, seed : as for the whole split.
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
            count_unseen=False,
        )
        name = f"AP50{group.suffix}"
        figures[name] = float(size_band_scores(matched)["AP50"][0])
        members = tuple(n for n in slab_set.nodules if n.nodule_id in group.nodule_ids)
        others = tuple(n for n in slab_set.nodules if n.nodule_id not in group.nodule_ids)
        matches = match_marks_of_split(
            replace(slab_set, nodules=members, discarded=(*slab_set.discarded, *others)),
            marks,
            max_marks_per_scan=max_marks_per_scan,
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
    return replace(slab_set, slabs=slabs)


def group_names(counts: dict[str, int]) -> Iterator[tuple[str, str, str]]:
    """Yield rating, group and suffix of every group that the counts of a split have."""
    for rating, names in RATED.items():
        for name in names:
            if f"n_{rating}_{name}" in counts:
                yield rating, name, f"_{rating}_{name}"
