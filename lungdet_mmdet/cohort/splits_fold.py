"""LUNA16's official ten subsets: one for test, the next for validation, eight for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lungdet_mmdet.cohort.labels import LabelledScan
from lungdet_mmdet.cohort.split_part import (
    PARTS,
    RateRule,
    Split,
    emptiness_warnings,
    part_of_scans,
)
from lungdet_mmdet.errors import LungDetError

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
    parts = tuple(part_of_scans(name, sides[name], rates[name], seed=seed) for name in PARTS)
    warnings = tuple(warning for part in parts for warning in part.warnings)
    rules = {
        "unit": "official subset",
        "fold": fold,
        "test_subset": fold,
        "val_subset": validation,
    }
    return Split("fold", parts, rules, warnings=warnings + emptiness_warnings(parts))
