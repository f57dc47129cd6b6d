# SPDX-License-Identifier: Apache-2.0
"""What a DICOM file says before its pixels: its elements, and the header of a CT slice."""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

MAGIC_OFFSET = 128
MAGIC = b"DICM"
_FIRST_ELEMENT = MAGIC_OFFSET + len(MAGIC)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_ITEM_BYTES = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = (0x7FE0, 0x0010)
SOP_CLASS, SERIES_UID, ROWS = (0x0008, 0x0016), (0x0020, 0x000E), (0x0028, 0x0010)
MODALITY = (0x0008, 0x0060)
_MEDIA_SOP_CLASS, _TRANSFER_SYNTAX = (0x0002, 0x0002), (0x0002, 0x0010)
# Six direction cosines are the longest value that is looked at.
_MAX_VALUE_BYTES = 128
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


@dataclass
class DicomElements:
    """What a walk over a file's elements found.

    Parameters
    ----------
    fit : whether every element ends within the file.
    texts : SOP class, modality and series UID at the top level, as far as the walk came.
    has_rows : whether the header describes an image.
    pixel_bytes : length of the pixels at the top level; None where there are none, -1 where they
        are compressed.
    """

    fit: bool = False
    texts: dict[tuple[int, int], str] = field(default_factory=dict)
    has_rows: bool = False
    pixel_bytes: int | None = None

    @property
    def sop_class(self) -> str:
        """SOP class; "" where it is not said."""
        return self.texts.get(SOP_CLASS, "")

    @property
    def modality(self) -> str:
        """Modality; "" where it is not said."""
        return self.texts.get(MODALITY, "")

    @property
    def series_uid(self) -> str:
        """Series UID; "" where it is not said, or was cut off."""
        return self.texts.get(SERIES_UID, "")

    def note(self, tag: tuple[int, int], value: bytes, length: int) -> None:
        """Take up one element of the top level."""
        if tag in (SOP_CLASS, SERIES_UID, MODALITY):
            self.texts[tag] = value.rstrip(b"\0 ").decode("ascii", "replace")
        elif tag == _MEDIA_SOP_CLASS:
            self.texts.setdefault(SOP_CLASS, value.rstrip(b"\0 ").decode("ascii", "replace"))
        elif tag == ROWS:
            self.has_rows = True
        elif tag == _PIXEL_DATA:
            self.pixel_bytes = -1 if length == _UNDEFINED else length


_Note = Callable[[tuple[int, int], bytes, int], None]
# Told of every element at every depth, and of the beginning of every item.
_DeepNote = Callable[[tuple[int, int], bytes, int], None]


def walk_elements(path: Path, *, deep: _DeepNote | None = None) -> DicomElements:
    """Walk over the elements of a DICOM file, up to one that ends behind the file.

    Values other than UIDs are not looked at; pixels are not read.

    Parameters
    ----------
    path : the file.
    deep : called as ``deep(tag, value, depth)``, elements within sequences included.
    """
    found = DicomElements()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, syntax = _file_meta(data, found.note)
            if syntax == _DEFLATED:
                inflated = _inflated(data[start:])
                _walk(inflated, 0, len(inflated), "<", 0, note=found.note, deep=deep)
            else:
                order = ">" if syntax == _BIG_ENDIAN else "<"
                _walk(data, start, len(data), order, 0, note=found.note, deep=deep)
    except (_MisfitError, OSError, ValueError, zlib.error):
        return found
    found.fit = True
    return found


def elements_fit(path: Path) -> bool:
    """Say whether every element of a DICOM file ends within the file."""
    return walk_elements(path).fit


def begins_as_dicom(head: bytes) -> bool:
    """Say whether a file's first bytes are those of DICOM, with its preamble or without.

    Without one, the first element stands at the file's very beginning: of group 2, or of group 8
    with a known kind or a length that leads to the next element of that group.
    """
    if head[MAGIC_OFFSET:_FIRST_ELEMENT] == MAGIC:
        return True
    if len(head) < 16 or head[:2] not in (b"\x02\0", b"\x08\0") or head[3] != 0:
        return False
    if head[4:6] in _SHORT_VRS | _LONG_VRS:
        return True
    (length,) = struct.unpack("<I", head[4:8])
    return head[8 + length : 10 + length] == b"\x08\0"


