"""Command lines in processes of their own: cut off, without rights, without a network."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root pass all permission bits.
_DROP, _DAC = 24, (1, 2)


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a run: one thread, so that sums are done in the same order."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    base = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "OMP_NUM_THREADS": "1"}
    return {**base, **changes}


def obey_permissions() -> None:
    """Let the program that this process becomes obey permission bits, also where it is root."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in _DAC:
        libc.prctl(_DROP, capability, 0, 0, 0)  # refused to other users, who need it not


def run_tools(
    calls: Sequence[tuple],
    *,
    before: Callable[[], None] | None = None,
    **changes: str,
) -> list[dict]:
    """Call the main functions of tools one after another in one other process.

    Parameters
    ----------
    calls : of each the tool, its arguments, and changes to the environment where there are any.
    before : called in the other process before it becomes python.
    changes : to the environment of all.

    Returns
    -------
    list of dict
        ``code``, ``error`` (text of a LungDetError or exit) and ``out`` of each call.

    Raises
    ------
    AssertionError
        If one ends with any other exception: users would see a traceback.
    """
    order = json.dumps([[c[0], [str(a) for a in c[1]], *(c[2:] or [{}])] for c in calls])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("call_tools.py"))],
        input=order,
        capture_output=True,
        text=True,
        env=environment(**changes),
        preexec_fn=before,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
