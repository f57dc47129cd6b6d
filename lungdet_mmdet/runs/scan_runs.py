# SPDX-License-Identifier: Apache-2.0
"""The same function on many scans: interruptions, dead workers, why a scan could not be done."""

from __future__ import annotations

import functools
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tqdm import tqdm

from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.runs.atomic_files import DiskFullError, OutputError
from lungdet_mmdet.runs.command_line import signal_behind, sigterm_interrupts
from lungdet_mmdet.runs.workplace import (
    ExecutorFactory,
    ExecutorLostError,
    WorkerLostError,
    WorkerPool,
)

DISK_FULL = "disk full"
# The stage of a file that cannot be a scan by its name: it belongs to no cohort.
MISNAMED = "name"
_OF_STAGE = {
    "input": "the input cannot be used as it is", "output": "the result could not be written",
    DISK_FULL: "no space was left on the disk", "memory": "there was too little memory",
    "worker": "its process died",
}  # fmt: skip
_ELSEWHERE = "; file and full reason were printed where the run was started"
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
    places : digests of where the scan lies, and of the input it was found under, where names are
        not enough to tell one scan from another.
    """

    seriesuid: str
    stage: str
    reason: str
    details: str = ""
    places: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Both are printed, and may come from a header.
        object.__setattr__(self, "seriesuid", printable(self.seriesuid))
        object.__setattr__(self, "reason", printable(self.reason))

    def without_names(self) -> ScanFailure:
        """Return it with a sentence on its stage in the place of texts that may name things."""
        reason = _OF_STAGE.get(self.stage, "unexpected error") + _ELSEWHERE
        return replace(self, reason=reason, details="")

    @property
    def ends_the_run(self) -> bool:
        """Whether every further scan would fail the same way."""
        return self.stage == DISK_FULL

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, ``places`` where there are any."""
        return {key: value for key, value in asdict(self).items() if key != "places" or value}


def is_without_names(record: Mapping[str, Any]) -> bool:
    """Say whether a record of failures.json is one of `ScanFailure.without_names`."""
    return str(record.get("reason", "")).endswith(_ELSEWHERE)


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


# Jobs waiting in the executor's own queue beside those at work: keeps workers busy, bounds memory.
QUEUED_PER_WORKER = 2
# An executor that goes away this often before one scan ends will not stay the next time.
MAX_FRUITLESS = 5
DEATHS_ALONE = 2
# A log file gets a line of progress now and then, a terminal a moving bar.
LOG_EVERY_S = 30.0


def exit_code_of(failures: Sequence[ScanFailure], interrupted_by: int | None) -> int:
    """Return how a run ends: 0 if all was done, 1 after failures, 128 + the signal after one."""
    if interrupted_by is not None:
        return 128 + interrupted_by
    return 1 if failures else 0


@dataclass
class RunSummary:
    """What a run did.

    Parameters
    ----------
    results : what the function returned, in order of completion.
    failures : scans that could not be done.
    interrupted_by : number of the signal that cut the run short (SIGINT or SIGTERM), or None.
    stopped_by : the failure after which going on was pointless (a full disk), or None.
    """

    results: list[Any] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    interrupted_by: int | None = None
    stopped_by: ScanFailure | None = None

    @property
    def interrupted(self) -> bool:
        """Whether a signal cut the run short."""
        return self.interrupted_by is not None

    @property
    def exit_code(self) -> int:
        """0 if all was done, 1 after failures, 130 after Ctrl-C, 143 after SIGTERM."""
        return exit_code_of(self.failures, self.interrupted_by)


def tally(
    what: str,
    *,
    done: int,
    before: int,
    failed: int,
    others: Mapping[str, int] | None = None,
    interrupted: bool = False,
) -> str:
    """Return one line for what became of all inputs, such as "3 scans done, 1 done before, ..."."""
    counts = {f"{what} done": done, "done before": before, "failed": failed, **(others or {})}
    line = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{line}; interrupted: the same command goes on from here" if interrupted else line


def run_per_scan(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    make_executor: ExecutorFactory,
    *,
    max_at_work: int = 1,
    description: str = "scans",
    on_result: Callable[[Any], None] | None = None,
) -> RunSummary:
    """Apply `function` to every job.

    When a worker dies, every scan then at work is suspect. Each is tried again alone, so that only
    one that kills its worker twice is given up.

    Parameters
    ----------
    function : called as ``function(job)`` in a worker; must be picklable.
    jobs : objects with a ``seriesuid``; picklable.
    make_executor : gives a fresh executor; called again when one broke.
    max_at_work : workers of the executor; bounds how many jobs are handed over at a time.
    description : label of the progress bar.
    on_result : called in this process as each scan is done, e.g. to record it at once.

    Returns
    -------
    RunSummary
        After Ctrl-C or SIGTERM with what had finished by then.

    Raises
    ------
    LungDetError
        If workers die before they can begin anything.
    """
    with tqdm(
        total=len(jobs),
        desc=description,
        unit="scan",
        smoothing=0.1,
        mininterval=0.1 if sys.stderr.isatty() else LOG_EVERY_S,
    ) as bar:
        run = _Run(function, make_executor, on_result, bar)
        try:
            with sigterm_interrupts():
                suspects = run.work_off(jobs, at_work=max(1, max_at_work) * QUEUED_PER_WORKER)
                # Alone, a death is the scan's own doing; once may still be bad luck.
                for _ in range(DEATHS_ALONE):
                    suspects = run.work_off(suspects, at_work=1)
                for job in suspects:
                    run.fail(_killed_its_worker(job))
        except KeyboardInterrupt as error:
            run.summary.interrupted_by = signal_behind(error)
        bar.refresh()
    return run.summary


