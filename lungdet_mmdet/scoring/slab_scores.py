# SPDX-License-Identifier: Apache-2.0
"""Figures of matched slabs: average precision and recall, and precision at a threshold.

Average precision follows pycocotools' rule, written so that a whole bootstrap costs one matrix
product: between two right detections only the number of wrong ones matters, and that number is a
sum over scans. The operating point is a threshold chosen on validation; a checkpoint carries it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.intervals import last_of_ties
from lungdet_mmdet.scoring.slab_matching import BandMatches, MatchedSlabs
from lungdet_mmdet.scoring.slab_outcomes import PAPER_IOU

RECALL_STEPS = np.linspace(0.0, 1.0, 101)  # COCO's 101 recall levels
# Of the table of right detections by scans that makes a bootstrap one matrix product: 400 MB.
MAX_CELLS = 50_000_000


def average_precision(
    matches: BandMatches, iou_row: int, weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return average precision and recall of one band at one IoU for every column of weights.

    Parameters
    ----------
    matches : the detections of the band.
    iou_row : row of the IoU threshold.
    weights : (S, B), how often each scan is in each of B resamples; a column of ones is the data.

    Returns
    -------
    precision, recall : (B,) each; NaN in resamples without a nodule in the band, 0.0 without a
        right detection.
    """
    n_nodules = matches.nodules_per_series @ weights
    counts = ~matches.is_ignored[iou_row]
    is_hit = (matches.is_matched[iou_row] & counts)[counts]
    series_rows = matches.series_rows[counts]
    hit_rows = series_rows[is_hit]
    missing = n_nodules <= 0
    if not len(hit_rows):
        nothing = np.where(missing, np.nan, 0.0)
        return nothing, nothing.copy()

    n_hits = len(hit_rows)
    # Wrong detections of each scan that score above the k-th right one: (K, S).
    interval = np.cumsum(is_hit)[~is_hit]
    before_a_hit = interval < n_hits
    wrong_above = _wrong_above(
        interval[before_a_hit], series_rows[~is_hit][before_a_hit], n_hits, weights
    )
    hits_above = np.cumsum(weights[hit_rows], axis=0)  # (K, B)

    safe_nodules = np.where(missing, 1.0, n_nodules)
    recall = hits_above / safe_nodules
    precision = hits_above / (wrong_above + hits_above + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    mean = np.zeros(weights.shape[1])
    for column in range(weights.shape[1]):
        first = np.searchsorted(recall[:, column], RECALL_STEPS, side="left")
        reached = first[first < n_hits]
        mean[column] = envelope[reached, column].sum() / len(RECALL_STEPS)
    mean[missing] = np.nan
    return mean, np.where(missing, np.nan, recall[-1])


def _wrong_above(
    intervals: NDArray[np.intp],
    series_rows: NDArray[np.intp],
    n_hits: int,
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (K, B): how many wrong detections score above each right one, in each resample.

    ``intervals`` is, per wrong detection, the number of right ones above it.
    """
    n_series, n_resamples = weights.shape
    if n_hits * n_series <= MAX_CELLS:
        cells = intervals * n_series + series_rows
        wrong = np.bincount(cells, minlength=n_hits * n_series).reshape(n_hits, n_series)
        return np.cumsum(wrong, axis=0, dtype=np.float64) @ weights
    # Right detections times scans would be 10 TB for a million slabs.
    columns = [
        np.bincount(intervals, weights=weights[series_rows, column], minlength=n_hits)
        for column in range(n_resamples)
    ]
    return np.cumsum(np.stack(columns, axis=1), axis=0)


def size_band_scores(
    matched: MatchedSlabs, weights: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return AP and AR over all sizes and per band, and the paper's F1.

    Parameters
    ----------
    matched : matched slabs, see ``match_slabs``.
    weights : (S, B) resamples of the scans; left out, the data as they are (B = 1).

    Returns
    -------
    dict of (B,) arrays
        ``AP50``, ``AR50``, ``AP``, ``AR``, the same with ``_<band>`` appended, and ``paper_F1``,
        the harmonic mean of AP50 and AR50 (what Lung-DETR's Table 1 calls F1). NaN where a band
        holds no annotated nodule; nothing is rounded.
    """
    if weights is None:
        weights = np.ones((len(matched.series), 1))
    paper_row = matched.iou_row(PAPER_IOU)
    scores: dict[str, NDArray[np.float64]] = {}
    for matches in matched.bands:
        suffix = key_suffix(matches.band.name)
        per_iou = [
            average_precision(matches, row, weights) for row in range(len(matched.iou_thresholds))
        ]
        scores[f"AP50{suffix}"], scores[f"AR50{suffix}"] = per_iou[paper_row]
        scores[f"AP{suffix}"] = np.mean([pair[0] for pair in per_iou], axis=0)
        scores[f"AR{suffix}"] = np.mean([pair[1] for pair in per_iou], axis=0)
    scores["paper_F1"] = harmonic_mean(scores["AP50"], scores["AR50"])
    return scores


def size_band_counts(matched: MatchedSlabs) -> dict[str, int]:
    """Return what the scores rest on: nodule boxes over all and per band, slabs, scans and so on.

    ``n_nodules`` counts one per annotated box of a slab, and one per nodule that lies in no slab.
    """
    counts = {
        f"n_nodules{key_suffix(matches.band.name)}": int(matches.nodules_per_series.sum())
        for matches in matched.bands
    }
    return counts | {
        "n_unseen": matched.n_unseen,
        "n_ignore_regions": matched.n_ignore_regions,
        "n_slabs": matched.n_slabs,
        "n_scans": len(matched.series),
        "n_detections": matched.n_detections,
    }


def key_suffix(band_name: str) -> str:
    """Return what a band appends to the name of a figure; the band of all sizes appends nothing."""
    return "" if band_name == "all" else f"_{band_name}"


def harmonic_mean(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the harmonic mean of two (B,) arrays, 0.0 where both are 0."""
    total = first + second
    return np.where(total == 0, 0.0, 2 * first * second / np.where(total == 0, 1.0, total))


MAX_F1 = "max_f1"
_SENSITIVITY_RULE = re.compile(r"sensitivity\s*>=\s*([0-9.]+)")


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall (K,) when every detection scoring ``thresholds`` (K,) or more is kept.

    One point per distinct score, thresholds falling, so recall never falls along the curve.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    @property
    def f1(self) -> NDArray[np.float64]:
        """Harmonic mean of precision and recall at each threshold."""
        return harmonic_mean(self.precision, self.recall)


def precision_recall_curve(matches: BandMatches, iou_row: int) -> PrecisionRecallCurve:
    """Return the precision-recall curve of one band at one IoU threshold.

    Detections with equal scores enter together, for no threshold can part them. Recall is NaN
    without annotated nodules. The curve is empty without detections.
    """
    counts = ~matches.is_ignored[iou_row]
    scores = matches.scores[counts]
    is_hit = matches.is_matched[iou_row][counts]
    last = last_of_ties(scores)
    hits = np.cumsum(is_hit)[last]
    kept = np.arange(1, len(scores) + 1)[last]
    n_nodules = int(matches.nodules_per_series.sum())
    recall = hits / n_nodules if n_nodules else np.full(len(hits), np.nan)
    return PrecisionRecallCurve(scores[last], hits / np.maximum(kept, 1), recall)


def choose_threshold(matched: MatchedSlabs, rule: str = MAX_F1) -> float:
    """Return the score threshold that a rule picks on these slabs (use the validation set).

    Parameters
    ----------
    rule : ``"max_f1"``, or ``"sensitivity>=0.9"`` for the highest threshold that reaches that
        recall. Equal F1 is settled in favour of the higher threshold.

    Returns
    -------
    float
        NaN when no threshold can be chosen: no nodules, no right detection, or a sensitivity that
        is never reached.

    Raises
    ------
    LungDetError
        When the rule is not one of the two.
    """
    curve = precision_recall_curve(matched.bands[0], matched.iou_row(PAPER_IOU))
    least = _least_sensitivity(rule)
    if not len(curve.recall) or not np.nanmax(curve.recall, initial=0.0) > 0:
        return float("nan")
    if least is None:
        return float(curve.thresholds[int(np.argmax(curve.f1))])
    reaching = np.flatnonzero(curve.recall >= least)
    return float(curve.thresholds[reaching[0]]) if len(reaching) else float("nan")


def check_threshold_rule(rule: str) -> None:
    """Raise LungDetError unless ``choose_threshold`` knows the rule."""
    _least_sensitivity(rule)


def _least_sensitivity(rule: str) -> float | None:
    if rule == MAX_F1:
        return None
    found = _SENSITIVITY_RULE.fullmatch(rule.strip())
    if found is None or not 0 < float(found.group(1)) <= 1:
        raise LungDetError(
            f"threshold rule {rule!r}: write 'max_f1', or 'sensitivity>=0.9' with a number over 0 "
            "and up to 1"
        )
    return float(found.group(1))


def operating_point_scores(
    matched: MatchedSlabs, threshold: float, weights: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Return precision, recall and F1 over all sizes and per band, keeping scores >= threshold.

    Parameters
    ----------
    threshold : lowest score that is kept; NaN keeps nothing.
    weights : (S, B) resamples of the scans; left out, the data as they are (B = 1).

    Returns
    -------
    dict of (B,) arrays
        ``precision``, ``recall``, ``F1`` and the same with ``_<band>`` appended. Precision is 0.0
        when nothing is kept; all three are NaN in a band without annotated nodules.
    """
    if weights is None:
        weights = np.ones((len(matched.series), 1))
    iou_row = matched.iou_row(PAPER_IOU)
    n_series = len(matched.series)
    scores: dict[str, NDArray[np.float64]] = {}
    for matches in matched.bands:
        kept = ~matches.is_ignored[iou_row] & (matches.scores >= threshold)
        hit = kept & matches.is_matched[iou_row]
        n_kept = np.bincount(matches.series_rows[kept], minlength=n_series) @ weights
        n_hit = np.bincount(matches.series_rows[hit], minlength=n_series) @ weights
        n_nodules = matches.nodules_per_series @ weights
        empty = n_nodules <= 0
        precision = np.where(empty, np.nan, n_hit / np.where(n_kept > 0, n_kept, 1.0))
        recall = np.where(empty, np.nan, n_hit / np.where(empty, 1.0, n_nodules))
        suffix = key_suffix(matches.band.name)
        scores[f"precision{suffix}"] = precision
        scores[f"recall{suffix}"] = recall
        scores[f"F1{suffix}"] = harmonic_mean(precision, recall)
    return scores


META_KEY = "operating_point"
"""Its place in a checkpoint: ``checkpoint["meta"]["operating_point"]``."""


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold on box scores and the slabs that it was chosen on.

    Parameters
    ----------
    threshold : boxes scoring this or more are kept, within 0 and 1.
    rule : how it was chosen, see ``choose_threshold``.
    data, protocol, split : what it was chosen on.
    n_scans, n_slabs, n_nodules : how much that was; nodules are counted per slab that shows them.
    precision, recall, f1 : what it gave there; a little better than on new data, for it was chosen
        there. None where undefined.
    epoch, iteration : of the training, when it was chosen.
    """

    threshold: float
    rule: str
    data: str = ""
    protocol: str = ""
    split: str = ""
    n_scans: int = 0
    n_slabs: int = 0
    n_nodules: int = 0
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    epoch: int | None = None
    iteration: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and 0.0 <= self.threshold <= 1.0):
            raise LungDetError(
                f"operating point with threshold {self.threshold}: a score threshold lies within 0 "
                "and 1"
            )

    def as_record(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or json."""
        return asdict(self)

    def expected_precision(self, boxes_per_slab: float) -> float | None:
        """Return the precision to expect where nodule boxes come more or less often on slabs.

        Recall and false alarms per slab are taken to stay what they were; None where undefined.
        """
        if self.precision is None or not (self.n_slabs and self.n_nodules):
            return None
        found = self.precision * boxes_per_slab * self.n_slabs / self.n_nodules
        total = found + 1.0 - self.precision
        return found / total if total > 0 else None

    def describe(self) -> str:
        """Return one line: the threshold and where it comes from."""
        chosen_on = f"{self.data} data, {self.protocol} protocol, {self.split} split"
        counts = f"{self.n_nodules} nodule boxes on {self.n_slabs} slabs of {self.n_scans} scans"
        return f"{self.threshold:.4g}, chosen by {self.rule} on {chosen_on} ({counts})"


def operating_point_of(checkpoint: Mapping[str, Any]) -> OperatingPoint | None:
    """Return the operating point of a checkpoint or a published model, None where there is none.

    One that a published model's threshold is no longer that of does not count.

    Parameters
    ----------
    checkpoint : as ``torch.load`` returns it.

    Raises
    ------
    LungDetError
        When one is stored that cannot be used.
    """
    meta = checkpoint.get("meta")
    record = meta.get(META_KEY) if isinstance(meta, Mapping) else None
    if record is None:
        published = checkpoint.get("data")
        record = published.get(META_KEY) if isinstance(published, Mapping) else None
        if record is None or record.get("threshold") != checkpoint.get("threshold"):
            return None
    known = {field.name for field in fields(OperatingPoint)}
    try:
        return OperatingPoint(**{key: value for key, value in record.items() if key in known})
    except (AttributeError, TypeError) as error:
        raise LungDetError(
            f"the checkpoint's operating point cannot be read ({error}): {record!r}; give the "
            "threshold yourself, or validate the model again"
        ) from error
