import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.errors import LungDetError

FIELDS = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "CompressedData": "False",
    "Offset": "0 0 0",
    "ElementSpacing": "0.5 0.6 2.5",
    "DimSize": "4 3 2",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "scan.raw",
}
N_BYTES = 48  # 4 x 3 x 2 voxels of two bytes


def write_header(folder: Path, *, drop: str = "", end: str = "\n", **changes: str) -> Path:
    """Write scan.mhd with changed or further fields and 48 bytes of pixels beside it."""
    data_file = {"ElementDataFile": changes.pop("ElementDataFile", FIELDS["ElementDataFile"])}
    fields = {**FIELDS, **changes}
    del fields["ElementDataFile"]  # always the last one
    fields.update(data_file)
    fields.pop(drop, None)
    path = folder / "scan.mhd"
    text = end.join(f"{name} = {value}" for name, value in fields.items()) + end
    path.write_bytes(text.encode("latin-1"))
    (folder / "scan.raw").write_bytes(bytes(N_BYTES))
    return path


def test_a_whole_header_gives_its_fields(tmp_path):
    header = read_metaimage_header(write_header(tmp_path))
    assert header.size_xyz == (4, 3, 2)
    assert header.spacing_xyz_mm == (0.5, 0.6, 2.5)
    assert header.element_type == "MET_SHORT"
    assert header.data_path == tmp_path / "scan.raw"
    assert (header.data_offset, header.data_bytes, header.pixel_bytes) == (0, 48, 48)
    assert not header.compressed


def test_windows_line_ends_are_fine(tmp_path):
    header = read_metaimage_header(write_header(tmp_path, end="\r\n"))
    assert header.size_xyz == (4, 3, 2)
    assert header.data_path.name == "scan.raw"


def test_bytes_that_are_no_utf8_are_fine(tmp_path):
    header = read_metaimage_header(write_header(tmp_path, Comment="M\xfcller"))
    assert header.size_xyz == (4, 3, 2)


@pytest.mark.parametrize("word", ["True", "T", "1", "true"])
def test_compression_is_recognised_as_metaio_does(tmp_path, word):
    path = write_header(tmp_path, CompressedData=word, CompressedDataSize="40")
    header = read_metaimage_header(path)
    assert header.compressed
    assert header.data_bytes == 40


def test_without_a_compressed_size_the_rest_of_the_file_is_the_stream(tmp_path):
    assert read_metaimage_header(write_header(tmp_path, CompressedData="True")).data_bytes == 48


@pytest.mark.parametrize("name", ["LOCAL", "Local", "local"])
def test_pixels_may_follow_the_header(tmp_path, name):
    path = write_header(tmp_path, ElementDataFile=name)
    length = path.stat().st_size
    with pytest.raises(LungDetError, match="0 bytes of pixel data, the header promises 48"):
        read_metaimage_header(path)
    path.write_bytes(path.read_bytes() + bytes(N_BYTES))
    header = read_metaimage_header(path)
    assert header.data_path == path
    assert header.data_offset == length


def test_a_header_inside_the_data_file_is_skipped(tmp_path):
    path = write_header(tmp_path, HeaderSize="8")
    with pytest.raises(LungDetError, match="40 bytes of pixel data, the header promises 48"):
        read_metaimage_header(path)
    (tmp_path / "scan.raw").write_bytes(bytes(8 + N_BYTES))
    assert read_metaimage_header(path).data_offset == 8


