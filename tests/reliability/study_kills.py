"""kill -9 at random moments of whole runs: nothing is lost, and running again ends the same.

Not part of the normal suite (``make reliability``). Each run is killed in a twentieth of its time
of its own, at a seeded random moment in it. Odd numbers kill all processes at once, as when a
machine dies; even ones the main process alone, whose workers must leave by themselves.
"""

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.reliability.outputs import assert_same_training, files_of, finished, half_made
from tests.reliability.tool_runs import (
    Undisturbed,
    environment,
    infer_command,
    prepare_command,
    run,
    train_command,
)

KILLS = 20
# Before, python imports packages.
FIRST_SHARE = 0.2


def is_killed(argv: list[str], *, after_s: float, all_processes: bool) -> bool:
    """Run, and kill after so many seconds; False if the run ended before."""
    process = subprocess.Popen(
        argv,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        if all_processes:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        return process.wait() == -signal.SIGKILL
    return False


def kill_one(what: str, number: int, argv: list[str], out: Path, whole: Undisturbed) -> None:
    share = (number + random.Random(f"{what} {number}").random()) / KILLS
    after_s = whole.seconds * (FIRST_SHARE + (1 - FIRST_SHARE) * share)
    while not is_killed(argv, after_s=after_s, all_processes=number % 2 == 1):
        shutil.rmtree(out)
        after_s *= 0.95  # the machine was less busy than in the undisturbed run


@pytest.mark.reliability("kill -9 of prepare_luna16.py at a random moment, then run again")
@pytest.mark.parametrize("number", range(KILLS))
def test_prepare(inputs, prepared, tmp_path, number):
    out = tmp_path / "out"
    kill_one("prepare", number, prepare_command(inputs, out, 2), out, prepared)
    kept = finished(out, "slabs/*/scan.json")
    run(prepare_command(inputs, out, 2))
    assert kept.items() <= finished(out, "slabs/*/scan.json").items()
    assert files_of(out) == files_of(prepared.out)
    assert half_made(out) == []


@pytest.mark.reliability("kill -9 of infer.py at a random moment, then run again")
@pytest.mark.parametrize("number", range(KILLS))
def test_infer(inputs, found, tmp_path, number):
    out = tmp_path / "out"
    # One process, or two workers as well: the results are to be the same.
    workers = 2 if number % 5 == 0 else 0
    kill_one("infer", number, infer_command(inputs, out, workers), out, found)
    kept = finished(out, "*/candidates.json")
    run(infer_command(inputs, out, 0))
    assert kept.items() <= finished(out, "*/candidates.json").items()
    assert files_of(out) == files_of(found.out)
    assert half_made(out) == []


@pytest.mark.reliability("kill -9 of train.py at a random moment, then --resume (to 1e-6)")
@pytest.mark.parametrize("number", range(KILLS))
def test_train(inputs, trained, tmp_path, number):
    out = tmp_path / "out"
    kill_one("train", number, train_command(inputs, out), out, trained)
    run(train_command(inputs, out))
    assert_same_training(out, trained.out)
    assert half_made(out) == []
