# SPDX-License-Identifier: Apache-2.0
"""Confidence intervals: bootstrap over scans, exact ones for shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaincinv  # scipy.stats takes a second to import

from lungdet_mmdet.errors import LungDetError

DEFAULT_RESAMPLES = 1000
CONFIDENCE = 0.95
_TAIL = (1.0 - CONFIDENCE) / 2.0


@dataclass(frozen=True)
class Interval:
    """Limits of a confidence interval; NaN where no resample gives a number.

    ``share_defined`` is the share of resamples that give one: with few scans, some hold no nodule
    of a size band at all. ``is_exact`` tells binomial and Poisson limits from resampled ones.
    """

    low: float
    high: float
    share_defined: float = 1.0
    is_exact: bool = False


def resample_weights(
    n_scans: int, n_resamples: int = DEFAULT_RESAMPLES, *, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return how often each scan is in each resample: (S, B), every column sums to S.

    Raises LungDetError when there is no scan, or fewer than one resample is asked for.
    """
    if n_scans < 1 or n_resamples < 1:
        raise LungDetError(
            f"cannot draw {n_resamples} resamples of {n_scans} scans; both must be at least 1"
        )
    draws = rng.multinomial(n_scans, np.full(n_scans, 1.0 / n_scans), size=n_resamples)
    return draws.T.astype(np.float64)


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Return the central interval of resampled values (B,), by LUNA16's rule.

    The limits are the values at positions floor(p B) and floor((1 - p) B) of the sorted values,
    where p is half of what ``CONFIDENCE`` leaves. NaN values are left out.
    """
    defined = np.sort(values[~np.isnan(values)])
    if not len(defined):
        return Interval(float("nan"), float("nan"), 0.0)
    low = int(np.floor(_TAIL * len(defined)))
    high = min(int(np.floor((1.0 - _TAIL) * len(defined))), len(defined) - 1)
    return Interval(float(defined[low]), float(defined[high]), len(defined) / len(values))


def binomial_interval(value: float, trials: int) -> Interval:
    """Return the Clopper-Pearson limits of a share measured on independent trials.

    Parameters
    ----------
    value : the share, 0 to 1; times ``trials``, it is rounded to a whole number of successes.
    trials : how many; without any the limits are NaN.
    """
    if trials < 1 or math.isnan(value):
        return Interval(float("nan"), float("nan"), 0.0)
    successes = round(min(max(value, 0.0), 1.0) * trials)
    failures = trials - successes
    low = betaincinv(successes, failures + 1, _TAIL) if successes else 0.0
    high = betaincinv(successes + 1, failures, 1.0 - _TAIL) if failures else 1.0
    return Interval(float(low), float(high), is_exact=True)


def poisson_interval(events: int, exposure: float) -> Interval:
    """Return the exact limits of a rate: ``events`` counted over ``exposure`` units."""
    if exposure <= 0:
        return Interval(float("nan"), float("nan"), 0.0)
    low = gammaincinv(events, _TAIL) if events else 0.0
    high = gammaincinv(events + 1, 1.0 - _TAIL)
    return Interval(float(low) / exposure, float(high) / exposure, is_exact=True)


def limits_to_show(
    value: float, interval: Interval | None, n: int, *, per: float | None = None
) -> Interval | None:
    """Return a resampled interval, or exact limits where every resample gives the same figure.

    That is so where all is found, nothing is found, or there is one scan only: an interval without
    a width would claim certainty.

    Parameters
    ----------
    value : the figure: a share of ``n`` trials, or events per ``per`` of the ``n`` units.
    interval : of ``percentile_interval``; None where none was asked for.

    Returns
    -------
    Interval or None
        None without an interval, a value or a trial.
    """
    if interval is None or math.isnan(value) or n < 1:
        return None
    if interval.share_defined > 0 and interval.high - interval.low > 1e-9:
        return interval
    if per is not None:
        return poisson_interval(round(value * n / per), n / per)
    return binomial_interval(value, n)


def finite_or_none(value: float) -> float | None:
    """Return a figure as JSON knows it: undefined ones are null."""
    return value if math.isfinite(value) else None


def limits_or_none(interval: Interval | None) -> list[float | None] | None:
    """Return the limits of an interval as JSON knows them, None without one."""
    if interval is None:
        return None
    return [finite_or_none(interval.low), finite_or_none(interval.high)]


def interval_text(
    interval: Interval | None, value_text: Callable[[float], str] = "{:.3f}".format
) -> str:
    """Return the limits, such as "0.478 - 1.000 *"; exact ones end in an asterisk."""
    if interval is None:
        return "-"
    low, high = value_text(interval.low), value_text(interval.high)
    return f"{low.removesuffix(' %')} - {high}{' *' if interval.is_exact else ''}"


def value_with_interval(value: float, interval: Interval | None) -> str:
    """Return a figure and its limits where there are any, such as "0.912 (0.841 - 0.967)"."""
    return f"{value:.3f}" + (f" ({interval_text(interval)})" if interval else "")


def last_of_ties(scores: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell for each score (K,), sorted, whether it is the last of its equals.

    No threshold can part equal scores, so a curve has a point at the last of them only.
    """
    return np.append(scores[1:] != scores[:-1], True)[: len(scores)]
