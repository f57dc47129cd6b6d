"""What the tests let worker processes do; in a file of its own, so that workers can import it."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import DiskFullError


@dataclass(frozen=True)
class Job:
    seriesuid: str
    folder: str = ""


class UnpicklableError(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def uid_of(job):
    return job.seriesuid


def refuse_bad(job):
    if job.seriesuid.startswith("bad"):
        raise LungDetError(f"{job.seriesuid}: unusable")
    if job.seriesuid.startswith("odd"):
        raise UnpicklableError("one", "two")
    if job.seriesuid.startswith("big"):
        raise MemoryError("no 40 GB")
    return job.seriesuid


def fill_disk(job):
    (Path(job.folder) / job.seriesuid).touch()
    if job.seriesuid == "b":
        raise DiskFullError("out: no space left")
    return job.seriesuid


def _note_attempt(job):
    """Add a byte to the scan's own file; return how many attempts there were."""
    with (Path(job.folder) / job.seriesuid).open("ab") as file:
        file.write(b".")
    return (Path(job.folder) / job.seriesuid).stat().st_size


def kill_worker(job):
    attempt = _note_attempt(job)
    if job.seriesuid.startswith("killer") or (job.seriesuid.startswith("once") and attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return job.seriesuid


def die_at_start():
    os._exit(3)


def report_and_wait(job):
    """Say through the pipe in `folder` that the scan has begun, then wait to be ended."""
    if job.seriesuid == "quick":
        return job.seriesuid
    # Kept open: the reader sees its end when the last of these processes is gone.
    pipe = os.open(job.folder, os.O_WRONLY)
    os.write(pipe, b".")
    signal.pause()
    return job.seriesuid


def hold_the_first_attempt(job):
    """Like report_and_wait, but only once: the second attempt at a scan succeeds."""
    folder = Path(job.folder)
    if _note_attempt(job) == 1 and job.seriesuid == "held":
        with (folder / "pipe").open("wb") as pipe:
            pipe.write(b".")
        signal.pause()
    return job.seriesuid


_noted = []


def note_process():
    _noted.append(os.getpid())


def process_was_noted(job):
    return os.getpid() in _noted


def interrupt_itself(job):
    os.kill(os.getpid(), signal.SIGINT)
    return job.seriesuid
