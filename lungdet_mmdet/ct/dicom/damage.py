"""DICOM files with other pixels than their header says: GDCM cuts them off or fills them up."""

from __future__ import annotations

import re
import struct
from pathlib import Path

PIXEL_TAG = b"\xe0\x7f\x10\x00"
UNDEFINED_LENGTH = b"\xff\xff\xff\xff"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
# What may follow the pixels: padding, a signature.
MAX_TRAILER_BYTES = 65536
# The pixels' length behind their tag: explicit ("OW" or "OB" and two bytes), or implicit.
_LENGTH_FIELDS = (b"OW\0\0", b"OB\0\0", b"")
# The series UID with its length, explicit ("UI" and two bytes) or implicit (four bytes).
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00(?:UI..|....)([0-9.]{1,64})", re.DOTALL)


def pixel_damage(path: Path, *, pixel_bytes: int) -> str:
    """Return what is wrong with the amount of pixels in a file; "" where nothing is.

    Where the pixels cannot be found (big-endian or deflated files), nothing is.

    Parameters
    ----------
    path : the file.
    pixel_bytes : length of its pixels before compression, by rows, columns and bits.
    """
    content = path.read_bytes()
    length = struct.pack("<I", pixel_bytes + pixel_bytes % 2)
    for kind in _LENGTH_FIELDS:
        start = content.find(PIXEL_TAG + kind + length)
        if start >= 0:
            is_cut = len(content) < start + len(PIXEL_TAG + kind + length) + pixel_bytes
            return "its pixels are cut off" if is_cut else ""
    if PIXEL_TAG + b"OB\0\0" + UNDEFINED_LENGTH in content:
        is_cut = SEQUENCE_END not in content[-MAX_TRAILER_BYTES:]
        return "its pixels are cut off" if is_cut else ""
    found = _uncompressed_bytes(content)
    # A little more than needed is padding.
    if found is None or pixel_bytes <= found < 2 * pixel_bytes:
        return ""
    return f"it holds {found} bytes of pixels, its rows, columns and bits ask for {pixel_bytes}"


def _uncompressed_bytes(content: bytes) -> int | None:
    """Return the length of the pixels that end where the file ends, None where there are none."""
    start = content.rfind(PIXEL_TAG)
    while start >= 0:
        for kind in _LENGTH_FIELDS:
            behind = start + len(PIXEL_TAG + kind)
            if content[start + len(PIXEL_TAG) : behind] != kind or len(content) < behind + 4:
                continue
            (length,) = struct.unpack("<I", content[behind : behind + 4])
            if 0 <= len(content) - (behind + 4 + length) <= MAX_TRAILER_BYTES:
                return length
        start = content.rfind(PIXEL_TAG, 0, start)
    return None


def series_of_damaged_image(path: Path) -> str | None:
    """Return the series UID of a file that should be an image and cannot be read as one.

    None for reports, structure sets and the like, which never held pixels.
    """
    content = path.read_bytes()
    uid = _SERIES_UID.search(content)
    return uid.group(1).decode("ascii") if uid and PIXEL_TAG in content else None
