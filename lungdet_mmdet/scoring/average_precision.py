"""Average precision and recall of matched slabs, for one set of scans or for many resamples of it.

pycocotools' rule, written so that a whole bootstrap costs one matrix product: between two right
detections only the number of wrong ones matters, and that number is a sum over scans.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.scoring.slab_matching import PAPER_IOU, BandMatches, MatchedSlabs

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
