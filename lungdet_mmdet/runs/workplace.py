"""Where work is done: this machine's pool or a Dask cluster, with or without network."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lungdet_mmdet
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import FILE_SUFFIX, output_error
from lungdet_mmdet.runs.dask_executor import DaskCluster
from lungdet_mmdet.runs.scan_runs import ExecutorFactory, process_pool

# Calls that wait at the scheduler take next to no memory, and clusters grow while they are used.
LEAST_HANDED_OVER = 128
# Their versions may show in pixels.
LIBRARIES = ("numpy", "scipy", "SimpleITK", "scikit-image", "opencv-python")


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
    found = {"lungdet_mmdet": lungdet_mmdet.__version__}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


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
