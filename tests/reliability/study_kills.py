"""kill -9 at random moments of whole runs: nothing is lost, and running again ends the same.

Not part of the normal suite (``make reliability``). Each run is killed in a twentieth of its time
of its own, at a seeded random moment in it. Odd numbers kill all processes at once, as when a
machine dies; even ones the main process alone, whose workers must leave by themselves.
"""

import random
import shutil
import time

import pytest

from tests.reliability import forked_runs
from tests.reliability.forked_runs import CommandLine, Undisturbed, is_killed, run, timed
from tests.reliability.outputs import assert_same_training, files_of, finished, half_made

KILLS = 20


@pytest.fixture(scope="module", autouse=True)
def imported():
    forked_runs.import_all()


def kill_one(what: str, number: int, line: CommandLine, whole: Undisturbed) -> None:
    share = (number + random.Random(f"{what} {number}").random()) / KILLS
    seconds = whole.seconds
    began = time.monotonic()
    while not is_killed(line, after_s=seconds * share, all_processes=number % 2 == 1):
        # The machine was busier in the undisturbed run.
        seconds = min(seconds * 0.9, time.monotonic() - began)
        shutil.rmtree(line.out)
        began = time.monotonic()


def workers_of(number: int) -> int:
    """Two processes in every fourth run: the results are to be the same."""
    return 2 if number % 4 == 0 else 0


@pytest.fixture(scope="module")
def prepared(inputs, tmp_path_factory):
    return timed(forked_runs.prepare(inputs, tmp_path_factory.mktemp("whole") / "out"))


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory):
    return timed(forked_runs.infer(inputs, tmp_path_factory.mktemp("whole") / "out"))


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return timed(forked_runs.train(inputs, tmp_path_factory.mktemp("whole") / "out"))


@pytest.mark.reliability("kill -9 of prepare_luna16.py at a random moment, then run again")
@pytest.mark.parametrize("number", range(KILLS))
def test_prepare(inputs, prepared, tmp_path, number):
    line = forked_runs.prepare(inputs, tmp_path / "out", workers_of(number))
    kill_one("prepare", number, line, prepared)
    kept = finished(line.out, "slabs/*/scan.json")
    run(line)
    assert kept.items() <= finished(line.out, "slabs/*/scan.json").items()
    assert files_of(line.out) == files_of(prepared.out)
    assert half_made(line.out) == []


@pytest.mark.reliability("kill -9 of infer.py at a random moment, then run again")
@pytest.mark.parametrize("number", range(KILLS))
def test_infer(inputs, found, tmp_path, number):
    line = forked_runs.infer(inputs, tmp_path / "out", workers_of(number))
    kill_one("infer", number, line, found)
    kept = finished(line.out, "*/candidates.json")
    run(line)
    assert kept.items() <= finished(line.out, "*/candidates.json").items()
    assert files_of(line.out) == files_of(found.out)
    assert half_made(line.out) == []


@pytest.mark.reliability("kill -9 of train.py at a random moment, then --resume (to 1e-6)")
@pytest.mark.parametrize("number", range(KILLS))
def test_train(inputs, trained, tmp_path, number):
    line = forked_runs.train(inputs, tmp_path / "out")
    kill_one("train", number, line, trained)
    run(line)
    assert_same_training(line.out, trained.out)
    assert half_made(line.out) == []
