# SPDX-License-Identifier: Apache-2.0
"""What a model found, as files: LUNA16 submissions, and the boxes of every slab.

A submission has the columns ``seriesuid,coordX,coordY,coordZ,probability``, one candidate a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import read_csv_rows
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.slab_records import SlabDetections, SlabSet

COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "probability")


@dataclass(frozen=True)
class Marks:
    """Marks of a detector: where it sees a nodule, and how sure it is.

    ``seriesuids`` (M,), ``centres_xyz_mm`` (M, 3) in world mm (LPS), ``scores`` (M,). ``warnings``
    holds one sentence with a count for all that was odd but cannot change the result unnoticed.
    """

    seriesuids: tuple[str, ...]
    centres_xyz_mm: NDArray[np.float64]
    scores: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def marks_of_candidates(candidates: Iterable[Candidate]) -> Marks:
    """Return the candidates of any number of scans as marks."""
    items = list(candidates)
    return Marks(
        tuple(item.seriesuid for item in items),
        np.array([item.centre_xyz_mm for item in items], dtype=np.float64).reshape(-1, 3),
        np.array([item.score for item in items], dtype=np.float64),
    )


def read_submission(path: str | Path, *, series: Sequence[str]) -> Marks:
    """Read a submission for the given series.

    A byte order mark, CRLF line ends and semicolons are read through. Counted as warnings, with
    what they do to the result: lines of other series (left out), repeated lines (kept, for the
    official evaluation keeps them), scores outside [0, 1] (kept: only their order matters), series
    without a line (they stay in the denominator). Raises LungDetError when the file is missing,
    empty or not a table, a column is missing, a coordinate or score is not a finite number, or no
    line belongs to any of the series.
    """
    rows = read_csv_rows(path)
    known = frozenset(series)
    uids: list[str] = []
    numbers: list[tuple[float, ...]] = []
    n_lines = n_unknown = 0
    for line, fields in rows.records(COLUMNS):
        n_lines += 1
        values = tuple(
            rows.number(text, line, column)
            for text, column in zip(fields[1:], COLUMNS[1:], strict=True)
        )
        if fields[0] not in known:
            n_unknown += 1
            continue
        uids.append(fields[0])
        numbers.append(values)
    if n_lines and not uids:
        raise LungDetError(
            f"{rows.path}: none of its {n_lines} lines belongs to one of the {len(known)} series "
            "evaluated; check that the submission and the list of series belong together"
        )
    table = np.array(numbers, dtype=np.float64).reshape(-1, 4)
    n_repeated = len(uids) - len(set(zip(uids, numbers, strict=True)))
    n_outside = int(np.count_nonzero((table[:, 3] < 0) | (table[:, 3] > 1)))
    n_silent = len(known) - len(set(uids))
    counted = {
        "lines of series that are not evaluated, left out": n_unknown,
        "repeated lines, kept as the official evaluation does (each off a nodule is one more "
        "false positive)": n_repeated,
        "probabilities outside [0, 1], kept (only their order matters)": n_outside,
        "series without a line, kept in the denominator": n_silent,
    }
    odd = tuple(f"{rows.path.name}: {what}: {count}" for what, count in counted.items() if count)
    return Marks(tuple(uids), table[:, :3], table[:, 3], (*rows.warnings(), *odd))


def write_submission(path: str | Path, marks: Marks) -> None:
    """Write marks as a LUNA16 submission; the file appears whole or not at all."""
    lines = [",".join(COLUMNS)]
    for uid, centre, score in zip(
        marks.seriesuids, marks.centres_xyz_mm.tolist(), marks.scores.tolist(), strict=True
    ):
        # repr keeps every digit, so that reading it back gives the same result.
        lines.append(",".join([uid, *map(repr, centre), repr(score)]))
    write_bytes(Path(path), ("\n".join(lines) + "\n").encode("utf-8"))


def write_predictions(
    path: str | Path, slab_set: SlabSet, detections: Sequence[SlabDetections]
) -> None:
    """Write a list of {img_id, seriesuid, slab_index, bboxes, scores}, one entry per slab.

    Boxes are xyxy in slab pixels. The file appears whole or not at all.
    """
    rows = [
        {
            "img_id": item.img_id,
            "seriesuid": slab_set.slabs[item.img_id].seriesuid,
            "slab_index": slab_set.slabs[item.img_id].geometry.index,
            "bboxes": item.boxes_xyxy_px.tolist(),
            "scores": item.scores.tolist(),
        }
        for item in detections
    ]
    # Without the indents of other files: a large split has millions of numbers.
    write_bytes(Path(path), json.dumps(rows).encode("utf-8"))


def read_predictions(path: str | Path) -> list[SlabDetections]:
    """Read what ``write_predictions`` wrote.

    Raises LungDetError when the file is missing or not of that form.
    """
    path = Path(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [
            SlabDetections(
                row["img_id"],
                np.asarray(row["bboxes"]),
                np.asarray(row["scores"]),
                seriesuid=row["seriesuid"],
                slab_index=row["slab_index"],
            )
            for row in rows
        ]
    except FileNotFoundError:
        raise LungDetError(f"{path}: no such prediction file; run the test command first") from None
    except (KeyError, TypeError, ValueError) as error:
        raise LungDetError(
            f"{path}: not a prediction file of this package ({error}); run the test command again"
        ) from error
