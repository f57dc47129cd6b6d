"""Disks that fill up in the midst of whole runs: one sentence, and going on once there is room.

Not part of the normal suite (``make reliability``). The disk is a small tmpfs, which needs root.
"""

import subprocess
from contextlib import contextmanager

import pytest

from tests.reliability.outputs import assert_same_training, files_of, finished, half_made
from tests.reliability.tool_runs import (
    environment,
    infer_command,
    prepare_command,
    run,
    train_command,
)

ROOM = "64m"
SHARES = (0.02, 0.15, 0.3, 0.5, 0.7, 0.85, 0.97)


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


def give_room(folder):
    options = f"remount,size={ROOM},nr_inodes=10000"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


def disk_usage(folder):
    """Bytes as a tmpfs counts them, in pages."""
    return sum(-(-p.stat().st_size // 4096) * 4096 for p in folder.rglob("*") if p.is_file())


def assert_stops_with_one_sentence(argv):
    done = subprocess.run(
        argv, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 1, done.stderr[-3000:]
    told = done.stdout + done.stderr
    assert "No space left on device" in told
    assert "free some space" in told
    assert "Traceback" not in told, told[-3000:]


@contextmanager
def filled_and_gone_on(tmp_path, options, argv_for, pattern):
    """Run on a disk that is too small, then with room; gives the folder of the result."""
    with small_disk(tmp_path / "disk", options) as disk:
        out = disk / "out"
        assert_stops_with_one_sentence(argv_for(out))
        kept = finished(out, pattern)
        give_room(disk)
        run(argv_for(out))
        assert kept.items() <= finished(out, pattern).items()
        assert half_made(out) == []
        yield out


def disk_options(whole, share):
    """Return options of a tmpfs that takes this share of a result, or half of its files."""
    if share == "files":
        return f"size={ROOM},nr_inodes={len(list(whole.rglob('*'))) // 2}"
    return f"size={max(4096, int(share * disk_usage(whole)))}"


@pytest.mark.reliability("disk full during prepare_luna16.py, then run again with room")
@pytest.mark.parametrize("share", [*SHARES, "files"])
def test_prepare(inputs, prepared, tmp_path, share):
    def argv(out):
        return prepare_command(inputs, out, 2)

    options = disk_options(prepared.out, share)
    with filled_and_gone_on(tmp_path, options, argv, "slabs/*/scan.json") as out:
        assert files_of(out) == files_of(prepared.out)


@pytest.mark.reliability("disk full during infer.py, then run again with room")
@pytest.mark.parametrize("share", [*SHARES, "files"])
def test_infer(inputs, found, tmp_path, share):
    def argv(out):
        return infer_command(inputs, out, 0)

    options = disk_options(found.out, share)
    with filled_and_gone_on(tmp_path, options, argv, "*/candidates.json") as out:
        assert files_of(out) == files_of(found.out)


@pytest.mark.reliability("disk full during train.py, then --resume with room")
@pytest.mark.parametrize("share", SHARES)
def test_train(inputs, trained, tmp_path, share):
    options = disk_options(trained.out, share)
    with filled_and_gone_on(tmp_path, options, lambda o: train_command(inputs, o), "none") as out:
        assert_same_training(out, trained.out)
