# SPDX-License-Identifier: Apache-2.0
"""The text of a MetaImage header: its fields, and their values as numbers and words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.geometry import IDENTITY_DIRECTION, MAX_VOXELS, FileGrid
from lungdet_mmdet.errors import LungDetError, TruncatedFileError
from lungdet_mmdet.runs.files import MAX_DEFLATE_RATIO, check_input_file

HEADER_LIMIT_BYTES = 65536
_NAME = re.compile(r"[A-Za-z]\w*")
_NUMBER_LETTERS = re.compile(r"[0-9A-Za-z.+-]+")
_FIELD_ALIASES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
}
_TRUE_INITIALS = ("T", "t", "1")


@dataclass(frozen=True)
class MetaImageFields:
    """The fields of one header.

    Parameters
    ----------
    path : the header file, for messages.
    values : text of each field; alternative names are brought to one.
    n_bytes : length of the header; where the pixels follow it, they begin here.
    """

    path: Path
    values: dict[str, str]
    n_bytes: int

    def text(self, name: str, default: str = "") -> str:
        """Return a field's text."""
        return self.values.get(name, default)

    def is_true(self, name: str, default: str) -> bool:
        """Return a field's truth as MetaIO sees it."""
        return self.text(name, default).startswith(_TRUE_INITIALS)

    def whole_number(self, name: str, default: int) -> int:
        """Return a field's one whole number; LungDetError where it holds something else."""
        if name not in self.values:
            return default
        numbers = self.numbers(name, int)
        if len(numbers) != 1:
            raise LungDetError(
                f"{self.path}: header field {name} is '{self.values[name]}': one number is "
                "needed; correct it or convert the scan again"
            )
        return numbers[0]

    def numbers(self, name: str, kind: type = float) -> tuple:
        """Return a field's numbers; LungDetError where it is missing or holds something else."""
        if name not in self.values:
            raise LungDetError(
                f"{self.path}: header field {name} is missing; copy or convert the scan again"
            )
        words, what = self.values[name].split(), "whole numbers" if kind is int else "numbers"
        try:
            # Python reads 6_4 as 64, and the digits of every script; MetaIO does not.
            if not all(_NUMBER_LETTERS.fullmatch(word) for word in words):
                raise ValueError
            return tuple(kind(word) for word in words)
        except ValueError:
            raise LungDetError(
                f"{self.path}: header field {name} is '{_shortened(self.values[name])}': {what} "
                "are needed; correct it or convert the scan again"
            ) from None


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


