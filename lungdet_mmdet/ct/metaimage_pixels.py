# SPDX-License-Identifier: Apache-2.0
"""The pixels of MetaImage files: read checked, written the same way twice."""

from __future__ import annotations

import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.metaimage_header import MetaImageHeader
from lungdet_mmdet.errors import LungDetError, TruncatedFileError
from lungdet_mmdet.runs.atomic_files import FOLDER_SUFFIX, output_error

_ADLER32_BYTES = 4
_CHUNK_BYTES = 1 << 20
# zlib's own window size; 32 more lets it recognise a gzip header too, as SimpleITK does.
_ZLIB_OR_GZIP = zlib.MAX_WBITS + 32


def check_compressed_pixels(header: MetaImageHeader, pixels: np.ndarray) -> None:
    """Check the pixels of a compressed MetaImage against the file.

    Parameters
    ----------
    header : of the file; nothing is done where it is not compressed.
    pixels : array (z, y, x) as read from it, not yet converted.

    Raises
    ------
    LungDetError
        If the compressed stream is damaged, or holds another number of bytes than the header says.
    """
    if not header.compressed or _checksum_fits(header, pixels):
        return
    # No proof of damage: gzip data, another byte order, or bytes behind the stream end here too.
    found = _decompressed_bytes(header)
    if found != header.pixel_bytes:
        kind = TruncatedFileError if found < header.pixel_bytes else LungDetError
        raise kind(
            f"{header.data_path}: {found} bytes of pixels after decompression, the header "
            f"{header.path.name} promises {header.pixel_bytes}: the file is truncated or damaged; "
            "copy or download it again"
        )


def _checksum_fits(header: MetaImageHeader, pixels: np.ndarray) -> bool:
    if pixels.nbytes != header.pixel_bytes or header.data_bytes < _ADLER32_BYTES:
        return False
    with header.data_path.open("rb") as file:
        file.seek(header.data_offset + header.data_bytes - _ADLER32_BYTES)
        stored = int.from_bytes(file.read(_ADLER32_BYTES), "big")
    return zlib.adler32(np.ascontiguousarray(pixels).data) == stored


def _decompressed_bytes(header: MetaImageHeader) -> int:
    """Return how many bytes the stream holds, counted up to one more than expected."""
    stream = zlib.decompressobj(_ZLIB_OR_GZIP)
    total = 0
    with header.data_path.open("rb") as file:
        file.seek(header.data_offset)
        try:
            while not stream.eof and total <= header.pixel_bytes:
                chunk = stream.unconsumed_tail or file.read(_CHUNK_BYTES)
                if not chunk:
                    break
                total += len(stream.decompress(chunk, _CHUNK_BYTES))
            total += len(stream.flush())  # the little that a full output buffer held back
        except zlib.error as error:
            raise LungDetError(
                f"{header.data_path}: the compressed pixels are damaged ({error}); copy or "
                "download the file again"
            ) from error
    return total


def write_metaimage(
    folder: Path, name: str, volume: np.ndarray, geometry: ScanGeometry, *, compress: bool = False
) -> Path:
    """Write ``<name>.mhd`` with ``<name>.raw`` (``.zraw`` if compressed); return the header.

    The header, by which readers find a scan, comes last: a scan is there whole or not at all.

    Parameters
    ----------
    folder, name : where to; the folder is made.
    volume : array (z, y, x), Hounsfield units or labels.
    geometry : its grid.
    compress : whether to compress the pixels.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    suffixes = (".zraw" if compress else ".raw", ".mhd")
    _write(folder, name, volume, geometry, suffixes, compress)
    return folder / f"{name}.mhd"


def write_mha(folder: Path, name: str, volume: np.ndarray, geometry: ScanGeometry) -> Path:
    """Write ``<name>.mha``, header and compressed pixels in one file; return its path.

    Parameters and errors as of `write_metaimage`.
    """
    _write(folder, name, volume, geometry, (".mha",), True)
    return folder / f"{name}.mha"


def _write(
    folder: Path,
    name: str,
    volume: np.ndarray,
    geometry: ScanGeometry,
    suffixes: tuple[str, ...],
    compress: bool,
) -> None:
    """Write beside the target and rename the files of `suffixes`, the header last."""
    scratch = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=folder, prefix=f".{name}.lungdet-", suffix=FOLDER_SUFFIX)
        # Level 1: noise hardly compresses, higher levels only take longer.
        file = f"{scratch}/{name}{suffixes[-1]}"
        _write_image(file, volume, geometry, compress=compress, level=1)
        for suffix in suffixes:
            os.replace(f"{scratch}/{name}{suffix}", folder / f"{name}{suffix}")
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)


def write_nifti(path: Path, volume: np.ndarray, geometry: ScanGeometry) -> None:
    """Write an image such as a label map as ``.nii.gz``.

    Parameters
    ----------
    path : where to, within a folder that appears as a whole.
    volume : array (z, y, x).
    geometry : its grid.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    try:
        _write_image(str(path), volume, geometry, compress=True)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise output_error(path, error) from error


def _write_image(
    path: str, volume: np.ndarray, geometry: ScanGeometry, *, compress: bool, level: int = -1
) -> None:
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(geometry.spacing_xyz_mm.tolist())
    image.SetOrigin(geometry.origin_xyz_mm)
    image.SetDirection(geometry.direction)
    try:
        sitk.WriteImage(image, path, compress, level)
    except RuntimeError as error:  # SimpleITK's way to say that it cannot write
        raise OSError(None, str(error).strip().splitlines()[-1]) from error
