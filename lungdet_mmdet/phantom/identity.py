"""Series UIDs of phantoms: valid DICOM UIDs that no real scan can carry."""

from __future__ import annotations

from lungdet_mmdet.errors import LungDetError

PHANTOM_UID_PREFIX = "2.999.7426866"
"""Every phantom series starts with it. 2.999 is the arc that ITU-T X.660 reserves for examples, so
no device or archive issues UIDs below it; 7426866 spells PHANTOM on a telephone keypad."""

SIZE_CODES = {"small": 1, "full": 2, "fine": 3}

_INDEX_OFFSET = 1_000_000
"""Added to the scan index: a UID component may not start with 0, and equal lengths sort well."""


def phantom_uid(*, size: str, seed: int, index: int) -> str:
    """Return the series UID of scan ``index`` of the cohort (``size``, ``seed``)."""
    if seed < 0 or seed >= 2**63:
        raise LungDetError(f"phantom seed is {seed}: use a whole number from 0 to 2^63 - 1")
    return f"{PHANTOM_UID_PREFIX}.{SIZE_CODES[size]}.{seed}.{_INDEX_OFFSET + index}"


def is_phantom_uid(uid: str) -> bool:
    """Say whether a series UID names a phantom, so that results can be labelled as such."""
    return uid.startswith(PHANTOM_UID_PREFIX + ".")


SEMIREAL_UID_PREFIX = "2.999.73647325"
"""Every semi-real series (a real lung with nodules of other patients set in) starts with it;
73647325 spells SEMIREAL on a telephone keypad."""


def semireal_uid(*, seed: int, digest: int, variant: int) -> str:
    """Return the series UID of a lung's variant in the cohort told by ``seed`` and ``digest``."""
    if seed < 0 or seed >= 2**63:
        raise LungDetError(f"semi-real seed is {seed}: use a whole number from 0 to 2^63 - 1")
    return f"{SEMIREAL_UID_PREFIX}.{seed}.{digest}.{_INDEX_OFFSET + variant}"


def is_semireal_uid(uid: str) -> bool:
    """Say whether a series UID names a semi-real scan, so that results can be labelled as such."""
    return uid.startswith(SEMIREAL_UID_PREFIX + ".")
