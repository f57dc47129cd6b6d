"""Command lines: one way to end, and several run one after the other."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import is_disk_full
from lungdet_mmdet.runs.cores import use_cores_calmly
from lungdet_mmdet.runs.executors import signal_behind


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Call `main` and leave with its exit code, 1 after an error, 130 after Ctrl-C.

    Before that it settles how threads wait, while no tool has loaded torch yet.
    Errors that name their remedy, and a full disk wherever it is met, are told without a traceback.
    """
    use_cores_calmly()
    try:
        code = main()
    except LungDetError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if not is_disk_full(error):
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {place}{error.strerror}; free some space and run the same command again")
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal_behind(error))
    sys.exit(code)


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
