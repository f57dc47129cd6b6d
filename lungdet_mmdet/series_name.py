"""The one rule for names of series: they name folders, files and rows of tables.

A series UID from a table, a file's stem, a DICOM header, a prepared folder or a submission is all
the same name, and what one of them accepts the others must accept as well.
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
