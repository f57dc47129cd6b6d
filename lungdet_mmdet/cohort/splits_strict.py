"""The leak-free split: no series, and no patient where known, on two sides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from lungdet_mmdet.cohort.labels import LabelledScan
from lungdet_mmdet.cohort.sampling import shares
from lungdet_mmdet.cohort.split_part import (
    DEFAULT_RATIOS,
    PARTS,
    RateRule,
    Split,
    emptiness_warnings,
    part_of_scans,
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
    parts = tuple(part_of_scans(name, sides[name], rates[name], seed=seed) for name in PARTS)
    warnings = tuple(warning for part in parts for warning in part.warnings)
    unmapped = [scan.seriesuid for scan in scans if scan.seriesuid not in patients]
    if patients and unmapped:
        warnings += (
            f"{len(unmapped)} series have no patient in the table and count as patients of their "
            f"own, for example {unmapped[0]}",
        )
    rules = {
        "unit": "patient" if patients else "series",
        "ratios": list(ratios),
        "stratified": "groups with and without annotated nodules are divided separately",
        "groups": len(groups),
    }
    return Split("strict", parts, rules, warnings=warnings + emptiness_warnings(parts))


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
