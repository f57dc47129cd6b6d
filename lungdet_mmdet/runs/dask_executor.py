"""Work on a Dask cluster, as an executor that says what was lost and why.

Dask's own (``Client.get_executor``) is not used: when a scheduler dies while a result is on its
way, that future of it is never settled and a run would wait for ever, and its ``shutdown`` knows no
``cancel_futures``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.executors import ExecutorLostError, WorkerLostError

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
