# SPDX-License-Identifier: Apache-2.0
"""Files of a tested run: what it found, written and read back; its metrics beside other runs'.

A LUNA16 submission has the columns ``seriesuid,coordX,coordY,coordZ,probability``, one candidate a
line.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungdet_mmdet.annotations.tables import read_csv_rows
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import write_bytes
from lungdet_mmdet.runs.files import METRICS_NAME
from lungdet_mmdet.scoring.candidates import Candidate
from lungdet_mmdet.scoring.intervals import Interval, value_with_interval
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


DEFAULT_KEYS = (
    "AP50",
    "AR50",
    "paper_F1",
    "AP50_small",
    "AP50_medium",
    "AP50_large",
    "CPM",
    "slab_AUROC",
)
_NONE = "-"


@dataclass(frozen=True)
class RunScores:
    """One run's figures.

    Parameters
    ----------
    name : of the work directory.
    data, protocol, split : what it was tested on.
    metrics : figures by key; NaN where undefined.
    intervals : 95 % intervals by key, where there are any.
    labels : where the boxes come from, "" where unknown.
    parameters : number of the model's parameters, None where unknown.
    seconds_per_slab : of the network, None where unknown.
    """

    name: str
    data: str
    protocol: str
    split: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    labels: str = ""
    parameters: int | None = None
    seconds_per_slab: float | None = None

    def value(self, key: str) -> float:
        """Return a figure, NaN where it is undefined or missing."""
        return self.metrics.get(key, math.nan)

    @property
    def tested_on(self) -> str:
        """What the run was tested on, in words."""
        return f"{self.data} data, {self.protocol} protocol, {self.split} split"


def names_of_runs(paths: Sequence[str | Path]) -> list[str]:
    """Return what tells tested runs apart: names of folders, or ways to them where names repeat."""
    places = [Path(path).resolve() for path in paths]
    folders = [place if place.is_dir() else place.parent for place in places]
    names = [folder.name for folder in folders]
    if len(set(names)) == len(names):
        return names
    common = os.path.commonpath(folders)
    return [folder.relative_to(common).as_posix() for folder in folders]


def read_run(path: str | Path) -> RunScores:
    """Read a work directory's ``metrics.json``, or the file itself.

    Raises LungDetError if it is missing or not of that form.
    """
    path = Path(path)
    if path.is_dir():
        path = path / METRICS_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _run_of(content, name=path.resolve().parent.name)
    except OSError:
        raise LungDetError(
            f"{path}: no metrics here; test the run with `lungdet test CONFIG CHECKPOINT`"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LungDetError(
            f"{path}: not the metrics of a tested run ({error!r}); run `lungdet test` again"
        ) from error


def _run_of(content: Mapping[str, Any], *, name: str) -> RunScores:
    intervals = content.get("ci95") or {}
    exact = content.get("ci95_exact") or ()
    limits = {key: pair for key, pair in intervals.items() if pair and None not in pair}
    return RunScores(
        name=name,
        data=str(content["data"]),
        protocol=str(content["protocol"]),
        split=str(content["split"]),
        metrics={k: math.nan if v is None else float(v) for k, v in content["metrics"].items()},
        intervals={
            key: Interval(float(low), float(high), is_exact=key in exact)
            for key, (low, high) in limits.items()
        },
        labels=str(content.get("labels") or ""),
        parameters=content.get("parameters"),
        seconds_per_slab=content.get("seconds_per_slab"),
    )


def sorted_runs(runs: Sequence[RunScores], key: str) -> list[RunScores]:
    """Return the runs, best first by one figure, undefined ones last.

    Raises LungDetError if no run has that figure.
    """
    if not any(key in run.metrics for run in runs):
        known = sorted({name for run in runs for name in run.metrics})
        raise LungDetError(f"no run has the figure {key!r}; they have {', '.join(known)}")
    return sorted(runs, key=lambda run: (math.isnan(run.value(key)), -run.value(key), run.name))


def comparison_rows(
    runs: Sequence[RunScores], keys: Sequence[str] = DEFAULT_KEYS
) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of texts per run: figures with intervals, size, speed."""
    header = ["run", *keys, "parameters", "ms per slab"]
    rows = []
    for run in runs:
        size = _NONE if run.parameters is None else f"{run.parameters / 1e6:.1f} M"
        seconds = run.seconds_per_slab
        speed = _NONE if seconds is None else f"{1000 * seconds:.1f}"
        rows.append([run.name, *(_figure(run, key) for key in keys), size, speed])
    return header, rows


