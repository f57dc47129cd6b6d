"""How much a compressed stream holds, found without holding it."""

from __future__ import annotations

from typing import Protocol

MAX_DEFLATE_RATIO = 1032
"""zlib cannot compress further than this: an honest stream is never shorter."""
_CHUNK_BYTES = 1 << 20


class Readable(Protocol):
    """Anything open for reading bytes."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


def remaining_bytes(stream: Readable, *, at_most: int) -> int:
    """Return how many bytes can be read from a stream.

    Parameters
    ----------
    stream : read to its end, or until enough is counted; nothing is kept.
    at_most : counting stops once this is reached; the answer may lie one chunk above.
    """
    found = 0
    while found < at_most and (chunk := stream.read(_CHUNK_BYTES)):
        found += len(chunk)
    return found
