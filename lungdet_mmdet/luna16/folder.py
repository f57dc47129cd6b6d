# SPDX-License-Identifier: Apache-2.0
"""What a folder of scans holds: LUNA16's, or one of any layout with annotations of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungdet_mmdet.annotations.consensus import consensus_spheres
from lungdet_mmdet.annotations.lidc import LidcSeries, read_lidc_xml_folder, xml_files
from lungdet_mmdet.annotations.mark_places import PlacedMarks, ScanNames, place_marks
from lungdet_mmdet.annotations.nodule_sources import AnnotationSource, read_marks
from lungdet_mmdet.annotations.scan_masks import NoduleMaskFolder, read_mask_folder
from lungdet_mmdet.annotations.tables import (
    Finding,
    Nodule,
    read_findings,
    read_nodules,
    read_patients,
    read_series,
    read_subsets,
)
from lungdet_mmdet.ct.dicom.header import patient_digest
from lungdet_mmdet.ct.dicom.series import DicomSeries
from lungdet_mmdet.ct.reading import METAIMAGE_SUFFIXES, SCAN_SUFFIXES, scan_suffix
from lungdet_mmdet.ct.scan_inputs import ScanInput, cohort_inputs
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    LUNG_MASK_FOLDER,
    NODULE_MASK_FOLDER,
    PATIENT_TABLE,
    SERIES_TABLE,
    SUBSET_TABLE,
    check_series_name,
    series_name_of,
)

_SUBSET_FOLDER = re.compile(r"subset(\d)$")
# A name that is unique in the world: the same one twice is the same scan twice.
_UID = re.compile(r"\d+(\.\d+)+")


@dataclass(frozen=True)
class ScanOnDisk:
    """One scan and what the folder says about it.

    Parameters
    ----------
    seriesuid : the file's stem, or the UID of the DICOM series.
    path : the scan file, or the folder of the DICOM series.
    subset : LUNA16 subset 0-9, from the folder name or the table; None if unknown.
    lung_mask_path : LUNA16's own lung mask, or None.
    nodules, findings : the series' rows of the two tables.
    nodule_mask_path : label volume of its nodules, or None.
    ratings : readers' mean ratings by label of that volume.
    series : the DICOM series, None for scan files.
    """

    seriesuid: str
    path: Path
    subset: int | None
    lung_mask_path: Path | None
    nodules: tuple[Nodule, ...]
    findings: tuple[Finding, ...]
    nodule_mask_path: Path | None = None
    ratings: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    series: DicomSeries | None = None

    @property
    def source(self) -> ScanInput:
        """What the scan is read from."""
        return ScanInput(self.path, self.seriesuid, self.series, self.seriesuid)


@dataclass(frozen=True)
class Luna16Folder:
    """A folder of scans, LUNA16-shaped or of any other layout.

    Parameters
    ----------
    root : the folder.
    scans : the scans on disk, in order of series UID.
    missing_series : series that the tables name and that are not on disk, as they name them.
    warnings : what was repaired or left out while reading the tables.
    patients : patient by series UID, of the scans for which a table or a header tells.
    misnamed : for each scan file whose name cannot be a series UID, each DICOM series that cannot
        be read, and each scan whose nodules cannot be placed, its path or UID and the reason.
    """

    root: Path
    scans: tuple[ScanOnDisk, ...]
    missing_series: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    patients: Mapping[str, str] = field(default_factory=dict)
    misnamed: tuple[tuple[str, str], ...] = ()


def read_luna16_folder(
    root: Path | str,
    *,
    nodule_masks: Path | str | None = None,
    annotations: AnnotationSource | None = None,
    annotated: bool = True,
) -> Luna16Folder:
    """Read the annotations of a folder of scans and find its scans.

    Scans are files that `read_scan` reads, in any folder, and of every DICOM study the series that
    the annotations name, or else its thinnest axial CT. Without `annotations` and nodule masks
    there must be LUNA16's ``annotations.csv``; ``annotations_excluded.csv``, ``seriesuids.csv``,
    ``subset_of_series.csv`` and ``patients.csv`` are used where they are there.

    Parameters
    ----------
    root : the folder.
    nodule_masks : folder of nodule masks; ``root/nodule_masks`` is taken by itself.
    annotations : what to read in the place of ``root/annotations.csv``.
    annotated : whether there must be annotations; they are read where they are there.

    Raises
    ------
    LungDetError
        If the folder or the annotations are missing, no scan is on disk, a table is broken, or
        there is no mask where masks shall be.
    """
    root = Path(root)
    if not root.is_dir():
        raise LungDetError(f"{root}: no such folder")
    if nodule_masks is None and (root / NODULE_MASK_FOLDER).is_dir():
        nodule_masks = root / NODULE_MASK_FOLDER
    masks = read_mask_folder(Path(nodule_masks)) if nodule_masks is not None else None
    own = _OwnAnnotations(annotations) if annotations is not None else None
    placed = PlacedMarks((), (), frozenset(), ())
    if own is None:
        placed = _luna16_tables(root, needed=annotated and masks is None)
    listing = cohort_inputs(root, named=own.named_series if own else placed.listed)
    scans, misnamed = _named_inputs(listing.scans, root, masks.root if masks else None)
    misnamed |= {failure.seriesuid: failure.reason for failure in listing.failures}
    if not scans and not misnamed:
        raise LungDetError(
            f"{root}: no scan in this folder or below it ({', '.join(SCAN_SUFFIXES)} or DICOM); "
            "unpack LUNA16's subset*.zip files, or the scans of your own, into this folder"
        )
    patients = _patients_of_headers(scans)
    if own is not None:
        names = _names_of(scans, root)
        placed = own.placed(scans, names)
        patients |= own.patients(names)
        misnamed |= placed.unknown
    listed = set(placed.listed)
    if (root / SERIES_TABLE).is_file():
        listed |= set(read_series(root / SERIES_TABLE).rows)
    subset_table = root / SUBSET_TABLE
    subsets = read_subsets(subset_table) if subset_table.is_file() else {}
    return Luna16Folder(
        root=root,
        scans=tuple(_scans(root, scans, placed, subsets, masks)),
        missing_series=tuple(sorted((listed - set(scans)) | set(placed.missing))),
        warnings=(
            *listing.notes,
            *placed.warnings,
            *_mask_notes(masks, scans),
            *_unlisted(root, own, listed, scans),
        ),
        patients=patients | _patients(root, masks, scans),
        misnamed=tuple(misnamed.items()),
    )


def _luna16_tables(root: Path, *, needed: bool) -> PlacedMarks:
    table, warnings = root / ANNOTATION_TABLE, []
    if not table.is_file() and needed:
        raise LungDetError(
            f"{root}: annotations.csv is missing; put LUNA16's tables beside its subset folders, "
            "or name annotations of your own with --annotations"
        )
    nodules: tuple[Nodule, ...] = ()
    findings: tuple[Finding, ...] = ()
    if table.is_file():
        nodule_table = read_nodules(table)
        nodules, warnings = nodule_table.rows, [*nodule_table.warnings]
    if (root / EXCLUDED_TABLE).is_file():
        finding_table = read_findings(root / EXCLUDED_TABLE)
        findings, warnings = finding_table.rows, [*warnings, *finding_table.warnings]
    return PlacedMarks(
        nodules, findings, frozenset(n.seriesuid for n in nodules), (), tuple(warnings)
    )


class _OwnAnnotations:
    """Annotations that the user named: marks, or the contours of LIDC's XML files."""

    def __init__(self, source: AnnotationSource) -> None:
        self.path = source.path
        self._contours: Mapping[str, LidcSeries] | None = None
        self._notes: tuple[str, ...] = ()
        if source.path.is_dir() and xml_files(source.path):
            self._contours, self._notes = read_lidc_xml_folder(source.path)
        else:
            self._marks = read_marks(source)

    @property
    def named_series(self) -> set[str]:
        if self._contours is not None:
            return set(self._contours)
        return {text for mark in self._marks.rows for text in mark.scans}

    def placed(self, scans: Mapping[str, ScanInput], names: ScanNames) -> PlacedMarks:
        if self._contours is None:
            return place_marks(
                self._marks, names, lambda uid: scans[uid].grid(), source=str(self.path)
            )
        nodules: list[Nodule] = []
        unknown: dict[str, str] = {}
        for uid in sorted(set(self._contours) & set(scans)):
            try:
                nodules += consensus_spheres(self._contours[uid], scans[uid])
            except LungDetError as error:
                unknown[uid] = f"its nodules cannot be placed: {error}"
        listed = frozenset(self._contours)
        return PlacedMarks(tuple(nodules), (), listed, (), self._notes, unknown)

    def patients(self, names: ScanNames) -> dict[str, str]:
        if self._contours is not None:
            return {}
        found = {
            names.find((name,), place=str(self.path)): patient
            for name, patient in self._marks.patients.items()
        }
        return {uid: patient for uid, patient in found.items() if uid is not None}


