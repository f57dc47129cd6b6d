"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Whether a process holds the file or folder at `path`."""
    if fcntl is None:
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not take(handle)
    finally:
        os.close(handle)
