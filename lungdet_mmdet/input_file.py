"""Looking at what a path leads to before it is opened: opening a pipe would wait for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
