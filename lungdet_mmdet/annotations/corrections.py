# SPDX-License-Identifier: Apache-2.0
"""What readers say of candidates on the pages of scans, joined into tables.

The pages export ``seriesuid,rank,verdict,coordX,coordY,coordZ,diameter_mm,probability,comment,
reader,model_sha256``, one line a candidate that was accepted, rejected or commented on, and one a
nodule that the detector missed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.tables import MAX_DIAMETER_MM, CsvRows, read_csv_rows
from lungdet_mmdet.ct.geometry import MAX_COORDINATE_MM
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import CANDIDATES_NAME, check_series_name

ACCEPT, REJECT, MISSED, OPEN = "accept", "reject", "missed", ""
COLUMNS = (
    "seriesuid", "rank", "verdict", "coordX", "coordY", "coordZ", "diameter_mm", "probability",
    "comment", "reader", "model_sha256",
)  # fmt: skip
NODULE_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
# Pages and results round to four digits.
_SAME_PLACE_MM = 0.01


@dataclass(frozen=True)
class Correction:
    """One line of a table: a reader's word on a candidate, or a nodule that was missed.

    Parameters
    ----------
    seriesuid : name of the scan in the result's tables.
    rank : of the candidate; None for a nodule that was missed.
    verdict : "accept", "reject", "missed", or "" for a comment alone.
    centre_xyz_mm, diameter_mm : of the candidate or the nodule, world mm (LPS).
    score : of the candidate.
    comment, reader : as they were written.
    model_sha256 : of the model that gave the candidates.
    """

    seriesuid: str
    rank: int | None
    verdict: str
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    score: float | None
    comment: str
    reader: str
    model_sha256: str

    def as_row(self) -> list[Any]:
        """Return the line as it is written."""
        empty_or = ["" if v is None else v for v in (self.rank, self.score)]
        return [
            self.seriesuid, empty_or[0], self.verdict, *self.centre_xyz_mm, self.diameter_mm,
            empty_or[1], self.comment, self.reader, self.model_sha256,
        ]  # fmt: skip


def read_corrections(path: Path, *, results: Path | None = None) -> list[Correction]:
    """Read the table that a page exported.

    Parameters
    ----------
    path : the table.
    results : output folder of the detection; each candidate must then be one of its results.

    Raises
    ------
    LungDetError
        Naming file, line and value, if it is no such table, a verdict is unknown, a number is none,
        or a candidate is not one of the results.
    """
    rows = read_csv_rows(path)
    found = [_correction(rows, line, fields) for line, fields in rows.records(COLUMNS)]
    for item in found:
        if results is not None and item.rank is not None:
            _check_candidate(item, results, path)
    return found


def _correction(rows: CsvRows, line: int, fields: list[str]) -> Correction:
    name, rank, verdict, x, y, z, diameter, score, comment, reader, model = fields
    place = f"{rows.path}, line {line}"
    check_series_name(name, source=place)
    if verdict not in ((MISSED,) if rank == "" else (ACCEPT, REJECT, OPEN)):
        raise LungDetError(
            f"{place}: the verdict is {verdict!r}; candidates have a rank and are {ACCEPT}ed, "
            f"{REJECT}ed or neither, {MISSED} nodules have no rank. Export the page's table again"
        )
    if rank and not (rank.isascii() and rank.isdigit()):
        raise LungDetError(f"{place}: the rank is {rank!r}; a whole number is needed")
    numbers = [
        rows.number(text, line, column)
        for text, column in zip((x, y, z, diameter), COLUMNS[3:7], strict=True)
    ]
    largest_mm = MAX_DIAMETER_MM if verdict in (ACCEPT, MISSED) else np.inf
    if max(map(abs, numbers[:3])) > MAX_COORDINATE_MM or not 0 < numbers[3] <= largest_mm:
        raise LungDetError(
            f"{place}: a nodule of {numbers[3]:g} mm at {numbers[:3]}; millimetres are needed. "
            "Export the page's table again"
        )
    return Correction(
        seriesuid=name,
        rank=int(rank) if rank else None,
        verdict=verdict,
        centre_xyz_mm=(numbers[0], numbers[1], numbers[2]),
        diameter_mm=numbers[3],
        score=rows.number(score, line, "probability") if score else None,
        comment=comment,
        reader=reader,
        model_sha256=model,
    )


def _check_candidate(item: Correction, results: Path, path: Path) -> None:
    file = results / item.seriesuid / CANDIDATES_NAME
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        centre = next(c["centre_xyz_mm"] for c in content["candidates"] if c["rank"] == item.rank)
    except OSError as error:
        raise LungDetError(
            f"{path}: {file} cannot be read ({error.strerror}); name the folder of the results "
            "that the page belongs to"
        ) from error
    except (ValueError, KeyError, TypeError, StopIteration):
        centre = None
    is_same = centre is not None and np.allclose(centre, item.centre_xyz_mm, atol=_SAME_PLACE_MM)
    if not is_same or content["model"]["sha256"] != item.model_sha256:
        raise LungDetError(
            f"{path}: candidate {item.rank} of {item.seriesuid} is not that of {file}: the page is "
            "of another result. Look at the scan's present page, or leave out --results"
        )


@dataclass(frozen=True)
class JoinedCorrections:
    """Tables of several pages and readers as one.

    Parameters
    ----------
    rows : every reader's last word on every candidate, and all missed nodules.
    nodules : accepted by more readers than rejected it, and missed ones, one line a nodule.
    notes : what the user should know.
    """

    rows: tuple[Correction, ...]
    nodules: tuple[Correction, ...]
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Return one line with the counts."""
        counts = Counter(row.verdict for row in self.rows)
        readers, scans = ({getattr(r, of) for r in self.rows} for of in ("reader", "seriesuid"))
        return (
            f"{counts[ACCEPT]} accepted, {counts[REJECT]} rejected, {counts[MISSED]} missed, "
            f"{counts[OPEN]} with a comment alone; {len(scans)} scans, {len(readers)} readers, "
            f"{len(self.nodules)} nodules"
        )