def _file_meta(data: _Bytes, note: _Note) -> tuple[int, bytes]:
    """Return where the file's meta elements end, and the transfer syntax that they name."""
    has_preamble = data[MAGIC_OFFSET:_FIRST_ELEMENT] == MAGIC
    at, syntax = _FIRST_ELEMENT if has_preamble else 0, b""
    while len(data) - at >= 8 and data[at : at + 2] == b"\x02\x00":
        tag, _, value, length = _element(data, at, len(data), "<", True)
        if length == _UNDEFINED or value + length > len(data):
            raise _MisfitError
        if tag == _TRANSFER_SYNTAX:
            syntax = data[value : value + length].rstrip(b"\0 ")
        note(tag, data[value : value + min(length, _MAX_VALUE_BYTES)], length)
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


def _walk(
    data: _Bytes,
    at: int,
    end: int,
    order: str,
    depth: int,
    *,
    to_mark: bool = False,
    note: _Note | None = None,
    deep: _DeepNote | None = None,
) -> int:
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
        if note is not None and (length == _UNDEFINED or value + length <= end):
            note(tag, data[value : value + min(length, _MAX_VALUE_BYTES)], length)
        if deep is not None:
            size = 0 if length == _UNDEFINED else min(length, _MAX_VALUE_BYTES)
            deep(tag, data[value : value + size], depth)
        if length == _UNDEFINED:
            are_pixels = tag == _PIXEL_DATA
            at = _walk_items(data, value, end, order, depth, are_pixels=are_pixels, deep=deep)
            continue
        at = value + length
        if at > end:
            raise _MisfitError
        if vr == b"SQ" or (length >= 8 and not vr and data[value : value + 4] == _ITEM_BYTES):
            _walk_items(data, value, at, order, depth, are_pixels=False, deep=deep)
    return end


def _walk_items(
    data: _Bytes,
    at: int,
    end: int,
    order: str,
    depth: int,
    *,
    are_pixels: bool,
    deep: _DeepNote | None = None,
) -> int:
    """Walk over the items of a sequence, or the fragments of compressed pixels."""
    while end - at >= 8:
        group, element, length = struct.unpack(f"{order}HHI", data[at : at + 8])
        at += 8
        if (group, element) == _SEQUENCE_END:
            return at
        if (group, element) != _ITEM:
            raise _MisfitError
        if deep is not None:
            deep(_ITEM, b"", depth)
        if length == _UNDEFINED:
            at = _walk(data, at, end, order, depth + 1, to_mark=True, deep=deep)
        elif at + length > end:
            raise _MisfitError
        else:
            if not are_pixels:
                _walk(data, at, at + length, order, depth + 1, deep=deep)
            at += length
    if are_pixels:  # the mark behind the last fragment is missing
        raise _MisfitError
    return end


# Positions are written with few digits: differences below this are rounding.
POSITION_TOLERANCE_MM = 0.02
_HEAD_BYTES = 512
# CT Image Storage, Enhanced CT, and the latter converted from the former; "" where it is not said.
CT_SOP_CLASSES = frozenset({"", *(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))})
_TAGS = {
    "patient": "0010|0020",
    "patient_name": "0010|0010",
    "birth_date": "0010|0030",
    "frame": "0020|0052",
    "photometric": "0028|0004",
    "thickness": "0018|0050",
    "images": "0020|1002",
    "study": "0020|000d",
    "series": "0020|000e",
    "instance": "0008|0018",
    "sop_class": "0008|0016",
    "modality": "0008|0060",
    "image_type": "0008|0008",
    "description": "0008|103e",
    "acquisition": "0020|0012",
    "number": "0020|0013",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "samples": "0028|0002",
    "frames": "0028|0008",
    "bits": "0028|0100",
    "intercept": "0028|1052",
    "slope": "0028|1053",
    "kernel": "0018|1210",
}


