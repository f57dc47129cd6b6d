"""Exact limits of a share or a rate, for where resampling scans shows no spread.

Twelve nodules of twelve found give 100 % in every resample. That says nothing of the thirteenth:
the exact binomial limits are 73.5 % to 100 %.
"""

from __future__ import annotations

import math

from scipy.stats import beta, chi2

from lungdet_mmdet.scoring.bootstrap import CONFIDENCE, Interval


def binomial_interval(value: float, trials: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the Clopper-Pearson limits of a share measured on independent trials.

    Parameters
    ----------
    value : the share, 0 to 1; times ``trials``, it is rounded to a whole number of successes.
    trials : how many; without any the limits are NaN.
    """
    if trials < 1 or math.isnan(value):
        return Interval(float("nan"), float("nan"), 0.0)
    successes = round(min(max(value, 0.0), 1.0) * trials)
    tail = (1.0 - confidence) / 2.0
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1.0 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Interval(float(low), float(high))


def poisson_interval(events: int, exposure: float, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact limits of a rate: ``events`` counted over ``exposure`` units."""
    if exposure <= 0:
        return Interval(float("nan"), float("nan"), 0.0)
    tail = (1.0 - confidence) / 2.0
    low = chi2.ppf(tail, 2 * events) / 2.0 if events else 0.0
    high = chi2.ppf(1.0 - tail, 2 * (events + 1)) / 2.0
    return Interval(float(low) / exposure, float(high) / exposure)
