# SPDX-License-Identifier: Apache-2.0
"""What a user names on the command line, or a folder of any layout, taken apart into scans."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lungdet_mmdet.ct.dicom.reading import grid_of_slices, read_dicom_series, slice_stack
from lungdet_mmdet.ct.dicom.series import (
    DicomSeries,
    choose_series,
    lost_series_message,
    sort_files,
    survey_files,
)
from lungdet_mmdet.ct.geometry import FileGrid
from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.reading import (
    METAIMAGE_SUFFIXES,
    SCAN_SUFFIXES,
    read_file_grid,
    read_scan,
    scan_suffix,
)
from lungdet_mmdet.ct.scan import CTScan
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.runs.files import (
    LUNG_MASK_FOLDER,
    MASK_FOLDER,
    NODULE_MASK_FOLDER,
    FileSearch,
    check_input_file,
    search_files,
    series_name_of,
)
from lungdet_mmdet.runs.scan_runs import ScanFailure, failure_of

# Long names are cut before a digest is added, and still name folders.
_TITLE_LENGTH = 100
# Masks lie beside scans and have the same formats.
_OWN_MASK_FOLDERS = frozenset({LUNG_MASK_FOLDER, NODULE_MASK_FOLDER})
_MASK_FOLDERS = _OWN_MASK_FOLDERS | {
    MASK_FOLDER, "lung_masks", "segmentations", "labelsTr", "labelsTs",
}  # fmt: skip


@dataclass(frozen=True)
class ScanInput:
    """One scan to look at.

    Parameters
    ----------
    path : the scan file, or the folder of the DICOM series.
    name : name of its output folder, unique among the inputs.
    series : the DICOM series, None for scan files.
    title : its name by itself, which other inputs may have as well.
    given : digest of the place of the input that it was found under.
    """

    path: Path
    name: str
    series: DicomSeries | None = None
    title: str = ""
    given: str = field(default="", compare=False)

    @property
    def places(self) -> tuple[str, ...]:
        """Where the scan was found, for a :class:`ScanFailure`."""
        return (self.place_digest(), self.given)

    @property
    def long_name(self) -> str:
        """A name that no other input has: the title with a digest of where the scan lies."""
        return f"{self.title[:_TITLE_LENGTH]}-{self.place_digest()[:8]}"

    def place_digest(self) -> str:
        """Return a digest of where the scan lies, and of which series it is."""
        return self._place_digest

    @cached_property
    def _place_digest(self) -> str:
        if self.series is None:
            return place_of(self.path)
        return place_of(self.series.slices[0].path.parent, self.series.identity)

    def load(self) -> CTScan:
        """Read the scan."""
        return read_scan(self.path) if self.series is None else read_dicom_series(self.series)

    def grid(self) -> FileGrid:
        """Return the grid that the scan's file or headers state; no pixels are read."""
        if self.series is None:
            return read_file_grid(self.path)
        return grid_of_slices(slice_stack(self.series)[0], source=self.series.place)

    def files(self) -> list[Path]:
        """Return the files that the scan is read from."""
        if self.series is not None:
            return sorted({s.path for s in self.series.slices})
        if scan_suffix(self.path) in METAIMAGE_SUFFIXES:
            return list(dict.fromkeys([self.path, read_metaimage_header(self.path).data_path]))
        return [self.path]

    def files_digest(self) -> str:
        """Return a digest of names, sizes and times of change: all that is known without reading.

        Where it is the same, so are the bytes; where it is not, they may be. It is found out once,
        when it is first asked for.
        """
        return self._files_digest

    @cached_property
    def _files_digest(self) -> str:
        digest = hashlib.sha256()
        for path in self.files():
            stat = path.stat()
            digest.update(
                os.fsencode(path.name) + f"\0{stat.st_size} {stat.st_mtime_ns}\0".encode()
            )
        return digest.hexdigest()

    def content_digest(self) -> str:
        """Return a digest of all bytes that the scan is read from."""
        return content_digest(self.files())


