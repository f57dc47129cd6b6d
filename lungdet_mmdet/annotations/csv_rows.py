# SPDX-License-Identifier: Apache-2.0
"""Rows of a CSV table as researchers save them: byte order mark, CRLF, semicolons, decimal commas.

What cannot change a number is repaired and counted; what could is an error that names the line.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True)
class CsvRows:
    """The text of a table, split into lines of fields.

    Parameters
    ----------
    path : the file, for messages.
    delimiter : one of comma, semicolon, tab.
    lines : (line number from 1, stripped fields) of every line that is not blank.
    repairs : what was repaired, counted; ``number`` adds to it.
    """

    path: Path
    delimiter: str
    lines: tuple[tuple[int, list[str]], ...]
    repairs: Counter[str] = field(default_factory=Counter)

    def records(
        self, columns: Sequence[str], *, aliases: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, the fields of ``columns`` in that order); line 1 is the header.

        Column names are compared without regard to case; ``aliases`` gives further accepted names.

        Raises
        ------
        LungDetError
            Without a header, with a column missing or with a line of another length.
        """
        if not self.lines:
            raise LungDetError(
                f"{self.path}: the file is empty; a table with the columns {','.join(columns)} is "
                "needed"
            )
        header = [name.lower() for name in self.lines[0][1]]
        places = [self._place(header, name, (aliases or {}).get(name, ())) for name in columns]
        for number, fields in self.lines[1:]:
            if len(fields) != len(header):
                raise LungDetError(
                    f"{self.path}, line {number}: {len(fields)} fields where the header has "
                    f"{len(header)}; a decimal comma or an unquoted separator? Save the table "
                    "with decimal points"
                )
            yield number, [fields[place] for place in places]

    def _place(self, header: list[str], name: str, aliases: Collection[str]) -> int:
        for accepted in (name, *aliases):
            if header.count(accepted.lower()) > 1:
                raise LungDetError(
                    f"{self.path}: the header names the column '{accepted}' "
                    f"{header.count(accepted.lower())} times; remove the wrong one"
                )
            if accepted.lower() in header:
                return header.index(accepted.lower())
        raise LungDetError(
            f"{self.path}: no column '{name}' in the header {','.join(self.lines[0][1])!r}; "
            "add the column, or check that the right file is given"
        )

    def number(self, text: str, line: int, column: str) -> float:
        """Return the finite number in a field; a decimal comma is repaired and counted.

        Raises
        ------
        LungDetError
            If the field holds no number, NaN or an infinity.
        """
        if "," in text and "." not in text and text.count(",") == 1:
            self.repairs["decimal commas read as points"] += 1
            text = text.replace(",", ".")
        try:
            # Python reads 1_5 as 15, and the digits of every script: no table means that.
            value = float(text) if text.isascii() and "_" not in text else math.nan
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise LungDetError(
                f"{self.path}, line {line}: {column} is {text!r}; a finite number is needed. "
                "Correct or remove the line"
            )
        return value

    def warnings(self) -> tuple[str, ...]:
        """Return one sentence per kind of repair, with its count."""
        return tuple(f"{self.path.name}: {what}: {n}" for what, n in sorted(self.repairs.items()))


def read_csv_rows(path: str | Path) -> CsvRows:
    """Read a table's text: UTF-8 with or without byte order mark, any line ending.

    The delimiter is the first of comma, semicolon and tab that the first line contains, semicolons
    before commas, since ``a;b,c`` is a semicolon table with decimal commas.

    Raises
    ------
    LungDetError
        If the file is missing, no regular file, not UTF-8 text or no table.
    """
    path = Path(path)
    check_input_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LungDetError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    except UnicodeDecodeError as error:
        raise LungDetError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    first = text.lstrip().split("\n", 1)[0]
    delimiter = next((d for d in (";", "\t", ",") if d in first), _DELIMITERS[0])
    repairs: Counter[str] = Counter()
    if delimiter != ",":
        repairs[f"columns separated by {delimiter!r} instead of commas"] += 1
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    lines = []
    try:
        for row in reader:
            fields = [cell.strip() for cell in row]
            if any(fields):
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        raise LungDetError(
            f"{path}, line {reader.line_num}: is not a line of a table ({error}); look for a stray "
            "quotation mark, or check that the right file is given"
        ) from None
    return CsvRows(path, delimiter, tuple(lines), repairs)
