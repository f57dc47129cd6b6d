# SPDX-License-Identifier: Apache-2.0
"""What stands over the results of many scans: joined table, failures, page, summary."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lungdet_mmdet.apis.candidate_files import MORE_COLUMNS, NOTICE, lung_warning
from lungdet_mmdet.apis.scan_results import (
    CSV_NAME,
    JSON_NAME,
    OUTDATED_NAME,
    OUTPUT_NAMES,
    THUMBNAIL_NAME,
    EarlierResult,
    earlier_result,
)
from lungdet_mmdet.reports.page import image_uri, render
from lungdet_mmdet.runs.atomic_files import read_json_or, write_bytes, write_json
from lungdet_mmdet.runs.file_names import FAILURES_NAME, INDEX_NAME, REPORT_NAME
from lungdet_mmdet.runs.scan_runs import ScanFailure, exit_code_of, tally
from lungdet_mmdet.scoring.submission import COLUMNS


@dataclass(frozen=True)
class JobResult:
    """What a worker hands back: how many candidates, and whether there was anything to do."""

    name: str
    positives: int
    candidates: int
    skipped: bool
    flags: tuple[str, ...] = ()
    verdict: str = "ok"
    cautions: tuple[str, ...] = ()


@dataclass
class BatchRun:
    """What a run over many scans did.

    Parameters
    ----------
    out_dir : folder of the results.
    results : scans that have a result, now or from before.
    failures : scans and inputs that could not be used.
    notes : what else the user should know.
    interrupted_by : signal that cut the run short; running again goes on.
    """

    out_dir: Path
    results: list[JobResult] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted_by: int | None = None

    @property
    def exit_code(self) -> int:
        """0 if every input has its result, 130 or 143 after an interrupt, else 1."""
        return exit_code_of(self.failures, self.interrupted_by)

    def lines(self) -> list[str]:
        """Return the summary for the user."""
        lines = []
        for r in self.results:
            before = " (from before)" if r.skipped else ""
            page = self.out_dir / r.name / REPORT_NAME
            lines.append(
                f"{r.name}: {r.positives} of {r.candidates} candidates above the threshold{before}"
                f"  {page if page.is_file() else page.parent}"
            )
            if r.verdict != "ok":
                lines.append(f"  WARNING: {lung_warning(r.verdict)}")
            lines += [f"  note: {flag}" for flag in r.flags if flag.startswith("no ")]
        doubtful = [r.name for r in self.results if r.verdict != "ok"]
        if doubtful:
            lines.append(f"WARNING: the lungs of {len(doubtful)} scans are in doubt: see above")
        told = Counter(text for r in self.results for text in r.cautions)
        of_lungs = {lung_warning(r.verdict) for r in self.results}
        lines += [
            f"WARNING ({n} scans): {text}" for text, n in told.items() if text not in of_lungs
        ]
        skipped = sum(r.skipped for r in self.results)
        lines += [f"note: {note}" for note in self.notes]
        lines.append(
            tally(
                "scans",
                done=len(self.results) - skipped,
                before=skipped,
                failed=len(self.failures),
            )
            + f"; table of all candidates: {self.out_dir / CSV_NAME}"
        )
        if (self.out_dir / INDEX_NAME).is_file():
            lines.append(f"all scans, the worst first: {self.out_dir / INDEX_NAME}")
        return lines


def _is_superseded(failure: dict, names: set[str], paths: Collection[str]) -> bool:
    """Say whether an earlier failure is of a scan that was looked at in this run."""
    reason = str(failure.get("reason", ""))
    if "/" in reason or "\\" in reason:
        # The reason names the file; the name alone may be another scan's.
        return any(path in reason for path in paths)
    return failure["seriesuid"] in names


def files_in(folder: Path) -> set[str]:
    """Return the names of the files in a folder; none where it is no folder, or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def write_summary(batch: BatchRun, *, names: set[str], paths: Sequence[Path]) -> None:
    """Write what stands over all results in a folder, those of runs before included.

    The joined table, the list of failures, and a page of all scans, the worst first. A page that
    cannot be made is noted in ``batch``.

    Parameters
    ----------
    batch : the run.
    names, paths : of the scans in it; earlier failures of these are forgotten.
    """
    header = ",".join([*COLUMNS, *MORE_COLUMNS])
    tables: list[bytes] = []
    results: list[Path] = []
    for folder in sorted(batch.out_dir.iterdir()):
        files = set() if folder.name.startswith(".") else files_in(folder)
        if not {CSV_NAME, JSON_NAME} <= files:
            continue
        results.append(folder)
        if OUTDATED_NAME in files:
            continue
        first, _, table = (folder / CSV_NAME).read_bytes().partition(b"\n")
        if first.decode(errors="replace") != header:
            batch.notes.append(
                f"{folder.name}: its table is of another version of this package and not in the "
                "joined one; run this scan again"
            )
            continue
        if table:
            tables.append(table.removesuffix(b"\n"))
    if results or (batch.out_dir / CSV_NAME).is_file():
        write_bytes(batch.out_dir / CSV_NAME, b"\n".join([header.encode(), *tables, b""]))
    before = {f["seriesuid"]: f for f in read_json_or(batch.out_dir / FAILURES_NAME, [])}
    now = {f.seriesuid: f.as_dict() for f in batch.failures}
    places = set(map(str, paths))
    kept = {uid: f for uid, f in before.items() if not _is_superseded(f, names, places)}
    failures = [failure for _, failure in sorted({**kept, **now}.items())]
    write_json(batch.out_dir / FAILURES_NAME, failures)
    try:
        page = index_html(results, failures)
        write_bytes(batch.out_dir / INDEX_NAME, page.encode("utf-8"))
    except Exception as error:  # what it shows is written already
        batch.notes.append(f"no {INDEX_NAME}: {error}")