def content_digest(paths: Iterable[Path]) -> str:
    """Return a digest of the names and the bytes of files, wherever they lie."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(os.fsencode(path.name) + b"\0")
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def place_of(path: Path | str, series: str = "") -> str:
    """Return a digest of where a file or folder lies, and of which series in it."""
    return hashlib.sha256(os.fsencode(os.path.realpath(path)) + series.encode()).hexdigest()


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
        n_scans, n_failures, given = len(listed.scans), len(listed.failures), place_of(item)
        try:
            _add(Path(item), series_uid, listed, nested=False)
        except (LungDetError, OSError) as error:
            listed.failures.append(failure_of(printable(str(item)), error))
        listed.scans[n_scans:] = [replace(s, given=given) for s in listed.scans[n_scans:]]
        found = listed.failures[n_failures:]
        listed.failures[n_failures:] = [replace(failure, places=(given,)) for failure in found]
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
    search = _searched(folder)
    listed.notes += search.notes()
    if series_uid is None:
        listed.scans += [_of_file(path) for path in scan_files(search, folder)]
    found, n_series = _series_in(search, listed, mixed_too=series_uid is not None)
    if series_uid is not None:
        chosen = [choose_series(found, source=str(folder), series_uid=series_uid)]
    else:
        chosen = _thinnest_of_every_study(folder, found, listed)
    listed.scans += [_of_series(series) for series in chosen]
    if len(listed.scans) == before and not n_series:
        raise LungDetError(
            f"{folder}: no scan in this folder or below it; name one that holds "
            f"{', '.join(SCAN_SUFFIXES)} files or DICOM images"
        )


def _searched(folder: Path) -> FileSearch:
    search = search_files(folder)
    if any(text.startswith(f"{folder}: ") for text in search.closed):
        raise LungDetError(f"{search.closed[0]}; check its permissions")
    return search


def scan_files(search: FileSearch, folder: Path) -> list[Path]:
    """Return the scan files of a folder, without those that lie among masks."""
    return sorted(
        path for path in search.files if scan_suffix(path) and not lies_in_masks(path, folder)
    )


def lies_in_masks(path: Path, folder: Path) -> bool:
    """Say whether a file found in a folder lies among masks; where the folder lies is no matter."""
    return bool(_MASK_FOLDERS & {folder.name, *path.relative_to(folder).parts})


def _series_in(
    search: FileSearch, listed: InputList, *, mixed_too: bool = False
) -> tuple[list[DicomSeries], int]:
    """Return the DICOM series of a folder, and how many there are with those beyond reading."""
    dicom = survey_files(
        sort_files([path for path in paths if not scan_suffix(path)]) for _, paths in search.folders
    )
    found = dicom.series
    listed.notes += dicom.notes
    if not mixed_too:
        mixed = {series.uid: series.mixed_with for series in found if series.mixed_with}
        listed.failures += [ScanFailure(uid, "input", why) for uid, why in mixed.items()]
        found = [series for series in found if not series.mixed_with]
    listed.failures += [
        ScanFailure(uid, "input", lost_series_message(paths)) for uid, paths in dicom.lost.items()
    ]
    return found, len(dicom.series) + len(dicom.lost)


def cohort_inputs(folder: Path, *, named: Collection[str] = ()) -> InputList:
    """Return all scans below a folder, for a dataset: files, and one DICOM series of every study.

    Parameters
    ----------
    folder : searched with all below it; masks are no scans.
    named : series that annotations name: these are taken, be they the thinnest or not. Where a
        study has none of them, its thinnest axial CT is taken.

    Returns
    -------
    InputList
        Studies without an axial CT are a note; series that cannot be read are failures.
    """
    listed = InputList()
    search = _searched(folder)
    listed.notes += search.notes()
    listed.scans += [_of_file(path) for path in scan_files(search, folder)]
    listed.failures += [
        ScanFailure(
            str(path.relative_to(folder)),
            "input",
            f"{path}: is a folder, where a scan file was expected; rename or remove it",
        )
        for path in sorted(search.subfolders)
        if path.suffix in METAIMAGE_SUFFIXES
    ]
    masks = [
        path
        for path in search.files
        if scan_suffix(path)
        and lies_in_masks(path, folder)
        and not _OWN_MASK_FOLDERS & {*path.relative_to(folder).parts}
    ]
    if masks:
        listed.notes.append(
            f"{len(masks)} files lie in folders of masks and are no scans, e.g. {masks[0]}"
        )
    unsuitable = []
    for series in _studies(_series_in(search, listed)[0]):
        wanted = [s for s in series if s.uid in named and not s.why_unsuitable]
        if not wanted and all(s.why_unsuitable for s in series):
            unsuitable += series
        else:
            wanted = wanted or [choose_series(series, source=str(folder))]
            listed.scans += [_of_series(s) for s in wanted]
    if unsuitable:
        listed.notes.append(
            f"{len(unsuitable)} DICOM series are of studies without an axial CT, e.g. "
            f"{unsuitable[0].describe()}"
        )
    return listed


def _studies(found: Sequence[DicomSeries]) -> list[list[DicomSeries]]:
    studies: dict[tuple[str, str], list[DicomSeries]] = {}
    for series in found:
        studies.setdefault((series.patient, series.study_uid), []).append(series)
    return list(studies.values())


def _thinnest_of_every_study(
    folder: Path, found: Sequence[DicomSeries], listed: InputList
) -> list[DicomSeries]:
    chosen = []
    for series_of_study in _studies(found):
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
    name = series_name_of(path.name[: -len(scan_suffix(path))])
    return ScanInput(path, name, title=name)


def _of_series(series: DicomSeries) -> ScanInput:
    name = series_name_of(series.uid)
    return ScanInput(series.slices[0].path.parent, name, series, name)


def _with_unique_names(scans: list[ScanInput]) -> list[ScanInput]:
    """Tell scans of one name apart by a digest of their paths, so that none overwrites another."""
    taken = Counter(scan.name.lower() for scan in scans)
    return [replace(s, name=s.long_name) if taken[s.name.lower()] > 1 else s for s in scans]


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
            failures.append(replace(failure_of(scan.name, error), places=scan.places))
            continue
        scans.append(replace(scan, name=name, title=name))
    return InputList(scans, failures, listed.notes)
