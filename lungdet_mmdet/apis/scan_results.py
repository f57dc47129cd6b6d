# SPDX-License-Identifier: Apache-2.0
"""The files of one scan's result: their names, what a result depends on, and how it is written."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lungdet_mmdet.apis.candidate_files import (
    candidate_records,
    candidates_csv,
    candidates_json,
    cautions,
    label_map,
    slicer_markups,
)
from lungdet_mmdet.apis.dicom_report import DICOM_NAMES, has_highdicom, write_dicom
from lungdet_mmdet.apis.report_scan import report_scan, scan_overview
from lungdet_mmdet.apis.scan_detector import ScanFindings
from lungdet_mmdet.ct.dicom.header import DicomSlice
from lungdet_mmdet.ct.dicom.reading import slice_stack
from lungdet_mmdet.ct.metaimage_pixels import write_nifti
from lungdet_mmdet.ct.scan_inputs import InputList, ScanInput
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.reports.page import encoded_jpeg
from lungdet_mmdet.reports.scan_report import report_html
from lungdet_mmdet.runs.atomic_files import OutputError, read_json_or, write_bytes, write_json
from lungdet_mmdet.runs.file_names import REPORT_NAME
from lungdet_mmdet.runs.scan_runs import ScanFailure, failure_of
from lungdet_mmdet.series_name import series_name_of
from lungdet_mmdet.splits.prepared import NOT_PATIENTS

CSV_NAME = "candidates.csv"
JSON_NAME = "candidates.json"
SLICER_NAME = "candidates.mrk.json"
LABEL_MAP_NAME = "candidates_boxes.nii.gz"
THUMBNAIL_NAME = "thumbnail.jpg"
# In the folder of an earlier result whose scan could not be used this time.
OUTDATED_NAME = "outdated.txt"
OUTPUT_NAMES = frozenset(
    {
        CSV_NAME,
        JSON_NAME,
        SLICER_NAME,
        REPORT_NAME,
        LABEL_MAP_NAME,
        THUMBNAIL_NAME,
        OUTDATED_NAME,
        *DICOM_NAMES.values(),
    }
)
REPORTS = ("full", "slabs", "none")
"""Kinds of page: with all slices of the CT, with the detector's slabs alone, no page."""


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
    candidates: int = 0
    positives: int = 0
    score: float = 0.0
    largest_mm: float | None = None

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> EarlierResult:
        """Return what the content of a ``candidates.json`` says."""
        candidates, fingerprint = content.get("candidates", []), content.get("fingerprint")
        positives = [c for c in candidates if c["above_threshold"]]
        return cls(
            fingerprint=fingerprint if isinstance(fingerprint, dict) else {},
            place=content.get("place"),
            is_whole=not content.get("unwritten"),
            verdict=str(content.get("lungs", {}).get("verdict", "ok")),
            cautions=tuple(sys.intern(str(text)) for text in content.get("cautions", ())),
            flags=tuple(sys.intern(str(text)) for text in content.get("flags", ())),
            threshold=content.get("threshold"),
            candidates=len(candidates),
            positives=len(positives),
            score=max((c["score"] for c in candidates), default=0.0),
            largest_mm=max((c["diameter_mm"] for c in positives), default=None),
        )


def earlier_result(folder: Path) -> EarlierResult | None:
    """Return what a result's ``candidates.json`` says; None where there is no whole one.

    A file that has not changed since this process read it is not read again.
    """
    path = os.path.join(folder, JSON_NAME)
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


def anonymous_name(content_digest: str) -> str:
    """Return the name of a scan that tells nothing but what its bytes are."""
    return f"scan-{content_digest[:12]}"


def anonymous_names(listed: InputList) -> InputList:
    """Return the inputs under names that tell nothing but that two scans are the same."""
    scans, failures = [], list(listed.failures)
    for scan in listed.scans:
        try:
            name = anonymous_name(scan.content_digest())
        except (LungDetError, OSError) as error:
            failures.append(failure_of(scan.name, error))
            continue
        scans.append(replace(scan, name=name, title=name))
    return InputList(scans, failures, listed.notes)


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
            failures.append(failure_of(scan.name, error))
            continue
        free = [n for n in names if found[n] is None and n in (scan.name, scan.long_name)]
        name = next(iter([*own, *free]), None)
        if name is None:
            reason = f"{scan.path}: the same scan as another input, whose result it shares"
            failures.append(ScanFailure(scan.name, "input", reason))
            continue
        taken.add(name.lower())
        placed.append(replace(scan, name=name))
    return placed, failures


