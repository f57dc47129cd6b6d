# SPDX-License-Identifier: Apache-2.0
"""Checking a LUNA16 folder on disk: which series are missing, truncated or corrupt."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.annotations.tables import read_nodules, read_series, read_subsets
from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES, read_scan
from lungdet_mmdet.ct.scan_inputs import lies_in_masks
from lungdet_mmdet.errors import LungDetError, MissingFileError, TruncatedFileError
from lungdet_mmdet.luna16.download import (
    ALL_SUBSETS,
    RECORD_FOLDER,
    UnpackedFile,
    crc32_of,
    read_record,
    record_path,
)
from lungdet_mmdet.runs.command_line import Terminated
from lungdet_mmdet.runs.files import ANNOTATION_TABLE, SERIES_TABLE, SUBSET_TABLE, search_files
from lungdet_mmdet.runs.scan_runs import run_per_scan
from lungdet_mmdet.runs.workplace import ExecutorFactory

MISSING, TRUNCATED, CORRUPT = "missing", "truncated", "corrupt"


@dataclass(frozen=True)
class SeriesCheck:
    """One series to check, as it travels to a worker.

    Parameters
    ----------
    seriesuid : the series.
    header : its .mhd or .mha file; None where there is none.
    files : names, lengths and CRCs of its files where the download left a record of them.
    folder : where those files belong.
    """

    seriesuid: str
    header: Path | None
    files: tuple[UnpackedFile, ...] = ()
    folder: Path = Path()


@dataclass(frozen=True)
class SeriesState:
    """What was found: `problem` is "" or one of "missing", "truncated", "corrupt"."""

    seriesuid: str
    problem: str = ""
    reason: str = ""


@dataclass
class VerifyReport:
    """What a folder holds.

    Parameters
    ----------
    states : of every series that ought to be there.
    with_checksum : how many of them were compared with the archive's own checksums.
    notes : what else the user should know.
    """

    states: list[SeriesState] = field(default_factory=list)
    with_checksum: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> list[SeriesState]:
        """Series with a problem, by problem and UID."""
        return sorted((s for s in self.states if s.problem), key=lambda s: (s.problem, s.seriesuid))

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"{s.problem}: {s.seriesuid}: {s.reason}" for s in self.bad]
        lines += [f"note: {note}" for note in self.notes]
        counts = [
            f"{sum(s.problem == p for s in self.states)} {p}" for p in (MISSING, TRUNCATED, CORRUPT)
        ]
        lines.append(
            f"{len(self.states)} series: {len(self.states) - len(self.bad)} whole "
            f"({self.with_checksum} compared with the archive's checksums), {', '.join(counts)}"
        )
        return lines


def verify_luna16(
    folder: Path, make_executor: ExecutorFactory, *, workers: int = 1, subsets: Sequence[int] = ()
) -> VerifyReport:
    """Check every series that ought to be in a LUNA16 folder; nothing is downloaded or changed.

    Series ought to be there when a download unpacked them; others that are there are checked, too.
    In a folder without such records the tables beside the scans tell (all of ``annotations.csv``
    and ``seriesuids.csv``).

    Parameters
    ----------
    folder : the LUNA16 folder.
    make_executor, workers : where the work is done.
    subsets : only these; empty for all.

    Raises
    ------
    LungDetError
        If the folder is not there, or holds neither records, tables nor scans.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LungDetError(f"{folder}: no such folder")
    report = VerifyReport()
    checks = []
    if (folder / RECORD_FOLDER).is_dir():
        checks = _recorded_checks(folder, subsets, report)
    if not checks and not report.states:
        checks = _table_checks(folder, subsets, report)
    elif not subsets:
        known = {check.seriesuid for check in checks}
        others = {uid: path for uid, path in _headers(folder).items() if uid not in known}
        checks += [SeriesCheck(uid, path) for uid, path in sorted(others.items())]
    if not checks and not report.states:
        raise LungDetError(
            f"{folder}: no scans and no tables of LUNA16 here; download it, or name its folder"
        )
    report.with_checksum = sum(bool(check.files) for check in checks)
    if report.with_checksum < len(checks):
        report.notes.append(
            "series without a checksum were checked by header and length; a compressed one was "
            "read to its end"
        )
    run = run_per_scan(
        check_series, checks, make_executor, max_at_work=workers, description="verifying"
    )
    report.states += run.results
    report.states += [SeriesState(f.seriesuid, CORRUPT, f.reason) for f in run.failures]
    if run.interrupted:
        raise Terminated if run.interrupted_by == signal.SIGTERM else KeyboardInterrupt
    return report


