"""What a user names on the command line, taken apart into scans."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lungdet_mmdet.ct.dicom.reading import read_dicom_series
from lungdet_mmdet.ct.dicom.series import (
    DicomSeries,
    choose_series,
    lost_series_message,
    survey_folder,
)
from lungdet_mmdet.ct.files.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES, SCAN_SUFFIXES, read_scan, scan_suffix
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.input_file import check_input_file, unreadable_folders
from lungdet_mmdet.runs.scan_runs import ScanFailure, failure_of

# LUNA16's masks lie beside its scans and are MetaImages too.
_MASK_FOLDERS = frozenset({"seg-lungs-LUNA16", "lung_masks"})
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class ScanInput:
    """One scan to look at.

    Parameters
    ----------
    path : the scan file, or the folder of the DICOM series.
    name : name of its output folder, unique among the inputs.
    series : the DICOM series, None for scan files.
    """

    path: Path
    name: str
    series: DicomSeries | None = None

    def load(self) -> CTScan:
        """Read the scan."""
        return read_scan(self.path) if self.series is None else read_dicom_series(self.series)

    def content_digest(self) -> str:
        """Return a digest of all bytes that the scan is read from."""
        if self.series is not None:
            paths = sorted(s.path for s in self.series.slices)
        elif scan_suffix(self.path) in METAIMAGE_SUFFIXES:
            paths = list(dict.fromkeys([self.path, read_metaimage_header(self.path).data_path]))
        else:
            paths = [self.path]
        digest = hashlib.sha256()
        for path in paths:
            digest.update(os.fsencode(path.name) + b"\0")
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()


@dataclass
class InputList:
    """The scans behind the inputs, those that are none, and what the user should know."""

    scans: list[ScanInput] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_inputs(inputs: Sequence[Path | str], *, series_uid: str | None = None) -> InputList:
    """Take inputs apart into scans.

    Parameters
    ----------
    inputs : scan files; folders, searched with all below them for scan files and DICOM series; text
        files (.txt) with one of these a line, relative to the text file.
    series_uid : which DICOM series to read; None takes the thinnest axial CT of every study.
    """
    listed = InputList()
    for item in inputs:
        try:
            _add(Path(item), series_uid, listed, nested=False)
        except (LungDetError, OSError) as error:
            listed.failures.append(failure_of(printable(str(item)), error))
    listed.scans = _with_unique_names(list(dict.fromkeys(listed.scans)))
    return listed


def _add(path: Path, series_uid: str | None, listed: InputList, *, nested: bool) -> None:
    if path.is_dir():
        _add_folder(path, series_uid, listed)
        return
    check_input_file(path)
    if path.suffix.lower() == ".txt" and not nested:
        _add_list(path, series_uid, listed)
    elif scan_suffix(path):
        listed.scans.append(_of_file(path))
    else:
        raise LungDetError(
            f"{path}: unknown scan format; known: {', '.join(SCAN_SUFFIXES)}, a folder with DICOM "
            "images (name the folder, not one image), or a .txt file with one input a line"
        )


def _add_list(path: Path, series_uid: str | None, listed: InputList) -> None:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise LungDetError(f"{path}: not a text file in UTF-8 ({error.reason})") from error
    for line in lines:
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        try:
            _add(path.parent / name, series_uid, listed, nested=True)
        except (LungDetError, OSError) as error:
            listed.failures.append(failure_of(name, error))


def _add_folder(folder: Path, series_uid: str | None, listed: InputList) -> None:
    before = len(listed.scans)
    closed = unreadable_folders(folder)
    if any(text.startswith(f"{folder}: ") for text in closed):
        raise LungDetError(f"{closed[0]}; check its permissions")
    listed.notes += closed
    if series_uid is None:
        files = sorted(p for p in folder.rglob("*") if scan_suffix(p) and p.is_file())
        listed.scans += [_of_file(path) for path in files if not _is_mask(path, folder)]
    dicom = survey_folder(folder)
    found = dicom.series
    listed.failures += [
        ScanFailure(uid, "input", lost_series_message(paths)) for uid, paths in dicom.lost.items()
    ]
    if series_uid is not None:
        chosen = [choose_series(found, source=str(folder), series_uid=series_uid)]
    else:
        chosen = _thinnest_of_every_study(folder, found, listed)
    for series in chosen:
        name = _safe_name(series.uid)
        listed.scans.append(ScanInput(series.slices[0].path.parent, name, series))
    if len(listed.scans) == before and not found and not dicom.lost:
        raise LungDetError(
            f"{folder}: no scan in this folder or below it; name one that holds "
            f"{', '.join(SCAN_SUFFIXES)} files or DICOM images"
        )


def _is_mask(path: Path, folder: Path) -> bool:
    """Say whether a file found in a folder lies among masks; where the folder lies is no matter."""
    return bool(_MASK_FOLDERS & {folder.name, *path.relative_to(folder).parts})


def _thinnest_of_every_study(
    folder: Path, found: Sequence[DicomSeries], listed: InputList
) -> list[DicomSeries]:
    studies: dict[str, list[DicomSeries]] = {}
    for series in found:
        studies.setdefault(series.study_uid, []).append(series)
    chosen = []
    for series_of_study in studies.values():
        try:
            best = choose_series(series_of_study, source=str(folder))
        except LungDetError as error:
            uid = series_of_study[0].study_uid or str(folder)
            listed.failures.append(ScanFailure(uid, "input", str(error)))
            continue
        chosen.append(best)
        if len(series_of_study) > 1:
            lines = [f"  {'*' if s is best else ' '} {s.describe()}" for s in series_of_study]
            listed.notes.append(
                f"{folder}: {len(series_of_study)} DICOM series; the one marked * is read "
                "(--series UID takes another):\n" + "\n".join(lines)
            )
    return chosen


def _of_file(path: Path) -> ScanInput:
    return ScanInput(path, _safe_name(path.name[: -len(scan_suffix(path))]))


def _safe_name(name: str) -> str:
    """Return a name that is one plain folder name on every system."""
    return _UNSAFE.sub("_", name).strip(".")[:120] or "scan"


def _with_unique_names(scans: list[ScanInput]) -> list[ScanInput]:
    """Tell scans of one name apart by a digest of their paths, so that none overwrites another."""
    taken: dict[str, int] = {}
    for scan in scans:
        taken[scan.name.lower()] = taken.get(scan.name.lower(), 0) + 1
    return [
        replace(s, name=f"{s.name}-{hashlib.sha256(os.fsencode(s.path.resolve())).hexdigest()[:8]}")
        if taken[s.name.lower()] > 1
        else s
        for s in scans
    ]
