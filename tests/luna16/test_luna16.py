"""The whole download against a small archive."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.download import DownloadSettings, download_luna16, needed_bytes
from lungdet_mmdet.luna16.folder import read_luna16_folder
from lungdet_mmdet.luna16.zenodo import RemoteFile

pytest.importorskip("pooch")


def settings(archive, **changes):
    told = changes.pop("told", [])
    fields = {"api": archive.api, "attempts": 2, "wait_s": 0.0, "tell": told.append}
    return DownloadSettings(**(fields | changes))


def tree(folder: Path) -> set:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_the_folder_is_what_the_preparation_reads(small_luna16, tmp_path):
    told = []
    fetched = download_luna16(tmp_path, [7, 0], settings(small_luna16, told=told))
    assert fetched == ["annotations.csv", "evaluationScript.zip", "subset0.zip", "subset7.zip"]
    assert {p for p in tree(tmp_path) if not p.startswith(".luna16")} == {
        "annotations.csv",
        "annotations_excluded.csv",
        "seriesuids.csv",
        "subset0/1.1.mhd",
        "subset0/1.1.raw",
        "subset0/1.2.mhd",
        "subset0/1.2.raw",
        "subset7/7.1.mhd",
        "subset7/7.1.raw",
    }
    (tmp_path / "annotations_excluded.csv").unlink()  # a stub without rows
    folder = read_luna16_folder(tmp_path)
    assert [(s.seriesuid, s.subset) for s in folder.scans] == [("1.1", 0), ("1.2", 0), ("7.1", 7)]
    assert "Creative Commons Attribution" in told[0]
    assert any("licence cc-by-4.0" in line for line in told)


def test_a_second_run_fetches_nothing(small_luna16, tmp_path):
    download_luna16(tmp_path, [0], settings(small_luna16))
    small_luna16.requests.clear()
    assert download_luna16(tmp_path, [0], settings(small_luna16)) == []
    assert [path for path, _ in small_luna16.requests if path.startswith("/files")] == []


def test_a_deleted_scan_brings_its_subset_back(small_luna16, tmp_path):
    download_luna16(tmp_path, [0], settings(small_luna16))
    (tmp_path / "subset0" / "1.2.raw").unlink()
    assert download_luna16(tmp_path, [0], settings(small_luna16)) == ["subset0.zip"]
    assert (tmp_path / "subset0" / "1.2.raw").stat().st_size == 48


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_truncated_transfers_end_whole(small_luna16, tmp_path):
    small_luna16.cut_after["subset0.zip"] = [100, 50]
    download_luna16(tmp_path, [0], settings(small_luna16, keep_zips=True))
    whole = small_luna16.records[3723295]["subset0.zip"]
    assert (tmp_path / "subset0.zip").read_bytes() == whole
    assert small_luna16.ranges_asked("subset0.zip") == [None, "bytes=100-", "bytes=150-"]


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_a_wrong_checksum_is_refused_after_a_second_try(small_luna16, tmp_path):
    small_luna16.checksums["subset0.zip"] = "md5:" + "0" * 32
    with pytest.raises(LungDetError, match="checksum is wrong after two downloads"):
        download_luna16(tmp_path, [0], settings(small_luna16))
    assert small_luna16.ranges_asked("subset0.zip") == [None, None]
    assert not list(tmp_path.glob("subset0*"))


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_a_part_of_something_else_is_found_out_by_the_checksum(small_luna16, tmp_path):
    (tmp_path / "subset0.zip.part").write_bytes(b"x" * 100)
    download_luna16(tmp_path, [0], settings(small_luna16))
    assert small_luna16.ranges_asked("subset0.zip") == ["bytes=100-", None]
    assert (tmp_path / "subset0" / "1.1.raw").is_file()


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_a_line_that_stays_dead_is_taken_up_by_the_next_run(small_luna16, tmp_path):
    small_luna16.cut_after["subset0.zip"] = [100, 0, 0]
    with pytest.raises(LungDetError, match="100 of .* run the same command again"):
        download_luna16(tmp_path, [0], settings(small_luna16))
    small_luna16.cut_after.clear()
    small_luna16.requests.clear()
    download_luna16(tmp_path, [0], settings(small_luna16))
    assert small_luna16.ranges_asked("subset0.zip") == ["bytes=100-"]
    assert small_luna16.ranges_asked("annotations.csv") == []


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_a_killed_process_loses_nothing(small_luna16, tmp_path, repository):
    # The server sends 100 bytes and then fails without end, so the process is at its retries.
    small_luna16.cut_after["subset0.zip"] = [100, *[0] * 50]
    command = [sys.executable, "data_prep/download_luna16.py", str(tmp_path), "--subsets", "0"]
    process = subprocess.Popen(
        [*command, "--api", small_luna16.api],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository), "LUNGDET_OFFLINE": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert small_luna16.wait_for_requests("subset0.zip", 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "run the same command again" in output
    assert "Traceback" not in output
    small_luna16.cut_after.clear()
    small_luna16.requests.clear()
    download_luna16(tmp_path, [0], settings(small_luna16))
    assert small_luna16.ranges_asked("subset0.zip") == ["bytes=100-"]


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_no_room_is_said_before_anything_is_fetched(small_luna16, tmp_path):
    with pytest.raises(LungDetError, match=r"needs about 0.3 GB, 0.2 GB are free.*--subsets"):
        download_luna16(tmp_path, [0], settings(small_luna16, free_bytes=lambda f: 200_000_000))
    assert small_luna16.ranges_asked("annotations.csv") == []


def test_room_needed_at_the_peak(tmp_path):
    files = [RemoteFile(f"subset{n}.zip", "", 100, "") for n in range(3)]
    # Two unpacked (200 each), then the third zip beside its content: 400 + 100 + 200.
    assert needed_bytes(files, tmp_path, keep_zips=False) == 700
    assert needed_bytes(files, tmp_path, keep_zips=True) == 900
    (tmp_path / "subset2.zip.part").write_bytes(b"x" * 60)
    assert needed_bytes(files, tmp_path, keep_zips=False) == 640


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_offline_forbids_all(small_luna16, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    with pytest.raises(LungDetError, match="forbids network access"):
        download_luna16(tmp_path, [0], settings(small_luna16))
    assert small_luna16.requests == []


def test_an_unknown_subset(small_luna16, tmp_path):
    with pytest.raises(LungDetError, match="subset 10 does not exist"):
        download_luna16(tmp_path, [10], settings(small_luna16))


def test_a_record_that_lacks_a_file(small_luna16, tmp_path):
    with pytest.raises(LungDetError, match=r"do not list subset3\.zip"):
        download_luna16(tmp_path, [3], settings(small_luna16))