def write_findings(
    folder: Path,
    findings: ScanFindings,
    *,
    scan_input: ScanInput | None = None,
    fingerprint: dict[str, str] | None = None,
    anonymous: bool = False,
    with_label_map: bool = False,
    report: str = "full",
    dicom: Sequence[str] = ("sr",),
) -> ScanFindings:
    """Write all files of one scan's result into a folder; return what was written.

    Tables and JSON are the result. Any other file that cannot be made (a DICOM report of images
    that lack what it repeats, a page) is flagged and left out: it never costs the others.

    Parameters
    ----------
    folder : is made where it is not there.
    findings : the result.
    scan_input : where the scan came from; a DICOM series gets DICOM files too.
    fingerprint : what the result depends on.
    anonymous : leave out where the scan lay, its name, and whose it is.
    with_label_map : also write the boxes as an image on the input's own grid.
    report : one of ``REPORTS``.
    dicom : kinds of DICOM files, of ``DICOM_NAMES``.
    """
    series = scan_input.series if scan_input is not None else None
    name = scan_input.name if scan_input else series_name_of(findings.scan.seriesuid)
    if anonymous:
        findings = replace(findings, source="", scan=replace(findings.scan, seriesuid=name))
    slices = slice_stack(series)[0] if series is not None else []
    records = candidate_records(findings, dicom_slices=slices)
    if anonymous:
        for record in records:
            record.get("dicom_image", {}).pop("file", None)
    verdict = str(findings.lung_summary.get("verdict", ""))
    is_made_up = any(text.startswith(NOT_PATIENTS) for text in cautions(findings))
    table = candidates_csv(
        name, records, verdict=verdict, caution=NOT_PATIENTS if is_made_up else ""
    )
    write_bytes(folder / CSV_NAME, table.encode("utf-8"))
    write_json(folder / SLICER_NAME, slicer_markups(findings, records))

    optional: dict[str, _Maker] = {}
    if slices and has_highdicom():
        optional |= {DICOM_NAMES[kind]: _dicom_maker(kind, slices, anonymous) for kind in dicom}
    if with_label_map:
        optional[LABEL_MAP_NAME] = _make_label_map
    optional[THUMBNAIL_NAME] = _make_thumbnail
    if report != "none":  # last: it shows what could not be made
        optional[REPORT_NAME] = partial(_make_report, name=name, with_slices=report == "full")
    unwritten = []
    for file_name, make in optional.items():
        try:
            make(folder / file_name, findings, records)
        except Exception as error:  # whatever a library makes of a scan: the result is there
            (folder / file_name).unlink(missing_ok=True)
            unwritten += [file_name] if isinstance(error, (OSError, OutputError)) else []
            reason = f"no {file_name}: {printable(str(error)) or type(error).__name__}"
            findings = replace(findings, flags=(*findings.flags, reason))
    content = candidates_json(findings, records, fingerprint=fingerprint or {}, name=name)
    if unwritten:  # with room on the disk, the next run writes them
        content["unwritten"] = unwritten
    if scan_input is not None and not anonymous:
        content["place"] = scan_input.place_digest()
    # Last: its presence says that all others are there.
    write_json(folder / JSON_NAME, content)
    return findings


_Records = Sequence[Mapping[str, Any]]
_Maker = Callable[[Path, ScanFindings, _Records], None]


def _dicom_maker(kind: str, slices: Sequence[DicomSlice], anonymous: bool) -> _Maker:
    def make(path: Path, findings: ScanFindings, records: _Records) -> None:
        write_dicom(kind, path, findings, records, slices, anonymous=anonymous)

    return make


def _make_label_map(path: Path, findings: ScanFindings, records: _Records) -> None:
    write_nifti(path, label_map(findings, records), findings.scan.file_geometry)


def _make_thumbnail(path: Path, findings: ScanFindings, records: _Records) -> None:
    write_bytes(path, encoded_jpeg(scan_overview(findings)))


def _make_report(
    path: Path, findings: ScanFindings, records: _Records, *, name: str, with_slices: bool
) -> None:
    page = report_scan(findings, records, name=name, with_slices=with_slices)
    write_bytes(path, report_html(page).encode("utf-8"))
