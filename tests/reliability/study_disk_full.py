"""Disks that fill up in the midst of whole runs: one sentence, and going on once there is room.

Not part of the normal suite (``make reliability``). The disk is a small tmpfs, which needs root.
"""

import subprocess
from contextlib import contextmanager

import pytest

from tests.reliability import forked_runs
from tests.reliability.forked_runs import run, timed
from tests.reliability.outputs import assert_same_training, files_of, finished, half_made

ROOM = "512m"
SHARES = (0.02, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)


@pytest.fixture(scope="module", autouse=True)
def imported():
    forked_runs.import_all()


@pytest.fixture(scope="module")
def prepared(inputs, tmp_path_factory):
    return timed(forked_runs.prepare(inputs, tmp_path_factory.mktemp("whole") / "out")).out


@pytest.fixture(scope="module")
def found(inputs, tmp_path_factory):
    return timed(forked_runs.infer(inputs, tmp_path_factory.mktemp("whole") / "out")).out


@pytest.fixture(scope="module")
def trained(inputs, tmp_path_factory):
    return timed(forked_runs.train(inputs, tmp_path_factory.mktemp("whole") / "out")).out


def disk_options(whole, share):
    """Return options of a tmpfs that takes this share of a result, or half of its files."""
    if share == "files":
        return f"size={ROOM},nr_inodes={len(list(whole.rglob('*'))) // 2}"
    # A tmpfs counts in pages.
    size = sum(-(-p.stat().st_size // 4096) * 4096 for p in whole.rglob("*") if p.is_file())
    return f"size={max(8192, int(share * size))}"


@contextmanager
def small_disk(folder, options):
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def filled_and_gone_on(tmp_path, options, line_for, pattern, codes=(1,)):
    """Run on a disk that is too small, then with room; gives the folder of the result."""
    with small_disk(tmp_path / "disk", options) as disk:
        (tmp_path / "said").mkdir()
        line = line_for(disk / "out", tmp_path / "said" / "log.txt")
        told = run(line, codes=codes)
        assert "No space left on device" in told, told[-3000:]
        assert "free some space" in told, told[-3000:]
        assert "Traceback" not in told, told[-3000:]
        kept = finished(line.out, pattern)
        room = f"remount,size={ROOM},nr_inodes=10000"
        subprocess.run(["mount", "-o", room, str(disk)], check=True)
        run(line)
        assert kept.items() <= finished(line.out, pattern).items()
        assert half_made(line.out) == []
        yield line.out


@pytest.mark.reliability("disk full during prepare_luna16.py, then run again with room")
@pytest.mark.parametrize("share", [*SHARES, "files"])
def test_prepare(inputs, prepared, tmp_path, share):
    def line_for(out, log):
        return forked_runs.prepare(inputs, out, 2 if share == 0.6 else 0, log=log)

    options = disk_options(prepared, share)
    with filled_and_gone_on(tmp_path, options, line_for, "slabs/*/scan.json") as out:
        assert files_of(out) == files_of(prepared)


@pytest.mark.reliability("disk full during infer.py, then run again with room")
@pytest.mark.parametrize("share", [*SHARES, "files"])
def test_infer(inputs, found, tmp_path, share):
    def line_for(out, log):
        return forked_runs.infer(inputs, out, 2 if share == 0.6 else 0, log=log)

    options = disk_options(found, share)
    # Where the page alone found no room, the scan is done, and done again for its page.
    codes, pattern = (0, 1), "*/report.html"
    with filled_and_gone_on(tmp_path, options, line_for, pattern, codes) as out:
        assert files_of(out) == files_of(found)


@pytest.mark.reliability("disk full during train.py, then --resume with room")
@pytest.mark.parametrize("share", SHARES)
def test_train(inputs, trained, tmp_path, share):
    def line_for(out, log):
        return forked_runs.train(inputs, out, log=log)

    options = disk_options(trained, share)
    with filled_and_gone_on(tmp_path, options, line_for, "none") as out:
        assert_same_training(out, trained)