def join_corrections(tables: Sequence[Sequence[Correction]]) -> JoinedCorrections:
    """Join tables, the oldest first.

    A page exports all that its reader has said of it: a later table of the same reader, scan and
    model stands in the place of an earlier one, also where he took a word back.
    """
    last: dict[tuple, list[Correction]] = {}
    notes = []
    for table in tables:
        of_page: dict[tuple, dict[tuple, Correction]] = {}
        for row in table:
            # Ranks are of one analysis, and a missed nodule has none: its place tells it.
            page = of_page.setdefault((row.reader, row.seriesuid, row.model_sha256), {})
            page[_judged(row)] = row
        for page_of, said_now in of_page.items():
            before = {_judged(row): row.verdict for row in last.get(page_of, ())}
            now = {judged: row.verdict for judged, row in said_now.items()}
            if not page_of[0] and before not in ({}, now):
                notes.append(
                    f"{page_of[1]}: two tables without a reader's name say different things; the "
                    "later file counts. If they are two readers', put their names into the tables"
                )
            last[page_of] = list(said_now.values())
    rows = sorted(
        (row for page in last.values() for row in page),
        key=lambda r: (r.seriesuid, r.rank is None, r.rank or 0, r.centre_xyz_mm, r.reader),
    )
    votes: dict[tuple, list[Correction]] = {}
    for row in rows:
        if row.rank is not None and row.verdict != OPEN:
            votes.setdefault(_judged(row), []).append(row)
    said_so: list[Correction] = []
    for (name, _, rank, _), said in votes.items():
        balance = sum(1 if row.verdict == ACCEPT else -1 for row in said)
        if balance > 0:
            said_so.append(replace(said[0], verdict=ACCEPT))
        elif balance == 0:
            notes.append(f"{name}: readers disagree on candidate {rank}; it is left out of nodules")
    nodules: list[Correction] = []
    for row in (*said_so, *(row for row in rows if row.verdict == MISSED)):
        # Two readers mark one missed nodule twice, and two models find one.
        if not any(_is_same_nodule(row, other) for other in nodules):
            nodules.append(row)
    nodules.sort(key=lambda r: (r.seriesuid, r.centre_xyz_mm))
    return JoinedCorrections(tuple(rows), tuple(nodules), tuple(notes))


def _judged(row: Correction) -> tuple:
    return row.seriesuid, row.model_sha256, row.rank, row.centre_xyz_mm


def _is_same_nodule(row: Correction, other: Correction) -> bool:
    apart = np.linalg.norm(np.subtract(row.centre_xyz_mm, other.centre_xyz_mm))
    return row.seriesuid == other.seriesuid and bool(
        apart <= max(row.diameter_mm, other.diameter_mm) / 2
    )
