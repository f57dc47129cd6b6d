"""Checking that compressed MetaImage pixels are all there.

SimpleITK fills what a short or damaged zlib stream leaves open with whatever the memory held, and
says nothing. The stream ends with a checksum of its content, so one fast pass over the pixels that
were read tells whether they are the ones that were written.
"""

from __future__ import annotations

import zlib

import numpy as np

from lungdet_mmdet.ct.files.metaimage_header import MetaImageHeader
from lungdet_mmdet.errors import LungDetError, TruncatedFileError

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
