# SPDX-License-Identifier: Apache-2.0
"""A folder of many results: whose each one is, and what stands over them: table, failures, page."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lungdet_mmdet.apis.candidate_files import MORE_COLUMNS, NOTICE, lung_warning, models_of
from lungdet_mmdet.apis.scan_results import (
    CSV_NAME,
    OUTDATED_NAME,
    OUTPUT_NAMES,
    THUMBNAIL_NAME,
)
from lungdet_mmdet.ct.scan_inputs import ScanInput, anonymous_name
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.reports.page import image_uri, render
from lungdet_mmdet.runs.atomic_files import only_run_in, read_json_or, write_bytes, write_json
from lungdet_mmdet.runs.files import (
    CANDIDATES_NAME,
    FAILURES_NAME,
    INDEX_NAME,
    REPORT_NAME,
    SYSTEM_FILES,
)
from lungdet_mmdet.runs.scan_runs import (
    ScanFailure,
    exit_code_of,
    failure_of,
    is_without_names,
    tally,
)
from lungdet_mmdet.scoring.run_files import COLUMNS


@dataclass(frozen=True)
class EarlierResult:
    """What is asked of a scan's result on disk, without its candidates themselves.

    Parameters
    ----------
    fingerprint : what it depends on.
    place : digest of where the scan lay; None where the result does not say.
    is_whole : whether no file of it was left unwritten.
    verdict : on the lung mask.
    cautions, flags : as the result has them.
    threshold : of the scores.
    made_by : digests of the models, looks at a slab, distance of slabs in mm, and precision.
    candidates, positives : how many there are, and how many at or above the threshold.
    score : of the best candidate; 0.0 without any.
    largest_mm : diameter of the largest at or above the threshold, or None.
    """

    fingerprint: Mapping[str, str] = field(default_factory=dict)
    place: str | None = None
    is_whole: bool = True
    verdict: str = "ok"
    cautions: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    threshold: float | None = None
    made_by: tuple[Any, ...] = ()
    candidates: int = 0
    positives: int = 0
    score: float = 0.0
    largest_mm: float | None = None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> EarlierResult:
        """Return what the content of a ``candidates.json`` says."""
        candidates, fingerprint = content.get("candidates", []), content.get("fingerprint")
        positives = [c for c in candidates if c["above_threshold"]]
        model = content.get("model", {})
        digests = tuple(part.get("sha256") for part in models_of(model))
        return cls(
            fingerprint=fingerprint if isinstance(fingerprint, dict) else {},
            place=content.get("place"),
            is_whole=not content.get("unwritten"),
            verdict=str(content.get("lungs", {}).get("verdict", "ok")),
            cautions=tuple(sys.intern(str(text)) for text in content.get("cautions", ())),
            flags=tuple(sys.intern(str(text)) for text in content.get("flags", ())),
            threshold=content.get("threshold"),
            made_by=(
                digests,
                model.get("looks", 1),
                model.get("stride_mm"),
                model.get("precision"),
            ),
            candidates=len(candidates),
            positives=len(positives),
            score=max((c["score"] for c in candidates), default=0.0),
            largest_mm=max((c["diameter_mm"] for c in positives), default=None),
        )


def earlier_result(folder: Path) -> EarlierResult | None:
    """Return what a result's ``candidates.json`` says; None where there is no whole one.

    A file that has not changed since this process read it is not read again.
    """
    path = os.path.join(folder, CANDIDATES_NAME)
    try:
        state = os.stat(path)
    except OSError:
        return None
    return read_result(path, (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=100_000)
def read_result(path: str, state: tuple[int, int, int]) -> EarlierResult | None:
    """Read a ``candidates.json``; `state` tells one content from another."""
    content = read_json_or(Path(path), {})
    try:
        return EarlierResult.from_content(content) if content else None
    except (AttributeError, KeyError, TypeError):  # another program's file
        return None


def is_result_of(scan: ScanInput, result: EarlierResult) -> bool:
    """Say whether an earlier result is this scan's: of the same place, or moved here as it was."""
    if result.place == scan.place_digest():
        return True
    before = result.fingerprint
    if result.place is None and scan.name == anonymous_name(str(before.get("scan"))):
        return True
    # Two patients' files can have one name, size and time: their bytes decide.
    looks_the_same = "files" in before and before["files"] == scan.files_digest()
    return looks_the_same and before.get("scan") == scan.content_digest()


