"""The package's own error type."""


class LungDetError(Exception):
    """An input, file or set-up that cannot be used.

    The message names the file or object, the value found, and the remedy, so that it can be shown
    to a user as it is.
    """
