"""Whether the elements of a DICOM file lie within it, asked before GDCM reads them.

GDCM asks for as much memory as an element's length says, up to 4 GiB, whatever the file's own
length: one damaged byte is enough to end the process.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from pathlib import Path

_FIRST_ELEMENT = 132
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = (0x7FE0, 0x0010)
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
# Reports nest some ten levels deep; a thousand would overflow the stack.
_MAX_DEPTH = 32
# Deflated headers and one slice: far less than this.
_MAX_INFLATED_BYTES = 1 << 28

_Bytes = bytes | mmap.mmap


class _MisfitError(Exception):
    """An element ends behind what holds it."""


def elements_fit(path: Path) -> bool:
    """Say whether every element of a DICOM file ends within the file.

    Values are not looked at; pixels are not read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, syntax = _file_meta(data)
            if syntax == _DEFLATED:
                inflated = _inflated(data[start:])
                _walk(inflated, 0, len(inflated), "<", 0)
            else:
                _walk(data, start, len(data), ">" if syntax == _BIG_ENDIAN else "<", 0)
    except (_MisfitError, OSError, ValueError, zlib.error):
        return False
    return True


def _file_meta(data: _Bytes) -> tuple[int, bytes]:
    """Return where the file's meta elements end, and the transfer syntax that they name."""
    at, syntax = _FIRST_ELEMENT, b""
    while len(data) - at >= 8 and data[at : at + 2] == b"\x02\x00":
        tag, _, value, length = _element(data, at, len(data), "<", True)
        if length == _UNDEFINED or value + length > len(data):
            raise _MisfitError
        if tag == (0x0002, 0x0010):
            syntax = data[value : value + length].rstrip(b"\0 ")
        at = value + length
    return at, syntax


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(data, _MAX_INFLATED_BYTES)
    if stream.unconsumed_tail:
        raise _MisfitError
    return content


def _element(
    data: _Bytes, at: int, end: int, order: str, is_explicit: bool
) -> tuple[tuple[int, int], bytes, int, int]:
    """Return tag, VR, where the value begins, and its length."""
    tag = struct.unpack(f"{order}HH", data[at : at + 4])
    vr = data[at + 4 : at + 6] if is_explicit else b""
    if vr in _LONG_VRS:
        if end - at < 12:
            raise _MisfitError
        return tag, vr, at + 12, struct.unpack(f"{order}I", data[at + 8 : at + 12])[0]
    if vr:
        if vr not in _SHORT_VRS and end - at >= 12:
            # GDCM takes a kind that it does not know for one of the long ones.
            (length,) = struct.unpack(f"{order}I", data[at + 8 : at + 12])
            if at + 12 + length > end:
                raise _MisfitError
        return tag, vr, at + 8, struct.unpack(f"{order}H", data[at + 6 : at + 8])[0]
    return tag, vr, at + 8, struct.unpack(f"{order}I", data[at + 4 : at + 8])[0]


def _walk(data: _Bytes, at: int, end: int, order: str, depth: int, *, to_mark: bool = False) -> int:
    """Walk over elements to `end`, or to the mark that ends their item; return what follows."""
    if depth > _MAX_DEPTH:
        raise _MisfitError
    is_explicit = None
    while end - at >= 8:
        tag = struct.unpack(f"{order}HH", data[at : at + 4])
        if tag == _ITEM_END and to_mark:
            return at + 8
        if tag[0] == _ITEM_END[0]:  # a mark that ends nothing: GDCM reads on behind it
            at += 8
            continue
        if is_explicit is None:
            # Not what the transfer syntax says: writers nest the one kind in the other.
            kind = data[at + 4 : at + 6]
            is_explicit = kind.isalpha() and kind.isupper()
        tag, vr, value, length = _element(data, at, end, order, is_explicit)
        if length == _UNDEFINED:
            at = _walk_items(data, value, end, order, depth, are_pixels=tag == _PIXEL_DATA)
            continue
        at = value + length
        if at > end:
            raise _MisfitError
        if vr == b"SQ" or (length >= 8 and not vr and data[value : value + 4] == _ITEM_BYTES):
            _walk_items(data, value, at, order, depth, are_pixels=False)
    return end


def _walk_items(
    data: _Bytes, at: int, end: int, order: str, depth: int, *, are_pixels: bool
) -> int:
    """Walk over the items of a sequence, or the fragments of compressed pixels."""
    while end - at >= 8:
        group, element, length = struct.unpack(f"{order}HHI", data[at : at + 8])
        at += 8
        if (group, element) == _SEQUENCE_END:
            return at
        if (group, element) != _ITEM:
            raise _MisfitError
        if length == _UNDEFINED:
            at = _walk(data, at, end, order, depth + 1, to_mark=True)
        elif at + length > end:
            raise _MisfitError
        else:
            if not are_pixels:
                _walk(data, at, at + length, order, depth + 1)
            at += length
    return end
