"""Unpacking: whole files in one flat folder, whatever the archive says."""

import zipfile

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.download import UnpackedFile, unpack

PLENTY = 10**12
# CRC-32 of the nine digits, the check value that the definition of CRC-32 gives.
DIGITS, DIGITS_CRC = b"123456789", 0xCBF43926


def make_zip(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in files:
            target.writestr(name, data)
    return path


def run(path, folder, **options):
    return unpack(path, folder, **({"free_bytes": lambda f: PLENTY} | options))


def test_folders_of_the_archive_are_dropped_and_contents_told(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("subset0/", b""), ("subset0/x.raw", DIGITS)])
    assert run(path, tmp_path / "out") == (UnpackedFile("x.raw", 9, DIGITS_CRC),)
    assert (tmp_path / "out" / "x.raw").read_bytes() == DIGITS


@pytest.mark.parametrize("name", ["../../evil.raw", "/evil.raw", "..\\evil.raw"])
@pytest.mark.reliability("archives that are damaged or write elsewhere")
def test_nothing_is_written_outside_the_folder(tmp_path, name):
    run(make_zip(tmp_path / "a.zip", [(name, DIGITS)]), tmp_path / "deep" / "out")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("evil.raw")] == [
        (tmp_path / "deep/out/evil.raw").relative_to(tmp_path)
    ]


@pytest.mark.reliability("archives that are damaged or write elsewhere")
def test_a_damaged_member_leaves_no_file(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.raw", DIGITS)], zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(DIGITS, b"123456780"))
    with pytest.raises(LungDetError, match="damaged archive.*download it again"):
        run(path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.reliability("archives that are damaged or write elsewhere")
def test_a_truncated_archive(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.raw", DIGITS)])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(LungDetError, match="damaged archive"):
        run(path, tmp_path / "out")


def test_what_is_there_is_left_alone_and_what_is_wrong_replaced(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.raw", DIGITS), ("y.raw", DIGITS)])
    run(path, tmp_path / "out")
    before = (tmp_path / "out" / "x.raw").stat().st_ino
    (tmp_path / "out" / "y.raw").write_bytes(b"987654321")
    run(path, tmp_path / "out")
    assert (tmp_path / "out" / "x.raw").stat().st_ino == before
    assert (tmp_path / "out" / "y.raw").read_bytes() == DIGITS


def test_room_is_checked_before_unpacking(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.raw", DIGITS)])
    with pytest.raises(LungDetError, match="unpacking a.zip needs"):
        run(path, tmp_path / "out", free_bytes=lambda f: 8)
    assert list((tmp_path / "out").iterdir()) == []


def test_two_different_files_of_one_name(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a/x.raw", DIGITS), ("b/x.raw", b"other")])
    with pytest.raises(LungDetError, match="two different files x.raw"):
        run(path, tmp_path / "out")


def test_a_method_that_python_lacks(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("x.raw", DIGITS)], zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    deflate64 = 9
    data[8] = data[data.index(b"PK\x01\x02") + 10] = deflate64
    path.write_bytes(bytes(data))
    with pytest.raises(LungDetError, match="7z e .*run the same command again"):
        run(path, tmp_path / "out")
    # Unpacked by hand, the files are taken as they are.
    (tmp_path / "out" / "x.raw").write_bytes(DIGITS)
    assert run(path, tmp_path / "out") == (UnpackedFile("x.raw", 9, DIGITS_CRC),)