def read_fields(path: Path) -> MetaImageFields:
    """Read the fields of a header up to ElementDataFile, which is its last.

    Raises LungDetError if the file cannot be read, is no header, or names one field twice with
    different values.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_LIMIT_BYTES)
    except OSError as error:
        raise LungDetError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    values: dict[str, str] = {}
    offset = 0
    for raw in head.split(b"\n"):
        offset += len(raw) + 1
        if not raw.strip():
            continue
        # File names are bytes; most systems, and SimpleITK, write them in UTF-8.
        name, equals, value = raw.decode("utf-8", "surrogateescape").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            break
        name = _FIELD_ALIASES.get(name, name)
        if name in values and values[name] != value:
            raise LungDetError(
                f"{path}: header field {name} stands twice, as '{_shortened(values[name])}' and "
                f"'{_shortened(value)}'; remove the wrong one"
            )
        values[name] = value
        if name == "ElementDataFile":
            return MetaImageFields(path, values, offset)
    raise LungDetError(
        f"{path}: no ElementDataFile in the first {HEADER_LIMIT_BYTES} bytes: "
        "not a MetaImage header, or a truncated one; copy the file again"
    )


# As MetaIO compares them: any other spelling is a file name.
_LOCAL_NAMES = ("LOCAL", "Local", "local")


def data_file_beside(path: Path, name: str) -> Path:
    """Return the file with the pixels of a header.

    Parameters
    ----------
    path : the header.
    name : its ElementDataFile; "LOCAL" means the header's own file.

    Raises
    ------
    LungDetError
        If it lies elsewhere, is no regular file, or stands for several.
    """
    if name in _LOCAL_NAMES:
        return path
    if name.startswith("LIST") or "%" in name:
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' stands for a list of slice files; one data file is "
            "needed: convert the scan to a single .mha file first"
        )
    outside = LungDetError(
        f"{path}: ElementDataFile '{name}' lies outside the header's own folder "
        f"{path.parent.resolve()}; for safety only files beside the header are read: put the "
        "data file there and name it without a path"
    )
    if Path(name).name != name or "\0" in name:
        raise outside
    data_path = path.parent / name
    try:
        check_input_file(data_path)
    except LungDetError as error:
        # Missing stays missing: who checks a folder tells that from damage.
        raise type(error)(f"{path}: ElementDataFile '{name}' cannot be used: {error}") from None
    # A link may lead out of the folder only to where the header's own link leads.
    if data_path.is_symlink() and data_path.resolve().parent not in {
        path.parent.resolve(),
        path.resolve().parent,
    }:
        raise outside
    return data_path


BYTES_OF_ELEMENT = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


@dataclass(frozen=True)
class MetaImageHeader:
    """The fields of a MetaImage header that decide how its pixels are read.

    Parameters
    ----------
    path : the header file.
    data_path : the file that holds the pixels (the header file itself where they follow it).
    data_offset : bytes to skip in `data_path`: the header where the pixels follow it.
    data_bytes : bytes of pixels in the file, compressed or not.
    size_xyz : voxels along x, y, z.
    spacing_xyz_mm : voxel spacing along x, y, z.
    element_type : e.g. ``MET_SHORT``.
    compressed : whether the pixels are zlib-compressed.
    """

    path: Path
    data_path: Path
    data_offset: int
    data_bytes: int
    size_xyz: tuple[int, int, int]
    spacing_xyz_mm: tuple[float, float, float]
    element_type: str
    compressed: bool

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the uncompressed pixels."""
        return math.prod(self.size_xyz) * BYTES_OF_ELEMENT[self.element_type]


def _size_xyz(fields: MetaImageFields) -> tuple[int, int, int]:
    size = fields.numbers("DimSize", int)
    n_dims = fields.whole_number("NDims", 3)
    if len(size) != 3 or n_dims != 3:
        raise LungDetError(
            f"{fields.path}: DimSize is '{fields.text('DimSize')}', NDims {n_dims}: one 3-D scan "
            "is needed; convert a single series"
        )
    if min(size) < 1 or math.prod(size) > MAX_VOXELS:
        raise LungDetError(
            f"{fields.path}: DimSize is '{fields.text('DimSize')}': sizes must be at least 1 and "
            f"the scan at most {MAX_VOXELS} voxels; copy or convert the scan again"
        )
    return size[0], size[1], size[2]


def _spacing_xyz_mm(fields: MetaImageFields) -> tuple[float, float, float]:
    name = "ElementSpacing" if "ElementSpacing" in fields.values else "ElementSize"
    spacing = fields.numbers(name)
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise LungDetError(
            f"{fields.path}: {name} is '{fields.text(name)}': three finite spacings > 0 mm "
            "are needed; take them from the original DICOM series"
        )
    return spacing[0], spacing[1], spacing[2]


def _check_place(
    fields: MetaImageFields, size_xyz: tuple[int, int, int], spacing_xyz_mm: Sequence[float]
) -> None:
    """Refuse a grid that is none; MetaIO would read what is no number as 0."""
    defaults = {"Offset": (0.0, 0.0, 0.0), "TransformMatrix": IDENTITY_DIRECTION}
    place = {}
    for name, default in defaults.items():
        numbers = fields.numbers(name) if name in fields.values else default
        if len(numbers) != len(default) or not all(map(math.isfinite, numbers)):
            raise LungDetError(
                f"{fields.path}: {name} is '{fields.text(name)}': {len(default)} finite numbers "
                "are needed; take them from the original DICOM series"
            )
        place[name] = numbers
    FileGrid(
        size_zyx=(size_xyz[2], size_xyz[1], size_xyz[0]),
        spacing_xyz_mm=np.array(spacing_xyz_mm),
        origin_xyz_mm=np.array(place["Offset"]),
        # MetaIO writes one axis after the other.
        axes_xyz=np.array(place["TransformMatrix"]).reshape(3, 3).T,
    ).checked(source=str(fields.path))


