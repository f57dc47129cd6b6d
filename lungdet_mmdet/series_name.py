# SPDX-License-Identifier: Apache-2.0
"""Names of series: one rule for all, and the UIDs of those that are made up.

A series UID from a table, a file's stem, a DICOM header, a prepared folder or a submission is all
the same name, and what one of them accepts the others must accept as well. Phantoms and semi-real
scans have valid DICOM UIDs that no real scan can carry.
"""

from __future__ import annotations

import re

from lungdet_mmdet.errors import LungDetError, printable

MAX_NAME_BYTES = 120
_PLAIN = re.compile(r"\w[\w.\-]*")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.\-]+")
# Files that stand beside the folders of scans in one output folder or another.
_TAKEN = frozenset(
    f"{stem}.{suffix}"
    for stem in ("candidates", "failures", "report")
    for suffix in ("csv", "json", "html")
)
# Names of devices on Windows, with whatever suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
RULE = (
    "letters, digits, '.', '-' and '_', beginning with a letter, digit or '_', at most "
    f"{MAX_NAME_BYTES} bytes, since it names a folder"
)


def is_series_name(text: str) -> bool:
    """Say whether a text can name a series."""
    return (
        bool(_PLAIN.fullmatch(text))
        and len(text.encode()) <= MAX_NAME_BYTES
        and not text.endswith(".")
        and text.lower() not in _TAKEN
        and not _DEVICES.fullmatch(text)
    )


def check_series_name(text: str, *, source: str) -> str:
    """Return the name of a series.

    Raises
    ------
    LungDetError
        Naming `source` and the rule, if it can name none.
    """
    if not is_series_name(text):
        raise LungDetError(
            f"{source}: {printable(text)!r} is no series UID ({RULE}); correct or rename it"
        )
    return text


def series_name_of(text: str) -> str:
    """Return a name in plain ASCII for a scan of any title: the title itself where it can be."""
    name = _UNSAFE.sub("_", text).strip(".-")[:MAX_NAME_BYTES].rstrip(".") or "scan"
    return name if is_series_name(name) else f"scan_{name}"[:MAX_NAME_BYTES].rstrip(".")


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
