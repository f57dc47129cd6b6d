"""Files and folders that are either whole or not there.

Everything is made under a hidden name beside its target and renamed when it is finished. A process
that is killed leaves at most such a hidden name behind, which :func:`sweep_leftovers` removes.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError

FILE_SUFFIX = ".tmp"
FOLDER_SUFFIX = ".partial"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class OutputError(LungDetError):
    """A place that cannot be written to: no permission, read-only, not a folder."""


class DiskFullError(OutputError):
    """No space is left (or the quota is used up), so that going on is pointless."""


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn an error of the operating system while writing `path` into one that names the remedy."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return DiskFullError(
            f"{path}: cannot be written ({reason}); free some space, or choose another output "
            "folder, and run the same command again"
        )
    return OutputError(
        f"{path}: cannot be written ({reason}); check its permissions, or choose another output "
        "folder"
    )


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file by renaming a finished temporary one over it; parents are made.

    Raises
    ------
    OutputError
        Where the operating system refuses; :class:`DiskFullError` where no space is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=FILE_SUFFIX
        )
    except OSError as error:
        raise output_error(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: keys in the given order, the same bytes for the same value."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8"))


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Give an empty hidden folder that takes the place of `folder` when the block ends well.

    The block is for writing only: an ``OSError`` in it becomes an :class:`OutputError`. After any
    error `folder` is as it was before.
    """
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = _hidden_folder(folder)
        yield partial
        partial.chmod(0o755)
        if folder.exists():
            before = _hidden_folder(folder)
            os.rename(folder, before)
            os.rename(partial, folder)
            shutil.rmtree(before)
        else:
            os.rename(partial, folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _hidden_folder(folder: Path) -> Path:
    # A name of its own for each attempt: a worker that outlives its run must not write into the
    # folder of the run after.
    made = tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=FOLDER_SUFFIX)
    return Path(made)


def sweep_leftovers(folder: Path) -> int:
    """Remove what killed processes left half-made directly in `folder`; return how many.

    To be called only while nothing else writes there.
    """
    if not folder.is_dir():
        return 0
    swept = 0
    for path in folder.iterdir():
        if path.name.startswith(".") and path.suffix == FOLDER_SUFFIX and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
            swept += 1
        elif path.name.startswith(".") and path.suffix == FILE_SUFFIX and path.is_file():
            path.unlink(missing_ok=True)
            swept += 1
    return swept
