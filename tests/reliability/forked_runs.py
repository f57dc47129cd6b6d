"""Whole runs of command lines, each in a process forked from one that has the imports behind it.

So that many runs can be killed in little time, and none of the kills is spent on imports.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import time
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.reliability.tool_runs import REPOSITORY

_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class CommandLine:
    """A tool, its arguments, the folder that it writes, and a file for what it says."""

    tool: str
    arguments: tuple
    out: Path
    log: Path


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to."""

    out: Path
    seconds: float


def import_all() -> None:
    """Do the imports of all tools, and nothing that starts a thread."""
    from mmdet.utils import register_all_modules

    import lungdet_mmdet.apis.config_file  # noqa: F401

    register_all_modules(init_default_scope=False)


def start(line: CommandLine) -> ForkProcess:
    """Start a run in a group of processes of its own."""
    process = _FORK.Process(target=_become, args=(line,))
    process.start()
    return process


def _become(line: CommandLine) -> None:
    os.setsid()
    with line.log.open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115  (to the end)
    from lungdet_mmdet.preparation.scan_job import set_threads

    set_threads(1)
    sys.argv = [line.tool, *map(str, line.arguments)]
    runpy.run_path(str(REPOSITORY / line.tool), run_name="__main__")


def run(line: CommandLine, *, codes: tuple[int, ...] = (0,)) -> str:
    """Run to the end and expect one of some exit codes; return what was said."""
    process = start(line)
    process.join(600)
    told = line.log.read_text(errors="replace")
    assert process.exitcode in codes, told[-3000:]
    return told


def timed(line: CommandLine) -> Undisturbed:
    """Run to the good end, and say how long it took."""
    began = time.monotonic()
    run(line)
    return Undisturbed(line.out, time.monotonic() - began)


def is_killed(line: CommandLine, *, after_s: float, all_processes: bool) -> bool:
    """Run, and kill -9 after so many seconds; False if the run ended before."""
    process = start(line)
    process.join(after_s)
    if process.exitcode is not None:
        return False
    if all_processes:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _log(out: Path) -> Path:
    return out.with_name("log.txt")


def prepare(inputs, out: Path, workers: int = 0, log: Path | None = None) -> CommandLine:
    """Return the preparation of the three scans."""
    options = ("--config", inputs.prep_config, "--workers", workers)
    return CommandLine(
        "data_prep/prepare_luna16.py", (inputs.luna16, out, *options), out, log or _log(out)
    )


def infer(inputs, out: Path, workers: int = 0, log: Path | None = None) -> CommandLine:
    """Return the search for nodules in the three scans."""
    options = ("--checkpoint", inputs.model, "--out", out, "--workers", workers)
    return CommandLine("tools/infer.py", (inputs.luna16, *options), out, log or _log(out))


def train(inputs, out: Path, log: Path | None = None) -> CommandLine:
    """Return a training of three epochs, or what is left of it."""
    options = (inputs.train_config, "--work-dir", out, "--resume")
    return CommandLine("tools/train.py", options, out, log or _log(out))
