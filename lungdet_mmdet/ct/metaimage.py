"""MetaImage headers (.mhd, .mha), checked before any pixel is read.

SimpleITK reads MetaImage well but trusts the header: it allocates whatever ``DimSize`` says,
follows ``ElementDataFile`` anywhere, and fills a truncated image without a word. Scans come from
strangers, so the header is read and checked here first.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

HEADER_LIMIT_BYTES = 65536
# 2000 slices of 1024 x 1024: more than any chest CT, less than the memory of a workstation.
MAX_VOXELS = 2**31
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
_LINE = re.compile(r"^\s*([A-Za-z]\w*)\s*=\s*(.*?)\s*$")
_FIELD_ALIASES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
}
# As MetaIO compares them: any other spelling is a file name.
_LOCAL_NAMES = ("LOCAL", "Local", "local")
_TRUE_INITIALS = ("T", "t", "1")


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


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the header's fields and the offset of the first byte after ElementDataFile."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_LIMIT_BYTES)
    except OSError as error:
        raise LungDetError(f"{path}: cannot be read ({error.strerror})") from error
    fields: dict[str, str] = {}
    offset = 0
    for raw in head.split(b"\n"):
        offset += len(raw) + 1
        if not raw.strip():
            continue
        match = _LINE.match(raw.decode("latin-1"))
        if match is None:
            break
        name, value = match.groups()
        name = _FIELD_ALIASES.get(name, name)
        if name in fields and fields[name] != value:
            raise LungDetError(
                f"{path}: header field {name} stands twice, as '{fields[name]}' and '{value}'; "
                "remove the wrong one"
            )
        fields[name] = value
        if name == "ElementDataFile":
            return fields, offset
    raise LungDetError(
        f"{path}: no ElementDataFile in the first {HEADER_LIMIT_BYTES} bytes: "
        "not a MetaImage header, or a truncated one; copy the file again"
    )


def _numbers(path: Path, fields: dict[str, str], name: str, kind: type) -> tuple:
    if name not in fields:
        raise LungDetError(
            f"{path}: header field {name} is missing; copy or convert the scan again"
        )
    try:
        return tuple(kind(word) for word in fields[name].split())
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise LungDetError(
            f"{path}: header field {name} is '{fields[name]}': {what} are needed; correct it or "
            "convert the scan again"
        ) from None


def _integer(path: Path, fields: dict[str, str], name: str, default: int) -> int:
    if name not in fields:
        return default
    values = _numbers(path, fields, name, int)
    if len(values) != 1:
        raise LungDetError(f"{path}: header field {name} is '{fields[name]}': one number is needed")
    return values[0]


def _is_true(fields: dict[str, str], name: str, default: str) -> bool:
    return fields.get(name, default).startswith(_TRUE_INITIALS)


def _data_file(path: Path, name: str) -> Path:
    if name in _LOCAL_NAMES:
        return path
    if name.startswith("LIST") or "%" in name:
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' stands for a list of slice files; one data file is "
            "needed: convert the scan to a single .mha file first"
        )
    data_path = path.parent / name
    # A link may lead out of the folder only to where the header's own link leads.
    folders = {path.parent.resolve(), path.resolve().parent}
    if Path(name).name != name or "\0" in name or data_path.resolve().parent not in folders:
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' lies outside the header's own folder "
            f"{path.parent.resolve()}; for safety only files beside the header are read: put the "
            "data file there and name it without a path"
        )
    if not data_path.exists():
        raise LungDetError(f"{path}: data file '{name}' is missing; copy it beside the header")
    if not data_path.is_file():
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' is not a regular file; name the file of the pixels"
        )
    return data_path


def _size_xyz(path: Path, fields: dict[str, str]) -> tuple[int, int, int]:
    size = _numbers(path, fields, "DimSize", int)
    if len(size) != 3 or _integer(path, fields, "NDims", 3) != 3:
        raise LungDetError(
            f"{path}: DimSize is '{fields['DimSize']}', NDims {fields.get('NDims', 3)}: "
            "one 3-D scan is needed"
        )
    if min(size) < 1 or math.prod(size) > MAX_VOXELS:
        raise LungDetError(
            f"{path}: DimSize is '{fields['DimSize']}': sizes must be at least 1 and the scan at "
            f"most {MAX_VOXELS} voxels"
        )
    return size


def _spacing_xyz_mm(path: Path, fields: dict[str, str]) -> tuple[float, float, float]:
    name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    spacing = _numbers(path, fields, name, float)
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise LungDetError(
            f"{path}: {name} is '{fields[name]}': three finite spacings > 0 mm "
            "are needed; take them from the original DICOM series"
        )
    return spacing


def _element_type(path: Path, fields: dict[str, str]) -> str:
    channels = _integer(path, fields, "ElementNumberOfChannels", 1)
    if channels != 1:
        raise LungDetError(
            f"{path}: {channels} values per voxel: a colour image, not a CT scan; convert the "
            "original series again"
        )
    if not _is_true(fields, "BinaryData", "True"):
        raise LungDetError(f"{path}: pixels as text (BinaryData = False); convert to binary pixels")
    element_type = fields.get("ElementType", "")
    if element_type not in BYTES_OF_ELEMENT:
        raise LungDetError(
            f"{path}: ElementType is '{element_type}'; known: {', '.join(BYTES_OF_ELEMENT)}; "
            "convert the scan again"
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
        3-D, a size that cannot be a chest CT, a spacing that is not positive, an unknown element
        type, a colour image, pixels outside the header's folder, or too few pixel bytes on disk.
    """
    path = Path(path)
    if not path.is_file():
        raise LungDetError(f"{path}: no such file")
    fields, offset = _fields(path)
    size, spacing = _size_xyz(path, fields), _spacing_xyz_mm(path, fields)
    element_type = _element_type(path, fields)
    data_path = _data_file(path, fields["ElementDataFile"])
    if data_path != path:
        # -1 says that the pixels are the last bytes of the file, whatever stands before them.
        offset = max(_integer(path, fields, "HeaderSize", 0), 0)
    expected = math.prod(size) * BYTES_OF_ELEMENT[element_type]
    on_disk = data_path.stat().st_size - offset
    compressed = _is_true(fields, "CompressedData", "False")
    if compressed:
        # MetaIO takes 0 and a missing field to mean the rest of the file.
        expected = _integer(path, fields, "CompressedDataSize", 0) or max(on_disk, 1)
    if expected < 1 or on_disk < expected:
        raise LungDetError(
            f"{data_path}: {on_disk} bytes of pixel data, the header promises {expected}: "
            "the file is truncated; copy or download it again"
        )
    return MetaImageHeader(
        path=path,
        data_path=data_path,
        data_offset=offset,
        data_bytes=expected,
        size_xyz=size,
        spacing_xyz_mm=spacing,
        element_type=element_type,
        compressed=compressed,
    )
