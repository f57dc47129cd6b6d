from concurrent.futures import ThreadPoolExecutor

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.scan_runs import run_per_scan, tally
from lungdet_mmdet.runs.workplace import process_pool


def jobs_of(functions, uids, folder=""):
    return [functions.Job(uid, str(folder)) for uid in uids]


def test_every_scan_is_done_in_this_process(functions):
    seen = []
    run = run_per_scan(
        functions.uid_of, jobs_of(functions, "abc"), process_pool(0), on_result=seen.append
    )
    assert run.results == ["a", "b", "c"]
    assert seen == ["a", "b", "c"]
    assert run.exit_code == 0


def test_no_scans_make_an_empty_summary(functions):
    run = run_per_scan(functions.uid_of, [], process_pool(2), max_at_work=2)
    assert (run.results, run.failures, run.exit_code) == ([], [], 0)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.reliability("a worker dies on a scan")
def test_a_bad_scan_fails_alone_and_with_its_reason(functions, workers):
    uids = ["a", "bad", "odd", "big", "z"]
    run = run_per_scan(functions.refuse_bad, jobs_of(functions, uids), process_pool(workers))
    assert sorted(run.results) == ["a", "z"]
    assert run.exit_code == 1
    bad, odd, big = run.failures
    assert (bad.stage, bad.reason, bad.details) == ("input", "bad: unusable", "")
    # The error cannot be unpickled; as text it still arrives, and the pool lives on.
    assert (odd.stage, odd.reason) == ("UnpicklableError", "UnpicklableError: one and two")
    assert "in refuse_bad" in odd.details
    assert big.stage == "memory"
    assert "fewer --workers" in big.reason


@pytest.mark.reliability("a worker dies on a scan")
def test_only_the_scan_that_kills_its_worker_twice_is_given_up(functions, tmp_path):
    uids = ["a", "killer", "b", "once", "c", "d"]
    run = run_per_scan(
        functions.kill_worker, jobs_of(functions, uids, tmp_path), process_pool(2), max_at_work=2
    )
    assert sorted(run.results) == ["a", "b", "c", "d", "once"]
    (failure,) = run.failures
    assert (failure.seriesuid, failure.stage) == ("killer", "worker")
    assert "died on this scan twice" in failure.reason
    attempts = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert attempts["killer"] in (2, 3)  # twice alone, and perhaps once among the others
    assert attempts["once"] == 2


@pytest.mark.reliability("a worker dies on a scan")
def test_workers_that_die_at_their_start_end_the_run_with_a_remedy(functions):
    with pytest.raises(LungDetError, match="try --workers 0"):
        run_per_scan(
            functions.uid_of,
            jobs_of(functions, ["a", "b", "c", "d"]),
            process_pool(1, functions.die_at_start),
        )


@pytest.mark.reliability("disk full, told once")
def test_a_full_disk_stops_the_run_instead_of_failing_every_scan(functions, tmp_path):
    run = run_per_scan(
        functions.fill_disk, jobs_of(functions, "abcdefgh", tmp_path), process_pool(0)
    )
    assert run.stopped_by is not None
    assert run.stopped_by.stage == "disk full"
    assert run.exit_code == 1
    # One more may have been handed over with the one that failed, none after it.
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b", "c"}


def test_jobs_handed_over_are_bounded_by_the_number_of_workers(functions):
    most = 0

    class Counting(ThreadPoolExecutor):
        open_calls = 0

        def submit(self, *arguments):
            nonlocal most
            future = super().submit(*arguments)
            self.open_calls += 1
            most = max(most, self.open_calls)
            return future

    pool = Counting(3)

    def settle(uid):
        pool.open_calls -= 1

    run = run_per_scan(
        functions.uid_of,
        jobs_of(functions, map(str, range(50))),
        lambda: pool,
        max_at_work=3,
        on_result=settle,
    )
    assert len(run.results) == 50
    assert most <= 6  # three at work and three in the queue


def test_an_interrupt_in_this_process_keeps_what_is_finished(functions):
    def interrupted_at_b(job):
        if job.seriesuid == "b":
            raise KeyboardInterrupt
        return job.seriesuid

    done = []
    run = run_per_scan(
        interrupted_at_b, jobs_of(functions, "abc"), process_pool(0), on_result=done.append
    )
    assert run.interrupted
    assert run.exit_code == 130
    assert "c" not in done


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(LungDetError, match="workers is -1"):
        process_pool(-1)


def test_one_line_says_what_became_of_all():
    line = tally("scans", done=3, before=1, failed=0, others={"left out": 2})

    assert line == "3 scans done, 1 done before, 0 failed, 2 left out"
