# SPDX-License-Identifier: Apache-2.0
"""Command lines: the cores they may use, one way to end, and several run one after the other.

A process in a container or a batch job sees all cores of its machine, and libraries start a thread
on each; what it may use is less. Threads of OpenMP wait for one another by spinning: on a machine
with other work two can be ten times slower than one. :func:`use_cores_calmly` is called before
torch is loaded, since that is when OpenMP reads its settings.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.runs.atomic_files import is_disk_full, read_json_or, write_json

WAIT, THREADS = "OMP_WAIT_POLICY", "OMP_NUM_THREADS"
CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Return the number of cores by affinity and by the quota of this process's cgroup, from 1."""
    quota = _quota(cgroup)
    allowed = _cores_of_affinity()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _cores_of_affinity() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this platform
        return os.cpu_count() or 1


def _quota(cgroup: Path) -> float | None:
    """Return the cores' worth of time that a cgroup may use, of version 2 or 1; None for all."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return share if share > 0 else None


def use_cores_calmly() -> None:
    """Let OpenMP's threads sleep while they wait, and be no more than the cores; before torch.

    What the user set in the environment stays.
    """
    os.environ.setdefault(WAIT, "PASSIVE")
    if usable_cores() < (os.cpu_count() or 1):
        os.environ.setdefault(THREADS, str(usable_cores()))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor; with another C library do nothing.

    It gives large blocks back to the system, which clears every page anew for the next one: a
    tenth to a fifth of a training step. What is larger than 32 MiB still goes back.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for parameter, size in _MALLOC_SIZES.items():
            mallopt(parameter, size)


# M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h, in bytes.
_MALLOC_SIZES = {-1: 2**31 - 1, -3: 2**25}


def describe_cores() -> str:
    """Say in one line how many cores and threads are used, and how these wait."""
    total, usable = os.cpu_count() or 1, usable_cores()
    cores = f"{usable} of {total} cores" if usable < total else f"{total} cores"
    threads = os.environ.get(THREADS)
    set_threads = f", {THREADS}={threads}" if threads else ""
    return f"{cores}{set_threads}, OpenMP waits {os.environ.get(WAIT, 'as it is built').lower()}"


def loading_processes(cores: int, trainings: int = 1) -> int:
    """Return how many processes load data for each of some trainings on this machine: 1 to 8.

    One core is left to the training itself; more than eight have nothing to do.
    """
    return min(max(cores // max(trainings, 1) - 1, 1), 8)


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def signal_behind(error: KeyboardInterrupt) -> int:
    """Return the number of the signal that caused an interrupt."""
    return int(signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM within the block (in the main thread, else nothing)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Unbreakable:
    """A stream that drops what nobody reads any more, instead of ending the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, as long as there is a reader."""
        try:
            return self._stream.write(text)
        except (BrokenPipeError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Flush, as long as there is a reader."""
        try:
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            _point_to_nothing(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _point_to_nothing(stream: TextIO) -> None:
    """Let what is still buffered go nowhere: the interpreter flushes it at its end."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
    except (OSError, ValueError):
        pass


def _standing(stream: TextIO | None) -> TextIO:
    """Return a stream that can be written to, also where the shell closed it (``2>&-``)."""
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (lives as the process does)
    return _Unbreakable(stream)  # type: ignore[return-value]


def command_parser(command: Callable[..., int]) -> argparse.ArgumentParser:
    """Return a parser for the options of a command, which its docstring describes."""
    return argparse.ArgumentParser(
        description=inspect.getdoc(command), formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_workers_option(
    parser: argparse.ArgumentParser,
    *,
    default: int | None = None,
    what: str = "processes",
    at_0: str = "in this process",
) -> None:
    """Give a command ``--workers``, which means the same to all: 0 works in this process.

    Parameters
    ----------
    default : None takes a process for each core that may be used.
    what, at_0 : words of the help.
    """
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cores() if default is None else default,
        help=f"{what}; 0 = {at_0} (default: %(default)s)",
    )


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Call `main` and leave with its exit code, see above.

    Before that it settles how threads wait, while no tool has loaded torch yet.
    Errors that name their remedy, and those of the operating system wherever they are met, are told
    without a traceback: one is of use only where the program is wrong. Of an interrupt its own text
    is told, where the command gave it one, else that the same command goes on.
    """
    use_cores_calmly()
    sys.stdout, sys.stderr = _standing(sys.stdout), _standing(sys.stderr)
    try:
        with sigterm_interrupts():
            code = main()
    except LungDetError as error:
        _tell(f"error: {error}")
        code = 1
    except OSError as error:
        if error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        remedy = (
            "free some space and run the same command again"
            if is_disk_full(error)
            else "check the path and its permissions"
        )
        _tell(f"error: {printable(place)}{error.strerror}; {remedy}")
        code = 1
    except KeyboardInterrupt as error:
        _tell(f"interrupted; {str(error) or 'run the same command again to go on'}")
        code = 128 + signal_behind(error)
    sys.stdout.flush()
    sys.exit(code)


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def own_command(*arguments: object) -> list[str]:
    """Return ``lungdet ARGUMENTS`` for `subprocess`, run by this very Python."""
    return [sys.executable, "-m", "lungdet_mmdet", *map(str, arguments)]


@dataclass(frozen=True)
class CommandStep:
    """One command line.

    Parameters
    ----------
    what : what it does, for the reader; no two steps of a job may have the same.
    command : what one would type into a shell: ``lungdet ...``.
    result : a file that stands there when the step is done, so that a later run passes over it;
        None for a step that finds out by itself what is left to do.
    may_fail_in_part : the next steps go on with what it did where it exits with 1, as after a scan
        that could not be used.
    """

    what: str
    command: str
    result: Path | None = None
    may_fail_in_part: bool = False

    @property
    def makes(self) -> str:
        """The command without what changes nothing that it makes: how many processes, and where."""
        return re.sub(r" --(workers|dask) \S+", "", " ".join(self.command.split()))


def quoted(*words: object) -> str:
    """Return words, paths above all, as they stand in a command."""
    return " ".join(shlex.quote(str(word)) for word in words)


COMMANDS_NAME = "commands.json"
"""The commands of a long job that were begun, in the folder of what they make."""


def run_command_steps(steps: Sequence[CommandStep], out_dir: Path) -> int:
    """Run the steps, each in a process of its own, and stop at the first that fails.

    Commands that were begun and did not fail stand in ``out_dir / "commands.json"``.

    Returns
    -------
    int
        Exit code of the failed step, or 0; 1 where a step failed in part and the rest was done.

    Raises
    ------
    LungDetError
        If a step was begun there by another command: what it left is not what this one makes.
    """
    assert len({step.what for step in steps}) == len(steps), "steps are told apart by their names"
    noted = out_dir / COMMANDS_NAME
    begun = read_json_or(noted, {})
    for step in steps:
        if begun.get(step.what, step.makes) != step.makes:
            raise LungDetError(
                f"{out_dir}: was begun with other options; choose another folder, or remove it.\n"
                f"  then: {begun[step.what]}\n  now:  {step.makes}"
            )
    worst = 0
    for number, step in enumerate(steps, start=1):
        print(f"\n=== {number}/{len(steps)}  {step.what}\n$ {step.command}", flush=True)
        if step.result is not None and step.result.exists():
            print(f"--- done before: {step.result}")
            continue
        start = time.monotonic()
        begun[step.what] = step.makes
        write_json(noted, begun)
        code = subprocess.call(own_command(*shlex.split(step.command)[1:]))
        if code:
            print(f"step {number} failed with exit code {code}", file=sys.stderr)
            if code != 1 or not step.may_fail_in_part:
                if 0 < code < 128:  # refused or failed, not interrupted: other options may do it
                    del begun[step.what]
                    write_json(noted, begun)
                return code
            print("going on with what it did", file=sys.stderr)
            worst = code
        print(f"--- {time.monotonic() - start:.0f} s", flush=True)
    return worst
