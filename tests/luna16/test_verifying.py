"""Checking a folder: the three kinds of damage are told apart, and nothing is changed."""

import shutil

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.download import DownloadSettings, download_luna16
from lungdet_mmdet.luna16.verifying import verify_luna16
from lungdet_mmdet.runs.workplace import process_pool

LOCAL = process_pool(0)
TABLE = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


@pytest.fixture
def downloaded(small_luna16, tmp_path):
    pytest.importorskip("pooch")
    settings = DownloadSettings(
        api=small_luna16.api, attempts=1, wait_s=0.0, tell=lambda line: None
    )
    download_luna16(tmp_path, [0], settings)
    return tmp_path


def problems(report):
    return [(s.seriesuid, s.problem) for s in report.bad]


def test_a_whole_download(downloaded):
    report = verify_luna16(downloaded, LOCAL)
    assert problems(report) == []
    assert (len(report.states), report.with_checksum) == (2, 2)
    assert report.lines()[-1].startswith("2 series: 2 whole (2 compared")


def test_missing_truncated_and_corrupt(downloaded):
    (downloaded / "subset0" / "1.1.raw").unlink()
    raw = downloaded / "subset0" / "1.2.raw"
    raw.write_bytes(raw.read_bytes()[:-1])
    assert problems(verify_luna16(downloaded, LOCAL)) == [("1.1", "missing"), ("1.2", "truncated")]
    raw.write_bytes(b"\x00" * 48)  # the right length, another content
    assert problems(verify_luna16(downloaded, LOCAL)) == [("1.2", "corrupt"), ("1.1", "missing")]


def test_scans_put_beside_a_download_are_checked_too(downloaded):
    (downloaded / "subset1").mkdir()
    header = (downloaded / "subset0" / "1.1.mhd").read_text().replace("1.1.raw", "5.1.raw")
    (downloaded / "subset1" / "5.1.mhd").write_text(header)
    (downloaded / "subset1" / "5.1.raw").write_bytes(b"\x00")
    report = verify_luna16(downloaded, LOCAL)
    assert problems(report) == [("5.1", "truncated")]
    assert (len(report.states), report.with_checksum) == (3, 2)


def test_a_download_cut_off_at_its_start_leaves_the_tables_to_tell(downloaded):
    (downloaded / ".luna16" / "subset0.json").unlink()
    assert problems(verify_luna16(downloaded, LOCAL)) == [("7.1", "missing")]


def test_a_subset_that_was_never_downloaded_counts_only_when_asked_for(downloaded):
    report = verify_luna16(downloaded, LOCAL, subsets=[0, 7])
    assert problems(report) == [("subset7", "missing")]


def test_a_folder_without_records_goes_by_its_tables(downloaded):
    for path in (downloaded / ".luna16").iterdir():
        path.unlink()
    (downloaded / ".luna16").rmdir()
    (downloaded / "annotations_excluded.csv").unlink()
    report = verify_luna16(downloaded, LOCAL)
    # seriesuids.csv names 7.1 too.
    assert problems(report) == [("7.1", "missing")]
    assert report.with_checksum == 0
    assert any("tables say what ought to be there" in note for note in report.notes)
    (downloaded / "subset0" / "1.2.raw").write_bytes(b"\x00" * 47)
    assert problems(verify_luna16(downloaded, LOCAL)) == [("7.1", "missing"), ("1.2", "truncated")]
    (downloaded / "subset0" / "1.2.raw").unlink()
    (downloaded / "subset0" / "1.1.mhd").write_text("no header")
    assert problems(verify_luna16(downloaded, LOCAL)) == [
        ("1.1", "corrupt"),
        ("1.2", "missing"),
        ("7.1", "missing"),
    ]


def test_a_compressed_scan_without_record_is_read_to_its_end(tmp_path):
    import numpy as np
    import SimpleITK as sitk

    (tmp_path / "annotations.csv").write_text(TABLE)
    pixels = np.random.default_rng(0).integers(-1000, 400, (4, 8, 8)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(tmp_path / "1.1.mhd"), True)
    assert problems(verify_luna16(tmp_path, LOCAL)) == []
    data = bytearray((tmp_path / "1.1.zraw").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "1.1.zraw").write_bytes(bytes(data))
    assert problems(verify_luna16(tmp_path, LOCAL)) == [("1.1", "corrupt")]


@pytest.mark.parametrize("masks", ["seg-lungs-LUNA16", "nodule_masks"])
def test_a_mask_beside_a_broken_scan_does_not_stand_in_for_it(downloaded, masks):
    shutil.rmtree(downloaded / ".luna16")
    (downloaded / masks).mkdir(exist_ok=True)
    for path in (downloaded / "subset0").glob("1.1.*"):
        shutil.copy(path, downloaded / masks)
    (downloaded / "subset0" / "1.1.mhd").write_text("no header")
    assert ("1.1", "corrupt") in problems(verify_luna16(downloaded, LOCAL))


def test_an_empty_folder_and_none_at_all(tmp_path):
    with pytest.raises(LungDetError, match="no scans and no tables"):
        verify_luna16(tmp_path, LOCAL)
    with pytest.raises(LungDetError, match="no such folder"):
        verify_luna16(tmp_path / "nowhere", LOCAL)


@pytest.mark.realdata
def test_the_two_real_scans_of_the_sample_are_whole(luna16_sample):
    report = verify_luna16(luna16_sample, LOCAL)
    missing = [s for s in report.bad if s.problem == "missing"]
    # Its tables name all 888 series of LUNA16.
    assert (len(report.states), len(missing), len(report.bad)) == (888, 886, 886)
