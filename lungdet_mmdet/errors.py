"""The package's own error type."""


def printable(text: str) -> str:
    """Return text that can be printed and stored: bytes of file names beyond UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class LungDetError(Exception):
    """An input, file or set-up that cannot be used.

    The message names the file or object, the value found, and the remedy, so that it can be shown
    to a user as it is.
    """

    def __str__(self) -> str:
        return printable(super().__str__())
