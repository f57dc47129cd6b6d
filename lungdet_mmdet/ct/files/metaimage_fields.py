"""The text of a MetaImage header: its fields, and their values as numbers and words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.errors import LungDetError

HEADER_LIMIT_BYTES = 65536
_NAME = re.compile(r"[A-Za-z]\w*")
_NUMBER_LETTERS = re.compile(r"[0-9A-Za-z.+-]+")
_FIELD_ALIASES = {
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "Position": "Offset",
    "Origin": "Offset",
}
_TRUE_INITIALS = ("T", "t", "1")


@dataclass(frozen=True)
class MetaImageFields:
    """The fields of one header.

    Parameters
    ----------
    path : the header file, for messages.
    values : text of each field; alternative names are brought to one.
    n_bytes : length of the header; where the pixels follow it, they begin here.
    """

    path: Path
    values: dict[str, str]
    n_bytes: int

    def text(self, name: str, default: str = "") -> str:
        """Return a field's text."""
        return self.values.get(name, default)

    def is_true(self, name: str, default: str) -> bool:
        """Return a field's truth as MetaIO sees it."""
        return self.text(name, default).startswith(_TRUE_INITIALS)

    def whole_numbers(self, name: str) -> tuple[int, ...]:
        """Return a field's whole numbers; LungDetError where it is missing or holds others."""
        return self._numbers(name, int, "whole numbers")

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a field's numbers; LungDetError where it is missing or holds something else."""
        return self._numbers(name, float, "numbers")

    def whole_number(self, name: str, default: int) -> int:
        """Return a field's one whole number; LungDetError where it holds something else."""
        if name not in self.values:
            return default
        numbers = self.whole_numbers(name)
        if len(numbers) != 1:
            raise LungDetError(
                f"{self.path}: header field {name} is '{self.values[name]}': one number is "
                "needed; correct it or convert the scan again"
            )
        return numbers[0]

    def _numbers(self, name: str, kind: type, what: str) -> tuple:
        if name not in self.values:
            raise LungDetError(
                f"{self.path}: header field {name} is missing; copy or convert the scan again"
            )
        words = self.values[name].split()
        try:
            # Python reads 6_4 as 64, and the digits of every script; MetaIO does not.
            if not all(_NUMBER_LETTERS.fullmatch(word) for word in words):
                raise ValueError
            return tuple(kind(word) for word in words)
        except ValueError:
            raise LungDetError(
                f"{self.path}: header field {name} is '{_shortened(self.values[name])}': {what} "
                "are needed; correct it or convert the scan again"
            ) from None


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def read_fields(path: Path) -> MetaImageFields:
    """Read the fields of a header up to ElementDataFile, which is its last.

    Raises
    ------
    LungDetError
        If the file cannot be read, is no header, or names one field twice with different values.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_LIMIT_BYTES)
    except OSError as error:
        raise LungDetError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error
    values: dict[str, str] = {}
    offset = 0
    for raw in head.split(b"\n"):
        offset += len(raw) + 1
        if not raw.strip():
            continue
        # File names are bytes; most systems, and SimpleITK, write them in UTF-8.
        name, equals, value = raw.decode("utf-8", "surrogateescape").partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not _NAME.fullmatch(name):
            break
        name = _FIELD_ALIASES.get(name, name)
        if name in values and values[name] != value:
            raise LungDetError(
                f"{path}: header field {name} stands twice, as '{_shortened(values[name])}' and "
                f"'{_shortened(value)}'; remove the wrong one"
            )
        values[name] = value
        if name == "ElementDataFile":
            return MetaImageFields(path, values, offset)
    raise LungDetError(
        f"{path}: no ElementDataFile in the first {HEADER_LIMIT_BYTES} bytes: "
        "not a MetaImage header, or a truncated one; copy the file again"
    )