def _figure(run: RunScores, key: str) -> str:
    value = run.value(key)
    if math.isnan(value):
        return _NONE
    return value_with_interval(value, run.intervals.get(key))


def difference_warnings(runs: Sequence[RunScores]) -> list[str]:
    """Say so where the runs were not tested on the same thing."""
    tested: dict[str, list[str]] = {}
    for run in runs:
        # Slabs of another thickness show the same nodules on another number of them.
        counts = {"scans": run.value("n_scans"), "nodules": run.value("froc_n_nodules")}
        told = [f", {count:g} {what}" for what, count in counts.items() if not math.isnan(count)]
        told += [f", labels {run.labels}"] if all(other.labels for other in runs) else []
        tested.setdefault(run.tested_on + "".join(told), []).append(run.name)
    if len(tested) < 2:
        return []
    parts = "; ".join(f"{what}: {', '.join(names)}" for what, names in tested.items())
    return [f"these runs were not tested on the same slabs, so do not compare them ({parts})"]


def validation_curve(work_dir: str | Path, key: str = "AR50") -> dict[int, float]:
    """Return a figure of every validation of a training, by epoch (or by iteration).

    A training that was resumed has several logs; the latest one counts.

    Parameters
    ----------
    work_dir : of the training.
    key : name of the figure, without the ``lung/`` before it in the log.

    Raises
    ------
    LungDetError
        If there is no log, or none of its validations has the figure.
    """
    logs = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
    rows = [row for log in logs for row in _log_rows(log)]
    curve: dict[int, float] = {}
    iteration = 0
    for row in rows:
        iteration = int(row.get("iter", iteration))
        if f"lung/{key}" in row:
            # mmengine counts the validations of a training by iterations as epoch 0.
            curve[int(row["step"]) or iteration] = float(row[f"lung/{key}"])
    if not curve:
        known = sorted({name[5:] for row in rows for name in row if name.startswith("lung/")})
        raise LungDetError(
            f"{work_dir}: no validation with the figure {key!r} in {len(logs)} logs "
            f"(*/vis_data/scalars.json); they have {', '.join(known) or 'none'}"
        )
    return dict(sorted(curve.items()))


def _log_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # the line that a killed run was writing
            continue
        rows += [row] if isinstance(row, dict) and "step" in row else []
    return rows


def curve_rows(curves: Mapping[str, Mapping[int, float]]) -> tuple[list[str], list[list[str]]]:
    """Return the header and one row of texts for every epoch that any of the runs has."""
    epochs = sorted({epoch for curve in curves.values() for epoch in curve})
    rows = [
        [str(epoch), *(_percent(curve.get(epoch, math.nan)) for curve in curves.values())]
        for epoch in epochs
    ]
    return ["after", *curves], rows


def _percent(value: float) -> str:
    return _NONE if math.isnan(value) else f"{100 * value:.1f} %"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# Of one model on several sets: what detectors are compared by first.
_SET_KEYS = ("CPM", "AP50", "AR50", "paper_F1", "slab_AUROC")


def comparison_of_sets(runs: Sequence[RunScores]) -> str:
    """Return a table of one model on several test sets, and what each set is, as Markdown."""
    header, rows = comparison_rows(runs, _SET_KEYS)
    lines = [f"{run.name}: {run.tested_on}" for run in runs]
    # Model and speed are the same in every row.
    return markdown_table(["set", *header[1:-2]], [row[:-2] for row in rows]) + "\n".join(lines)
