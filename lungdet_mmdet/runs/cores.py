"""How many cores this process may use, and threads that do not spin on those of others.

A process in a container or a batch job sees all cores of its machine, and libraries start a thread
on each; what it may use is less. Threads of OpenMP wait for one another by spinning: on a machine
with other work two can be ten times slower than one. :func:`use_cores_calmly` is called before
torch is loaded, since that is when OpenMP reads its settings.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

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
