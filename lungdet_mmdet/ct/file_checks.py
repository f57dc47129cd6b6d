"""Checks of NRRD and NIfTI files before SimpleITK reads them.

SimpleITK follows a NRRD header to a data file anywhere on the disk, and returns a NIfTI file that
ends early as a whole image, with old memory in the place of the missing voxels.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

_HEADER_LIMIT_BYTES = 65536
_CHUNK_BYTES = 1 << 20
_NIFTI1_BYTES, _NIFTI2_BYTES = 348, 540


def check_nrrd(path: Path) -> None:
    """Refuse a NRRD header whose pixels lie in other files.

    Raises
    ------
    LungDetError
        If the header names a data file.
    """
    with path.open("rb") as file:
        head = file.read(_HEADER_LIMIT_BYTES)
    for line in head.replace(b"\r\n", b"\n").split(b"\n\n")[0].split(b"\n"):
        name, _, value = line.decode("latin-1").partition(":")
        if name.strip().lower() in ("data file", "datafile"):
            raise LungDetError(
                f"{path}: the header names a separate data file ('{value.strip()}'); for safety "
                "only pixels inside the .nrrd file are read: save the scan as one .nrrd or .mha"
            )


def _nifti_bytes(path: Path, head: bytes) -> int:
    """Return the size that the header promises for the uncompressed file."""
    for order in "<>":
        if len(head) >= _NIFTI1_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI1_BYTES):
            dims = struct.unpack(f"{order}8h", head[40:56])
            (bits,) = struct.unpack(f"{order}h", head[72:74])
            (offset,) = struct.unpack(f"{order}f", head[108:112])
            break
        if len(head) >= _NIFTI2_BYTES and head[:4] == struct.pack(f"{order}i", _NIFTI2_BYTES):
            (bits,) = struct.unpack(f"{order}h", head[14:16])
            dims = struct.unpack(f"{order}8q", head[16:80])
            (offset,) = struct.unpack(f"{order}q", head[168:176])
            break
    else:
        raise LungDetError(f"{path}: not a NIfTI file, or a truncated one; convert the scan again")
    sizes = dims[1 : 1 + max(dims[0], 0)]
    if not 1 <= len(sizes) <= 7 or min(sizes) < 1 or not math.isfinite(offset):
        raise LungDetError(
            f"{path}: the NIfTI header has dim {dims} and vox_offset {offset}: sizes of at least 1 "
            "are needed; convert the scan again"
        )
    return int(offset) + math.prod(sizes) * bits // 8


def check_nifti(path: Path) -> None:
    """Check that a NIfTI file (.nii or .nii.gz) holds as many bytes as its header promises.

    A compressed file is decompressed once for this; nothing is kept.

    Raises
    ------
    LungDetError
        If it does not, or its compressed stream is damaged.
    """
    is_compressed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            head = file.read(_NIFTI2_BYTES)
            promised = _nifti_bytes(path, head)
            if is_compressed:
                found = len(head)
                while found <= promised and (chunk := file.read(_CHUNK_BYTES)):
                    found += len(chunk)
            else:
                found = path.stat().st_size
    except (OSError, EOFError, zlib.error) as error:
        raise LungDetError(
            f"{path}: cannot be decompressed ({error}); the file is truncated or damaged: copy or "
            "download it again"
        ) from error
    if found < promised:
        raise LungDetError(
            f"{path}: {found} bytes, the header promises {promised}: the file is truncated; copy "
            "or download it again"
        )