def test_pixels_at_the_end_of_the_data_file(tmp_path):
    header = read_metaimage_header(write_header(tmp_path, HeaderSize="-1"))
    assert header.data_offset == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "DimSize"}, "DimSize is missing"),
        ({"drop": "ElementSpacing"}, "ElementSize is missing"),
        ({"drop": "ElementType"}, "ElementType is ''"),
        ({"drop": "ElementDataFile"}, "no ElementDataFile"),
        ({"Rotation": "1", "TransformMatrix": "2"}, "TransformMatrix stands twice"),
        ({"Position": "1 0 0"}, "Offset stands twice, as '0 0 0' and '1 0 0'"),
        ({"DimSize": "4 3"}, "one 3-D scan is needed"),
        ({"DimSize": "4 3 2 1"}, "one 3-D scan is needed"),
        ({"NDims": "4"}, "NDims 4: one 3-D scan"),
        ({"DimSize": "4 3 0"}, "sizes must be at least 1"),
        ({"DimSize": "4 3 -2"}, "sizes must be at least 1"),
        ({"DimSize": "100000 100000 100000"}, "at most 2147483648 voxels"),
        ({"DimSize": "4 3 5.5"}, "DimSize is '4 3 5.5': whole numbers"),
        ({"DimSize": "9" * 5000 + " 1 1"}, "whole numbers"),
        ({"DimSize": "4 3 two"}, "whole numbers"),
        ({"ElementSpacing": "0.5 nan 1"}, "ElementSpacing is '0.5 nan 1'"),
        ({"ElementSpacing": "0.5 inf 1"}, "three finite spacings"),
        ({"ElementSpacing": "0.5 -0.5 1"}, "three finite spacings"),
        ({"ElementSpacing": "0.5 0 1"}, "three finite spacings"),
        ({"ElementSpacing": "0.5 0.5"}, "three finite spacings"),
        ({"ElementSpacing": "a b c"}, "numbers are needed"),
        ({"ElementType": "MET_STRANGE"}, "ElementType is 'MET_STRANGE'; known: MET_CHAR"),
        ({"ElementNumberOfChannels": "3"}, "3 values per voxel: a colour image"),
        ({"ElementNumberOfChannels": "x"}, "ElementNumberOfChannels is 'x'"),
        ({"ElementNumberOfChannels": ""}, "one number is needed"),
        ({"BinaryData": "False"}, "pixels as text"),
        ({"ElementToIntensityFunctionSlope": "2"}, "Slope is '2': readers differ"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "Offset is '-1024': readers differ"),
        ({"ElementDataFile": "/etc/passwd"}, "outside the header's own folder"),
        ({"ElementDataFile": "../scan.raw"}, "outside the header's own folder"),
        ({"ElementDataFile": "sub/scan.raw"}, "outside the header's own folder"),
        ({"ElementDataFile": "a\0b"}, "outside the header's own folder"),
        ({"ElementDataFile": "absent.raw"}, "absent.raw: no such file"),
        ({"ElementDataFile": ".."}, "ElementDataFile '..'"),
        ({"ElementDataFile": ""}, "ElementDataFile ''"),
        ({"ElementDataFile": "LIST"}, "a list of slice files"),
        ({"ElementDataFile": "scan%03d.raw 1 2 1"}, "a list of slice files"),
        ({"ElementDataFile": "LOcal"}, "LOcal: no such file"),
        ({"CompressedData": "True", "CompressedDataSize": "49"}, "header promises 49"),
        ({"CompressedData": "True", "CompressedDataSize": "x"}, "CompressedDataSize is 'x'"),
        ({"CompressedData": "True", "CompressedDataSize": "-5"}, "header promises -5"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, changes, message):
    path = write_header(tmp_path, **changes)
    with pytest.raises(LungDetError, match=message) as caught:
        read_metaimage_header(path)
    assert str(tmp_path) in str(caught.value)


def test_a_scaling_that_changes_nothing_is_fine(tmp_path):
    neutral = {"ElementToIntensityFunctionSlope": "1", "ElementToIntensityFunctionOffset": "0"}
    assert read_metaimage_header(write_header(tmp_path, **neutral)).size_xyz == (4, 3, 2)


def test_a_missing_header_is_named(tmp_path):
    with pytest.raises(LungDetError, match="absent.mhd: no such file"):
        read_metaimage_header(tmp_path / "absent.mhd")


def test_a_folder_as_data_file_is_refused(tmp_path):
    path = write_header(tmp_path, ElementDataFile="folder.raw")
    (tmp_path / "folder.raw").mkdir()
    with pytest.raises(LungDetError, match="is a folder, not a file"):
        read_metaimage_header(path)


def test_a_pipe_as_data_file_does_not_hang(tmp_path):
    path = write_header(tmp_path, ElementDataFile="pipe.raw")
    os.mkfifo(tmp_path / "pipe.raw")
    with pytest.raises(LungDetError, match="not a regular file"):
        read_metaimage_header(path)


def test_a_pipe_as_header_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "scan.mhd")
    with pytest.raises(LungDetError, match="not a regular file"):
        read_metaimage_header(tmp_path / "scan.mhd")


def test_a_truncated_data_file_is_refused(tmp_path):
    path = write_header(tmp_path)
    (tmp_path / "scan.raw").write_bytes(bytes(N_BYTES - 1))
    with pytest.raises(LungDetError, match="47 bytes of pixel data, the header promises 48"):
        read_metaimage_header(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "scans").mkdir()
    path = write_header(tmp_path / "scans", ElementDataFile="link.raw")
    (tmp_path / "secret").write_bytes(bytes(N_BYTES))
    (tmp_path / "scans" / "link.raw").symlink_to(tmp_path / "secret")
    with pytest.raises(LungDetError, match="outside the header's own folder"):
        read_metaimage_header(path)


def test_a_scan_linked_as_a_whole_is_read(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "links").mkdir()
    write_header(tmp_path / "store")
    for name in ("scan.mhd", "scan.raw"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "store" / name)
    assert read_metaimage_header(tmp_path / "links" / "scan.mhd").size_xyz == (4, 3, 2)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from([*FIELDS, "HeaderSize", "CompressedDataSize"]),
    value=st.one_of(
        st.text(st.characters(max_codepoint=255, exclude_characters="\n"), max_size=12),
        st.lists(st.one_of(st.integers(), st.floats()), max_size=5).map(
            lambda numbers: " ".join(map(str, numbers))
        ),
    ),
)
def test_whatever_a_field_says_a_header_is_read_or_refused(tmp_path_factory, name, value):
    folder = tmp_path_factory.getbasetemp() / "any-header"
    folder.mkdir(exist_ok=True)
    path = write_header(folder, **{name: value})
    message = ""
    try:
        header = read_metaimage_header(path)
    except LungDetError as error:
        message = str(error)
    if message:
        assert str(folder) in message
    else:
        assert min(*header.size_xyz, *header.spacing_xyz_mm, header.data_bytes) > 0
        assert header.data_path.parent == folder


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=200))
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.mhd"
    path.write_bytes(content)
    with pytest.raises(LungDetError, match="any.mhd"):
        read_metaimage_header(path)
