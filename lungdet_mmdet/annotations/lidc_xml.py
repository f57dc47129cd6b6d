"""LIDC-IDRI's own XML files: the readers' marks of one series each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lungdet_mmdet.annotations.lidc import RATING_TAGS, Contour, LidcSeries, Reading
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

# The largest of LIDC's files has 2 MB.
_MAX_BYTES = 64 * 2**20


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
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".xml"):
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

    Only nodules of 3 mm or more are read: those with ratings, whose outline is drawn.

    Raises
    ------
    LungDetError
        If the file cannot be read, is no XML of LIDC, or a number in it is none.
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
