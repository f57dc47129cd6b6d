"""Runs the steps of a longer job, each a command line of this repository, one after another."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CommandStep:
    """One command line.

    Parameters
    ----------
    what : what it does, for the reader.
    command : a script of the repository and its arguments, as one would type them after "python".
    result : a file that stands there when the step is done, so that a later run passes over it;
        None for a step that finds out by itself what is left to do.
    """

    what: str
    command: str
    result: Path | None = None


def run_command_steps(steps: Sequence[CommandStep], *, root: Path) -> int:
    """Run the steps in `root` and stop at the first that fails.

    Returns
    -------
    int
        Exit code of the failed step, or 0.
    """
    for number, step in enumerate(steps, start=1):
        print(f"\n=== {number}/{len(steps)}  {step.what}\n$ python {step.command}", flush=True)
        if step.result is not None and step.result.exists():
            print(f"--- done before: {step.result}")
            continue
        start = time.monotonic()
        code = subprocess.call([sys.executable, *shlex.split(step.command)], cwd=root)
        if code:
            print(f"step {number} failed with exit code {code}", file=sys.stderr)
            return code
        print(f"--- {time.monotonic() - start:.0f} s", flush=True)
    return 0
