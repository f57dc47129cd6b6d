"""The operating point: a threshold chosen on validation, and its record in a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.scoring.average_precision import harmonic_mean, key_suffix
from lungdet_mmdet.scoring.intervals import last_of_ties
from lungdet_mmdet.scoring.slab_matching import PAPER_IOU, BandMatches, MatchedSlabs

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

    def describe(self) -> str:
        """Return one line: the threshold and where it comes from."""
        chosen_on = f"{self.data} data, {self.protocol} protocol, {self.split} split"
        counts = f"{self.n_nodules} nodule boxes on {self.n_slabs} slabs of {self.n_scans} scans"
        return f"{self.threshold:.4g}, chosen by {self.rule} on {chosen_on} ({counts})"


def operating_point_of(checkpoint: Mapping[str, Any]) -> OperatingPoint | None:
    """Return the operating point stored in a checkpoint, None where there is none.

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
        return None
    known = {field.name for field in fields(OperatingPoint)}
    try:
        return OperatingPoint(**{key: value for key, value in record.items() if key in known})
    except (AttributeError, TypeError) as error:
        raise LungDetError(
            f"the checkpoint's operating point cannot be read ({error}): {record!r}; give the "
            "threshold yourself, or validate the model again"
        ) from error
