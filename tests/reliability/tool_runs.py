"""Command lines in processes of their own: cut off, without rights, without a network."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.reliability.conftest import Inputs

REPOSITORY = Path(__file__).resolve().parents[2]
# PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH let root pass all permission bits.
_DROP, _DAC = 24, (1, 2)


def command(tool: str, *arguments: object) -> list[str]:
    """Return the command line of a tool, e.g. ``command("tools/infer.py", ...)``."""
    return [sys.executable, str(REPOSITORY / tool), *map(str, arguments)]


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


@dataclass(frozen=True)
class Undisturbed:
    """A run that nobody killed."""

    out: Path
    seconds: float


def run(argv: list[str]) -> None:
    """Run a command line to its good end."""
    done = subprocess.run(
        argv, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def timed(argv: list[str], out: Path) -> Undisturbed:
    """Run a command line to its good end, and say how long it took."""
    began = time.monotonic()
    run(argv)
    return Undisturbed(out, time.monotonic() - began)


def prepare_command(inputs: Inputs, out: Path, workers: int) -> list[str]:
    options = ("--config", inputs.prep_config, "--workers", workers)
    return command("data_prep/prepare_luna16.py", inputs.luna16, out, *options)


def infer_command(inputs: Inputs, out: Path, workers: int) -> list[str]:
    options = ("--checkpoint", inputs.model, "--out", out, "--workers", workers)
    return command("tools/infer.py", inputs.luna16, *options)


def train_command(inputs: Inputs, out: Path) -> list[str]:
    return command("tools/train.py", inputs.train_config, "--work-dir", out, "--resume")
