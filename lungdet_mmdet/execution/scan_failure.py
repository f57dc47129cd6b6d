"""Why one scan could not be done, as data that travels from any worker."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.atomic_files import DiskFullError, OutputError

DISK_FULL = "disk full"
# ITK, OpenCV and torch have no MemoryError of their own.
_ALLOCATION = re.compile(r"allocate memory|bad_alloc|Insufficient memory|out of memory", re.I)


@dataclass(frozen=True)
class ScanFailure:
    """One scan that could not be done.

    Parameters
    ----------
    seriesuid : the scan.
    stage : where it failed: "input" for unusable data, "output" for a place that cannot be written
        to, "disk full", "memory", "worker" for a died process, else the name of the unexpected
        error.
    reason : one sentence for the user.
    details : traceback of an unexpected error, else empty.
    """

    seriesuid: str
    stage: str
    reason: str
    details: str = ""

    @property
    def ends_the_run(self) -> bool:
        """Whether every further scan would fail the same way."""
        return self.stage == DISK_FULL

    def as_dict(self) -> dict[str, str]:
        """Return the fields for JSON."""
        return asdict(self)


def failure_of(seriesuid: str, error: BaseException) -> ScanFailure:
    """Describe an error that ended the work on a scan."""
    if isinstance(error, DiskFullError):
        return ScanFailure(seriesuid, DISK_FULL, str(error))
    if isinstance(error, OutputError):
        return ScanFailure(seriesuid, "output", str(error))
    if (failed := _failed_allocation(error)) is not None:
        reason = f"out of memory ({failed}); use fewer --workers or a machine with more memory"
        return ScanFailure(seriesuid, "memory", reason, _traceback(error))
    if isinstance(error, LungDetError):
        return ScanFailure(seriesuid, "input", str(error))
    if isinstance(error, OSError):
        # What goes wrong in writing comes as an OutputError: this is a file that was to be read.
        where = error.filename or seriesuid
        reason = f"{where}: cannot be read ({error.strerror or error}); check its permissions"
        return ScanFailure(seriesuid, "input", reason)
    name = type(error).__name__
    return ScanFailure(seriesuid, name, f"{name}: {error}", _traceback(error))


def _failed_allocation(error: BaseException | None) -> str | None:
    """Return what says so where an error, or one behind it, is a failed allocation, else None."""
    while error is not None:
        if isinstance(error, MemoryError) or (
            not isinstance(error, LungDetError) and _ALLOCATION.search(str(error))
        ):
            return str(error).strip().rpartition("\n")[2]
        error = error.__cause__
    return None


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def call_guarded(function: Callable[[Any], Any], job: Any) -> Any:
    """Return ``function(job)``, or a :class:`ScanFailure` where it raises.

    Errors are turned to text where they happen: not every exception survives being pickled, and
    one that does not would break the whole pool.
    """
    try:
        return function(job)
    except (Exception, SystemExit) as error:
        return failure_of(job.seriesuid, error)
