"""Free-response ROC and CPM by the rules of the LUNA16 challenge's own evaluation.

Which marks count is decided in :mod:`lungdet_mmdet.scoring.mark_matching`. Then:

- False positives are counted per scan over all scans given, also those without marks or nodules.
- The curve is joined by straight lines between distinct scores, starts at (0, 0), and stays level
  to the right of its last point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.scoring.bootstrap import (
    DEFAULT_RESAMPLES,
    Interval,
    percentile_interval,
    resample_weights,
)
from lungdet_mmdet.scoring.mark_matching import FrocMatches

FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class FrocCurve:
    """False positives per scan, sensitivity and score threshold (K,) along the curve."""

    fp_per_scan: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    thresholds: NDArray[np.float64]

    def sensitivity_at(self, fp_rates: Sequence[float] = FP_RATES) -> NDArray[np.float64]:
        """Return the sensitivity at each rate of false positives per scan."""
        return np.interp(fp_rates, self.fp_per_scan, self.sensitivity)


@dataclass(frozen=True)
class FrocResult:
    """Sensitivities at the seven rates, their mean (CPM), intervals and counts."""

    sensitivities: tuple[float, ...]
    cpm: float
    matches: FrocMatches
    curve: FrocCurve
    sensitivity_intervals: tuple[Interval, ...] = ()
    cpm_interval: Interval | None = None

    def as_json(self) -> dict[str, object]:
        """Return the figures under the names of the command's json; null where undefined."""
        matches = self.matches
        return {
            "fp_rates": list(FP_RATES),
            "sensitivities": [_number(value) for value in self.sensitivities],
            "cpm": _number(self.cpm),
            "cpm_ci95": _limits(self.cpm_interval),
            "sensitivities_ci95": [_limits(item) for item in self.sensitivity_intervals] or None,
            "n_scans": len(matches.series),
            "n_nodules": matches.true_positives + matches.false_negatives,
            "true_positives": matches.true_positives,
            "false_positives": matches.false_positives,
            "ignored": matches.ignored,
            "duplicates": matches.duplicates,
            "false_negatives": matches.false_negatives,
            "over_limit": matches.over_limit,
        }


def froc_curve(matches: FrocMatches, weights: NDArray[np.float64] | None = None) -> FrocCurve:
    """Return the curve of the scans, each counted as often as ``weights`` (S,) says.

    Sensitivities are NaN without nodules.
    """
    if weights is None:
        weights = np.ones(len(matches.series))
    per_mark = weights[matches.series_rows]
    is_last_of_tie = np.append(matches.scores[1:] != matches.scores[:-1], True)
    is_last_of_tie = is_last_of_tie[: len(matches.scores)]
    hits = np.cumsum(np.where(matches.is_nodule, per_mark, 0.0))[is_last_of_tie]
    wrong = np.cumsum(np.where(matches.is_nodule, 0.0, per_mark))[is_last_of_tie]
    n_hits, n_wrong = (float(run[-1]) if len(run) else 0.0 for run in (hits, wrong))
    n_nodules = n_hits + float(weights @ matches.missed_per_series)
    # Shares first, then counts: the official script does it so, and where a rate falls exactly on a
    # point of the curve, rounding decides which of two neighbouring values is read off.
    fp_per_scan = (wrong / n_wrong) * n_wrong / weights.sum() if n_wrong else wrong
    sensitivity = (hits / n_hits) * n_hits / n_nodules if n_hits else hits
    start = np.zeros(1)
    if not n_nodules:
        sensitivity, start = np.full(len(hits), np.nan), np.full(1, np.nan)
    return FrocCurve(
        np.concatenate([np.zeros(1), fp_per_scan]),
        np.concatenate([start, sensitivity]),
        np.concatenate([np.full(1, np.inf), matches.scores[is_last_of_tie]]),
    )


def evaluate_froc(
    matches: FrocMatches, *, n_resamples: int = DEFAULT_RESAMPLES, seed: int = 0
) -> FrocResult:
    """Return sensitivities, CPM and their 95 % intervals from resampling scans.

    ``n_resamples`` 0 leaves the intervals out.
    """
    curve = froc_curve(matches)
    sensitivities = curve.sensitivity_at()
    intervals: tuple[Interval, ...] = ()
    cpm_interval = None
    if n_resamples:
        rng = np.random.default_rng(seed)
        weights = resample_weights(len(matches.series), n_resamples, rng=rng)
        resampled = np.array([froc_curve(matches, column).sensitivity_at() for column in weights.T])
        intervals = tuple(percentile_interval(column) for column in resampled.T)
        cpm_interval = percentile_interval(resampled.mean(axis=1))
    return FrocResult(
        sensitivities=tuple(sensitivities.tolist()),
        cpm=float(sensitivities.mean()),
        matches=matches,
        curve=curve,
        sensitivity_intervals=intervals,
        cpm_interval=cpm_interval,
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _limits(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_number(interval.low), _number(interval.high)]