@dataclass(frozen=True)
class DicomSlice:
    """One DICOM image, as far as its header tells.

    ``position_xyz_mm`` is the world point of the first pixel's centre, ``orientation`` the six
    direction cosines of a row and a column, ``spacing_xy_mm`` the pixel size; all three are empty
    where the header lacks them. ``pixel_bytes`` is the length of one frame before compression,
    ``rescaling`` the text of slope and intercept, "" where there is none. ``patient`` is the
    patient's id, or name and birth date where there is no id; ``frame_uid`` the frame of reference.
    ``thickness_mm`` and ``n_images`` (images in the acquisition) are 0 where they are not said.
    ``frame`` is the place of a slice in a file of several, from 0; None in a file of its own.
    """

    path: Path
    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str
    image_type: str
    description: str
    kernel: str
    acquisition: str
    instance_number: int
    position_xyz_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_xy_mm: tuple[float, ...]
    size_yx: tuple[int, int]
    samples: int
    frames: int
    pixel_bytes: int
    rescaling: tuple[str, str] = ("", "")
    patient: str = ""
    frame_uid: str = ""
    photometric: str = ""
    thickness_mm: float = 0.0
    n_images: int = 0
    frame: int | None = None

    @property
    def has_place(self) -> bool:
        """Whether the header says where the slice lies."""
        lengths = (len(self.position_xyz_mm), len(self.orientation), len(self.spacing_xy_mm))
        return lengths == (3, 6, 2)

    @property
    def is_ct_slice(self) -> bool:
        """Whether it can be one slice of a CT volume: it has a place, and is no overview."""
        is_overview = "LOCALIZER" in self.image_type.upper()
        return self.has_place and self.sop_class_uid in CT_SOP_CLASSES and not is_overview

    @property
    def has_sound_rescaling(self) -> bool:
        """Whether slope and intercept are numbers, where there are any; GDCM takes 0 to be 1."""
        slope, intercept = (numbers_of(text, 1) for text in self.rescaling)
        slope_is_sound = not self.rescaling[0] or (bool(slope) and slope[0] != 0)
        return slope_is_sound and (not self.rescaling[1] or bool(intercept))

    @property
    def normal_xyz(self) -> np.ndarray:
        """(3,) unit normal of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """Position along the slice normal."""
        return float(self.normal_xyz @ np.asarray(self.position_xyz_mm))


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do, with the preamble or without."""
    # Asking a pipe or a device could wait for ever.
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return begins_as_dicom(file.read(_HEAD_BYTES))
    except OSError:
        return False


def read_dicom_header(path: Path) -> DicomSlice | None:
    """Read what an image's header says; None for DICOM files that are no images, or damaged."""
    try:
        check_input_file(path)
    except LungDetError:
        return None
    if not elements_fit(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    tags = {
        name: _printable(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else ""
        for name, tag in _TAGS.items()
    }
    rows, columns = _integer(tags["rows"], 0), _integer(tags["columns"], 0)
    return DicomSlice(
        path=path,
        study_uid=tags["study"],
        series_uid=tags["series"],
        instance_uid=tags["instance"],
        sop_class_uid=tags["sop_class"],
        modality=tags["modality"],
        image_type=tags["image_type"],
        description=tags["description"],
        kernel=tags["kernel"],
        acquisition=tags["acquisition"],
        instance_number=_integer(tags["number"], 0),
        position_xyz_mm=numbers_of(tags["position"], 3),
        orientation=numbers_of(tags["orientation"], 6),
        # The tag names the distance of rows (y) first.
        spacing_xy_mm=numbers_of(tags["spacing"], 2)[::-1],
        size_yx=(rows, columns),
        samples=_integer(tags["samples"], 1),
        frames=_integer(tags["frames"], 1),
        pixel_bytes=rows * columns * _integer(tags["bits"], 16) // 8,
        rescaling=(tags["slope"], tags["intercept"]),
        patient=tags["patient"] or f"{tags['patient_name']} {tags['birth_date']}".strip(),
        frame_uid=tags["frame"],
        photometric=tags["photometric"],
        thickness_mm=next(iter(numbers_of(tags["thickness"], 1)), 0.0),
        n_images=_integer(tags["images"], 0),
    )


def _printable(text: str) -> str:
    """Return a tag's text; letters of a character set other than UTF-8 become question marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \0")


def numbers_of(text: str, count: int) -> tuple[float, ...]:
    """Return a tag's numbers, or () where they are not `count` finite ones."""
    try:
        numbers = tuple(float(word) for word in text.split("\\"))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and np.all(np.isfinite(numbers)) else ()


def _integer(text: str, default: int) -> int:
    try:
        return int(text)
    except ValueError:
        return default
