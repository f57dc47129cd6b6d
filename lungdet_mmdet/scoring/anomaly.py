# SPDX-License-Identifier: Apache-2.0
"""The anomaly view: does a slab, or a scan, hold a nodule at all?

The score of a slab is its highest box score, that of a scan the highest over its slabs; 0.0 where
nothing was found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet


@dataclass(frozen=True)
class AnomalyUnits:
    """Slabs or scans to be told apart.

    Attributes
    ----------
    name : "slab" or "scan"; begins the names of the figures.
    scores : (U,) highest box score.
    is_positive : (U,) whether a nodule is there.
    box_scores : per unit the scores of all its boxes, to count false alarms.
    series_rows : (U,) row of the scan among the ``n_series`` that are resampled.
    """

    name: str
    scores: NDArray[np.float64]
    is_positive: NDArray[np.bool_]
    box_scores: tuple[NDArray[np.float64], ...]
    series_rows: NDArray[np.intp]
    n_series: int


def slab_units(slab_set: SlabSet, detections: Sequence[SlabDetections]) -> AnomalyUnits:
    """Return the slabs that were looked at and are either positive or healthy.

    Slabs that hold nothing but ignore regions (a grazed nodule, an excluded finding) are neither,
    and left out.
    """
    by_id = {item.img_id: item for item in reversed(detections)}
    seen = slab_set.seen_by(by_id.values())
    row_of = {uid: row for row, uid in enumerate(seen.series)}
    slabs = [slab for slab in seen.slabs.values() if slab.has_nodule or slab.is_healthy]
    return AnomalyUnits(
        "slab",
        np.array([by_id[slab.img_id].top_score for slab in slabs], dtype=np.float64),
        np.array([slab.has_nodule for slab in slabs], dtype=bool),
        tuple(by_id[slab.img_id].scores for slab in slabs),
        np.array([row_of[slab.seriesuid] for slab in slabs], dtype=np.intp),
        len(seen.series),
    )


def scan_units(slab_set: SlabSet, detections: Sequence[SlabDetections]) -> AnomalyUnits:
    """Return the scans: positive with an annotated nodule, healthy without any.

    Excluded findings do not make a scan positive, and boxes on them are false alarms here. A scan
    whose nodules lie in no slab is positive and missed. Left out are scans whose nodules do not
    count, and healthy scans of which no slab was looked at: they say nothing about the model.
    """
    by_id = {item.img_id: item for item in reversed(detections)}
    seen = slab_set.seen_by(by_id.values())
    slabs_of: dict[str, list[int]] = {uid: [] for uid in seen.series}
    for img_id, slab in seen.slabs.items():
        slabs_of[slab.seriesuid].append(img_id)
    with_nodule = {item.seriesuid for item in seen.nodules}
    with_nodule |= {item.seriesuid for item in seen.unseen}
    left_out = {item.seriesuid for item in seen.discarded}
    scores, is_positive, box_scores, rows = [], [], [], []
    for row, uid in enumerate(seen.series):
        slabs = [seen.slabs[img_id] for img_id in slabs_of[uid]]
        positive = uid in with_nodule or any(slab.has_nodule for slab in slabs)
        grazed = any(box.kind != "excluded" for slab in slabs for box in slab.boxes)
        healthy = bool(slabs) and not grazed and uid not in left_out
        if not positive and not healthy:
            continue
        found = [by_id[slab.img_id] for slab in slabs]
        scores.append(max((item.top_score for item in found), default=0.0))
        is_positive.append(positive)
        box_scores.append(np.concatenate([np.zeros(0), *(item.scores for item in found)]))
        rows.append(row)
    return AnomalyUnits(
        "scan",
        np.array(scores, dtype=np.float64),
        np.array(is_positive, dtype=bool),
        tuple(box_scores),
        np.array(rows, dtype=np.intp),
        len(seen.series),
    )


def anomaly_scores(
    units: AnomalyUnits,
    weights: NDArray[np.float64] | None = None,
    *,
    threshold: float | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Return how well positives are told from healthy ones.

    Parameters
    ----------
    weights : (S, B) resamples of the scans; left out, the data as they are (B = 1).
    threshold : alarm at this score or above; adds the last three figures.

    Returns
    -------
    dict of (B,) arrays, names beginning with ``slab_`` or ``scan_``
        ``AUROC`` (ties count half); ``AP``, average precision; and at the threshold
        ``sensitivity``, ``specificity`` and ``false_alarms_per_100``, the number of boxes raised on
        100 healthy slabs or scans. NaN where there are no positives or no healthy ones to tell
        apart.
    """
    if weights is None:
        weights = np.ones((units.n_series, 1))
    ranking = np.array([_ranking(units, column[units.series_rows]) for column in weights.T])
    ranking = ranking.reshape(-1, 2)
    figures = {"AUROC": ranking[:, 0], "AP": ranking[:, 1]}
    if threshold is not None:
        alarms = units.scores >= threshold
        n_boxes = np.array([np.count_nonzero(item >= threshold) for item in units.box_scores])
        positive, healthy = units.is_positive, ~units.is_positive
        n_positive = _per_resample(units, positive, weights)
        n_healthy = _per_resample(units, healthy, weights)
        raised = _per_resample(units, np.where(healthy, n_boxes, 0), weights)
        hit = _per_resample(units, positive & alarms, weights)
        quiet = _per_resample(units, healthy & ~alarms, weights)
        figures["sensitivity"] = _share(hit, n_positive)
        figures["specificity"] = _share(quiet, n_healthy)
        figures["false_alarms_per_100"] = 100.0 * _share(raised, n_healthy)
    return {f"{units.name}_{name}": values for name, values in figures.items()}


def _ranking(units: AnomalyUnits, weights: NDArray[np.float64]) -> tuple[float, float]:
    """Return AUROC and average precision of units that count ``weights`` (U,) times."""
    positive = np.where(units.is_positive, weights, 0.0)
    healthy = np.where(units.is_positive, 0.0, weights)
    if not positive.sum():
        return np.nan, np.nan
    levels, level_of = np.unique(-units.scores, return_inverse=True)
    positive_at = np.bincount(level_of, positive, minlength=len(levels))  # best score first
    healthy_at = np.bincount(level_of, healthy, minlength=len(levels))
    positive_above, healthy_above = np.cumsum(positive_at), np.cumsum(healthy_at)
    kept = positive_above + healthy_above
    precision = positive_above / np.where(kept > 0, kept, 1.0)
    average_precision = float((positive_at * precision).sum() / positive.sum())
    if not healthy.sum():
        return np.nan, average_precision
    # Every positive beats the healthy ones below its score, and half of those at its score.
    beaten = healthy.sum() - healthy_above + healthy_at / 2
    return float((positive_at * beaten).sum() / (positive.sum() * healthy.sum())), average_precision


def _per_resample(
    units: AnomalyUnits, values: NDArray, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum values (U,) over each scan, then over the scans of every resample: (B,)."""
    per_scan = np.bincount(units.series_rows, values.astype(np.float64), minlength=units.n_series)
    return per_scan @ weights


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
