# SPDX-License-Identifier: Apache-2.0
"""Measuring time and memory in a process of its own.

Imports are done before the measured work begins, the peak memory is that of this one piece of work,
libraries included, and nothing that ran before warms or fills the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError

_KIB_PER_MIB = 1024.0


def measure_in_process(module: str, order: dict[str, Any], *, about: str) -> dict[str, Any]:
    """Run a module with an order and return what it measured.

    Parameters
    ----------
    module : its ``__main__`` reads the order as JSON from standard input and prints the figures as
        one line of JSON at last.
    order : what to do; JSON.
    about : what is measured, for the message of a failure.

    Raises
    ------
    LungDetError
        If the process fails; with the last line that it wrote.
    """
    package_root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LungDetError(f"{about}: the measurement failed ({last})")
    return json.loads(done.stdout.strip().splitlines()[-1])


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keep some processes busy that do nothing but count, as on a machine with other work."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def peak_rss_mb() -> float:
    """Return the highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # getrusage would count the parent's memory in, from before this program was loaded.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / _KIB_PER_MIB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_MIB
