# SPDX-License-Identifier: Apache-2.0
"""Files and folders that are there whole or not at all, and locks that end with their process."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError

try:
    import fcntl
except ImportError:  # not on this platform: two runs at a time are then the user's own care
    fcntl = None  # type: ignore[assignment]


def take(handle: int) -> bool:
    """Lock an open file or folder; False where another process holds it.

    True also where the file system knows no locks: work there is as safe as without this guard.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a file or folder, also under another name, until the block ends or the process dies."""
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        take(handle)
        yield
    finally:
        os.close(handle)


def is_taken(path: str | os.PathLike[str]) -> bool:
    """Whether a process holds the file or folder at `path`.

    Some network file systems know locks, but refuse to lock what is open for reading only, as a
    folder always is: then nobody can tell, and what was touched lately counts as held.
    """
    if fcntl is None:
        return _was_touched_lately(path)
    try:
        handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    except OSError:
        return _was_touched_lately(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return _was_touched_lately(path)
    finally:
        os.close(handle)
    return False


# No scan, and no checkpoint, is written for longer.
_LATELY_S = 24 * 3600.0


def _was_touched_lately(path: str | os.PathLike[str]) -> bool:
    try:
        return time.time() - os.stat(path).st_mtime < _LATELY_S
    except OSError:
        return False


FILE_SUFFIX = ".tmp"
FOLDER_SUFFIX = ".partial"
# A whole folder, moved aside while another takes its place.
ASIDE_SUFFIX = ".before"
# Between the name and the random part: nobody else's hidden files are called so.
_OURS = "lungdet-"
_FULL = {errno.ENOSPC, errno.EDQUOT}


def _current_umask() -> int:
    """Return what the user lets nobody else do; asking is only possible by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


_UMASK = _current_umask()


class OutputError(LungDetError):
    """A place that cannot be written to: no permission, read-only, not a folder."""


class DiskFullError(OutputError):
    """No space is left (or the quota is used up), so that going on is pointless."""


def is_disk_full(error: OSError) -> bool:
    """Whether no space is left, or the quota is used up."""
    return error.errno in _FULL


def output_error(path: Path, error: OSError) -> OutputError:
    """Turn an error of the operating system while writing `path` into one that names the remedy."""
    reason = error.strerror or str(error)
    if is_disk_full(error):
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
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".writable.{_OURS}", suffix=FILE_SUFFIX)
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
            dir=path.parent, prefix=f".{path.name}.{_OURS}", suffix=FILE_SUFFIX
        )
    except OSError as error:
        raise output_error(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            take(handle)
            file.write(data)
        os.chmod(temporary, 0o666 & ~_UMASK)
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


def read_json_or(path: Path, default: Any) -> Any:
    """Return a JSON file's value; the default where there is none of that kind."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return default
    return value if isinstance(value, type(default)) else default


# What spreadsheets take for the beginning of a formula.
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")


def as_cell(value: Any) -> Any:
    """Return a value that a spreadsheet shows as it is, and does not run as a formula."""
    if not str(value).startswith(_FORMULA_BEGINS):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def text_of_cell(cell: str) -> str:
    """Return the text that :func:`as_cell` guarded."""
    return cell[1:] if cell[:1] == "'" and cell[1:].startswith(_FORMULA_BEGINS) else cell


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table as text, its columns in the first line; no cell is a formula."""
    text = io.StringIO()
    table = ([as_cell(value) for value in row] for row in [columns, *rows])
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table atomically."""
    write_bytes(path, csv_text(columns, rows).encode("utf-8"))


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
        with held(partial):
            yield partial
            partial.chmod(0o777 & ~_UMASK)
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
    with held(folder):
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
    return Path(
        tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.{_OURS}", suffix=suffix)
    )


def sweep_leftovers(folder: Path, *, of: str | Collection[str] | None = None) -> int:
    """Tidy up what killed processes left directly in `folder`; return how many things.

    What is half-made is removed. A folder that was moved aside for another that never came is put
    back. What a process is still writing is left alone.

    Parameters
    ----------
    folder : where to look.
    of : only leftovers of the file or folder of this name, or of these; None for all.
    """
    names = {of} if isinstance(of, str) else None if of is None else set(of)
    if not folder.is_dir():
        return 0
    swept = 0
    for path in list(folder.iterdir()):
        if path.suffix not in (FILE_SUFFIX, FOLDER_SUFFIX, ASIDE_SUFFIX):
            continue
        # .NAME.lungdet-RANDOM.SUFFIX, where only NAME may hold dots.
        hidden_name, random = path.name.rsplit(".", 2)[0], path.name.split(".")[-2]
        if not random.startswith(_OURS):
            continue
        if not hidden_name.startswith(".") or (names is not None and hidden_name[1:] not in names):
            continue
        swept += _sweep(path, folder / hidden_name[1:])
    return swept


def _sweep(path: Path, target: Path) -> bool:
    """Remove a leftover of `target`, or put it back in its place; False if it is in use."""
    if is_taken(path):
        return False
    if path.suffix == FILE_SUFFIX:
        path.unlink(missing_ok=True)
    elif path.suffix == ASIDE_SUFFIX and not target.exists() and any(path.iterdir()):
        os.rename(path, target)
    else:
        shutil.rmtree(path, ignore_errors=True)
    return True


LOCK_NAME = ".lock"


@contextmanager
def only_run_in(folder: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold `folder` (made if needed) for this process until the block ends or the process dies.

    Raises
    ------
    LungDetError
        If another process holds it, also after `wait_s` seconds, or if it cannot be written to.
    """
    until = time.monotonic() + wait_s
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        while not take(handle):
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            raise LungDetError(
                f"{folder}: another run is writing there; wait until it ends, stop it, or choose "
                "another output folder"
            )
        yield
    finally:
        os.close(handle)
