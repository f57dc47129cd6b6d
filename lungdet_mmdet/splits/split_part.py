# SPDX-License-Identifier: Apache-2.0
"""One part of a split: its slabs, drawn to a rate of positives, and its counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lungdet_mmdet.annotations.tables import Nodule
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.splits.labels import LabelledScan, LabelledSlab, UnseenNodule

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


PARTS = ("train", "val", "test")
DEFAULT_RATIOS = (0.7, 0.2, 0.1)

# Names of the reasons for which a slab is left out, as they stand in split.json.
IGNORED = "only grazed or excluded content"
HEALTHY_NOT_DRAWN = "healthy, not drawn"
POSITIVE_THINNED = "positive, thinned to the rate"


@dataclass(frozen=True)
class RateRule:
    """How many of a part's slabs shall be positive.

    Parameters
    ----------
    rate : share in (0, 1]; None keeps every slab.
    thin : whether positives may be dropped where healthy slabs are too few for the rate; without
        it all positives stay and the rate comes out higher.
    """

    rate: float | None
    thin: bool = True


@dataclass(frozen=True)
class SplitPart:
    """One side of a split.

    Parameters
    ----------
    name : "train", "val" or "test".
    scans : every scan of the part, healthy ones and those without slabs included.
    slabs : the slabs of the part, sorted by series UID and index.
    unseen : annotated nodules that no slab shows.
    discarded_nodules : nodules of its scans whose slabs were left out by the rate, or that are
        another part's; they do not count.
    complete : whether every slab of every scan is in the part, as scan-level scores (FROC) need it.
    left_out : number of slabs of these scans that are not in the part, by reason.
    warnings : what the user should know.
    """

    name: str
    scans: tuple[LabelledScan, ...]
    slabs: tuple[LabelledSlab, ...]
    unseen: tuple[UnseenNodule, ...]
    discarded_nodules: tuple[Nodule, ...] = ()
    complete: bool = False
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def n_positive(self) -> int:
        """Number of slabs with a nodule to be found."""
        return sum(slab.status == "positive" for slab in self.slabs)


@dataclass(frozen=True)
class Split:
    """Train, val and test of one protocol, and the account of the whole.

    ``left_out`` counts slabs that went into no part before the parts were made.
    """

    protocol: str
    parts: tuple[SplitPart, ...]
    rules: Mapping[str, object]
    left_out: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def keep_at_rate(
    slabs: Sequence[LabelledSlab], rule: RateRule, *, seed: int, name: str
) -> tuple[tuple[LabelledSlab, ...], Counter[str], tuple[str, ...]]:
    """Keep slabs so that the rule's share of them is positive.

    Returns
    -------
    The kept slabs, the number left out by reason, and warnings.
    """
    ordered = sorted(slabs, key=lambda slab: slab.sort_key)
    if rule.rate is None:
        return tuple(ordered), Counter(), ()
    usable = [slab for slab in ordered if slab.status != "ignored"]
    is_positive = np.array([slab.status == "positive" for slab in usable], dtype=bool)
    n_positive, n_healthy = int(is_positive.sum()), int((~is_positive).sum())
    left_out = Counter({IGNORED: len(ordered) - len(usable)})
    if not n_positive:
        return tuple(usable), left_out, ()
    if not n_healthy:
        warning = f"{name}: no slab is healthy, so the positive rate of {rule.rate:g} cannot be set"
        return tuple(usable), left_out, (warning,)
    kept_positive, kept_healthy = counts_at_positive_rate(n_positive, n_healthy, rule.rate)
    if kept_positive < n_positive and not rule.thin:
        share = n_positive / len(usable)
        warning = (
            f"{name}: {n_healthy} healthy slabs are too few for a positive rate of {rule.rate:g}; "
            f"all are kept and the rate is {share:.3f}"
        )
        return tuple(usable), left_out, (warning,)
    drawn = draw_at_positive_rate(is_positive, rule.rate, seed)
    left_out[HEALTHY_NOT_DRAWN] = n_healthy - kept_healthy
    left_out[POSITIVE_THINNED] = n_positive - kept_positive
    warnings: tuple[str, ...] = ()
    if kept_positive < n_positive:
        warnings = (
            f"{name}: {n_positive - kept_positive} of {n_positive} positive slabs are left out to "
            f"reach a positive rate of {rule.rate:g} with {kept_healthy} healthy slabs; "
            f"{kept_positive} remain",
        )
    return tuple(usable[place] for place in drawn), left_out, warnings


def part_of_scans(
    name: str, scans: Iterable[LabelledScan], rule: RateRule, *, seed: int
) -> SplitPart:
    """Make a part of whole scans: all their slabs, then the draw at the rule's rate."""
    ordered = tuple(sorted(scans, key=lambda scan: scan.seriesuid))
    slabs = [slab for scan in ordered for slab in scan.slabs]
    kept, left_out, warnings = keep_at_rate(slabs, rule, seed=seed, name=name)
    unseen = tuple(unseen for scan in ordered for unseen in scan.unseen)
    return SplitPart(
        name=name,
        scans=ordered,
        slabs=kept,
        unseen=unseen,
        discarded_nodules=discarded_nodules(ordered, unseen=unseen, kept=kept),
        complete=len(kept) == len(slabs),
        left_out=left_out,
        warnings=warnings,
    )


def discarded_nodules(
    scans: Iterable[LabelledScan],
    *,
    unseen: Iterable[UnseenNodule],
    kept: Iterable[LabelledSlab],
) -> tuple[Nodule, ...]:
    """Return the nodules of scans that count neither as to be found on ``kept`` nor as unseen."""
    counting = {item.nodule.nodule_id for item in unseen}.union(*(s.nodule_ids for s in kept))
    return tuple(n for scan in scans for n in scan.scan.nodules if n.nodule_id not in counting)


def split_of(
    protocol: str,
    parts: Sequence[SplitPart],
    rules: Mapping[str, object],
    *,
    left_out: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
) -> Split:
    """Return a split with all its warnings: of its parts, those given, and of what parts lack."""
    of_parts = [warning for part in parts for warning in part.warnings]
    told = (*of_parts, *warnings, *_emptiness_warnings(parts))
    return Split(protocol, tuple(parts), rules, left_out or {}, told)


def _emptiness_warnings(parts: Iterable[SplitPart]) -> tuple[str, ...]:
    """Return a warning for every part without slabs or without a positive one."""
    warnings = []
    for part in parts:
        if not part.slabs:
            warnings.append(f"{part.name}: holds no slab; prepare more scans")
        elif not part.n_positive:
            warnings.append(
                f"{part.name}: holds no positive slab; average precision is undefined there. "
                "Prepare more scans, or change the ratios or the seed"
            )
    return tuple(warnings)
