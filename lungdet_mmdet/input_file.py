"""A file that somebody gave: opened, found readable, unpacked where it is compressed."""

from __future__ import annotations

import os
import stat
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


def unreadable_folders(folder: Path) -> list[str]:
    """Return one sentence for each folder in `folder` that the user may not look into.

    A search for files passes over them, and what is in them would be missed without a word.
    """
    found: list[str] = []

    def note(error: OSError) -> None:
        found.append(printable(f"{error.filename}: cannot be searched ({error.strerror})"))

    for _ in os.walk(folder, onerror=note):
        pass
    return sorted(found)


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
