"""What a LUNA16-shaped folder holds: scans, their tables, LUNA16's own lung masks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.annotations.scan_masks import NoduleMaskFolder, read_mask_folder
from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    Table,
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import search_files
from lungdet_mmdet.runs.file_names import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    LUNG_MASK_FOLDER,
    NODULE_MASK_FOLDER,
    PATIENT_TABLE,
    SERIES_TABLE,
    SUBSET_TABLE,
)
from lungdet_mmdet.series_name import check_series_name

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
    nodule_mask_path : label volume of its nodules, or None.
    ratings : readers' mean ratings by label of that volume.
    """

    seriesuid: str
    path: Path
    subset: int | None
    lung_mask_path: Path | None
    nodules: tuple[Nodule, ...]
    findings: tuple[Finding, ...]
    nodule_mask_path: Path | None = None
    ratings: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Luna16Folder:
    """A LUNA16-shaped folder.

    Parameters
    ----------
    root : the folder.
    scans : the scans on disk, in order of series UID.
    missing_series : series that the tables name and that are not on disk.
    warnings : what was repaired or left out while reading the tables.
    patients : patient by series UID, of the scans for which a table tells.
    misnamed : for each scan file whose name cannot be a series UID, its path and the reason.
    """

    root: Path
    scans: tuple[ScanOnDisk, ...]
    missing_series: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    patients: Mapping[str, str] = field(default_factory=dict)
    misnamed: tuple[tuple[str, str], ...] = ()


def lies_in_masks(path: Path, root: Path) -> bool:
    """Whether a file of a LUNA16 folder lies among its masks of lungs or nodules."""
    return bool({LUNG_MASK_FOLDER, NODULE_MASK_FOLDER} & set(path.relative_to(root).parts))


def _scan_files(
    paths: Iterable[Path], root: Path, mask_folder: Path | None
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return the scan files by series UID, and why the others cannot be scans by their names."""
    files: dict[str, Path] = {}
    misnamed: dict[str, str] = {}
    for path in sorted(paths):
        inside = path.relative_to(root)
        if path.suffix.lower() not in METAIMAGE_SUFFIXES or lies_in_masks(path, root):
            continue
        if mask_folder is not None and mask_folder in path.parents:
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


def read_luna16_folder(root: Path | str, *, nodule_masks: Path | str | None = None) -> Luna16Folder:
    """Read the tables of a LUNA16 folder and find its scans.

    ``annotations.csv`` is required, unless there are nodule masks; ``annotations_excluded.csv``,
    ``seriesuids.csv``, ``subset_of_series.csv`` and ``patients.csv`` are used where they are there.

    Parameters
    ----------
    root : the folder.
    nodule_masks : folder of nodule masks; ``root/nodule_masks`` is taken by itself.

    Raises
    ------
    LungDetError
        If the folder or annotations.csv is missing, no scan is on disk, a table is broken, or there
        is no mask where masks shall be.
    """
    root = Path(root)
    if not root.is_dir():
        raise LungDetError(f"{root}: no such folder")
    if nodule_masks is None and (root / NODULE_MASK_FOLDER).is_dir():
        nodule_masks = root / NODULE_MASK_FOLDER
    masks = read_mask_folder(Path(nodule_masks)) if nodule_masks is not None else None
    table = root / ANNOTATION_TABLE
    if not table.is_file() and masks is None:
        raise LungDetError(
            f"{root}: annotations.csv is missing; put LUNA16's tables beside its subset folders"
        )
    search = search_files(root)
    files, misnamed = _scan_files(search.files, root, masks.root if masks else None)
    for path in sorted(root.rglob("*.mh[ad]")):
        if path.is_dir():
            misnamed[str(path.relative_to(root))] = (
                f"{path}: is a folder, where a scan file was expected; rename or remove it"
            )
    if not files and not misnamed:
        raise LungDetError(
            f"{root}: no .mhd or .mha scan; unpack LUNA16's subset*.zip files into this folder"
        )
    nodule_table = read_nodules(table) if table.is_file() else Table[Nodule](())
    warnings = [*search.notes(), *nodule_table.warnings, *_mask_notes(masks, files)]
    findings: tuple[Finding, ...] = ()
    if (root / EXCLUDED_TABLE).is_file():
        finding_table = read_findings(root / EXCLUDED_TABLE)
        findings, warnings = finding_table.rows, warnings + list(finding_table.warnings)
    listed = {nodule.seriesuid for nodule in nodule_table.rows}
    if (root / SERIES_TABLE).is_file():
        listed |= set(read_series(root / SERIES_TABLE).rows)
        unlisted = sorted(set(files) - listed)
        if unlisted:
            warnings.append(
                f"{len(unlisted)} scans on disk are not in seriesuids.csv, e.g. "
                f"{unlisted[0]}; they count as healthy"
            )
    subset_table = root / SUBSET_TABLE
    subsets = read_subsets(subset_table) if subset_table.is_file() else {}
    return Luna16Folder(
        root=root,
        scans=tuple(_scans(root, files, nodule_table.rows, findings, subsets, masks)),
        missing_series=tuple(sorted(listed - set(files))),
        warnings=tuple(warnings),
        patients=_patients(root, masks, files),
        misnamed=tuple(misnamed.items()),
    )


def _mask_notes(masks: NoduleMaskFolder | None, files: Mapping[str, Path]) -> list[str]:
    if masks is None:
        return []
    have = len(set(masks.files) & set(files))
    notes = [f"nodule masks in {masks.root}: {have} of {len(files)} scans have one"]
    if others := sorted(set(masks.files) - set(files)):
        notes.append(
            f"{len(others)} nodule masks are of no scan here, e.g. {masks.files[others[0]].name}"
        )
    return [*notes, *masks.warnings]


def _patients(
    root: Path, masks: NoduleMaskFolder | None, files: Mapping[str, Path]
) -> dict[str, str]:
    own = root / PATIENT_TABLE
    path = own if own.is_file() else masks.patients if masks else None
    patients = read_patients(path) if path is not None else {}
    return {uid: patients[uid] for uid in sorted(files) if uid in patients}


def _scans(
    root: Path,
    files: dict[str, Path],
    nodules: tuple[Nodule, ...],
    findings: tuple[Finding, ...],
    subsets: dict[str, int],
    masks: NoduleMaskFolder | None,
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
                nodule_mask_path=masks.files.get(uid) if masks else None,
                ratings=masks.ratings.get(uid, {}) if masks else {},
            )
        )
    return scans
