"""Runs on real Dask clusters: the same results, lost workers and schedulers survived."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("distributed")

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs import workplace
from lungdet_mmdet.runs.scan_runs import run_per_scan
from lungdet_mmdet.runs.workplace import DaskCluster, find_workplace, process_pool

FOR_WORKERS = Path(__file__).parent / "for_workers"


def tell_nobody(line):
    pass


@pytest.fixture(scope="module")
def address():
    """Two worker processes of one thread each."""
    from distributed import LocalCluster

    sys.path.insert(0, str(FOR_WORKERS))  # spawned workers get this process's path
    try:
        with LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            dashboard_address=None,
            silence_logs="CRITICAL",
        ) as cluster:
            yield cluster.scheduler_address
    finally:
        sys.path.remove(str(FOR_WORKERS))


@pytest.fixture
def cluster(address):
    return DaskCluster(address, tell=tell_nobody)


def jobs_of(functions, uids, folder=""):
    return [functions.Job(uid, str(folder)) for uid in uids]


def test_scans_fail_as_they_do_locally(functions, cluster):
    jobs = jobs_of(functions, ["a", "bad", "odd", "big", "z"])
    there = run_per_scan(functions.refuse_bad, jobs, cluster, max_at_work=2)
    here = run_per_scan(functions.refuse_bad, jobs, process_pool(0))

    def plain(run):
        return sorted((f.seriesuid, f.stage, f.reason) for f in run.failures)

    assert sorted(there.results) == sorted(here.results) == ["a", "z"]
    assert plain(there) == plain(here)
    assert there.exit_code == 1


def test_a_full_disk_ends_the_run(functions, cluster, tmp_path):
    uids = [*"abcdefgh"]
    run = run_per_scan(functions.fill_disk, jobs_of(functions, uids, tmp_path), cluster)
    assert run.stopped_by.seriesuid == "b"
    assert len(list(tmp_path.iterdir())) < len(uids)


@pytest.mark.reliability("Dask workers and schedulers killed")
def test_a_worker_killed_in_the_midst_of_a_scan_costs_a_second_attempt(
    functions, cluster, tmp_path
):
    jobs = jobs_of(functions, ["a", "once", "b"], tmp_path)
    run = run_per_scan(functions.kill_worker, jobs, cluster, max_at_work=2)
    assert sorted(run.results) == ["a", "b", "once"]
    assert run.failures == []
    assert (tmp_path / "once").stat().st_size == 2


def test_setup_runs_in_the_workers(functions, address, tmp_path, monkeypatch):
    cluster = DaskCluster(address, functions.note_process, tell_nobody)
    jobs = jobs_of(functions, "ab", tmp_path)
    run = run_per_scan(functions.process_was_noted, jobs, cluster, max_at_work=2)
    assert run.results == [True, True]


def test_nothing_answers(monkeypatch):
    monkeypatch.setattr(workplace, "CONNECT_S", 0.2)
    with pytest.raises(LungDetError, match="no Dask scheduler answers.*dask scheduler"):
        DaskCluster("tcp://127.0.0.1:9")()


def test_workers_must_see_the_scans(address, tmp_path):
    with pytest.raises(LungDetError, match=r"does not see .*nowhere.*shared file system"):
        find_workplace(0, dask=address, read_from=[tmp_path / "nowhere"], tell=tell_nobody)


def test_a_cluster_that_is_in_order_is_taken(address, tmp_path):
    told = []
    place = find_workplace(
        0, dask=address, read_from=[tmp_path], write_to=tmp_path / "out", tell=told.append
    )
    assert place.workers == 128
    # One of the two may still be on its way back after being killed.
    assert told[-1].startswith(f"{address}: ")
    assert told[-1].endswith(" scans at a time, more as workers come")
    assert list((tmp_path / "out").iterdir()) == []


def test_another_version_at_a_worker_is_refused(address, tmp_path, monkeypatch):
    monkeypatch.setattr("lungdet_mmdet.__version__", "0.0.1")
    with pytest.raises(LungDetError, match=r"has lungdet_mmdet .* \(here 0\.0\.1\)"):
        find_workplace(0, dask=address, tell=tell_nobody)


class OwnCluster:
    """A scheduler on a port of its own and workers, all killed without warning and not replaced.

    One death of a worker is enough for Dask to give a call up.
    """

    def __init__(self, repository):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(repository), str(FOR_WORKERS)]),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
        }
        self.processes = []

    def start(self, *, workers=1):
        self._run("dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        for _ in range(workers):
            self._run("dask_worker", self.address, "--nthreads", "1", "--no-nanny")

    def _run(self, command, *arguments):
        call = [sys.executable, "-m", f"distributed.cli.{command}", *arguments, "--no-dashboard"]
        self.processes.append(
            subprocess.Popen(
                call,
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def kill(self):
        for process in self.processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.processes.clear()


@pytest.fixture
def own_cluster(repository, monkeypatch):
    # Processes are slow to start on a machine that is busy with something else.
    monkeypatch.setattr(workplace, "CONNECT_S", 300.0)
    cluster = OwnCluster(repository)
    yield cluster
    cluster.kill()


@pytest.mark.reliability("Dask workers and schedulers killed")
def test_a_killed_scheduler_costs_only_the_scans_at_work(functions, own_cluster, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    own_cluster.start()
    runs = []

    def work():
        jobs = jobs_of(functions, ["first", "held", "last"], tmp_path)
        cluster = DaskCluster(own_cluster.address, tell=tell_nobody)
        runs.append(run_per_scan(functions.hold_the_first_attempt, jobs, cluster))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with (tmp_path / "pipe").open("rb") as pipe:
        assert pipe.read() == b"."  # a scan is in its midst
    own_cluster.kill()
    own_cluster.start()
    thread.join(timeout=300)
    assert runs, "the run did not come to an end"
    (run,) = runs
    assert sorted(run.results) == ["first", "held", "last"]
    assert run.failures == []
    # The first one's result may have been on its way when the scheduler died.
    attempts = {uid: (tmp_path / uid).stat().st_size for uid in ("first", "held", "last")}
    assert attempts["held"] == 2
    assert attempts["first"] in (1, 2)
    assert attempts["last"] == 1


@pytest.mark.reliability("Dask workers and schedulers killed")
def test_only_the_scan_that_kills_its_workers_is_given_up(functions, own_cluster, tmp_path):
    own_cluster.start(workers=4)
    jobs = jobs_of(functions, ["a", "killer", "b"], tmp_path)
    cluster = DaskCluster(own_cluster.address, tell=tell_nobody)
    run = run_per_scan(functions.kill_worker, jobs, cluster, max_at_work=3)
    assert sorted(run.results) == ["a", "b"]
    (failure,) = run.failures
    assert (failure.seriesuid, failure.stage) == ("killer", "worker")
    # Once among others, then twice alone.
    assert (tmp_path / "killer").stat().st_size == 3
