"""One run at a time in an output folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution import advisory_lock
from lungdet_mmdet.execution.atomic_files import output_error

LOCK_NAME = ".lock"


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if needed) for this process until the block ends or the process dies.

    Raises
    ------
    LungDetError
        If another process holds it, or if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise output_error(folder, error) from error
    try:
        if not advisory_lock.take(handle):
            raise LungDetError(
                f"{folder}: another run is writing there; wait until it ends, stop it, or choose "
                "another output folder"
            )
        yield
    finally:
        os.close(handle)
