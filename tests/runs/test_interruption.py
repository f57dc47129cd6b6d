"""Interrupts and kills of a real program with workers in the midst of scans."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet_mmdet.runs.command_line import Terminated, sigterm_interrupts

PROGRAM = Path(__file__).parent / "for_workers" / "long_run.py"
DEADLINE_S = 60


class LongRun:
    """The program, started: two scans finished and noted, two workers in the midst of one."""

    def __init__(self, folder: Path, repository: Path) -> None:
        name = folder / "pipe"
        os.mkfifo(name)
        self.pipe = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        # A writer of our own until the workers have theirs, or the pipe would count as ended.
        own = os.open(name, os.O_WRONLY)
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repository)},
            start_new_session=True,
        )
        begun = 0
        while begun < 4:
            begun += len(self.read())
        os.close(own)

    def read(self) -> bytes:
        """Return what workers wrote; b"" once the last of them is gone."""
        ready, _, _ = select.select([self.pipe], [], [], DEADLINE_S)
        assert ready, "the workers neither began nor ended"
        return os.read(self.pipe, 10)

    def workers_are_gone(self) -> bool:
        return self.read() == b""

    def close(self) -> None:
        os.close(self.pipe)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def long_run(tmp_path, repository):
    run = LongRun(tmp_path, repository)
    yield run
    run.close()


@pytest.mark.reliability("Ctrl-C, SIGTERM, a parent killed")
def test_ctrl_c_ends_workers_and_keeps_results_without_tracebacks(long_run):
    os.killpg(long_run.process.pid, signal.SIGINT)  # as a terminal does: to all processes
    out, err = long_run.process.communicate(timeout=DEADLINE_S)
    assert long_run.process.returncode == 130
    assert out == "finished: quick quick failed:\n"
    assert "Traceback" not in err
    assert long_run.workers_are_gone()


@pytest.mark.reliability("Ctrl-C, SIGTERM, a parent killed")
def test_sigterm_to_the_parent_ends_workers_and_keeps_results(long_run):
    long_run.process.terminate()
    out, err = long_run.process.communicate(timeout=DEADLINE_S)
    assert long_run.process.returncode == 143
    assert out == "finished: quick quick failed:\n"
    assert "Traceback" not in err
    assert long_run.workers_are_gone()


@pytest.mark.reliability("Ctrl-C, SIGTERM, a parent killed")
def test_workers_do_not_outlive_a_parent_that_is_killed(long_run):
    long_run.process.kill()
    assert long_run.workers_are_gone()


def test_sigterm_is_an_interrupt_only_within_the_block():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated), sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