def _element_type(fields: MetaImageFields) -> str:
    channels = fields.whole_number("ElementNumberOfChannels", 1)
    if channels != 1:
        raise LungDetError(
            f"{fields.path}: {channels} values per voxel: a colour image, not a CT scan; convert "
            "the original series again"
        )
    for name, neutral in (("Slope", 1.0), ("Offset", 0.0)):
        name = f"ElementToIntensityFunction{name}"
        if name in fields.values and fields.numbers(name) != (neutral,):
            raise LungDetError(
                f"{fields.path}: {name} is '{fields.text(name)}': readers differ on whether values "
                f"are to be rescaled; store Hounsfield values, and {neutral:g} there"
            )
    if not fields.is_true("BinaryData", "True"):
        raise LungDetError(
            f"{fields.path}: pixels as text (BinaryData = False); convert to binary pixels"
        )
    element_type = fields.text("ElementType")
    if element_type not in BYTES_OF_ELEMENT:
        raise LungDetError(
            f"{fields.path}: ElementType is '{element_type}'; known: "
            f"{', '.join(BYTES_OF_ELEMENT)}; convert the scan again"
        )
    return element_type


def read_metaimage_header(path: Path | str) -> MetaImageHeader:
    """Read and check the header of a 3-D scalar MetaImage.

    Parameters
    ----------
    path : a .mhd or .mha file.

    Returns
    -------
    MetaImageHeader

    Raises
    ------
    LungDetError
        Naming the file, the field, its value and the remedy: missing or contradicting fields, not
        3-D, a size that cannot be a chest CT, a spacing that is not positive, a place that is not
        finite, an unknown element type, a colour image, pixels outside the header's folder, or
        another number of pixel bytes on disk than the header promises.
    """
    path = Path(path)
    check_input_file(path)
    fields = read_fields(path)
    size, spacing = _size_xyz(fields), _spacing_xyz_mm(fields)
    _check_place(fields, size, spacing)
    element_type = _element_type(fields)
    data_path = data_file_beside(path, fields.text("ElementDataFile"))
    on_disk = data_path.stat().st_size
    offset = fields.n_bytes
    if data_path != path:
        # -1 says that the pixels are the last bytes of the file, whatever stands before them.
        offset = max(fields.whole_number("HeaderSize", 0), 0)
    data_bytes = math.prod(size) * BYTES_OF_ELEMENT[element_type]
    compressed = fields.is_true("CompressedData", "False")
    if compressed:
        # MetaIO takes 0 and a missing field to mean the rest of the file.
        data_bytes = fields.whole_number("CompressedDataSize", 0) or max(on_disk - offset, 1)
    header = MetaImageHeader(
        path=path,
        data_path=data_path,
        data_offset=offset,
        data_bytes=data_bytes,
        size_xyz=size,
        spacing_xyz_mm=spacing,
        element_type=element_type,
        compressed=compressed,
    )
    _check_bytes(header, on_disk=on_disk, fields=fields)
    return header


def _check_bytes(header: MetaImageHeader, *, on_disk: int, fields: MetaImageFields) -> None:
    """Compare what the header promises with the length of the data file."""
    held, promised = on_disk - header.data_offset, header.data_bytes
    if promised < 1 or held < promised:
        raise TruncatedFileError(
            f"{header.data_path}: {held} bytes of pixel data, the header promises {promised}: "
            "the file is truncated; copy or download it again"
        )
    if header.compressed and header.pixel_bytes > MAX_DEFLATE_RATIO * promised:
        # Before SimpleITK asks for memory for all of them.
        raise TruncatedFileError(
            f"{header.data_path}: {promised} compressed bytes cannot hold the {header.pixel_bytes} "
            f"bytes of pixels that the header {header.path.name} promises with DimSize "
            f"'{fields.text('DimSize')}': the file is truncated, or the header of another scan; "
            "copy or download both again"
        )
    slice_bytes = header.pixel_bytes // header.size_xyz[2]
    ends_with_pixels = fields.whole_number("HeaderSize", 0) < 0
    if not header.compressed and not ends_with_pixels and held - promised >= slice_bytes:
        raise LungDetError(
            f"{header.data_path}: {held} bytes of pixel data, the header promises {promised} with "
            f"DimSize '{fields.text('DimSize')}' and ElementType {header.element_type}: one of "
            "them is wrong; correct it, or convert the scan again"
        )
