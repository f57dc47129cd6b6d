# SPDX-License-Identifier: Apache-2.0
"""Executors for work per scan: here or in a pool, interrupted cleanly, lost work told apart."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any


class SerialExecutor(Executor):
    """Run each call at once, in this process: for one worker, for debugging, for profiling."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Call `fn` now and return its finished future; Ctrl-C is not caught."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # handed to the caller through the future, as a pool would
            future.set_exception(error)
        return future


class WorkerLostError(BrokenExecutor):
    """The worker of this call died, perhaps by the call; the executor goes on with others."""


class ExecutorLostError(BrokenExecutor):
    """The executor itself went away: everything handed over is lost, and nothing is to blame."""


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


class WorkerPool(ProcessPoolExecutor):
    """A process pool whose workers hang on a lifeline: a pipe that only this process can close.

    When it is cut, by :meth:`stop` or by the death of this process, the workers leave at once, in
    the midst of a scan; what they write is whole or not there. They do not hear Ctrl-C themselves,
    so that a terminal's interrupt ends them through this process, without tracebacks.

    Processes are spawned, not forked: a forked copy of a process that runs threads may hang.

    Parameters
    ----------
    workers : number of processes.
    setup : called once in each of them.
    """

    def __init__(self, workers: int, setup: Callable[[], None] | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._held_by_workers, self._lifeline = context.Pipe(duplex=False)
        super().__init__(
            workers,
            mp_context=context,
            initializer=_begin_worker,
            initargs=(self._held_by_workers, setup),
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Hand over a call; new workers are started deaf to signals."""
        with _signals_held_back():
            return super().submit(fn, *args, **kwargs)

    def stop(self) -> None:
        """End the workers at once and forget what they were doing."""
        self._lifeline.close()
        self.shutdown(wait=True, cancel_futures=True)
        self._held_by_workers.close()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Hold signals back while a process is started: it inherits that until it is set up.

    Without it a Ctrl-C during a worker's first imports would print a traceback from each.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Starting the tracker resets the mask, so it has to run before.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(lifeline: Connection, setup: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_leave_when_cut, args=(lifeline,), daemon=True).start()
    if setup is not None:
        setup()


def _leave_when_cut(lifeline: Connection) -> None:
    wait([lifeline])
    os._exit(1)