def scans_with_folders(
    scans: Sequence[ScanInput], out_dir: Path
) -> tuple[list[ScanInput], list[ScanFailure]]:
    """Name each scan by the folder that is its own, or free: never by that of another scan.

    A name such as ``ct`` is of many scans, in this run and in those before.
    """
    placed: list[ScanInput] = []
    failures: list[ScanFailure] = []
    taken: set[str] = set()
    for scan in scans:
        names = dict.fromkeys((scan.name, scan.title or scan.name, scan.long_name))
        names = [name for name in names if name.lower() not in taken]
        try:
            found = {name: earlier_result(out_dir / name) for name in names}
            own = [n for n, result in found.items() if result and is_result_of(scan, result)]
        except (LungDetError, OSError) as error:
            failures.append(replace(failure_of(scan.name, error), places=scan.places))
            continue
        free = [n for n in names if found[n] is None and n in (scan.name, scan.long_name)]
        name = next(iter([*own, *free]), None)
        if name is None:
            reason = f"{scan.path}: the same scan as another input, whose result it shares"
            failures.append(ScanFailure(scan.name, "input", reason, places=scan.places))
            continue
        taken.add(name.lower())
        placed.append(replace(scan, name=name))
    return placed, failures


def refuse_named_results(out_dir: Path) -> None:
    """Anonymous results lie in no folder with others: what is joined over all would name these.

    Raises
    ------
    LungDetError
        Naming one of them.
    """
    folders = [path for path in out_dir.iterdir() if path.is_dir()] if out_dir.is_dir() else []
    named = (path for path in folders if (result := earlier_result(path)) and result.place)
    told = (f for f in read_json_or(out_dir / FAILURES_NAME, []) if not is_without_names(f))
    place = next(named, None) or (out_dir / FAILURES_NAME if next(told, None) else None)
    if place is not None:
        raise LungDetError(
            f"{place}: of a run that was not --anonymous, and names scans; choose another --out"
        )


def mark_outdated(folder: Path, reason: str) -> None:
    """Leave a word in the folder of an earlier result: it is not of the scan as it is now."""
    if (folder / CANDIDATES_NAME).is_file():
        text = f"This result is of an earlier run. The last one failed:\n{reason}\n"
        write_bytes(folder / OUTDATED_NAME, text.encode("utf-8"))


class ForeignFolderError(LungDetError):
    """Other files lie where a result would go; nothing is written there."""


def refuse_foreign_folder(folder: Path) -> None:
    """Results replace a folder as a whole: never one that holds anything else, such as a scan."""
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    foreign = sorted(names - OUTPUT_NAMES - SYSTEM_FILES)
    if folder.is_file() or foreign:
        raise ForeignFolderError(
            f"{folder}: {', '.join(foreign[:3]) or 'a file'} lies where the "
            "results would go, and is none of them; choose another --out"
        )


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
                interrupted=self.interrupted_by is not None,
            )
            + f"; table of all candidates: {self.out_dir / CSV_NAME}"
        )
        if (self.out_dir / INDEX_NAME).is_file():
            lines.append(f"all scans, the worst first: {self.out_dir / INDEX_NAME}")
        return lines


