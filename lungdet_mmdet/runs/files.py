# SPDX-License-Identifier: Apache-2.0
"""Files of a run: what they are called, names of series that name folders, and files given to it.

A series UID from a table, a file's stem, a DICOM header, a prepared folder or a submission is all
the same name, and what one of them accepts the others must accept as well. Phantoms and semi-real
scans have valid DICOM UIDs that no real scan can carry.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lungdet_mmdet.errors import LungDetError, MissingFileError, printable

# A folder in the layout of LUNA16.
ANNOTATION_TABLE = "annotations.csv"
EXCLUDED_TABLE = "annotations_excluded.csv"
SERIES_TABLE = "seriesuids.csv"
SUBSET_TABLE = "subset_of_series.csv"
PATIENT_TABLE = "patients.csv"
LESION_TABLE = "lesions.csv"
LUNG_MASK_FOLDER = "seg-lungs-LUNA16"
NODULE_MASK_FOLDER = "nodule_masks"

# A folder of nodule masks: label volumes in a folder, the readers' ratings in a table beside it.
MASK_FOLDER = "masks"
RATING_TABLE = "nodules.csv"

# A prepared folder: slabs/SERIESUID/ with images, record and preview; splits beside it.
SLAB_FOLDER = "slabs"
ANNOTATION_FOLDER = "annotations"
RECORD_NAME = "scan.json"
PREVIEW_NAME = "preview.jpg"
MANIFEST_NAME = "manifest.json"
PREP_REPORT_NAME = "prep_report.html"

# A tested model.
METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.json"
SUBMISSION_NAME = "submission.csv"
PLOT_FOLDER = "plots"

# A scan that was looked at: of all files of its result, only this one is always there.
CANDIDATES_NAME = "candidates.json"

# Of a test, or of a scan that was looked at.
REPORT_NAME = "report.html"
INDEX_NAME = "index.html"

# Of any run over many scans.
FAILURES_NAME = "failures.json"


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


def _check_seed(what: str, seed: int) -> None:
    if seed < 0 or seed >= 2**63:
        raise LungDetError(f"{what} seed is {seed}: use a whole number from 0 to 2^63 - 1")


def phantom_uid(*, size: str, seed: int, index: int) -> str:
    """Return the series UID of scan ``index`` of the cohort (``size``, ``seed``)."""
    _check_seed("phantom", seed)
    return f"{PHANTOM_UID_PREFIX}.{SIZE_CODES[size]}.{seed}.{_INDEX_OFFSET + index}"


def is_phantom_uid(uid: str) -> bool:
    """Say whether a series UID names a phantom, so that results can be labelled as such."""
    return uid.startswith(PHANTOM_UID_PREFIX + ".")


SEMIREAL_UID_PREFIX = "2.999.73647325"
"""Every semi-real series (a real lung with nodules of other patients set in) starts with it;
73647325 spells SEMIREAL on a telephone keypad."""


def semireal_uid(*, seed: int, digest: int, variant: int) -> str:
    """Return the series UID of a lung's variant in the cohort told by ``seed`` and ``digest``."""
    _check_seed("semi-real", seed)
    return f"{SEMIREAL_UID_PREFIX}.{seed}.{digest}.{_INDEX_OFFSET + variant}"


def is_semireal_uid(uid: str) -> bool:
    """Say whether a series UID names a semi-real scan, so that results can be labelled as such."""
    return uid.startswith(SEMIREAL_UID_PREFIX + ".")


def check_input_file(path: Path) -> None:
    """Refuse a path that leads to no regular file, or that SimpleITK could not be told.

    Raises
    ------
    LungDetError
        Naming the path, what is there, and the remedy.
    """
    try:
        # SimpleITK ends the whole process when it is given such a name.
        str(path).encode("utf-8")
        mode = path.stat().st_mode
    except UnicodeEncodeError:
        raise LungDetError(f"{path}: the name is not valid UTF-8; rename the file") from None
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LungDetError(
            f"{path}: cannot be read ({reason}); check the path and its permissions"
        ) from None
    if stat.S_ISDIR(mode):
        raise LungDetError(f"{path}: is a folder, not a file; give the path of a file in it")
    if stat.S_ISREG(mode) and not os.access(path, os.R_OK):
        # ITK would say that there is no such file.
        raise LungDetError(f"{path}: cannot be read (Permission denied); check its permissions")
    if not stat.S_ISREG(mode):
        raise LungDetError(
            f"{path}: is a pipe or a device, not a regular file; copy its content into a file"
        )