def _named_inputs(
    inputs: Sequence[ScanInput], root: Path, mask_folder: Path | None
) -> tuple[dict[str, ScanInput], dict[str, str]]:
    """Return the scans by series UID, and why the others cannot be scans by their names.

    Files of one name are told apart by their folders: ``s0001/ct.nii.gz`` is ``s0001_ct``.
    """
    stems: dict[str, list[ScanInput]] = {}
    misnamed: dict[str, str] = {}
    for scan in inputs:
        if mask_folder is not None and mask_folder in scan.path.parents:
            continue
        try:
            str(scan.path).encode()
            stem = scan.series.uid if scan.series else _stem(scan.path)
            stems.setdefault(check_series_name(stem, source=str(scan.path)), []).append(scan)
        except UnicodeEncodeError:
            reason = f"{scan.path}: the name is not valid UTF-8; rename the file"
            misnamed[str(scan.path.relative_to(root))] = reason
        except LungDetError as error:
            misnamed[str(scan.path.relative_to(root))] = str(error)
    named: dict[str, ScanInput] = {}
    for stem, scans in stems.items():
        if len(scans) > 1 and (_UID.fullmatch(stem) or any(scan.series for scan in scans)):
            raise LungDetError(
                f"{root}: series {stem} is there twice, as {scans[0].path} and {scans[1].path}; "
                "remove one"
            )
        for scan in scans:
            folders = scan.path.relative_to(root).parts[:-1]
            name = stem if len(scans) == 1 else series_name_of("_".join((*folders, stem)))
            if name in named or (name != stem and name in stems):
                raise LungDetError(
                    f"{root}: {scan.path} and another scan would both be called {name}; rename one"
                )
            named[name] = scan
    return named, misnamed


