# SPDX-License-Identifier: Apache-2.0
"""The elements of a DICOM file: walked over without trust, before anything else reads the file."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Tag = tuple[int, int]
ITEM: Tag = (0xFFFE, 0xE000)
_ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_PIXEL_DATA, _ROWS = (0x7FE0, 0x0010), (0x0028, 0x0010)
_MEDIA_SOP_CLASS, _TRANSFER_SYNTAX = (0x0002, 0x0002), (0x0002, 0x0010)
_TEXTS = {
    (0x0008, 0x0016): "sop_class",
    (0x0008, 0x0060): "modality",
    (0x0020, 0x000E): "series_uid",
}
_MAGIC_OFFSET, _MAGIC = 128, b"DICM"
_FIRST_ELEMENT = _MAGIC_OFFSET + len(_MAGIC)
_HEAD_BYTES = 512
_UNDEFINED = 0xFFFFFFFF
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
# Six direction cosines are the longest value that is looked at.
_MAX_VALUE_BYTES = 128
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
# Reports nest some ten levels deep; a thousand would overflow the stack.
_MAX_DEPTH = 32
# Deflated headers and one slice: far less than this.
_MAX_INFLATED_BYTES = 1 << 28


class _MisfitError(Exception):
    """An element ends behind what holds it."""


@dataclass
class DicomElements:
    """What a walk over a file's elements found.

    Parameters
    ----------
    fit : whether every element ends within the file.
    sop_class, modality, series_uid : at the top level; "" where not said before the walk ended.
    has_rows : whether the header describes an image.
    pixel_bytes : length of the pixels at the top level; None where there are none, -1 where they
        are compressed.
    """

    fit: bool = False
    sop_class: str = ""
    modality: str = ""
    series_uid: str = ""
    has_rows: bool = False
    pixel_bytes: int | None = None

    def note(self, tag: Tag, value: bytes, length: int) -> None:
        """Take up one element of the top level."""
        if tag in _TEXTS:
            setattr(self, _TEXTS[tag], _text(value))
        elif tag == _MEDIA_SOP_CLASS:
            self.sop_class = self.sop_class or _text(value)
        elif tag == _ROWS:
            self.has_rows = True
        elif tag == _PIXEL_DATA:
            self.pixel_bytes = -1 if length == _UNDEFINED else length

    def pixel_damage(self, pixel_bytes: int) -> str:
        """Return what is wrong with the amount of pixels; "" where nothing is.

        ``pixel_bytes`` is their length before compression, by rows, columns, frames and bits.
        """
        if not self.fit:
            return "its pixels are cut off"
        found = self.pixel_bytes
        if found is None:
            return "it holds no pixels"
        # A little more than needed is padding; compressed pixels have a length of their own.
        if found < 0 or pixel_bytes <= found < 2 * pixel_bytes:
            return ""
        return f"it holds {found} bytes of pixels, its rows, columns and bits ask for {pixel_bytes}"


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do, with the preamble or without."""
    # Asking a pipe or a device could wait for ever.
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return _begins_as_dicom(file.read(_HEAD_BYTES))
    except OSError:
        return False


def _begins_as_dicom(head: bytes) -> bool:
    """Say whether a file's first bytes are those of DICOM.

    Without a preamble, the first element stands at the file's very beginning: of group 2, or of
    group 8 with a known kind or a length that leads to the next element of that group.
    """
    if head[_MAGIC_OFFSET:_FIRST_ELEMENT] == _MAGIC:
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\0", b"\x08\0") or head[3] != 0:
        return False
    if head[4:6] in _SHORT_VRS | _LONG_VRS:
        return True
    (length,) = struct.unpack("<I", head[4:8])
    return head[8 + length : 10 + length] == b"\x08\0"


def walk_elements(
    path: Path, *, deep: Callable[[Tag, bytes, int], None] | None = None
) -> DicomElements:
    """Walk over the elements of a DICOM file, up to one that ends behind the file.

    Parameters
    ----------
    path : the file; its pixels are not read.
    deep : called as ``deep(tag, value, depth)`` with every element, those within sequences
        included, and with the beginning of every item. Values are cut off after 128 bytes.
    """
    found = DicomElements()

    def note(tag: Tag, value: bytes, length: int, depth: int) -> None:
        if depth == 0:
            found.note(tag, value, length)
        if deep is not None:
            deep(tag, value, depth)

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, syntax = _Walk(data, "<", note).file_meta()
            if syntax == _DEFLATED:
                inflated = _inflated(data[start:])
                _Walk(inflated, "<", note).elements(0, len(inflated), 0)
            else:
                order = ">" if syntax == _BIG_ENDIAN else "<"
                _Walk(data, order, note).elements(start, len(data), 0)
    except (_MisfitError, OSError, ValueError, zlib.error):
        return found
    found.fit = True
    return found


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(data, _MAX_INFLATED_BYTES)
    if stream.unconsumed_tail:
        raise _MisfitError
    return content


