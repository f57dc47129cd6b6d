import signal

import pytest

from lungdet_mmdet.runs.workplace import WorkerPool, _signals_held_back


def test_workers_do_not_hear_ctrl_c_themselves(functions):
    with WorkerPool(1) as pool:
        assert pool.submit(functions.interrupt_itself, functions.Job("a")).result(60) == "a"


def test_an_interrupt_while_a_worker_starts_is_late_but_not_lost():
    reached = []

    def start_interrupted():
        with _signals_held_back():
            signal.raise_signal(signal.SIGINT)
            reached.append("end of the block")

    with pytest.raises(KeyboardInterrupt):
        start_interrupted()
    assert reached == ["end of the block"]


def test_a_stopped_pool_takes_no_more_work(functions):
    pool = WorkerPool(1)
    assert pool.submit(functions.uid_of, functions.Job("a")).result(60) == "a"
    pool.stop()
    with pytest.raises(RuntimeError):
        pool.submit(functions.uid_of, functions.Job("b"))
