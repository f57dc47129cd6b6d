import pytest

from lungdet_mmdet.runs.workplace import find_workplace


@pytest.mark.reliability("same bytes for any number of workers")
@pytest.mark.parametrize("workers", [1, 2])
def test_every_worker_is_set_up_alike(functions, workers):
    place = find_workplace(workers, setup=functions.note_process)
    with place.make_executor() as pool:
        assert pool.submit(functions.process_was_noted, functions.Job("a")).result()