# What systems and archives leave beside files: their wastebaskets, previews and forks.
_GHOST_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
_APPLE_DOUBLE = "._"
SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
"""What file browsers leave in any folder that somebody opens."""


def is_ghost(name: str) -> bool:
    """Say whether a file or folder of that name is never input: hidden, or made by a system."""
    return name.startswith(".") or name in _GHOST_FOLDERS


@dataclass
class FileSearch:
    """The files below a folder, and what was passed over.

    Parameters
    ----------
    folders : (folder, its files) in the order of their paths, those without files left out.
    subfolders : every folder below, with files or without.
    closed : one sentence for each folder that may not be looked into.
    hidden : hidden files and folders, without those that systems make by themselves.
    results : folders that hold the result of a scan; their files are no input.
    """

    folders: list[tuple[Path, list[Path]]] = field(default_factory=list)
    subfolders: list[Path] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)

    @property
    def files(self) -> Iterator[Path]:
        """All files."""
        return (path for _, paths in self.folders for path in paths)

    def notes(self) -> list[str]:
        """Return what the user should know of the search."""
        notes = list(self.closed)
        if self.hidden:
            notes.append(
                printable(
                    f"{len(self.hidden)} hidden files or folders passed over, e.g. "
                    f"{self.hidden[0]}; rename them if they are scans"
                )
            )
        if self.results:
            notes.append(
                printable(
                    f"{len(self.results)} folders with a result ({CANDIDATES_NAME}) passed over, "
                    f"e.g. {self.results[0]}; copy what is input to another folder"
                )
            )
        return notes


def search_files(folder: Path) -> FileSearch:
    """Find every file below a folder; links to folders are followed, each folder once.

    Results of scans may lie among the scans: what a detector found is neither scan nor truth.
    """
    found = FileSearch()

    def note(error: OSError) -> None:
        text = f"{error.filename}: cannot be searched ({error.strerror})"
        found.closed.append(printable(text))

    visited = set()
    for root, folders, names in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(root)
        if real in visited:
            folders.clear()
            continue
        visited.add(real)
        hidden = [n for n in (*folders, *names) if n.startswith(".") and _is_someones(n)]
        found.hidden += [Path(root, name) for name in hidden]
        # Real folders before links to them, so that names do not depend on who links to what.
        folders[:] = sorted(
            (name for name in folders if not is_ghost(name)),
            key=lambda name: (os.path.islink(os.path.join(root, name)), name),
        )
        found.subfolders += [Path(root, name) for name in folders]
        if CANDIDATES_NAME in names:
            found.results.append(Path(root))
            continue
        paths = [Path(root, name) for name in sorted(names) if not is_ghost(name)]
        if paths:
            found.folders.append((Path(root), paths))
    found.closed.sort()
    return found


def _is_someones(name: str) -> bool:
    """Say whether a hidden name may be a user's scan: it has the look of one."""
    suffixes = (".mhd", ".mha", ".nrrd", ".nii", ".nii.gz", ".dcm")
    return not name.startswith(_APPLE_DOUBLE) and name.lower().endswith(suffixes)


MAX_DEFLATE_RATIO = 1032
"""zlib cannot compress further than this: an honest stream is never shorter."""
_CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    """Anything open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


def remaining_bytes(stream: Readable, *, at_most: int) -> int:
    """Return how many bytes can be read from a stream.

    Parameters
    ----------
    stream : read to its end, or until enough is counted; nothing is kept.
    at_most : counting stops once this is reached; the answer may lie one chunk above.
    """
    found = 0
    while found < at_most and (chunk := stream.read(_CHUNK_BYTES)):
        found += len(chunk)
    return found