def check_series(check: SeriesCheck) -> SeriesState:
    """Check the files of one series."""
    for file in check.files:
        path = check.folder / file.name
        if not path.is_file():
            return SeriesState(check.seriesuid, MISSING, f"{path} is not there")
        if path.stat().st_size < file.size_bytes:
            return SeriesState(
                check.seriesuid,
                TRUNCATED,
                f"{path} has {path.stat().st_size} of {file.size_bytes} bytes",
            )
        if path.stat().st_size > file.size_bytes or crc32_of(path) != file.crc32:
            return SeriesState(check.seriesuid, CORRUPT, f"{path} is not what the archive holds")
    if check.header is None:
        return SeriesState(check.seriesuid, MISSING, "no .mhd or .mha file in the folder")
    try:
        header = read_metaimage_header(check.header)
        if header.compressed and not check.files:
            read_scan(check.header)
    except MissingFileError as error:
        return SeriesState(check.seriesuid, MISSING, str(error))
    except TruncatedFileError as error:
        return SeriesState(check.seriesuid, TRUNCATED, str(error))
    except LungDetError as error:
        return SeriesState(check.seriesuid, CORRUPT, str(error))
    return SeriesState(check.seriesuid)


def _recorded_checks(
    folder: Path, subsets: Sequence[int], report: VerifyReport
) -> list[SeriesCheck]:
    """Return the series of the archives that were unpacked here."""
    checks = []
    for number in subsets or ALL_SUBSETS:
        record = read_record(record_path(folder, f"subset{number}.zip"))
        if record is None:
            if subsets:
                report.states.append(
                    SeriesState(f"subset{number}", MISSING, "this subset was not downloaded here")
                )
            continue
        files_of: dict[str, list[UnpackedFile]] = {}
        for file in record.files:
            files_of.setdefault(Path(file.name).stem, []).append(file)
        place = folder / record.folder
        for uid, files in sorted(files_of.items()):
            headers = [f.name for f in files if Path(f.name).suffix in METAIMAGE_SUFFIXES]
            header = place / headers[0] if headers else None
            checks.append(SeriesCheck(uid, header, tuple(files), place))
    return checks


def _table_checks(folder: Path, subsets: Sequence[int], report: VerifyReport) -> list[SeriesCheck]:
    """Return the series that the tables name or that are on disk."""
    headers = _headers(folder)
    named = _named_series(folder) | set(headers)
    if subsets:
        table = folder / SUBSET_TABLE
        if not table.is_file():
            raise LungDetError(
                f"{folder}: without the records of a download only {table.name} says which series "
                "belong to a subset; leave --subsets out"
            )
        subset_of = read_subsets(table)
        named = {uid for uid in named if subset_of.get(uid) in subsets}
    if named:
        report.notes.append("no records of a download here: the tables say what ought to be there")
    return [SeriesCheck(uid, headers.get(uid)) for uid in sorted(named)]


def _headers(folder: Path) -> dict[str, Path]:
    """Return the scans on disk by series; of two files of one series the last suffix's."""
    found = [
        path
        for path in sorted(search_files(folder).files)
        if path.suffix.lower() in METAIMAGE_SUFFIXES and not lies_in_masks(path, folder)
    ]
    found.sort(key=lambda path: METAIMAGE_SUFFIXES.index(path.suffix.lower()))
    return {path.stem: path for path in found}


def _named_series(folder: Path) -> set[str]:
    named: set[str] = set()
    tables: Iterable = ((ANNOTATION_TABLE, read_nodules), (SERIES_TABLE, read_series))
    for name, read in tables:
        if (folder / name).is_file():
            rows = read(folder / name).rows
            named |= {row if isinstance(row, str) else row.seriesuid for row in rows}
    return named
