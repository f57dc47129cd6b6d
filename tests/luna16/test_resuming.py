"""Fetching over a connection that breaks: every byte once, nothing lost, nothing wrong."""

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.zenodo import ResumingDownloader, list_record

DATA = bytes(range(256)) * 40  # 10,240 bytes


@pytest.fixture
def downloader(archive, tmp_path):
    archive.put("a.bin", DATA)
    file = list_record(3723295, api=archive.api)[0]["a.bin"]
    return ResumingDownloader(file, tmp_path, attempts=3, wait_s=0.0)


def fetch(downloader, tmp_path):
    downloader(downloader.file.url, str(tmp_path / "out"), None)
    return (tmp_path / "out").read_bytes()


def test_a_whole_file_is_fetched_in_one_request(archive, downloader, tmp_path):
    assert fetch(downloader, tmp_path) == DATA
    assert archive.ranges_asked("a.bin") == [None]
    assert not downloader.part.exists()


def test_after_a_cut_only_the_rest_is_asked_for(archive, downloader, tmp_path):
    archive.cut_after["a.bin"] = [1000, 4000]
    assert fetch(downloader, tmp_path) == DATA
    assert archive.ranges_asked("a.bin") == [None, "bytes=1000-", "bytes=5000-"]


def test_a_part_of_an_earlier_run_is_gone_on_with(archive, downloader, tmp_path):
    downloader.part.write_bytes(DATA[:7000])
    assert fetch(downloader, tmp_path) == DATA
    assert archive.ranges_asked("a.bin") == ["bytes=7000-"]


def test_a_server_without_ranges_sends_everything_again(archive, downloader, tmp_path):
    archive.serves_ranges = False
    downloader.part.write_bytes(b"x" * 7000)
    assert fetch(downloader, tmp_path) == DATA


def test_a_dead_connection_is_given_up_and_the_part_kept(archive, downloader, tmp_path):
    archive.cut_after["a.bin"] = [1000, 0, 0, 0]
    with pytest.raises(LungDetError, match=r"1000 of 10240 bytes are kept .* run the same command"):
        fetch(downloader, tmp_path)
    assert downloader.part.read_bytes() == DATA[:1000]
    # As many tries as allowed, none of which brought a byte.
    assert archive.ranges_asked("a.bin") == [None, *["bytes=1000-"] * 3]


def test_progress_renews_the_tries(archive, downloader, tmp_path):
    archive.cut_after["a.bin"] = [0, 0, 10, 0, 0, 10]
    assert fetch(downloader, tmp_path) == DATA


def test_an_overloaded_server_is_asked_again(archive, downloader, tmp_path):
    archive.statuses["a.bin"] = [429, 503]
    assert fetch(downloader, tmp_path) == DATA


def test_a_file_that_is_not_there_is_not_asked_for_again(archive, downloader, tmp_path):
    archive.statuses["a.bin"] = [404]
    with pytest.raises(LungDetError, match="answers 404"):
        fetch(downloader, tmp_path)
    assert len(archive.ranges_asked("a.bin")) == 1


def test_a_part_longer_than_the_file_is_dropped(archive, downloader, tmp_path):
    downloader.part.write_bytes(b"x" * (len(DATA) + 1))
    assert fetch(downloader, tmp_path) == DATA
    assert archive.ranges_asked("a.bin") == [None]


def test_an_empty_file_is_fetched(archive, tmp_path):
    archive.put("empty.csv", b"")
    file = list_record(3723295, api=archive.api)[0]["empty.csv"]
    assert fetch(ResumingDownloader(file, tmp_path, attempts=1, wait_s=0.0), tmp_path) == b""


@pytest.mark.reliability("downloads cut off, wrong, or forbidden")
def test_offline_forbids_the_request(archive, downloader, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGDET_OFFLINE", "1")
    with pytest.raises(LungDetError, match="LUNGDET_OFFLINE=1 forbids"):
        fetch(downloader, tmp_path)
    assert archive.ranges_asked("a.bin") == []