def files_in(folder: Path) -> set[str]:
    """Return the names of the files in a folder; none where it is no folder, or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


# Over 100,000 scans, the summary of another run takes minutes.
WAIT_S = 600.0


def write_summary(
    batch: BatchRun, *, looked_at: Collection[str] = (), anonymous: bool = False
) -> None:
    """Write what stands over all results in a folder, those of runs before included.

    The joined table, the list of failures, and a page of all scans, the worst first. A page that
    cannot be made is noted in ``batch``. Other runs that end at the same time wait for each other.

    Parameters
    ----------
    batch : the run.
    looked_at : places of its scans and inputs: earlier failures of these are forgotten. Of failures
        that say no place, those of these names.
    anonymous : write no reason that could name anything.

    Raises
    ------
    LungDetError
        If the folder cannot be written to, or another run is at its summary for ten minutes.
    """
    with only_run_in(batch.out_dir, wait_s=WAIT_S):
        _write_summary(batch, set(looked_at), anonymous)


def _write_summary(batch: BatchRun, looked_at: set[str], anonymous: bool) -> None:
    header = ",".join([*COLUMNS, *MORE_COLUMNS])
    tables: list[bytes] = []
    results: dict[Path, set[str]] = {}
    made_by: set[tuple[Any, ...]] = set()
    for folder in sorted(batch.out_dir.iterdir()):
        files = set() if folder.name.startswith(".") else files_in(folder)
        if not {CSV_NAME, CANDIDATES_NAME} <= files:
            continue
        try:
            first, _, table = (folder / CSV_NAME).read_bytes().partition(b"\n")
        except FileNotFoundError:
            # Another run is replacing the folder; its summary comes after this one.
            continue
        results[folder] = files
        if OUTDATED_NAME in files:
            continue
        if first.decode(errors="replace") != header:
            batch.notes.append(
                f"{folder.name}: its table is of another version of this package and not in the "
                "joined one; run this scan again"
            )
            continue
        if table:
            tables.append(table.removesuffix(b"\n"))
        made_by.add((earlier_result(folder) or EarlierResult()).made_by)
    if len(made_by) > 1:
        batch.notes.append(
            f"{CSV_NAME} joins results of {len(made_by)} kinds (model, looks, stride or precision "
            "differ): their scores cannot be compared; use an --out for each"
        )
    if results or (batch.out_dir / CSV_NAME).is_file():
        write_bytes(batch.out_dir / CSV_NAME, b"\n".join([header.encode(), *tables, b""]))
    now = [(f.without_names() if anonymous else f).as_dict() for f in batch.failures]
    before = read_json_or(batch.out_dir / FAILURES_NAME, [])
    kept = [f for f in before if not looked_at.intersection(f.get("places") or [f["seriesuid"]])]
    told = {(f["seriesuid"], *f.get("places", ())): f for f in (*kept, *now)}
    failures = [failure for _, failure in sorted(told.items())]
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


def index_html(results: Mapping[Path, set[str]], failures: Sequence[Mapping[str, Any]]) -> str:
    """Return the page over many results: one row a scan, the worst first.

    Parameters
    ----------
    results : folders of results, with the names of the files in each.
    failures : records of ``failures.json``.
    """
    failed: dict[str, list[Mapping[str, Any]]] = {}
    for failure in failures:
        failed.setdefault(str(failure["seriesuid"]), []).append(failure)
    rows = []
    for folder, names in results.items():
        result = earlier_result(folder) or EarlierResult()
        # Of two scans of one name, one may have failed and the other have its result here.
        place, named = result.place, failed.pop(folder.name, [])
        own = [f for f in named if place is None or place in f.get("places", [place])]
        failed[folder.name] = [f for f in named if f not in own]
        rows.append(_row(folder, names, result, str(own[-1].get("reason", "")) if own else ""))
    rows += [
        {**_NO_RESULT, "name": name, "reason": str(failure.get("reason", ""))}
        for name, named in failed.items()
        for failure in named
    ]
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


def _row(folder: Path, names: set[str], result: EarlierResult, failure: str) -> dict[str, Any]:
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
