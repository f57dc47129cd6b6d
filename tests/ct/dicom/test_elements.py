"""Element lengths of DICOM files, byte by byte: what fits, and what claims more than there is."""

import struct

import pytest

from lungdet_mmdet.ct.dicom.elements import walk_elements

UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, element, length)
    for element, length in ((0xE000, UNDEFINED), (0xE00D, 0), (0xE0DD, 0))
)
NAME = struct.pack("<HH2sH", 0x10, 0x10, b"PN", 4) + b"A^B "


def sequence(content: bytes, length: int = UNDEFINED) -> bytes:
    """A sequence with one element's header in front of its content."""
    return struct.pack("<HH2sHI", 0x40, 0x275, b"SQ", 0, length) + content


def nested(depth: int) -> bytes:
    """Sequences within each other."""
    content = NAME
    for _ in range(depth):
        content = sequence(ITEM + content + ITEM_END + SEQUENCE_END)
    return content


def fits(tmp_path, content: bytes, *, syntax: bytes = b"") -> bool:
    path = tmp_path / "file.dcm"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax if syntax else b""
    path.write_bytes(bytes(128) + b"DICM" + meta + content)
    return walk_elements(path).fit


@pytest.mark.parametrize(
    "content",
    [
        b"",
        NAME,
        ITEM_END + NAME + SEQUENCE_END,  # marks that end nothing
        NAME + bytes(5),  # padding behind the last element
        nested(3),
        sequence(struct.pack("<HHI", 0xFFFE, 0xE000, len(NAME)) + NAME, 8 + len(NAME)),
        struct.pack("<HHI", 0x10, 0x10, 4) + b"A^B ",  # without kinds
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 6) + bytes(6),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, UNDEFINED)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 2) + b"\xff\xd8" + SEQUENCE_END,
    ],
)  # fmt: skip
def test_elements_within_the_file_fit(tmp_path, content):
    assert fits(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        NAME[:-1],
        ITEM_END + NAME[:-1],
        struct.pack("<HH2sHI", 0x10, 0x10, b"UN", 0, 0xFFFFFFF0),
        struct.pack("<HH2sH", 0x10, 0x10, b"??", 0xFFFF) + bytes(100),
        struct.pack("<HHI", 0x10, 0x10, 0x7FFFFFFF) + bytes(8),
        sequence(ITEM + NAME[:-1]),
        sequence(struct.pack("<HHI", 0xFFFE, 0xE000, 0x7FFFFFFF) + NAME),
        sequence(NAME + bytes(20)),  # no item where one must be
        nested(40),
        struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, UNDEFINED)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 3) + b"\xff\xd8",
    ],
)  # fmt: skip
def test_elements_beyond_the_file_do_not(tmp_path, content):
    assert not fits(tmp_path, content)


def test_big_endian_lengths_are_read_as_such(tmp_path):
    name = struct.pack(">HH2sH", 0x10, 0x10, b"PN", 4) + b"A^B "
    assert fits(tmp_path, name, syntax=b"1.2.840.10008.1.2.2\0")
    assert not fits(tmp_path, name, syntax=b"1.2.840.10008.1.2.1\0")


def test_what_is_deflated_is_looked_at_inflated(tmp_path):
    import zlib

    for content, expected in ((NAME, True), (NAME[:-1], False)):
        stream = zlib.compressobj(wbits=-15)
        packed = stream.compress(content) + stream.flush()
        assert fits(tmp_path, packed, syntax=b"1.2.840.10008.1.2.1.99") is expected


def test_an_empty_file_does_not_fit(tmp_path):
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert not walk_elements(tmp_path / "empty.dcm").fit
