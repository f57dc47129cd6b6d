"""Work on a Dask cluster, as an executor that says what was lost and why."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.execution.lost_work import ExecutorLostError, WorkerLostError

# A cluster that is being restarted needs its time; a mistyped address should not.
CONNECT_S, RECONNECT_S = 30.0, 600.0


class DaskExecutor(Executor):
    """Calls on the workers of a Dask scheduler, through its client's own executor.

    What Dask tells by a cancelled future or by an exception of its own becomes
    :class:`ExecutorLostError` (the scheduler went away or forgot its tasks) and
    :class:`WorkerLostError` (the call's workers died, each time Dask tried).

    Parameters
    ----------
    client : of ``dask.distributed``; closed by :meth:`shutdown`.
    setup : called in a worker before each call.
    """

    def __init__(self, client: Any, setup: Callable[[], None] | None = None) -> None:
        self.client = client
        self._setup = setup
        # Not pure: the same call made again must be done again.
        self._inner = client.get_executor(pure=False)
        self._at_work: set[Future] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Hand over a call.

        Raises
        ------
        ExecutorLostError
            If the scheduler is gone.
        """
        if self.client.status not in ("running", "connecting"):
            raise ExecutorLostError(f"the connection to the scheduler is {self.client.status}")
        inner = self._inner.submit(_call, self._setup, functools.partial(fn, *args, **kwargs))
        outer: Future = Future()
        self._at_work.add(outer)
        outer.add_done_callback(functools.partial(self._forget, inner))
        inner.add_done_callback(functools.partial(_hand_on, outer))
        return outer

    def _forget(self, inner: Future, outer: Future) -> None:
        self._at_work.discard(outer)
        if outer.cancelled():
            inner.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; calls at work there run to their end, but nobody waits for them.

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


def _hand_on(outer: Future, inner: Future) -> None:
    """Settle our future as Dask settled its own."""
    if not outer.set_running_or_notify_cancel():
        return
    try:
        error = inner.exception()
    except CancelledError:
        error = ExecutorLostError("the scheduler went away or forgot its tasks")
    if error is None:
        outer.set_result(inner.result())
        return
    # By name: Dask moved and renamed these classes over its versions.
    name = type(error).__name__
    if name == "KilledWorker":
        error = WorkerLostError(str(error))
    elif name in ("FutureCancelledError", "CancelledError", "CommClosedError", "LostDataError"):
        error = ExecutorLostError(str(error))
    outer.set_exception(error)


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
        timeout_s = RECONNECT_S if self._was_connected else CONNECT_S
        if self._was_connected:
            self._tell(f"connecting to {self.address} again")
        place = (
            {"scheduler_file": self.address}
            if Path(self.address).is_file()
            else {"address": self.address}
        )
        try:
            client = Client(**place, timeout=timeout_s, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:
            raise LungDetError(
                f"{self.address}: no Dask scheduler answers ({error}); start one with "
                "`dask scheduler`, and give its address as tcp://HOST:8786"
            ) from error
        self._was_connected = True
        if not client.nthreads():
            self._tell(f"{self.address} has no workers yet: waiting for the first")
        return DaskExecutor(client, self._setup)
