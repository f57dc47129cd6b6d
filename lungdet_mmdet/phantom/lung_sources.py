"""Real scans that nodules are set into: their files, patients, own nodules and lesions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    read_findings,
    read_nodules,
    read_patients,
)
from lungdet_mmdet.ct.reading import scan_suffix
from lungdet_mmdet.errors import LungDetError, printable

NODULE_TABLE, FINDING_TABLE = "annotations.csv", "annotations_excluded.csv"
LESION_TABLE, PATIENT_TABLE = "lesions.csv", "patients.csv"
LABEL_FOLDER = re.compile(r"^seg-|mask", re.IGNORECASE)
"""Folders of such names hold label volumes, not scans."""


@dataclass(frozen=True)
class LungSource:
    """One real scan.

    Parameters
    ----------
    seriesuid : the file's stem.
    path : the scan, a file or a DICOM folder.
    patient_id : whose lungs; the series itself where no table tells.
    nodules : its own annotated nodules.
    findings : its own irrelevant findings and lesions: regions to be ignored.
    """

    seriesuid: str
    path: Path
    patient_id: str
    nodules: tuple[Nodule, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class LungSources:
    """The scans in order of series UID, and remarks on their tables, one sentence each."""

    lungs: tuple[LungSource, ...]
    remarks: tuple[str, ...]


def find_lungs(paths: Sequence[Path], *, patients: Path | None = None) -> LungSources:
    """Find scans and what is known of them.

    Tables are looked for beside each scan, one folder up, and in the given folder:
    ``annotations.csv``, ``annotations_excluded.csv``, ``lesions.csv`` (columns of the former) and
    ``patients.csv`` (``seriesuid,patient_id``).

    Parameters
    ----------
    paths : scan files, or folders searched for them (label volumes are passed over); a folder
        without any is read as a DICOM series.
    patients : a further table of patients, which takes precedence.

    Raises
    ------
    LungDetError
        If a path is missing, a series is there twice, or a table is broken.
    """
    files: dict[str, tuple[Path, Path]] = {}
    for root in paths:
        for path in _scans_below(Path(root)):
            name = printable(path.name)
            uid = name[: len(name) - len(scan_suffix(path))]
            if uid in files and files[uid][0].resolve() != path.resolve():
                raise LungDetError(f"series {uid} is there twice: {files[uid][0]} and {path}")
            files[uid] = (path, Path(root))
    tables = _Tables()
    named = read_patients(patients) if patients is not None else {}
    lungs = [tables.describe(uid, *files[uid], named) for uid in sorted(files)]
    unknown = [lung.seriesuid for lung in lungs if lung.patient_id == lung.seriesuid]
    remarks = list(tables.remarks)
    if unknown:
        remarks.append(
            f"{len(unknown)} scans have no patient in a table (e.g. {unknown[0]}): each counts as "
            "a patient of its own; give --patients where two are of one patient, or one is also "
            "among the nodules' patients"
        )
    return LungSources(tuple(lungs), tuple(remarks))


def _scans_below(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise LungDetError(f"{root}: no such file or folder; check the path")
    found = []
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts[:-1]
        if any(LABEL_FOLDER.search(part) for part in parts):
            continue
        if path.is_file() and scan_suffix(path):
            found.append(path)
    return found or [root]


class _Tables:
    """Reads each table once."""

    def __init__(self) -> None:
        self.remarks: list[str] = []
        self._nodules: dict[Path, dict[str, list[Nodule]]] = {}
        self._findings: dict[Path, dict[str, list[Finding]]] = {}
        self._patients: dict[Path, Mapping[str, str]] = {}

    def describe(self, uid: str, path: Path, root: Path, named: Mapping[str, str]) -> LungSource:
        """Return a scan with what its tables say of it."""
        folders = dict.fromkeys([path.parent, path.parent.parent])
        if root.is_dir():
            folders[root] = None
        lung = LungSource(uid, path, named.get(uid, uid))
        has_table = False
        for folder in folders:
            if (table := folder / NODULE_TABLE).is_file():
                has_table = True
                rows = self._rows(self._nodules, table, read_nodules).get(uid, [])
                lung = replace(lung, nodules=_joined(lung.nodules, rows))
            for name in (FINDING_TABLE, LESION_TABLE):
                if (table := folder / name).is_file():
                    found = self._rows(self._findings, table, read_findings).get(uid, [])
                    lung = replace(lung, findings=_joined(lung.findings, found))
            table = folder / PATIENT_TABLE
            if table.is_file() and lung.patient_id == uid:
                if table not in self._patients:
                    self._patients[table] = read_patients(table)
                lung = replace(lung, patient_id=self._patients[table].get(uid, uid))
        if not has_table:
            self.remarks.append(
                f"{uid}: no {NODULE_TABLE} near the scan: own nodules, if any, are not known"
            )
        return lung

    def _rows(self, cache: dict, table: Path, read) -> dict:
        if table not in cache:
            content = read(table)
            self.remarks.extend(content.warnings)
            grouped: dict[str, list] = {}
            for row in content.rows:
                grouped.setdefault(row.seriesuid, []).append(row)
            cache[table] = grouped
        return cache[table]


def _joined(first: tuple, second: Sequence) -> tuple:
    return (*first, *(row for row in second if row not in first))
