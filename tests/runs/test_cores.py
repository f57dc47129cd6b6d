import os
import platform
import subprocess
import sys

import pytest

from lungdet_mmdet.runs import command_line


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 4),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),  # one and a half cores: two threads have work
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu.max": "nonsense"}, 4),
    ],
)
def test_cores_by_affinity_and_quota(four_cores, tmp_path, files, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert command_line.usable_cores(tmp_path) == expected


def test_threads_sleep_and_are_no_more_than_the_cores(four_cores, monkeypatch):
    monkeypatch.setattr(command_line, "usable_cores", lambda: 4)
    for name in (command_line.WAIT, command_line.THREADS):
        monkeypatch.setenv(name, "")  # so that monkeypatch puts back what was there
        monkeypatch.delenv(name)
    command_line.use_cores_calmly()
    assert os.environ[command_line.WAIT] == "PASSIVE"
    assert os.environ[command_line.THREADS] == "4"
    assert command_line.describe_cores() == "4 of 64 cores, OMP_NUM_THREADS=4, OpenMP waits passive"


def test_what_the_user_set_stays(four_cores, monkeypatch):
    monkeypatch.setenv(command_line.WAIT, "ACTIVE")
    monkeypatch.setenv(command_line.THREADS, "7")
    command_line.use_cores_calmly()
    assert (os.environ[command_line.WAIT], os.environ[command_line.THREADS]) == ("ACTIVE", "7")


@pytest.mark.parametrize(
    ("usable", "trainings", "expected"),
    [(1, 1, 1), (2, 1, 1), (8, 1, 7), (64, 1, 8), (64, 8, 7), (4, 8, 1)],
)
def test_loading_processes(usable, trainings, expected):
    assert command_line.loading_processes(usable, trainings) == expected


MAKE_TENSORS = """
import resource
import numpy as np
from lungdet_mmdet.runs.command_line import keep_freed_memory
{before}
blocks = lambda: [np.ones(3_000_000) for _ in range(3)]
blocks(), blocks(), blocks()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep it")
def test_freed_memory_is_not_cleared_again():
    faults = [
        int(subprocess.check_output([sys.executable, "-c", MAKE_TENSORS.format(before=before)]))
        for before in ("", "keep_freed_memory()")
    ]
    assert faults[1] < faults[0] / 10
