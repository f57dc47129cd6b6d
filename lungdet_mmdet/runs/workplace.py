# SPDX-License-Identifier: Apache-2.0
"""Where work is done: in this process, a pool of others or a Dask cluster; without network or not.

Dask's own executor (``Client.get_executor``) is not used: when a scheduler dies while a result is
on its way, that future of it is never settled and a run would wait for ever, and its ``shutdown``
knows no ``cancel_futures``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import FILE_SUFFIX, output_error
from lungdet_mmdet.runs.command_line import SIGNALS
from lungdet_mmdet.versions import PIXEL_LIBRARIES, library_versions


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


def _begin_worker(lifeline: connection.Connection, setup: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    threading.Thread(target=_leave_when_cut, args=(lifeline,), daemon=True).start()
    if setup is not None:
        setup()


def _leave_when_cut(lifeline: connection.Connection) -> None:
    connection.wait([lifeline])
    os._exit(1)


ExecutorFactory = Callable[[], Executor]


def process_pool(workers: int, initializer: Callable[[], None] | None = None) -> ExecutorFactory:
    """Return a factory of local executors: `workers` processes, or this process for 0 workers."""
    if workers < 0:
        raise LungDetError(f"workers is {workers}: it must be >= 0 (0 = in this process)")
    if workers == 0:
        return SerialExecutor
    return lambda: WorkerPool(workers, initializer)


# A cluster that is being restarted needs its time; a mistyped address should not.
CONNECT_S, RECONNECT_S = 30.0, 600.0
# A result is a few hundred bytes: what takes longer than this will not come.
FETCH_S = 30.0


class DaskExecutor(Executor):
    """Calls on the workers of a Dask scheduler.

    A call ends with :class:`WorkerLostError` where its workers died, each time Dask tried, and with
    :class:`ExecutorLostError` where the scheduler went away or forgot it.

    Parameters
    ----------
    client : of ``dask.distributed``; closed by :meth:`shutdown`.
    setup : called in a worker before each call.
    """

    def __init__(self, client: Any, setup: Callable[[], None] | None = None) -> None:
        self.client = client
        self._setup = setup
        self._at_work: set[Future] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Hand over a call.

        Raises
        ------
        ExecutorLostError
            If the scheduler is gone.
        """
        if self.client.status != "running":
            raise ExecutorLostError(f"the connection to the scheduler is {self.client.status}")
        call = functools.partial(fn, *args, **kwargs)
        # Not pure: the same call made again must be done again.
        remote = self.client.submit(_call, self._setup, call, pure=False)
        future: Future = Future()
        self._at_work.add(future)
        future.add_done_callback(functools.partial(self._forget, remote))
        remote.add_done_callback(functools.partial(self._hand_on, future))
        return future

    def _hand_on(self, future: Future, remote: Any) -> None:
        """Settle our future as Dask settled its own."""
        if not future.set_running_or_notify_cancel():
            return
        try:
            error = self._error_of(remote)
            result = None if error else remote.result(timeout=FETCH_S)
        except BaseException as problem:  # whatever it is, the future must be settled
            error = _gone(repr(problem))
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def _error_of(self, remote: Any) -> BaseException | None:
        if self.client.status != "running" or remote.status not in ("finished", "error"):
            return _gone(f"its task is {remote.status}, the connection {self.client.status}")
        if remote.status == "finished":
            return None
        error = remote.exception(timeout=FETCH_S)
        # By name: the class moved over Dask's versions.
        return WorkerLostError(str(error)) if type(error).__name__ == "KilledWorker" else error

    def _forget(self, remote: Any, future: Future) -> None:
        self._at_work.discard(future)
        if future.cancelled():
            remote.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what its workers are in the midst of there runs to its end.

        Parameters
        ----------
        wait : wait for what has been handed over.
        cancel_futures : give up what has not ended.
        """
        if cancel_futures:
            for future in list(self._at_work):
                future.cancel()
        if wait:
            wait_for(list(self._at_work))
        self.client.close()


def _call(setup: Callable[[], None] | None, function: Callable[[], Any]) -> Any:
    if setup is not None:
        setup()
    return function()


def _gone(what: str) -> BrokenExecutor:
    return ExecutorLostError(f"the scheduler went away or forgot the call ({what})")


class DaskCluster:
    """Executors on one scheduler; a later one waits for the scheduler to come back.

    Parameters
    ----------
    address : ``tcp://HOST:8786``, or the path of a scheduler file.
    setup : called in a worker before each call.
    tell : takes a line for the user.
    """

    def __init__(
        self,
        address: str,
        setup: Callable[[], None] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        self.address = address
        self._setup = setup
        self._tell = tell
        self._was_connected = False

    def __call__(self) -> DaskExecutor:
        """Connect.

        Raises
        ------
        LungDetError
            If Dask is not installed or nothing answers at the address.
        """
        try:
            from distributed import Client
        except ImportError as error:
            raise LungDetError(
                "--dask needs dask.distributed: pip install 'lungdet-mmdet[cluster]'"
            ) from error
        deadline = time.monotonic() + (RECONNECT_S if self._was_connected else 0.0)
        while True:
            # Looked at anew each time: a restarted scheduler may have written another address.
            is_file = Path(self.address).is_file()
            place = {"scheduler_file": self.address} if is_file else {"address": self.address}
            try:
                client = Client(**place, timeout=CONNECT_S, set_as_default=False)
                break
            except (OSError, ValueError, TypeError) as error:
                if time.monotonic() >= deadline:
                    raise LungDetError(
                        f"{self.address}: no Dask scheduler answers ({error}); start one with "
                        "`dask scheduler`, and give its address as tcp://HOST:8786"
                    ) from error
                self._tell(f"{self.address} does not answer: waiting for it to come back")
        self._was_connected = True
        if not client.nthreads():
            self._tell(f"{self.address} has no workers yet: waiting for the first")
        return DaskExecutor(client, self._setup)


# Calls that wait at the scheduler take next to no memory, and clusters grow while they are used.
LEAST_HANDED_OVER = 128


@dataclass(frozen=True)
class Workplace:
    """Executors to work with, and how many scans they take at a time."""

    make_executor: ExecutorFactory
    workers: int


def find_workplace(
    workers: int,
    *,
    dask: str | None = None,
    setup: Callable[[], None] | None = None,
    read_from: Sequence[Path] = (),
    write_to: Path | None = None,
    tell: Callable[[str], None] = print,
) -> Workplace:
    """Return local processes, or the cluster at `dask` after a look at its workers.

    Parameters
    ----------
    workers : local processes (0 = this one); of no account with `dask`.
    dask : address of a scheduler, or path of its scheduler file.
    setup : called in each worker.
    read_from, write_to : paths that a cluster's workers must see as this process does.
    tell : takes a line for the user.

    Raises
    ------
    LungDetError
        If the cluster is out of reach, or a worker sees other files or runs another version.
    """
    if not dask:
        return Workplace(process_pool(workers, setup), workers)
    cluster = DaskCluster(dask, setup, tell)
    executor = cluster()
    try:
        threads = sum(executor.client.nthreads().values())
        check_workers(executor.client, read_from, write_to, tell)
    finally:
        executor.shutdown()
    if threads:
        tell(f"{dask}: {threads} scans at a time, more as workers come")
    return Workplace(cluster, max(threads, LEAST_HANDED_OVER))


def check_workers(
    client: Any, read_from: Sequence[Path], write_to: Path | None, tell: Callable[[str], None]
) -> None:
    """Refuse workers that would fail on every scan, or that would write something else."""
    mark = _leave_mark(write_to) if write_to else None
    try:
        paths = [*(Path(path).resolve() for path in read_from), *([mark] if mark else [])]
        answers = client.run(look_around, [str(path) for path in paths], on_error="return")
    finally:
        if mark:
            mark.unlink(missing_ok=True)
    own = versions()
    for worker, answer in sorted(answers.items()):
        if isinstance(answer, BaseException):
            raise LungDetError(
                f"worker {worker} cannot run this package ({answer!r}); install lungdet-mmdet "
                f"{lungdet_mmdet.__version__} there"
            )
        missing, theirs = answer
        if missing:
            raise LungDetError(
                f"worker {worker} does not see {missing[0]}; all machines of the cluster must see "
                "scans and results under the same paths: put them on a shared file system"
            )
        different = [f"{n} {theirs[n]} (here {own[n]})" for n in own if theirs[n] != own[n]]
        if theirs["lungdet_mmdet"] != own["lungdet_mmdet"]:
            raise LungDetError(
                f"worker {worker} has {', '.join(different)}; install the same version there"
            )
        if different:
            tell(f"note: worker {worker} has {', '.join(different)}: pixels may differ slightly")


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    return {"lungdet_mmdet": lungdet_mmdet.__version__, **library_versions(PIXEL_LIBRARIES)}


def look_around(paths: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return which of the paths this process does not see, and its versions."""
    return [path for path in paths if not os.path.exists(path)], versions()


def _leave_mark(folder: Path) -> Path:
    """Make a file of a name that no worker can have seen before."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=folder.resolve(), prefix=".seen-by-all.lungdet-", suffix=FILE_SUFFIX
        )
    except OSError as error:
        raise output_error(folder, error) from error
    os.close(handle)
    return Path(name)


OFFLINE_VARIABLE = "LUNGDET_OFFLINE"


def is_offline() -> bool:
    """Whether LUNGDET_OFFLINE is set to anything but nothing or 0, which forbids network access."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip() not in ("", "0")
