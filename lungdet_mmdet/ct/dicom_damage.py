"""Cut-off DICOM files: GDCM takes them for no image at all, or fills up what is missing."""

from __future__ import annotations

import re
import struct
from pathlib import Path

PIXEL_TAG = b"\xe0\x7f\x10\x00"
UNDEFINED_LENGTH = b"\xff\xff\xff\xff"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
# What may follow compressed pixels: padding, a signature.
MAX_TRAILER_BYTES = 65536
# The series UID with its length, explicit ("UI" and two bytes) or implicit (four bytes).
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00(?:UI..|....)([0-9.]{1,64})", re.DOTALL)


def is_cut_off(path: Path, *, pixel_bytes: int) -> bool:
    """Say whether a file ends before its pixels do.

    Where the pixels cannot be found (big-endian or deflated files), the answer is no.

    Parameters
    ----------
    path : the file.
    pixel_bytes : length of its pixels before compression.
    """
    content = path.read_bytes()
    length = struct.pack("<I", pixel_bytes + pixel_bytes % 2)
    for kind in (b"OW\0\0", b"OB\0\0", b""):
        start = content.find(PIXEL_TAG + kind + length)
        if start >= 0:
            return len(content) < start + len(PIXEL_TAG + kind + length) + pixel_bytes
    if PIXEL_TAG + b"OB\0\0" + UNDEFINED_LENGTH in content:
        return SEQUENCE_END not in content[-MAX_TRAILER_BYTES:]
    return False


def series_of_damaged_image(path: Path) -> str | None:
    """Return the series UID of a file that should be an image and cannot be read as one.

    None for reports, structure sets and the like, which never held pixels.
    """
    content = path.read_bytes()
    uid = _SERIES_UID.search(content)
    return uid.group(1).decode("ascii") if uid and PIXEL_TAG in content else None
