"""Whole runs of the command lines, repeated: the same bytes. Part of ``make reliability``."""

import pytest

from tests.reliability import forked_runs
from tests.reliability.forked_runs import run
from tests.reliability.outputs import assert_same_training, files_of


@pytest.fixture(scope="module", autouse=True)
def imported():
    forked_runs.import_all()


@pytest.mark.reliability("same bytes for 1, 2 and 3 workers, by whole runs")
@pytest.mark.parametrize("tool", [forked_runs.prepare, forked_runs.infer])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers(inputs, tmp_path, tool, workers):
    (tmp_path / "again").mkdir()
    first, again = tool(inputs, tmp_path / "first"), tool(inputs, tmp_path / "again" / "o", workers)
    run(first)
    run(again)
    assert files_of(again.out) == files_of(first.out)


@pytest.mark.reliability("same seed, same training (to 1e-6)")
@pytest.mark.parametrize("number", range(3))
def test_the_same_training(inputs, tmp_path, number):
    (tmp_path / "again").mkdir()
    first = forked_runs.train(inputs, tmp_path / "first")
    again = forked_runs.train(inputs, tmp_path / "again" / "o")
    run(first)
    run(again)
    assert_same_training(again.out, first.out)
