"""Work that was lost through no decision of the function that did it."""

from concurrent.futures import BrokenExecutor


class WorkerLostError(BrokenExecutor):
    """The worker of this call died, perhaps by the call; the executor goes on with others."""


class ExecutorLostError(BrokenExecutor):
    """The executor itself went away: everything handed over is lost, and nothing is to blame."""