def _killed_its_worker(job: Any) -> ScanFailure:
    return ScanFailure(
        job.seriesuid,
        "worker",
        "the worker process died on this scan twice (out of memory, or killed); use fewer "
        "--workers or a machine with more memory",
    )


def _ready() -> bool:
    return True


class _Run:
    """State of one call of :func:`run_per_scan`."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        make_executor: ExecutorFactory,
        on_result: Callable[[Any], None] | None,
        bar: tqdm,
    ) -> None:
        self.function = functools.partial(call_guarded, function)
        self.make_executor = make_executor
        self.on_result = on_result
        self.bar = bar
        self.summary = RunSummary()

    def fail(self, failure: ScanFailure) -> None:
        self.summary.failures.append(failure)
        if failure.ends_the_run:
            self.summary.stopped_by = failure
        self.bar.set_postfix(failed=len(self.summary.failures), refresh=False)
        self.bar.update()

    def work_off(self, jobs: Sequence[Any], *, at_work: int) -> list[Any]:
        """Run the jobs, at most `at_work` handed over at a time; return those whose worker died."""
        waiting = deque(jobs)
        lost: list[Any] = []
        broken = False
        fruitless = 0
        while waiting and self.summary.stopped_by is None:
            ended = self.bar.n + len(lost)
            executor = self.make_executor()
            try:
                if broken:
                    _check_that_workers_start(executor)
                lost += self._drain(executor, waiting, at_work)
            except BaseException:
                _stop(executor)
                raise
            executor.shutdown(wait=True, cancel_futures=True)
            broken = True  # or nothing waits any more
            fruitless = 0 if self.bar.n + len(lost) > ended else fruitless + 1
            if fruitless == MAX_FRUITLESS:
                raise LungDetError(
                    f"the workers went away {fruitless} times before one scan ended; look at the "
                    "cluster's log, and run the same command again to go on"
                )
        return lost

    def _drain(self, executor: Executor, waiting: deque, limit: int) -> list[Any]:
        """Feed an executor until nothing waits or it breaks; return the jobs it broke on."""
        at_work: dict[Future, Any] = {}
        lost: list[Any] = []
        broken = False
        while at_work or (waiting and not broken and self.summary.stopped_by is None):
            while waiting and not broken and len(at_work) < limit:
                try:
                    at_work[executor.submit(self.function, waiting[0])] = waiting[0]
                except BrokenExecutor:
                    broken = True
                else:
                    waiting.popleft()
            if self.summary.stopped_by is not None:
                for future in [f for f in at_work if f.cancel()]:
                    del at_work[future]
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in [future for future in at_work if future in done]:
                job, error = at_work.pop(future), future.exception()
                if isinstance(error, ExecutorLostError):
                    waiting.append(job)
                    broken = True
                elif not self._settle(job, future):
                    lost.append(job)
                    broken = broken or not isinstance(error, WorkerLostError)
        return lost

    def _settle(self, job: Any, future: Future) -> bool:
        """Record one finished future; False if its worker died."""
        error = future.exception()
        if isinstance(error, BrokenExecutor):
            return False
        outcome = failure_of(job.seriesuid, error) if error is not None else future.result()
        if isinstance(outcome, ScanFailure):
            self.fail(outcome)
            return True
        self.summary.results.append(outcome)
        if self.on_result is not None:
            self.on_result(outcome)
        self.bar.update()
        return True


def _check_that_workers_start(executor: Executor) -> None:
    try:
        executor.submit(_ready).result()
    except ExecutorLostError:
        return  # that tells nothing of the workers; the next executor is tried
    except BrokenExecutor as error:
        raise LungDetError(
            "worker processes die before they can begin (out of memory, or a broken "
            "installation); try --workers 0, which works in this process"
        ) from error


def _stop(executor: Executor) -> None:
    """Leave an executor at once, in the midst of its work where it can be left so."""
    if isinstance(executor, WorkerPool):
        executor.stop()
    else:
        executor.shutdown(wait=False, cancel_futures=True)
