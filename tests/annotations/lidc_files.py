"""Small files of readers' marks for tests, in the two formats of LIDC."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from lungdet_mmdet.annotations.lidc import RATING_TAGS

RATED = (4, 1, 6, 3, 2, 1, 5, 5, 2)

_TABLES = """
CREATE TABLE scans (id INTEGER PRIMARY KEY, study_instance_uid, series_instance_uid, patient_id,
  slice_thickness FLOAT, pixel_spacing FLOAT);
CREATE TABLE zvals (id INTEGER PRIMARY KEY, scan_id INTEGER, val FLOAT);
CREATE TABLE annotations (id INTEGER PRIMARY KEY, scan_id INTEGER, _nodule_id, subtlety,
  "internalStructure", calcification, sphericity, margin, lobulation, spiculation, texture,
  malignancy);
CREATE TABLE contours (id INTEGER PRIMARY KEY, annotation_id INTEGER, inclusion, image_z_position,
  dicom_file_name, coords);
"""


def square(first: int, last: int) -> list[tuple[int, int]]:
    """A closed line round the pixels first + 1 .. last - 1 in x and y."""
    run = range(first, last)
    return [
        *((x, first) for x in run),
        *((last, y) for y in run),
        *((x, last) for x in range(last, first, -1)),
        *((first, y) for y in range(last, first, -1)),
    ]


def write_database(path: Path, series: dict[str, dict]) -> Path:
    """Write a database: by series UID ``patient, pixel_mm, z_mm, readings``.

    A reading is a list of (z, inclusion, points), one per contour; all are rated ``RATED``.
    """
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_TABLES)
        annotation = 0
        for scan, (uid, of) in enumerate(series.items(), start=1):
            row = (scan, "study", uid, of["patient"], 1.0, of["pixel_mm"])
            connection.execute("INSERT INTO scans VALUES (?,?,?,?,?,?)", row)
            for z in of["z_mm"]:
                connection.execute("INSERT INTO zvals (scan_id, val) VALUES (?,?)", (scan, z))
            for contours in of["readings"]:
                annotation += 1
                connection.execute(
                    f"INSERT INTO annotations VALUES ({','.join('?' * 12)})",
                    (annotation, scan, f"Nodule {annotation}", *RATED),
                )
                for z, inclusion, points in contours:
                    text = "\n".join(f"{x},{y}" for x, y in points)
                    connection.execute(
                        "INSERT INTO contours (annotation_id, inclusion, image_z_position, coords)"
                        " VALUES (?,?,?,?)",
                        (annotation, inclusion, z, text),
                    )
        connection.commit()
    return path


def write_xml(path: Path, uid: str, sessions: list[list[list[tuple]]]) -> Path:
    """Write an XML file: per reader a list of readings, as in ``write_database``."""
    ratings = "".join(f"<{t}>{v}</{t}>" for t, v in zip(RATING_TAGS, RATED, strict=True))
    parts = []
    for readings in sessions:
        parts.append("<readingSession>")
        for number, contours in enumerate(readings):
            parts.append(f"<unblindedReadNodule><noduleID>{number}</noduleID>")
            parts.append(f"<characteristics>{ratings}</characteristics>")
            for z, inclusion, points in contours:
                edges = "".join(
                    f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>"
                    for x, y in points
                )
                parts.append(
                    f"<roi><imageZposition>{z}</imageZposition>"
                    f"<inclusion>{'TRUE' if inclusion else 'FALSE'}</inclusion>{edges}</roi>"
                )
            parts.append("</unblindedReadNodule>")
        # A nodule below 3 mm: one point, no ratings.
        parts.append(
            "<unblindedReadNodule><noduleID>small</noduleID><roi><imageZposition>1.0"
            "</imageZposition><inclusion>TRUE</inclusion><edgeMap><xCoord>3</xCoord><yCoord>3"
            "</yCoord></edgeMap></roi></unblindedReadNodule></readingSession>"
        )
    path.write_text(
        '<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><ResponseHeader>'
        f"<SeriesInstanceUid>{uid}</SeriesInstanceUid></ResponseHeader>{''.join(parts)}"
        "</LidcReadMessage>"
    )
    return path
