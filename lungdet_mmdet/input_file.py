# SPDX-License-Identifier: Apache-2.0
"""A file that somebody gave: opened, found readable, unpacked where it is compressed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lungdet_mmdet.errors import LungDetError, MissingFileError, printable


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
    """

    folders: list[tuple[Path, list[Path]]] = field(default_factory=list)
    subfolders: list[Path] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)

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
        return notes


def search_files(folder: Path) -> FileSearch:
    """Find every file below a folder; links to folders are followed, each folder once."""
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
