"""Checks of a NIfTI file before SimpleITK reads it.

SimpleITK returns a file that ends early as a whole image, with old memory in the place of the
missing voxels, and numbers of the header that are none as 1 or 0.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.ct.geometry import MAX_VOXELS
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import remaining_bytes

_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540
_BITS_OF_DATATYPE = {2: 8, 256: 8, 4: 16, 512: 16, 8: 32, 768: 32, 16: 32} | dict.fromkeys(
    (64, 1024, 1280), 64
)


@dataclass(frozen=True)
class _Header:
    """What decides how pixels are read, under the names of the NIfTI standard."""

    dim: tuple[int, ...]
    datatype: int
    bitpix: int
    pixdim: tuple[float, ...]
    vox_offset: float
    scl_slope: float
    scl_inter: float

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.dim[1 : 1 + max(self.dim[0], 0)]

    @property
    def pixel_bytes(self) -> int:
        return math.prod(self.sizes) * self.bitpix // 8


def _parsed(path: Path, head: bytes) -> _Header:
    for order in "<>":
        if len(head) >= _NIFTI1_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI1_BYTES):
            dim = struct.unpack(f"{order}8h", head[40:56])
            datatype, bitpix = struct.unpack(f"{order}2h", head[70:74])
            floats = struct.unpack(f"{order}11f", head[76:120])
            return _Header(dim, datatype, bitpix, floats[1:8], *floats[8:])
        if len(head) >= _NIFTI2_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI2_BYTES):
            datatype, bitpix = struct.unpack(f"{order}2h", head[12:16])
            dim = struct.unpack(f"{order}8q", head[16:80])
            pixdim = struct.unpack(f"{order}8d", head[104:168])
            offset, slope, inter = struct.unpack(f"{order}q2d", head[168:192])
            return _Header(dim, datatype, bitpix, pixdim[1:], offset, slope, inter)
    raise LungDetError(f"{path}: not a NIfTI file, or a truncated one; convert the scan again")


def _check_header(path: Path, header: _Header) -> None:
    sizes = header.sizes
    is_sound = 1 <= len(sizes) <= 7 and min(sizes) >= 1 and math.prod(sizes) <= MAX_VOXELS
    bits = _BITS_OF_DATATYPE.get(header.datatype, header.bitpix)
    offset_is_sound = math.isfinite(header.vox_offset) and header.vox_offset >= 0
    if not is_sound or header.bitpix != bits or bits < 1 or not offset_is_sound:
        raise LungDetError(
            f"{path}: the NIfTI header has dim {header.dim}, datatype {header.datatype}, bitpix "
            f"{header.bitpix} and vox_offset {header.vox_offset}: needed are sizes of at least 1 "
            f"with at most {MAX_VOXELS} voxels in all, and bits that fit the datatype; convert the "
            "scan again"
        )
    spacings = header.pixdim[: min(len(sizes), 3)]
    if not all(math.isfinite(s) and s > 0 for s in spacings):
        raise LungDetError(
            f"{path}: the NIfTI header has pixdim {spacings}: finite spacings > 0 mm are needed; "
            "convert the scan again"
        )
    slope, inter = header.scl_slope, header.scl_inter
    # Both mean that nothing is scaled, but readers differ on an intercept beside them.
    has_no_slope = slope == 0 or math.isnan(slope)
    has_inter = inter != 0 and not math.isnan(inter)
    if math.isinf(slope) or math.isinf(inter) or (has_no_slope and has_inter):
        raise LungDetError(
            f"{path}: the NIfTI header has scl_slope {slope} and scl_inter {inter}: Hounsfield "
            "values cannot be told from these; convert the scan again"
        )


def check_nifti(path: Path) -> None:
    """Check that a NIfTI file (.nii or .nii.gz) holds as many bytes as its header promises.

    A compressed file is decompressed once for this; nothing is kept.

    Raises
    ------
    LungDetError
        If it does not, its header is no sound one, or its compressed stream is damaged.
    """
    is_compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            head = file.read(_NIFTI2_BYTES)
            header = _parsed(path, head)
            _check_header(path, header)
            promised = int(header.vox_offset) + header.pixel_bytes
            slice_bytes = header.pixel_bytes // math.prod(header.sizes[2:])
            if is_compressed:
                found = len(head)
                found += remaining_bytes(file, at_most=promised + slice_bytes - found)
            else:
                found = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise LungDetError(
            f"{path}: cannot be decompressed ({error}); the file is truncated or damaged: copy or "
            "download it again"
        ) from error
    if not promised <= found < promised + slice_bytes:
        raise LungDetError(
            f"{path}: {found} bytes, the header promises {promised} with dim {header.dim} and "
            f"datatype {header.datatype}: the file is truncated or its header wrong; copy or "
            "convert it again"
        )