_STATES = ("failed", "outdated", "lungs in doubt", "candidates", "nothing found")
"""What became of a scan, the worst first."""
# At 20 kB a scan, 40 MB: what a browser still opens. The worst come first; the others are on disk.
MAX_PICTURES = 2000


def index_html(results: Sequence[Path], failures: Sequence[Mapping[str, Any]]) -> str:
    """Return the page over many results: one row a scan, the worst first.

    Parameters
    ----------
    results : folders of results.
    failures : records of ``failures.json``.
    """
    failed = {str(f["seriesuid"]): str(f.get("reason", "")) for f in failures}
    rows = [_row(folder, failed.pop(folder.name, "")) for folder in results]
    rows += [{**_NO_RESULT, "name": name, "reason": reason} for name, reason in failed.items()]
    rows.sort(key=lambda row: (_STATES.index(row["state"]), -row["score"], row["name"]))
    for row in rows[MAX_PICTURES:]:
        row["thumbnail"] = None
    cautions = Counter(text for row in rows for text in row["of_model"])
    return render(
        "batch_index.html",
        title="Lung nodule candidates: all scans",
        style="batch_index.css",
        script="batch_index.js",
        notice=NOTICE,
        rows=rows,
        cautions=[f"{text} ({n} of {len(rows)} scans)" for text, n in cautions.items()],
        image_uri=image_uri,
        without_pictures=max(len(rows) - MAX_PICTURES, 0),
        states=[(s, n) for s in _STATES if (n := sum(r["state"] == s for r in rows))],
    )


_NO_RESULT: dict[str, Any] = {
    "state": "failed", "score": 0.0, "candidates": None, "flags": [], "of_model": [],
    "thumbnail": None, "page": "", "files": [],
}  # fmt: skip


def _row(folder: Path, failure: str) -> dict[str, Any]:
    result = earlier_result(folder) or EarlierResult()
    names = files_in(folder)
    warning = lung_warning(result.verdict)
    state = "candidates" if result.positives else "nothing found"
    if OUTDATED_NAME in names:
        state = "outdated"
        failure = failure or "this result is of an earlier run; the last one failed"
    elif warning:
        state = "lungs in doubt"
    files = sorted(names & (OUTPUT_NAMES - {THUMBNAIL_NAME}))
    place = quote(folder.name)
    return {
        "name": folder.name,
        "state": state,
        "reason": failure or warning,
        "score": result.score,
        "verdict": result.verdict,
        "positives": result.positives,
        "candidates": result.candidates,
        "threshold": result.threshold,
        "largest_mm": result.largest_mm,
        "flags": [flag.replace("_", " ") for flag in result.flags],
        "of_model": [text for text in result.cautions if text != warning],
        "thumbnail": folder / THUMBNAIL_NAME if THUMBNAIL_NAME in names else None,
        "page": f"{place}/{REPORT_NAME}" if REPORT_NAME in files else "",
        "files": [(name, f"{place}/{name}") for name in files],
    }
