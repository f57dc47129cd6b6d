import errno
import json
import os
from contextlib import contextmanager

import pytest

from lungdet_mmdet.runs import atomic_files
from lungdet_mmdet.runs import atomic_files as advisory_lock
from lungdet_mmdet.runs.atomic_files import (
    DiskFullError,
    OutputError,
    replacing_folder,
    sweep_leftovers,
    write_bytes,
    write_json,
)

pytestmark = pytest.mark.reliability("files and folders replaced as a whole")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_its_parents(tmp_path):
    write_bytes(tmp_path / "a" / "b.bin", b"12")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"12"
    assert names(tmp_path / "a") == ["b.bin"]


def test_json_keeps_order_and_letters(tmp_path):
    write_json(tmp_path / "x.json", {"b": "ü", "a": [1]})
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"b": "ü", "a": [1]}
    assert text.index('"b"') < text.index('"a"')
    assert "ü" in text


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", float("nan"))


def test_a_full_disk_keeps_the_old_file_and_names_the_remedy(tmp_path, monkeypatch):
    target = tmp_path / "x.bin"
    target.write_bytes(b"old")

    def full(source, destination):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskFullError, match=r"x\.bin.*No space left.*free some space"):
        write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another output"):
        write_bytes(tmp_path / "file" / "x.bin", b"")


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path):
    old = tmp_path / "scan"
    old.mkdir()
    (old / "stale.png").touch()
    with replacing_folder(old) as folder:
        (folder / "new.png").write_bytes(b"1")
        assert names(old) == ["stale.png"]
    assert names(old) == ["new.png"]
    assert names(tmp_path) == ["scan"]


@contextmanager
def _fails_after_one_file(target):
    with replacing_folder(target) as folder:
        (folder / "new.png").touch()
        raise KeyError("x")
    yield


def test_an_error_leaves_the_old_folder_and_no_litter(tmp_path):
    old = tmp_path / "scan"
    old.mkdir()
    (old / "stale.png").touch()
    with pytest.raises(KeyError), _fails_after_one_file(old):
        pass
    assert names(old) == ["stale.png"]
    assert names(tmp_path) == ["scan"]


def test_a_full_disk_while_filling_a_folder_is_told_as_such(tmp_path):
    with pytest.raises(DiskFullError, match="scan"), replacing_folder(tmp_path / "scan"):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert names(tmp_path) == []


def test_only_half_made_things_are_swept(tmp_path):
    (tmp_path / ".scan.lungdet-x1.partial").mkdir()
    (tmp_path / ".scan.lungdet-x1.partial" / "000.png").touch()
    (tmp_path / ".manifest.json.lungdet-x2.tmp").touch()
    (tmp_path / "scan").mkdir()
    (tmp_path / "notes.tmp").touch()
    (tmp_path / ".lock").touch()
    assert sweep_leftovers(tmp_path) == 2
    assert names(tmp_path) == [".lock", "notes.tmp", "scan"]


def test_only_the_leftovers_of_one_scan_are_swept_where_asked_for(tmp_path):
    for name in (".1.2.lungdet-x1.partial", ".1.2.3.lungdet-x2.partial", ".1.lungdet-x3.partial"):
        (tmp_path / name).mkdir()
    assert sweep_leftovers(tmp_path, of="1.2") == 1
    assert names(tmp_path) == [".1.2.3.lungdet-x2.partial", ".1.lungdet-x3.partial"]


def test_what_a_process_is_writing_is_not_swept(tmp_path):
    with replacing_folder(tmp_path / "scan") as folder:
        (folder / "000.png").touch()
        assert sweep_leftovers(tmp_path) == 0
    assert names(tmp_path / "scan") == ["000.png"]


def _killed_between_the_renames(tmp_path, monkeypatch):
    """Leave behind what a kill does after the old folder was moved aside."""
    rename = os.rename
    renamed = []

    def only_once(source, destination):
        if renamed:
            raise SystemExit  # as a kill: nothing of the clean-up of an OSError is done
        renamed.append(rename(source, destination))

    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "old.png").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", only_once)
        with pytest.raises(SystemExit), replacing_folder(tmp_path / "scan") as folder:
            (folder / "new.png").touch()


def test_a_folder_moved_aside_by_a_killed_run_is_put_back(tmp_path, monkeypatch):
    _killed_between_the_renames(tmp_path, monkeypatch)
    assert not (tmp_path / "scan").exists()
    assert sweep_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["scan"]
    assert names(tmp_path / "scan") == ["old.png"]


def test_a_folder_moved_aside_is_not_put_back_over_its_successor(tmp_path, monkeypatch):
    _killed_between_the_renames(tmp_path, monkeypatch)
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "newer.png").touch()
    sweep_leftovers(tmp_path)
    assert names(tmp_path) == ["scan"]
    assert names(tmp_path / "scan") == ["newer.png"]


def test_a_rename_that_fails_puts_the_old_folder_back(tmp_path, monkeypatch):
    rename = os.rename

    def refused(source, destination):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, destination)

    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "old.png").touch()
    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(OutputError, match="Input/output"), replacing_folder(tmp_path / "scan"):
        pass
    assert names(tmp_path) == ["scan"]
    assert names(tmp_path / "scan") == ["old.png"]


def test_a_folder_that_is_not_there_needs_no_sweeping(tmp_path):
    assert sweep_leftovers(tmp_path / "none") == 0


def test_a_users_own_hidden_files_are_never_swept(tmp_path):
    (tmp_path / ".project.old.before").mkdir()
    (tmp_path / ".notes.2026.tmp").write_text("mine")
    (tmp_path / ".data.abcdefgh.partial").mkdir()
    assert sweep_leftovers(tmp_path) == 0
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("mask", [0o077, 0o022, 0o007])
def test_the_users_umask_holds(tmp_path, monkeypatch, mask):
    monkeypatch.setattr(atomic_files, "_UMASK", mask)
    write_bytes(tmp_path / "a.txt", b"x")
    with replacing_folder(tmp_path / "folder"):
        pass
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


def test_what_no_lock_can_be_asked_of_is_left_alone_for_a_day(tmp_path, monkeypatch):
    # As on network file systems that refuse to lock what is open for reading only.
    def refuses(handle, operation):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(advisory_lock.fcntl, "flock", refuses)
    folder = tmp_path / ".scan.lungdet-x1.partial"
    folder.mkdir()
    assert sweep_leftovers(tmp_path) == 0
    os.utime(folder, (0, 0))
    assert sweep_leftovers(tmp_path) == 1
