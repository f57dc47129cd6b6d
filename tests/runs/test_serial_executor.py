import pytest

from lungdet_mmdet.runs.workplace import SerialExecutor


def test_a_call_is_done_when_it_is_handed_over():
    done = []
    future = SerialExecutor().submit(done.append, 1)
    assert done == [1]
    assert future.done()


def test_an_error_comes_with_the_future():
    future = SerialExecutor().submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result()
