"""Files and folders that are either whole or not there.

Everything is made under a hidden name beside its target and renamed when it is finished. A process
that is killed leaves at most such a hidden name behind, which :func:`sweep_leftovers` removes. A
process holds a lock on what it writes under a hidden name, so that a sweep takes nothing from a run
that is still at work.
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
from lungdet_mmdet.execution import advisory_lock

FILE_SUFFIX = ".tmp"
FOLDER_SUFFIX = ".partial"
# A whole folder, moved aside while another takes its place.
ASIDE_SUFFIX = ".before"
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


def check_writable(folder: Path) -> None:
    """Make `folder` where it is not there, and a file in it for a moment: before work is put in.

    Raises
    ------
    OutputError
        Where the operating system refuses.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".writable.", suffix=FILE_SUFFIX)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise output_error(folder, error) from error


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
            advisory_lock.take(handle)
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
    error `folder` is as it was before; after a kill it is that or the new one, at the latest once
    :func:`sweep_leftovers` has been there.
    """
    partial = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = _hidden_folder(folder)
        with advisory_lock.held(partial):
            yield partial
            partial.chmod(0o755)
            _put_in_place(partial, folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        os.rename(partial, folder)
        return
    aside = _hidden_folder(folder, ASIDE_SUFFIX)
    with advisory_lock.held(folder):
        os.rename(folder, aside)
        try:
            os.rename(partial, folder)
        except OSError:
            os.rename(aside, folder)
            raise
        shutil.rmtree(aside)


def _hidden_folder(folder: Path, suffix: str = FOLDER_SUFFIX) -> Path:
    # A name of its own for each attempt: a worker that outlives its run must not write into the
    # folder of the run after.
    return Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=suffix))


def sweep_leftovers(folder: Path, *, of: str | None = None) -> int:
    """Tidy up what killed processes left directly in `folder`; return how many things.

    What is half-made is removed. A folder that was moved aside for another that never came is put
    back. What a process is still writing is left alone.

    Parameters
    ----------
    folder : where to look.
    of : only leftovers of the file or folder of this name; None for all.
    """
    if not folder.is_dir():
        return 0
    swept = 0
    for path in list(folder.iterdir()):
        if path.suffix not in (FILE_SUFFIX, FOLDER_SUFFIX, ASIDE_SUFFIX):
            continue
        # .NAME.RANDOM.SUFFIX, where only NAME may hold dots.
        hidden_name = path.name.rsplit(".", 2)[0]
        if not hidden_name.startswith(".") or (of is not None and hidden_name != f".{of}"):
            continue
        swept += _sweep(path, folder / hidden_name[1:])
    return swept


def _sweep(path: Path, target: Path) -> bool:
    """Remove a leftover of `target`, or put it back in its place; False if it is in use."""
    if advisory_lock.is_taken(path):
        return False
    if path.suffix == FILE_SUFFIX:
        path.unlink(missing_ok=True)
    elif path.suffix == ASIDE_SUFFIX and not target.exists() and any(path.iterdir()):
        os.rename(path, target)
    else:
        shutil.rmtree(path, ignore_errors=True)
    return True
