"""Seeded draws: slabs at a positive rate, and shares of a number of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lungdet_mmdet.errors import LungDetError

# The published dataset (Lung-DETR, section 3.2): 9,676 slabs, 1,226 with a nodule.
PAPER_POSITIVES = 1226
PAPER_HEALTHY = 8450
PAPER_NODULES = 1186


def counts_at_positive_rate(n_positive: int, n_healthy: int, rate: float) -> tuple[int, int]:
    """Return how many positives and healthy slabs to keep for a share ``rate`` of positives.

    All positives are kept and healthy slabs dropped where the healthy ones suffice. Otherwise all
    healthy slabs are kept and positives dropped, but never the last positive.

    Raises
    ------
    LungDetError
        If the rate is not in (0, 1], or below 1 with positives but no healthy slab at all.
    """
    if not 0 < rate <= 1:
        raise LungDetError(
            f"the positive rate is {rate!r}: give a share in (0, 1], for example 0.127"
        )
    if n_positive == 0:
        return 0, n_healthy
    if n_healthy == 0 and rate < 1:
        raise LungDetError(
            f"a positive rate of {rate:g} was asked for, but none of the {n_positive} slabs is "
            "healthy; prepare more scans, or ask for a rate of 1"
        )
    healthy_needed = round(n_positive * (1 - rate) / rate)
    if healthy_needed <= n_healthy:
        return n_positive, healthy_needed
    return min(n_positive, max(1, round(n_healthy * rate / (1 - rate)))), n_healthy


def draw_at_positive_rate(
    is_positive: np.ndarray,
    rate: float,
    seed: int,
    *,
    is_ignored: np.ndarray | None = None,
) -> np.ndarray:
    """Draw slabs so that a share ``rate`` of them is positive.

    Keeps all positives by dropping healthy slabs where the healthy ones suffice, else keeps all
    healthy slabs and drops positives (never the last one). With one seed the draws are nested:
    raising the rate only removes healthy slabs, lowering it further only removes positives.

    Parameters
    ----------
    is_positive : (N,) bool.
    rate : in (0, 1].
    seed : of the draw; the same seed gives the same slabs.
    is_ignored : (N,) bool, slabs that are neither positive nor healthy and so are never drawn.

    Returns
    -------
    (M,) sorted indices into ``is_positive``. Without a positive, all healthy ones.
    """
    is_positive = np.asarray(is_positive, dtype=bool)
    is_healthy = ~is_positive
    if is_ignored is not None:
        is_healthy &= ~np.asarray(is_ignored, dtype=bool)
    positives, healthy = np.flatnonzero(is_positive), np.flatnonzero(is_healthy)
    n_positive, n_healthy = counts_at_positive_rate(len(positives), len(healthy), rate)
    # Two generators, so that the number of positives does not change which healthy slabs come.
    kept_positives = np.random.default_rng([seed, 0]).permutation(positives)[:n_positive]
    kept_healthy = np.random.default_rng([seed, 1]).permutation(healthy)[:n_healthy]
    return np.sort(np.concatenate([kept_positives, kept_healthy]))


def shares(n: int, ratios: Sequence[float]) -> list[int]:
    """Divide n items by ratios, largest remainder first, giving everyone one while n allows it.

    Where n is smaller than the number of shares, the order of service is the first share, the
    last, then those between: with train, val, test a single item trains, a second one tests.

    Parameters
    ----------
    n : number of items.
    ratios : one positive number per share.

    Returns
    -------
    One count per share; they sum to n.
    """
    if min(ratios) <= 0:
        raise LungDetError(f"the split ratios are {tuple(ratios)}: each must be above 0")
    order = [0, len(ratios) - 1, *range(1, len(ratios) - 1)]
    if n < len(ratios):
        return [1 if part in order[:n] else 0 for part in range(len(ratios))]
    exact = np.asarray(ratios, dtype=float) * n / sum(ratios)
    counts = np.floor(exact + 1e-9).astype(int)
    # Rounded, so that equal remainders are ties, which go to the first, whatever the last digit.
    by_remainder = np.argsort(-np.round(exact - counts, 9), kind="stable")
    counts[by_remainder[: n - counts.sum()]] += 1
    while counts.min() == 0:
        counts[counts.argmax()] -= 1
        counts[np.flatnonzero(counts == 0)[-1]] += 1
    return [int(count) for count in counts]
