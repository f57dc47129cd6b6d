# SPDX-License-Identifier: Apache-2.0
"""Annotations as other datasets have them: tables of any columns, 3D Slicer's markups.

What is read here is a mark: a place and a size in the terms of its source, and the name that the
source has for the scan. ``mark_places`` finds the scans and brings all to LPS millimetres.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.mask_nodules import sphere_diameter_mm
from lungdet_mmdet.annotations.tables import PATIENT_NAMES, SERIES_NAMES, CsvRows, read_csv_rows
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import check_input_file, search_files

COORDS = ("lps", "ras", "voxel")
MARKUP_SUFFIXES = (".mrk.json", ".fcsv")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
CORNERS = ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax")
# Accepted names of each role, in small letters; the first is the role's own.
ROLES: Mapping[str, tuple[str, ...]] = {
    "scan": ("seriesuid", *SERIES_NAMES, "lndbid", "ct_nifti_file", "scan", "image", "file",
             "filename", "file_name", "path"),
    "x": ("coordx", "x", "centerx", "center_x", "x_mm"),
    "y": ("coordy", "y", "centery", "center_y", "y_mm"),
    "z": ("coordz", "z", "centerz", "center_z", "z_mm"),
    "diameter": ("diameter_mm", "diameter"),
    "volume": ("volume", "volume_mm3"),
    "w": ("w", "width"),
    "h": ("h", "height"),
    "d": ("d", "depth"),
    **{name: (name,) for name in CORNERS},
    "patient": ("patient_id", "patient-id", "pid", *PATIENT_NAMES),
}  # fmt: skip
_BLANK = frozenset({"", "nan", "na", "n/a", "none", "null"})
_CONDITION = re.compile(r"\s*(.+?)\s*(>=|<=|!=|=|>|<)\s*(\S.*?)\s*")
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq, ">": operator.gt,
    "<": operator.lt,
}  # fmt: skip
# A point within this distance of a line's or box's middle marks the same nodule.
_SAME_MM = 1.0


@dataclass(frozen=True)
class AnnotationSource:
    """What the user says of the annotations.

    Parameters
    ----------
    path : a table, a markups file, or a folder of markups or of LIDC's XML files.
    columns : name of the column for a role of `ROLES`, where the usual ones do not fit.
    coords : "lps" or "ras" (millimetres), "voxel" (counted from 0, x = column, y = row, z = slice
        of the file; sizes in voxels but for diameters), or None for what the source says, else LPS.
    diameter_mm : of all marks, for sources that have no sizes.
    keep : conditions such as "AgrLevel>=2"; rows that fail one are irrelevant findings.
    """

    path: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    coords: str | None = None
    diameter_mm: float | None = None
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.coords is not None and self.coords not in COORDS:
            raise LungDetError(f"coords is {self.coords!r}; known are {', '.join(COORDS)}")
        if unknown := sorted(set(self.columns) - set(ROLES)):
            raise LungDetError(
                f"--columns {unknown[0]}=...: no such role; known are {', '.join(ROLES)}"
            )


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """Return the roles and column names of ``ROLE=NAME`` arguments.

    Raises LungDetError if one has another form.
    """
    columns = {}
    for text in texts:
        role, equals, name = text.partition("=")
        if not equals or not name.strip():
            raise LungDetError(f"--columns {text!r}: ROLE=NAME is needed, e.g. x=coordX")
        columns[role.strip()] = name.strip()
    return columns


def annotation_source(args: argparse.Namespace) -> AnnotationSource | None:
    """Return what the options of prepare_luna16.py say; None where no annotations are named.

    Raises LungDetError if an option has no sound value, or is there without --annotations.
    """
    if args.annotations is None:
        if args.columns or args.coords or args.diameter_mm or args.keep:
            raise LungDetError(
                "--columns, --coords, --diameter-mm and --keep say how --annotations is read; name "
                "the table or folder with --annotations PATH"
            )
        return None
    path = args.annotations.resolve()
    if not path.exists():
        raise LungDetError(f"{path}: no such annotations; check the path")
    columns = parse_columns(args.columns)
    return AnnotationSource(path, columns, args.coords, args.diameter_mm, tuple(args.keep))


@dataclass(frozen=True)
class Mark:
    """One annotation as its source has it.

    ``scans`` are the names that the source has for the scan, the best first; ``size`` holds extents
    along x, y, z in the unit of `coords`, ``diameter_mm`` is the alternative; ``place`` names file
    and line for messages. ``point`` is None where only the scan is named: it has no nodule.
    """

    scans: tuple[str, ...]
    place: str
    point: tuple[float, ...] | None
    coords: str = "lps"
    diameter_mm: float | None = None
    size: tuple[float, ...] | None = None
    is_nodule: bool = True


@dataclass(frozen=True)
class Marks:
    """All marks of a source, patients by the name of a scan, and what was repaired."""

    rows: tuple[Mark, ...]
    patients: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_marks(source: AnnotationSource) -> Marks:
    """Read a table, a markups file, or all markups below a folder.

    Raises LungDetError if the source is missing or unknown, a column is missing, or a value is
    none.
    """
    path = source.path
    if path.is_dir():
        search = search_files(path)
        files = sorted(p for p in search.files if p.name.lower().endswith(MARKUP_SUFFIXES))
        notes = tuple(search.notes())
        if not files:
            raise LungDetError(
                f"{path}: no annotations here ({', '.join(MARKUP_SUFFIXES)} or LIDC's .xml); "
                + "; ".join(("name a table, or a folder that holds some", *notes))
            )
        marks = tuple(mark for file in files for mark in _read_markups(file, source))
        return Marks(marks, warnings=notes)
    check_input_file(path)
    if path.name.lower().endswith(MARKUP_SUFFIXES):
        return Marks(tuple(_read_markups(path, source)))
    if not path.name.lower().endswith(TABLE_SUFFIXES):
        raise LungDetError(
            f"{path}: unknown kind of annotations; known: {', '.join(TABLE_SUFFIXES)} tables, "
            f"{', '.join(MARKUP_SUFFIXES)} markups, folders of markups or LIDC's .xml"
        )
    return _read_table(source)


def _read_table(source: AnnotationSource) -> Marks:
    rows = read_csv_rows(source.path)
    header = [name.lower() for name in rows.lines[0][1]] if rows.lines else []
    names = {role: _column_of(role, header, source.columns) for role in ROLES}
    size_roles = _size_roles(names, source)
    place_roles = CORNERS if size_roles == CORNERS else ("x", "y", "z")
    conditions = [_condition(text) for text in source.keep]
    patient = names["patient"]
    for role in ("scan", *place_roles):
        if (names[role] or "").lower() not in header:
            raise LungDetError(
                f"{source.path}: no column {names[role] or ROLES[role][0]!r} for {role!r} in the "
                f"header {','.join(header)!r}; name the column with --columns {role}=NAME"
            )
    columns = [str(names[role]) for role in ("scan", *place_roles)]
    n_place = len(columns)
    columns += [str(names[role]) for role in size_roles if role not in place_roles]
    n_sizes = len(columns)
    columns += [name for name, _, _ in conditions] + ([patient] if patient else [])
    marks, patients = [], {}
    for number, fields in rows.records(columns):
        scan, place = fields[0], f"{rows.path}, line {number}"
        if scan.lower() in _BLANK:
            raise LungDetError(f"{place}: the scan is blank; fill it in or remove the line")
        if patient and fields[-1].lower() not in _BLANK:
            patients[scan] = fields[-1]
        coords = source.coords or "lps"
        if all(text.lower() in _BLANK for text in fields[1:n_place]):
            rows.repairs["lines without a place: scans without a nodule"] += 1
            marks.append(Mark((scan,), place, None))
            continue
        numbers = [
            math.nan if text.lower() in _BLANK else rows.number(text, number, name)
            for text, name in zip(fields[1:n_sizes], columns[1:], strict=False)
        ]
        point, diameter, size = _sphere_of(numbers, size_roles, coords, source.diameter_mm)
        keep = [
            _holds(rows, number, text, condition)
            for text, condition in zip(fields[n_sizes:], conditions, strict=False)
        ]
        marks.append(Mark((scan,), place, point, coords, diameter, size, all(keep)))
    return Marks(tuple(marks), patients, rows.warnings())


def _column_of(role: str, header: list[str], named: Mapping[str, str]) -> str | None:
    if role in named:
        return named[role]
    return next((name for name in ROLES[role] if name in header), None)


def _size_roles(names: Mapping[str, str | None], source: AnnotationSource) -> tuple[str, ...]:
    """Return the roles that tell the size: those the user named, else the first that are there."""
    known = (("diameter",), ("w", "h", "d"), CORNERS, ("volume",))
    for roles in sorted(known, key=lambda roles: not set(roles) & set(source.columns)):
        if all(names[role] for role in roles):
            return roles
    if source.diameter_mm is not None:
        return ()
    raise LungDetError(
        f"{source.path}: no column tells the size (known: diameter_mm; w, h, d; "
        f"{', '.join(CORNERS)}; volume); name it with --columns diameter=NAME, or give one "
        "--diameter-mm for all, of which size bands then say nothing"
    )


def _sphere_of(
    numbers: list[float], roles: tuple[str, ...], coords: str, default_mm: float | None
) -> tuple[tuple[float, ...], float | None, tuple[float, ...] | None]:
    """Return the centre, the diameter in mm, and the extents of a row's numbers."""
    if roles == CORNERS:
        low, high = np.array(numbers[:3]), np.array(numbers[3:])
        # Corners in voxels are the first and the last voxel of the nodule.
        size = np.abs(high - low) + (1.0 if coords == "voxel" else 0.0)
        return tuple(((low + high) / 2).tolist()), None, tuple(size.tolist())
    point, sizes = tuple(numbers[:3]), numbers[3:]
    if len(sizes) == 3:
        return point, None, tuple(sizes)
    diameter = sizes[0] if sizes else default_mm
    if roles == ("volume",) and diameter is not None and not math.isnan(diameter):
        diameter = sphere_diameter_mm(max(diameter, 0.0))
    return point, diameter, None