@dataclass(frozen=True)
class _Walk:
    """A walk over bytes in one byte order; ``note(tag, value, length, depth)`` hears of it all."""

    data: bytes | mmap.mmap
    order: str
    note: Callable[[Tag, bytes, int, int], None]

    def file_meta(self) -> tuple[int, bytes]:
        """Return where the file's meta elements end, and the transfer syntax that they name."""
        data = self.data
        has_preamble = data[_MAGIC_OFFSET:_FIRST_ELEMENT] == _MAGIC
        at, syntax = _FIRST_ELEMENT if has_preamble else 0, b""
        while len(data) - at >= 8 and data[at : at + 2] == b"\x02\x00":
            tag, _, value, length = self._element(at, len(data), True)
            if length == _UNDEFINED or value + length > len(data):
                raise _MisfitError
            if tag == _TRANSFER_SYNTAX:
                syntax = data[value : value + length].rstrip(b"\0 ")
            self.note(tag, data[value : value + min(length, _MAX_VALUE_BYTES)], length, 0)
            at = value + length
        return at, syntax

    def _unpacked(self, kind: str, at: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self.order}{kind}", self.data, at)

    def _element(self, at: int, end: int, is_explicit: bool) -> tuple[Tag, bytes, int, int]:
        """Return tag, VR, where the value begins, and its length."""
        group, element = self._unpacked("HH", at)
        vr = self.data[at + 4 : at + 6] if is_explicit else b""
        if vr in _LONG_VRS:
            if end - at < 12:
                raise _MisfitError
            return (group, element), vr, at + 12, self._unpacked("I", at + 8)[0]
        # GDCM takes a kind that it does not know for one of the long ones.
        is_unknown = vr and vr not in _SHORT_VRS and end - at >= 12
        if is_unknown and at + 12 + self._unpacked("I", at + 8)[0] > end:
            raise _MisfitError
        length = self._unpacked("H", at + 6) if vr else self._unpacked("I", at + 4)
        return (group, element), vr, at + 8, length[0]

    def elements(self, at: int, end: int, depth: int, *, to_mark: bool = False) -> int:
        """Walk over elements to `end`, or to the mark that ends their item; return what follows."""
        if depth > _MAX_DEPTH:
            raise _MisfitError
        is_explicit = None
        while end - at >= 8:
            tag = self._unpacked("HH", at)
            if tag == _ITEM_END and to_mark:
                return at + 8
            if tag[0] == _ITEM_END[0]:  # a mark that ends nothing: GDCM reads on behind it
                at += 8
                continue
            if is_explicit is None:
                # Not what the transfer syntax says: writers nest the one kind in the other.
                kind = self.data[at + 4 : at + 6]
                is_explicit = kind.isalpha() and kind.isupper()
            tag, vr, value, length = self._element(at, end, is_explicit)
            if length == _UNDEFINED:
                self.note(tag, b"", length, depth)
                at = self._items(value, end, depth, are_pixels=tag == _PIXEL_DATA)
                continue
            at = value + length
            if at > end:
                raise _MisfitError
            self.note(tag, self.data[value : value + min(length, _MAX_VALUE_BYTES)], length, depth)
            head = self.data[value : value + 4]
            if vr == b"SQ" or (length >= 8 and not vr and head == _ITEM_BYTES):
                self._items(value, at, depth, are_pixels=False)
        return end

    def _items(self, at: int, end: int, depth: int, *, are_pixels: bool) -> int:
        """Walk over the items of a sequence, or the fragments of compressed pixels."""
        while end - at >= 8:
            group, element, length = self._unpacked("HHI", at)
            at += 8
            if (group, element) == _SEQUENCE_END:
                return at
            if (group, element) != ITEM:
                raise _MisfitError
            self.note(ITEM, b"", 0, depth)
            if length == _UNDEFINED:
                at = self.elements(at, end, depth + 1, to_mark=True)
            elif at + length > end:
                raise _MisfitError
            else:
                if not are_pixels:
                    self.elements(at, at + length, depth + 1)
                at += length
        if are_pixels:  # the mark behind the last fragment is missing
            raise _MisfitError
        return end
