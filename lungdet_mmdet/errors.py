# SPDX-License-Identifier: Apache-2.0
"""The package's own error type."""

import re

# All but newline and tab: a terminal would obey them. Marks that turn the direction of text, or end
# a line in some programs and not in others, make it read as something else.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
)


def printable(text: str) -> str:
    """Return text that can be shown and stored whatever file it comes from.

    Bytes of file names beyond UTF-8, control characters and marks of direction are escaped.
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class LungDetError(Exception):
    """An input, file or set-up that cannot be used.

    The message names the file or object, the value found, and the remedy, so that it can be shown
    to a user as it is.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class MissingFileError(LungDetError):
    """A file that is asked for, or that another file names, is not there."""


class TruncatedFileError(LungDetError):
    """A file holds less than it, or its header, promises."""