def _condition(text: str) -> tuple[str, str, str]:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise LungDetError(
            f"--keep {text!r}: COLUMN>=VALUE is needed (or >, <, <=, =, !=), e.g. 'AgrLevel>=2'"
        )
    return match.group(1), match.group(2), match.group(3)


def _holds(rows: CsvRows, number: int, text: str, condition: tuple[str, str, str]) -> bool:
    name, sign, value = condition
    try:
        wanted = float(value)
    except ValueError:
        if sign not in ("=", "!="):
            raise LungDetError(f"--keep {name}{sign}{value}: {value!r} is no number") from None
        return _COMPARE[sign](text, value)
    return text.lower() not in _BLANK and _COMPARE[sign](rows.number(text, number, name), wanted)


def _read_markups(path: Path, source: AnnotationSource) -> list[Mark]:
    suffix = next(s for s in MARKUP_SUFFIXES if path.name.lower().endswith(s))
    scans = (path.name[: -len(suffix)], path.parent.name)
    read = _read_fcsv if suffix == ".fcsv" else _read_mrk
    try:
        found = read(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise LungDetError(
            f"{path}: cannot be read as 3D Slicer's markups ({type(error).__name__}: {error}); "
            "save it from Slicer again"
        ) from None
    marks = []
    for number, (coords, point, diameter, size) in enumerate(found, start=1):
        diameter = source.diameter_mm if diameter is None and size is None else diameter
        place = f"{path}, mark {number}"
        marks.append(Mark(scans, place, tuple(point), source.coords or coords, diameter, size))
    return marks or [Mark(scans, str(path), None)]


_Markup = tuple[str, Sequence[float], float | None, tuple[float, ...] | None]


def _read_fcsv(path: Path) -> list[_Markup]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    comments = "\n".join(line for line in lines if line.startswith("#"))
    system = re.search(r"CoordinateSystem\s*=\s*(\S+)", comments)
    # Slicer 4 numbers them: 0 is RAS, 1 is LPS; it has no other way to say it.
    names = {"0": "ras", "1": "lps", "RAS": "ras", "LPS": "lps"}
    coords = names[system.group(1).upper()] if system else "ras"
    columns = re.search(r"columns\s*=\s*(\S+)", comments)
    order = columns.group(1).split(",") if columns else ["id", "x", "y", "z"]
    at = [order.index(name) for name in "xyz"]
    rows = csv.reader(line for line in lines if line.strip() and not line.startswith("#"))
    return [(coords, [float(row[i]) for i in at], None, None) for row in rows]


def _read_mrk(path: Path) -> list[_Markup]:
    """Return points, lines (the longest diameter from end to end) and boxes."""
    sized: list[_Markup] = []
    points: list[_Markup] = []
    for markup in json.loads(path.read_text(encoding="utf-8"))["markups"]:
        coords = str(markup.get("coordinateSystem", "LPS")).lower()
        unit = markup.get("coordinateUnits", "mm")
        if coords not in ("lps", "ras") or (unit if isinstance(unit, str) else unit[0]) != "mm":
            raise ValueError(f"coordinates are {coords} in {unit}; LPS or RAS in mm are needed")
        places = [p["position"] for p in markup.get("controlPoints", []) if p.get("position")]
        if markup["type"] == "ROI":
            sized.append((coords, markup["center"], None, tuple(map(float, markup["size"]))))
        elif markup["type"] == "Line" and len(places) == 2:
            ends = np.array(places, dtype=float)
            length = float(np.linalg.norm(ends[1] - ends[0]))
            sized.append((coords, ends.mean(axis=0).tolist(), length, None))
        elif markup["type"] in ("Fiducial", "PointList"):
            points += [(coords, [float(v) for v in place], None, None) for place in places]
    # A list of points often goes with the boxes drawn around them.
    points = [
        p for p in points if all(math.dist(p[1], s[1]) > _SAME_MM for s in sized if s[0] == p[0])
    ]
    return sized + points
