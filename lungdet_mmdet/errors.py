"""The package's own error type."""


class LungDetError(Exception):
    """An input, file or set-up that cannot be used.

    The message names the file or object, the value found, and the remedy, so that it can be shown
    to a user as it is.
    """

    def __str__(self) -> str:
        # A file name that is not UTF-8 could neither be printed nor written to failures.json.
        return super().__str__().encode("utf-8", "backslashreplace").decode("utf-8")
