# SPDX-License-Identifier: Apache-2.0
"""Several tested runs side by side, from their ``metrics.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import METRICS_NAME
from lungdet_mmdet.scoring.intervals import Interval, value_with_interval

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
    parameters : number of the model's parameters, None where unknown.
    seconds_per_slab : of the network, None where unknown.
    """

    name: str
    data: str
    protocol: str
    split: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval]
    parameters: int | None = None
    seconds_per_slab: float | None = None

    def value(self, key: str) -> float:
        """Return a figure, NaN where it is undefined or missing."""
        return self.metrics.get(key, math.nan)

    @property
    def tested_on(self) -> str:
        """What the run was tested on, in words."""
        return f"{self.data} data, {self.protocol} protocol, {self.split} split"


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
        tested.setdefault(run.tested_on, []).append(run.name)
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
