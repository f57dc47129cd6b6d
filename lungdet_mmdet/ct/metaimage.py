"""MetaImage headers (.mhd, .mha), checked before any pixel is read.

SimpleITK reads MetaImage well but trusts the header: it allocates whatever ``DimSize`` says,
follows ``ElementDataFile`` anywhere, and fills a truncated image without a word. Scans come from strangers,
so the header is read and checked here first.
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
_FIELD_ALIASES = {"Rotation": "TransformMatrix", "Orientation": "TransformMatrix"}


@dataclass(frozen=True)
class MetaImageHeader:
    """The fields of a MetaImage header that decide how its pixels are read.

    Parameters
    ----------
    path : the header file.
    data_path : the file that holds the pixels (the header file itself where they follow it).
    data_offset : bytes to skip in `data_path` where the pixels follow the header, else 0.
    size_xyz : voxels along x, y, z.
    spacing_xyz_mm : voxel spacing along x, y, z.
    element_type : e.g. ``MET_SHORT``.
    compressed : whether the pixels are zlib-compressed.
    """

    path: Path
    data_path: Path
    data_offset: int
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
    with path.open("rb") as file:
        head = file.read(HEADER_LIMIT_BYTES)
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
        raise LungDetError(
            f"{path}: header field {name} is '{fields[name]}': numbers are needed"
        ) from None


def _data_file(path: Path, name: str) -> Path:
    if name.upper() == "LOCAL":
        return path
    data_path = path.parent / name
    folder = path.parent.resolve()
    if Path(name).is_absolute() or data_path.resolve().parent != folder:
        raise LungDetError(
            f"{path}: ElementDataFile '{name}' lies outside the header's own folder {folder}; "
            "for safety only files beside the header are read: put the data file there and name "
            "it without a path"
        )
    if not data_path.exists():
        raise LungDetError(f"{path}: data file '{name}' is missing; copy it beside the header")
    if not data_path.is_file():
        raise LungDetError(f"{path}: ElementDataFile '{name}' is not a regular file")
    return data_path


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
    size = _numbers(path, fields, "DimSize", int)
    if len(size) != 3:
        raise LungDetError(f"{path}: DimSize is '{fields['DimSize']}': a 3-D scan is needed")
    if min(size) < 1 or math.prod(size) > MAX_VOXELS:
        raise LungDetError(
            f"{path}: DimSize is '{fields['DimSize']}': sizes must be at least 1 and the scan at "
            f"most {MAX_VOXELS} voxels"
        )
    spacing_name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    spacing = _numbers(path, fields, spacing_name, float)
    if len(spacing) != 3 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise LungDetError(
            f"{path}: {spacing_name} is '{fields[spacing_name]}': three finite spacings > 0 mm "
            "are needed; take them from the original DICOM series"
        )
    if int(fields.get("ElementNumberOfChannels", "1")) != 1:
        raise LungDetError(f"{path}: a colour image, not a CT scan")
    element_type = fields.get("ElementType", "")
    if element_type not in BYTES_OF_ELEMENT:
        raise LungDetError(
            f"{path}: ElementType is '{element_type}'; known: {', '.join(BYTES_OF_ELEMENT)}"
        )
    data_path = _data_file(path, fields["ElementDataFile"])
    header = MetaImageHeader(
        path=path,
        data_path=data_path,
        data_offset=offset if data_path == path else 0,
        size_xyz=size,
        spacing_xyz_mm=spacing,
        element_type=element_type,
        compressed=fields.get("CompressedData", "False").lower() == "true",
    )
    _check_data_size(header, fields)
    return header


def _check_data_size(header: MetaImageHeader, fields: dict[str, str]) -> None:
    on_disk = header.data_path.stat().st_size - header.data_offset
    expected = header.pixel_bytes
    if header.compressed:
        expected = int(fields.get("CompressedDataSize", "1"))
    if on_disk < expected:
        raise LungDetError(
            f"{header.data_path}: {on_disk} bytes of pixel data, the header promises {expected}: "
            "the file is truncated; copy or download it again"
        )
