"""One side of a split: its slabs, and an account of everything left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lungdet_mmdet.cohort.labels import LabelledScan, LabelledSlab, UnseenNodule
from lungdet_mmdet.cohort.sampling import counts_at_positive_rate, draw_at_positive_rate
from lungdet_mmdet.nodules.tables import Nodule

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
    discarded_nodules : nodules whose slabs were left out by the rate; they do not count.
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
    return SplitPart(
        name=name,
        scans=ordered,
        slabs=kept,
        unseen=tuple(unseen for scan in ordered for unseen in scan.unseen),
        discarded_nodules=discarded_nodules(ordered, before=slabs, kept=kept),
        complete=len(kept) == len(slabs),
        left_out=left_out,
        warnings=warnings,
    )


def discarded_nodules(
    scans: Iterable[LabelledScan],
    *,
    before: Iterable[LabelledSlab],
    kept: Iterable[LabelledSlab],
) -> tuple[Nodule, ...]:
    """Return the nodules to be found on some slab of ``before`` but on none of ``kept``."""
    shown_before = frozenset[str]().union(*(slab.nodule_ids for slab in before))
    shown = frozenset[str]().union(*(slab.nodule_ids for slab in kept))
    gone = shown_before - shown
    return tuple(n for scan in scans for n in scan.scan.nodules if n.nodule_id in gone)


def emptiness_warnings(parts: Iterable[SplitPart]) -> tuple[str, ...]:
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
