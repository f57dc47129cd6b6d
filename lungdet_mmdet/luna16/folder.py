"""What a LUNA16-shaped folder holds: scans, their tables, LUNA16's own lung masks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    read_findings,
    read_nodules,
    read_series,
    read_subsets,
)
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import search_files
from lungdet_mmdet.series_name import check_series_name

LUNG_MASK_FOLDER = "seg-lungs-LUNA16"
_SUBSET_FOLDER = re.compile(r"subset(\d)$")


@dataclass(frozen=True)
class ScanOnDisk:
    """One scan file and what the folder says about it.

    Parameters
    ----------
    seriesuid : the file's stem.
    path : the .mhd or .mha file.
    subset : LUNA16 subset 0-9, from the folder name or the table; None if unknown.
    lung_mask_path : LUNA16's own lung mask, or None.
    nodules, findings : the series' rows of the two tables.
    """

    seriesuid: str
    path: Path
    subset: int | None
    lung_mask_path: Path | None
    nodules: tuple[Nodule, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Luna16Folder:
    """A LUNA16-shaped folder.

    Parameters
    ----------
    root : the folder.
    scans : the scans on disk, in order of series UID.
    missing_series : series that the tables name and that are not on disk.
    warnings : what was repaired or left out while reading the tables.
    misnamed : for each scan file whose name cannot be a series UID, its path and the reason.
    """

    root: Path
    scans: tuple[ScanOnDisk, ...]
    missing_series: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    misnamed: tuple[tuple[str, str], ...] = ()


def _scan_files(paths: Iterable[Path], root: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the scan files by series UID, and why the others cannot be scans by their names."""
    files: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for path in sorted(paths):
        inside = path.relative_to(root)
        if path.suffix.lower() not in METAIMAGE_SUFFIXES or LUNG_MASK_FOLDER in inside.parts:
            continue
        try:
            str(path).encode()
            uid = check_series_name(path.stem, source=str(path))
        except UnicodeEncodeError:
            misnamed[str(inside)] = f"{path}: the name is not valid UTF-8; rename the file"
            continue
        except LungDetError as error:
            misnamed[str(inside)] = str(error)
            continue
        if uid in files:
            raise LungDetError(
                f"{root}: series {uid} is there twice, as {files[uid]} and {path}; remove one"
            )
        files[uid] = path
    return files, misnamed


def read_luna16_folder(root: Path | str) -> Luna16Folder:
    """Read the tables of a LUNA16 folder and find its scans.

    ``annotations.csv`` is required; ``annotations_excluded.csv``, ``seriesuids.csv`` and
    ``subset_of_series.csv`` are used where they are there.

    Raises
    ------
    LungDetError
        If the folder or annotations.csv is missing, no scan is on disk, or a table is broken.
    """
    root = Path(root)
    if not root.is_dir():
        raise LungDetError(f"{root}: no such folder")
    if not (root / "annotations.csv").is_file():
        raise LungDetError(
            f"{root}: annotations.csv is missing; put LUNA16's tables beside its subset folders"
        )
    search = search_files(root)
    files, misnamed = _scan_files(search.files, root)
    if not files and not misnamed:
        raise LungDetError(
            f"{root}: no .mhd or .mha scan; unpack LUNA16's subset*.zip files into this folder"
        )
    nodule_table = read_nodules(root / "annotations.csv")
    warnings = [*search.notes(), *nodule_table.warnings]
    findings: tuple[Finding, ...] = ()
    if (root / "annotations_excluded.csv").is_file():
        finding_table = read_findings(root / "annotations_excluded.csv")
        findings, warnings = finding_table.rows, warnings + list(finding_table.warnings)
    listed = {nodule.seriesuid for nodule in nodule_table.rows}
    if (root / "seriesuids.csv").is_file():
        listed |= set(read_series(root / "seriesuids.csv").rows)
        unlisted = sorted(set(files) - listed)
        if unlisted:
            warnings.append(
                f"{len(unlisted)} scans on disk are not in seriesuids.csv, e.g. "
                f"{unlisted[0]}; they count as healthy"
            )
    subset_table = root / "subset_of_series.csv"
    subsets = read_subsets(subset_table) if subset_table.is_file() else {}
    return Luna16Folder(
        root=root,
        scans=tuple(_scans(root, files, nodule_table.rows, findings, subsets)),
        missing_series=tuple(sorted(listed - set(files))),
        warnings=tuple(warnings),
        misnamed=tuple(misnamed.items()),
    )


def _scans(
    root: Path,
    files: dict[str, Path],
    nodules: tuple[Nodule, ...],
    findings: tuple[Finding, ...],
    subsets: dict[str, int],
) -> list[ScanOnDisk]:
    nodules_of: dict[str, list[Nodule]] = {uid: [] for uid in files}
    findings_of: dict[str, list[Finding]] = {uid: [] for uid in files}
    for nodule in nodules:
        nodules_of.setdefault(nodule.seriesuid, []).append(nodule)
    for finding in findings:
        findings_of.setdefault(finding.seriesuid, []).append(finding)
    scans = []
    for uid, path in sorted(files.items()):
        folder = _SUBSET_FOLDER.search(path.parent.name)
        mask_path = next(
            (
                p
                for s in METAIMAGE_SUFFIXES
                if (p := root / LUNG_MASK_FOLDER / f"{uid}{s}").is_file()
            ),
            None,
        )
        scans.append(
            ScanOnDisk(
                seriesuid=uid,
                path=path,
                subset=int(folder.group(1)) if folder else subsets.get(uid),
                lung_mask_path=mask_path,
                nodules=tuple(nodules_of[uid]),
                findings=tuple(findings_of[uid]),
            )
        )
    return scans
