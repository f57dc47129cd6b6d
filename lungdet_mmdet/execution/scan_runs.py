"""Run one function per scan on any ``concurrent.futures.Executor``.

One bad scan never stops the others; a worker that dies takes down nothing but the scan that killed
it; an interrupt leaves everything finished so far in place.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from dataclasses import dataclass, field
from typing import Any, Protocol

from tqdm import tqdm

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.serial_executor import SerialExecutor

ExecutorFactory = Callable[[], Executor]
# Jobs waiting in the executor's own queue beside those at work: keeps workers busy, bounds memory.
QUEUED_PER_WORKER = 2


class ScanJob(Protocol):
    """What a job must offer: the series it is about."""

    @property
    def seriesuid(self) -> str:
        """Series UID, for progress and failures."""
        ...


@dataclass(frozen=True)
class ScanFailure:
    """One scan that could not be done.

    Parameters
    ----------
    seriesuid : the scan.
    stage : where it failed ("input" for unusable data, "worker" for a died process, else the name
        of the unexpected error).
    reason : one sentence for the user.
    details : traceback of an unexpected error, else empty.
    """

    seriesuid: str
    stage: str
    reason: str
    details: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the fields for JSON."""
        return dict(vars(self))


@dataclass
class RunSummary:
    """What a run did: results in order of completion, failures, and whether it was cut short."""

    results: list[Any] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    interrupted: bool = False


def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> ExecutorFactory:
    """Return a factory of local executors: `workers` processes, or this process for 0 workers.

    Processes are spawned, not forked: a forked copy of a process that runs threads may hang.
    """
    if workers < 0:
        raise LungDetError(f"workers is {workers}: it must be >= 0 (0 = in this process)")
    if workers == 0:
        return SerialExecutor
    context = multiprocessing.get_context("spawn")
    return lambda: ProcessPoolExecutor(workers, mp_context=context, initializer=initializer)


def run_per_scan(
    function: Callable[[Any], Any],
    jobs: Sequence[Any],
    make_executor: ExecutorFactory,
    *,
    max_at_work: int = 1,
    description: str = "scans",
    on_result: Callable[[Any], None] | None = None,
    on_failure: Callable[[ScanFailure], None] | None = None,
) -> RunSummary:
    """Apply `function` to every job.

    Parameters
    ----------
    function : called as ``function(job)`` in a worker; must be picklable.
    jobs : objects with a ``seriesuid``; picklable.
    make_executor : gives a fresh executor; called again when one broke.
    max_at_work : workers of the executor; bounds how many jobs are handed over at a time.
    description : label of the progress bar.
    on_result, on_failure : called in this process as each scan ends, e.g. to record it at once.

    Returns
    -------
    RunSummary
        With ``interrupted`` set after Ctrl-C; what had finished is in it.
    """
    run = _Run(function, make_executor, max_at_work, on_result, on_failure)
    with tqdm(total=len(jobs), desc=description, unit="scan", smoothing=0.1) as bar:
        run.bar = bar
        try:
            suspects = run.batch(list(jobs), together=True)
            # When a worker dies, every scan then at work is suspect. Each is tried again alone, so
            # that only the one that really kills its worker is given up.
            for job in suspects:
                for killer in run.batch([job], together=False):
                    run.fail(
                        ScanFailure(
                            killer.seriesuid,
                            "worker",
                            "the worker process died on this scan twice (out of memory, or "
                            "killed); use fewer --workers or a machine with more memory",
                        )
                    )
        except KeyboardInterrupt:
            run.summary.interrupted = True
    return run.summary


class _Run:
    """State of one call of :func:`run_per_scan`."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        make_executor: ExecutorFactory,
        max_at_work: int,
        on_result: Callable[[Any], None] | None,
        on_failure: Callable[[ScanFailure], None] | None,
    ) -> None:
        self.function = function
        self.make_executor = make_executor
        self.limit = max(1, max_at_work) * QUEUED_PER_WORKER
        self.on_result = on_result
        self.on_failure = on_failure
        self.summary = RunSummary()
        self.bar: tqdm | None = None

    def _count(self) -> None:
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix(failed=len(self.summary.failures), refresh=False)

    def fail(self, failure: ScanFailure) -> None:
        self.summary.failures.append(failure)
        if self.on_failure is not None:
            self.on_failure(failure)
        self._count()

    def _settle(self, job: Any, future: Future) -> bool:
        """Record one finished future; False if its worker died."""
        error = future.exception()
        if error is None:
            self.summary.results.append(future.result())
            if self.on_result is not None:
                self.on_result(future.result())
            self._count()
        elif isinstance(error, BrokenExecutor):
            return False
        elif isinstance(error, LungDetError):
            self.fail(ScanFailure(job.seriesuid, "input", str(error)))
        else:
            details = "".join(traceback.format_exception(error))
            reason = f"{type(error).__name__}: {error}"
            self.fail(ScanFailure(job.seriesuid, type(error).__name__, reason, details))
        return True

    def batch(self, jobs: list[Any], *, together: bool) -> list[Any]:
        """Run jobs; return those whose worker died. Jobs not yet begun go to a new executor."""
        waiting = deque(jobs)
        suspects: list[Any] = []
        while waiting:
            executor = self.make_executor()
            try:
                suspects += self._drain(executor, waiting)
            except KeyboardInterrupt:
                executor.shutdown(wait=False, cancel_futures=True)
                raise
            executor.shutdown(wait=True, cancel_futures=True)
            if not together:
                break
        return suspects

    def _drain(self, executor: Executor, waiting: deque) -> list[Any]:
        """Feed an executor until nothing waits or it breaks; return the jobs it broke on."""
        at_work: dict[Future, Any] = {}
        lost: list[Any] = []
        while (waiting and not lost) or at_work:
            while waiting and not lost and len(at_work) < self.limit:
                job = waiting.popleft()
                try:
                    at_work[executor.submit(self.function, job)] = job
                except BrokenExecutor:
                    waiting.appendleft(job)
                    lost += list(at_work.values())
                    return lost
            done, _ = wait(at_work, return_when=FIRST_COMPLETED)
            for future in done:
                job = at_work.pop(future)
                if not self._settle(job, future):
                    lost.append(job)
        return lost