def _stem(path: Path) -> str:
    return path.name[: -len(scan_suffix(path))]


def _names_of(named: Mapping[str, ScanInput], root: Path) -> ScanNames:
    """Return the names by which annotations may call each scan, beside its own."""
    in_folder = Counter(scan.path.parent for scan in named.values())
    names: dict[str, list[str]] = {}
    for uid, scan in named.items():
        inside = scan.path.relative_to(root)
        if scan.series:
            # Images lie in a folder of their own, below that of their study and patient.
            names[uid] = [inside.as_posix(), *inside.parts, scan.series.patient]
            continue
        # The long name is that of its result, from which readers' corrections come.
        names[uid] = [inside.as_posix(), _stem(scan.path), scan.long_name]
        if in_folder[scan.path.parent] == 1 and scan.path.parent != root:
            names[uid] += [scan.path.parent.name, inside.parent.as_posix()]
    return ScanNames(names)


def _unlisted(
    root: Path, own: _OwnAnnotations | None, listed: set[str], scans: Collection[str]
) -> list[str]:
    table = SERIES_TABLE if (root / SERIES_TABLE).is_file() else own.path.name if own else ""
    unlisted = sorted(set(scans) - listed)
    if not table or not unlisted:
        return []
    return [
        f"{len(unlisted)} scans on disk are not in {table}, e.g. {unlisted[0]}; they count as "
        "healthy"
    ]


def _patients_of_headers(scans: Mapping[str, ScanInput]) -> dict[str, str]:
    """Return a digest of the patient of each DICOM series: who is the same, not who it is."""
    return {
        uid: patient_digest(scan.series.patient)
        for uid, scan in scans.items()
        if scan.series and scan.series.patient
    }


def _mask_notes(masks: NoduleMaskFolder | None, files: Collection[str]) -> list[str]:
    if masks is None:
        return []
    have = len(set(masks.files) & set(files))
    notes = [f"nodule masks in {masks.root}: {have} of {len(files)} scans have one"]
    if others := sorted(set(masks.files) - set(files)):
        notes.append(
            f"{len(others)} nodule masks are of no scan here, e.g. {masks.files[others[0]].name}"
        )
    return [*notes, *masks.warnings]


def _patients(root: Path, masks: NoduleMaskFolder | None, files: Collection[str]) -> dict[str, str]:
    own = root / PATIENT_TABLE
    path = own if own.is_file() else masks.patients if masks else None
    patients = read_patients(path) if path is not None else {}
    return {uid: patients[uid] for uid in sorted(files) if uid in patients}


def _scans(
    root: Path,
    inputs: Mapping[str, ScanInput],
    placed: PlacedMarks,
    subsets: Mapping[str, int],
    masks: NoduleMaskFolder | None,
) -> list[ScanOnDisk]:
    nodules_of: dict[str, list[Nodule]] = {uid: [] for uid in inputs}
    findings_of: dict[str, list[Finding]] = {uid: [] for uid in inputs}
    for nodule in placed.nodules:
        nodules_of.setdefault(nodule.seriesuid, []).append(nodule)
    for finding in placed.findings:
        findings_of.setdefault(finding.seriesuid, []).append(finding)
    scans = []
    for uid in sorted(set(inputs) - set(placed.unknown)):
        scan = inputs[uid]
        folder = _SUBSET_FOLDER.search(scan.path.parent.name)
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
                path=scan.path,
                subset=int(folder.group(1)) if folder else subsets.get(uid),
                lung_mask_path=mask_path,
                nodules=tuple(nodules_of[uid]),
                findings=tuple(findings_of[uid]),
                nodule_mask_path=masks.files.get(uid) if masks else None,
                ratings=masks.ratings.get(uid, {}) if masks else {},
                series=scan.series,
            )
        )
    return scans
