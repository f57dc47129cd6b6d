"""The package's own error type."""

import re

# All but newline and tab: a terminal would obey them.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return text that can be shown and stored whatever file it comes from.

    Bytes of file names beyond UTF-8, and control characters, are escaped.
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


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
