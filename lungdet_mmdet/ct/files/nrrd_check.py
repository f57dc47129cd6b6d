# SPDX-License-Identifier: Apache-2.0
"""Checks of a NRRD file before SimpleITK reads it.

SimpleITK follows a NRRD header to a data file anywhere on the disk, asks for memory for whatever
size it states, and reads damaged gzip pixels, or more pixels than there should be, without a word.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

from lungdet_mmdet.ct.geometry import MAX_VOXELS
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import MAX_DEFLATE_RATIO, remaining_bytes

_HEADER_LIMIT_BYTES = 65536
_VECTOR, _QUOTED = re.compile(r"\(([^()]*)\)"), re.compile(r'"([^"]*)"')
# Nothing said, or said that nothing is known, is millimetres by custom.
_MILLIMETRES = frozenset(
    {"mm", "millimeter", "millimetre", "millimeters", "millimetres", "", "???"}
)
SPACING_TOLERANCE_REL = 1e-3
# The format's names of one type; spaces stand for any number of them.
_BYTES_OF_TYPE = {
    1: "signed char,int8,int8_t,uchar,unsigned char,uint8,uint8_t",
    2: "short,short int,signed short,signed short int,int16,int16_t,"
    "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    4: "int,signed int,int32,int32_t,uint,unsigned int,uint32,uint32_t,float",
    8: "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t,"
    "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t,double",
}


def check_nrrd(path: Path) -> None:
    """Check that all pixels of a NRRD file are in it, and whole.

    Gzip pixels are decompressed once for this; nothing is kept.

    Raises
    ------
    LungDetError
        If the header names another file, cannot be understood, or promises another number of bytes
        than there are, or the compressed pixels are damaged.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT_BYTES)
    if not head.startswith(b"NRRD"):
        raise LungDetError(f"{path}: cannot be read: not a NRRD file; convert the scan again")
    fields, offset = _fields(head)
    separate = fields.get("data file", fields.get("datafile"))
    if separate is not None:
        raise LungDetError(
            f"{path}: the header names a separate data file ('{separate}'); for safety "
            "only pixels inside the .nrrd file are read: save the scan as one .nrrd or .mha"
        )
    skips = {name for name in fields if name.replace(" ", "") in ("lineskip", "byteskip")}
    encoding = fields.get("encoding", "").lower()
    if skips or encoding not in ("raw", "gzip", "gz"):
        raise LungDetError(
            f"{path}: encoding '{encoding}'{', ' if skips else ''}{', '.join(sorted(skips))}: only "
            "raw and gzip pixels right behind the header are read; save the scan again"
        )
    promised, slice_bytes = _promised_bytes(path, fields)
    _check_place(path, fields)
    held = path.stat().st_size - offset
    if encoding != "raw":
        if promised > MAX_DEFLATE_RATIO * held:
            held = 0  # no stream this short holds as much: nothing has to be read to know
        else:
            held = _decompressed_bytes(path, offset, promised + slice_bytes)
    if not promised <= held < promised + slice_bytes:
        raise LungDetError(
            f"{path}: {held} bytes of pixels, the header promises {promised} with sizes "
            f"'{fields['sizes']}' and type '{fields.get('type')}': the file is truncated or its "
            "header wrong; copy or convert it again"
        )


def _fields(head: bytes) -> tuple[dict[str, str], int]:
    """Return the fields up to the blank line, and the offset of the first byte behind it."""
    ends = [(head.find(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    end, length = min((e for e in ends if e[0] >= 0), default=(len(head), 0))
    fields: dict[str, str] = {}
    for line in head[:end].splitlines():
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields, end + length


def _promised_bytes(path: Path, fields: dict[str, str]) -> tuple[int, int]:
    """Return the bytes of all pixels, and of one slice."""
    words = fields.get("sizes", "").split()
    # Nothing has 20 digits; Python refuses to read thousands of them.
    sizes = [int(w) for w in words if w.isascii() and w.isdecimal() and len(w) < 20]
    kind = " ".join(fields.get("type", "").lower().split())
    n_bytes = next((n for n, names in _BYTES_OF_TYPE.items() if kind in names.split(",")), 0)
    is_sound = sizes and len(sizes) == len(words) and 0 < math.prod(sizes) <= MAX_VOXELS
    if not (is_sound and n_bytes):
        raise LungDetError(
            f"{path}: the header has sizes '{fields.get('sizes', '')[:80]}' and type '{kind[:80]}'"
            f": needed are sizes of at least 1, at most {MAX_VOXELS} voxels and a type of numbers; "
            "convert the scan again"
        )
    total = math.prod(sizes) * n_bytes
    return total, total // sizes[-1]


def _check_place(path: Path, fields: dict[str, str]) -> None:
    """Refuse a header without spacings, in another unit, or with spacings that disagree."""
    directions = _VECTOR.findall(fields.get("space directions", ""))
    spacings = fields.get("spacings", "").split()
    if not directions and not any(_is_length(word) for word in spacings):
        raise LungDetError(
            f"{path}: the header has neither 'spacings' nor 'space directions': the size of a "
            "voxel is not known; convert the scan again from DICOM"
        )
    units = {u.lower() for u in _QUOTED.findall(fields.get("space units", ""))}
    units |= {u.lower() for u in _QUOTED.findall(fields.get("units", ""))}
    if units - _MILLIMETRES:
        raise LungDetError(
            f"{path}: the header gives lengths in {', '.join(sorted(units - _MILLIMETRES))}, and "
            "only millimetres are read; convert the scan again"
        )
    if directions and spacings:
        lengths = [math.hypot(*map(float, v.split(","))) for v in directions if _is_vector(v)]
        stated = [float(word) for word in spacings if _is_length(word)]
        if len(lengths) == len(stated) and any(
            abs(a - b) > SPACING_TOLERANCE_REL * b for a, b in zip(lengths, stated, strict=True)
        ):
            raise LungDetError(
                f"{path}: the header states two spacings: 'spacings' {stated}, and {lengths} in "
                "its 'space directions'; convert the scan again from DICOM"
            )


def _is_length(word: str) -> bool:
    try:
        return math.isfinite(float(word)) and float(word) > 0
    except ValueError:
        return False


def _is_vector(text: str) -> bool:
    try:
        return all(math.isfinite(float(word)) for word in text.split(","))
    except ValueError:
        return False


def _decompressed_bytes(path: Path, offset: int, limit: int) -> int:
    """Return how many bytes the gzip stream holds, counted up to `limit`."""
    with path.open("rb") as file:
        file.seek(offset)
        try:
            with gzip.open(file) as stream:
                return remaining_bytes(stream, at_most=limit)
        except (OSError, EOFError, zlib.error) as error:
            raise LungDetError(
                f"{path}: the compressed pixels are damaged ({error}); the file is truncated or "
                "damaged: copy or download it again"
            ) from error
