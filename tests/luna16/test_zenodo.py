"""Reading a record: names, lengths and checksums, or a clear refusal."""

import pytest

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.zenodo import RemoteFile, list_record


def test_files_and_licence_of_a_record(archive):
    archive.put("a.csv", b"abc")
    files, licence = list_record(3723295, api=archive.api)
    # md5 of "abc" is the value of RFC 1321.
    assert files == {
        "a.csv": RemoteFile(
            "a.csv",
            f"{archive.address}/files/a.csv",
            3,
            "md5:900150983cd24fb0d6963f7d28e17f72",
        )
    }
    assert licence == "cc-by-4.0"


def test_a_checksum_without_its_kind_is_md5(archive):
    archive.put("a.csv", b"abc")
    archive.checksums["a.csv"] = "900150983cd24fb0d6963f7d28e17f72"
    files, _ = list_record(3723295, api=archive.api)
    assert files["a.csv"].checksum == "md5:900150983cd24fb0d6963f7d28e17f72"


@pytest.mark.parametrize("name", ["../a.csv", "..", "b/../../a.csv"])
def test_a_name_that_leads_elsewhere_is_refused(archive, name):
    archive.put(name, b"abc")
    with pytest.raises(LungDetError, match="not the answer of a Zenodo record"):
        list_record(3723295, api=archive.api)


def test_a_server_that_is_not_there(archive):
    with pytest.raises(LungDetError, match="cannot be read.*check the network"):
        list_record(3723295, api="http://127.0.0.1:9/api")


def test_an_answer_that_is_no_record(archive):
    archive.put("3723295", b"<html>")
    with pytest.raises(LungDetError, match="cannot be read|not the answer"):
        list_record(3723295, api=f"{archive.address}/files")
