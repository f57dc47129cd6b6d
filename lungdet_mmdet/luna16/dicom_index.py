# SPDX-License-Identifier: Apache-2.0
"""DICOM trees before conversion: every series indexed, every file accounted for."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.annotations.tables import read_patients, write_patient_table
from lungdet_mmdet.ct.dicom.series import sort_files, strangers_note
from lungdet_mmdet.runs.atomic_files import read_json_or, write_json
from lungdet_mmdet.runs.file_names import PATIENT_TABLE
from lungdet_mmdet.runs.scan_runs import RunSummary, ScanFailure, tally

# What spreadsheets take for the beginning of a formula.
_FORMULA_BEGINS = ("=", "+", "-", "@", "\t", "\r")
REJECTS_NAME, CONVERTED_NAME = "rejects.json", "converted.json"


@dataclass(frozen=True)
class ConvertedSeries:
    """A converted series: its header file, what was repaired, and whose it is.

    ``unsuitable`` is why it is no chest CT to convert; "" where it was converted.
    """

    seriesuid: str
    path: str
    images: int
    flags: tuple[str, ...] = ()
    patient_id: str = ""
    unsuitable: str = ""


@dataclass
class ConversionSummary:
    """What a conversion did.

    Parameters
    ----------
    converted : series written now.
    skipped : series that were there already.
    unsuitable : series that are no axial CT, with the reason.
    failures : series and folders that could not be read.
    not_found : wanted series that are not in the tree.
    run : how the run over the series ended.
    """

    converted: list[ConvertedSeries] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unsuitable: list[ConvertedSeries] = field(default_factory=list)
    failures: list[ScanFailure] = field(default_factory=list)
    not_found: list[str] = field(default_factory=list)
    run: RunSummary = field(default_factory=RunSummary)

    @property
    def exit_code(self) -> int:
        """0 if every wanted CT series is there, 130 or 143 after an interrupt, else 1."""
        return self.run.exit_code or int(bool(self.failures or self.not_found))

    def lines(self) -> list[str]:
        """Return the summary as text."""
        lines = [f"not converted: {f.seriesuid}: {f.reason}" for f in self.failures]
        lines += [f"left out: {s.seriesuid}: {s.unsuitable}" for s in self.unsuitable]
        lines += [f"repaired: {s.seriesuid}: {flag}" for s in self.converted for flag in s.flags]
        lines += [f"not in the tree: {uid}" for uid in self.not_found]
        lines.append(
            tally(
                "series",
                done=len(self.converted),
                before=len(self.skipped),
                failed=len(self.failures),
                others={"left out": len(self.unsuitable), "not found": len(self.not_found)},
            )
        )
        return lines


def write_accounts(out_dir: Path, summary: ConversionSummary, *, keep_patient_ids: bool) -> None:
    """Write converted.json (series of earlier runs included), rejects.json and patients.csv."""
    skipped = set(summary.skipped)
    kept = [e for e in read_json_or(out_dir / CONVERTED_NAME, []) if e["seriesuid"] in skipped]
    entries = kept + [
        {"seriesuid": s.seriesuid, "file": s.path, "images": s.images, "flags": list(s.flags)}
        for s in summary.converted
    ]
    write_json(out_dir / CONVERTED_NAME, sorted(entries, key=lambda e: e["seriesuid"]))
    rejects = [failure.as_dict() for failure in summary.failures]
    rejects += [
        {"seriesuid": s.seriesuid, "stage": "unsuitable", "reason": s.unsuitable}
        for s in summary.unsuitable
    ]
    rejects += [
        {"seriesuid": uid, "stage": "not found", "reason": "not in the tree"}
        for uid in summary.not_found
    ]
    write_json(out_dir / REJECTS_NAME, rejects)
    if keep_patient_ids:
        _write_patients(out_dir / PATIENT_TABLE, summary)


def as_cell(text: str) -> str:
    """Return a text that a spreadsheet shows as it is, and does not run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA_BEGINS) else text


def _write_patients(path: Path, summary: ConversionSummary) -> None:
    patients = read_patients(path) if path.is_file() else {}
    patients |= {s.seriesuid: s.patient_id for s in summary.converted if s.patient_id}
    write_patient_table(path, {uid: as_cell(patient) for uid, patient in patients.items()})


@dataclass(frozen=True)
class FolderJob:
    """One folder whose own files (not those of its subfolders) are to be looked through.

    Parameters
    ----------
    folder : its path.
    files : the names of its files.
    """

    folder: str
    files: tuple[str, ...]

    @property
    def seriesuid(self) -> str:
        """Name of the job in reports."""
        return self.folder


@dataclass(frozen=True)
class FolderContent:
    """The series of one folder: file names by series UID, and how many files are no images.

    ``strangers`` are files that cannot be read and may be part of a series.
    """

    folder: str
    files_of: dict[str, tuple[str, ...]]
    others: int
    strangers: tuple[str, ...] = ()

    @property
    def lost(self) -> str:
        """What to say of a folder in which nothing but such files is left; "" elsewhere."""
        if self.files_of or not self.strangers:
            return ""
        return strangers_note([Path(self.folder, name) for name in self.strangers])


def look_through(job: FolderJob) -> FolderContent:
    """Sort the files of a folder by the series UID in their headers.

    A damaged image stays with its series, so that it is missed and not interpolated away.
    """
    found = sort_files([Path(job.folder, name) for name in job.files])
    files_of: dict[str, list[str]] = {}
    for uid, slices in found.slices.items():
        files_of.setdefault(uid, []).extend({item.path.name for item in slices})
    for uid, paths in found.damaged.items():
        files_of.setdefault(uid, []).extend(path.name for path in paths)
    return FolderContent(
        job.folder,
        {uid: tuple(sorted(n)) for uid, n in files_of.items()},
        found.others,
        tuple(path.name for path in found.strangers),
    )


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, packed: 100,000 series of 300 names each fit into memory."""

    packed: bytes
    strangers: tuple[str, ...] = ()

    @classmethod
    def pack(cls, paths: Iterable[str], strangers: Iterable[str] = ()) -> SeriesFiles:
        """Pack the paths of the files; ``strangers`` lie beside them and cannot be read."""
        packed = zlib.compress("\0".join(paths).encode("utf-8", "surrogateescape"))
        return cls(packed, tuple(strangers))

    def paths(self) -> list[str]:
        """Return the paths as they were packed."""
        return zlib.decompress(self.packed).decode("utf-8", "surrogateescape").split("\0")


def series_of(contents: Iterable[FolderContent]) -> dict[str, SeriesFiles]:
    """Bring the folders together: a series may lie in several."""
    found: dict[str, SeriesFiles] = {}
    for content in sorted(contents, key=lambda c: c.folder):
        for uid, names in content.files_of.items():
            paths = [str(Path(content.folder, name)) for name in names]
            beside = [str(Path(content.folder, name)) for name in content.strangers]
            if uid in found:
                paths = [*found[uid].paths(), *paths]
                beside = [*found[uid].strangers, *beside]
            found[uid] = SeriesFiles.pack(paths, beside)
    return dict(sorted(found.items()))
