# SPDX-License-Identifier: Apache-2.0
"""DICOM trees turned into MetaImage files in LUNA16's layout, every file accounted for."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lungdet_mmdet.annotations.tables import read_patients, read_subsets, write_patient_table
from lungdet_mmdet.ct.dicom.header import read_dicom_header, read_dicom_slices
from lungdet_mmdet.ct.dicom.reading import read_dicom_series
from lungdet_mmdet.ct.dicom.series import (
    lost_series_message,
    series_of_slices,
    sort_files,
    strangers_note,
)
from lungdet_mmdet.ct.geometry import to_canonical
from lungdet_mmdet.ct.metaimage_header import read_metaimage_header
from lungdet_mmdet.ct.scan import check_hounsfield, write_metaimage
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.atomic_files import only_run_in, read_json_or, sweep_leftovers, write_json
from lungdet_mmdet.runs.files import (
    ANNOTATION_TABLE,
    EXCLUDED_TABLE,
    PATIENT_TABLE,
    SERIES_TABLE,
    SUBSET_TABLE,
    is_series_name,
    search_files,
)
from lungdet_mmdet.runs.scan_runs import RunSummary, ScanFailure, run_per_scan, tally
from lungdet_mmdet.runs.workplace import ExecutorFactory

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
                interrupted=self.run.interrupted,
            )
        )
        return lines


def write_accounts(
    out_dir: Path,
    summary: ConversionSummary,
    found: Mapping[str, SeriesFiles],
    *,
    keep_patient_ids: bool,
) -> None:
    """Write converted.json and patients.csv (series of earlier runs included), and rejects.json.

    ``found`` are the series of the tree: they tell whose a series is that was converted before.
    """
    now = {s.seriesuid for s in summary.converted}
    kept = [
        entry
        for entry in read_json_or(out_dir / CONVERTED_NAME, [])
        if entry["seriesuid"] not in now and _is_there(out_dir / entry["file"])
    ]
    entries = kept + [
        {"seriesuid": s.seriesuid, "file": s.path, "images": s.images, "flags": list(s.flags)}
        for s in summary.converted
    ]
    write_json(out_dir / CONVERTED_NAME, sorted(entries, key=lambda e: e["seriesuid"]))
    rejects = [failure.as_dict() for failure in summary.failures]
    reasons = [(s.seriesuid, "unsuitable", s.unsuitable) for s in summary.unsuitable]
    reasons += [(uid, "not found", "not in the tree") for uid in summary.not_found]
    rejects += [dict(zip(("seriesuid", "stage", "reason"), r, strict=True)) for r in reasons]
    write_json(out_dir / REJECTS_NAME, rejects)
    if keep_patient_ids:
        path = out_dir / PATIENT_TABLE
        patients = read_patients(path) if path.is_file() else {}
        patients |= {s.seriesuid: s.patient_id for s in summary.converted if s.patient_id}
        patients |= {uid: found[uid].patient() for uid in summary.skipped if uid not in patients}
        write_patient_table(path, {uid: patient for uid, patient in patients.items() if patient})


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

    def patient(self) -> str:
        """Return whose the series is by the first header that can be read; "" where none tells."""
        headers = (read_dicom_header(Path(path)) for path in self.paths())
        return next((header.patient for header in headers if header), "")


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


@dataclass(frozen=True)
class SeriesJob:
    """One series to convert, as it travels to a worker."""

    seriesuid: str
    files: SeriesFiles
    folder: Path
    compress: bool


def convert_series(job: SeriesJob) -> ConvertedSeries:
    """Convert one series, or say why it is not suitable.

    Raises
    ------
    LungDetError
        If the series is a CT that cannot be brought to a regular grid, is not in Hounsfield units,
        or cannot be written.
    """
    if not is_series_name(job.seriesuid):
        raise LungDetError(f"series UID {job.seriesuid!r} cannot name a file; repair the DICOM")
    paths = [Path(path) for path in job.files.paths()]
    found = {path: read_dicom_slices(path) for path in paths}
    slices = tuple(item for of_file in found.values() for item in of_file)
    damaged = tuple(path for path, of_file in found.items() if not of_file)
    if not slices:
        raise LungDetError(lost_series_message(damaged))
    beside = [Path(path) for path in job.files.strangers]
    parts = series_of_slices(job.seriesuid, slices, damaged, beside)
    if len(parts) > 1:
        raise LungDetError(
            parts[0].mixed_with
            or f"series {job.seriesuid} is there {len(parts)} times, of different patients, "
            f"studies or frames of reference (e.g. in {parts[0].slices[0].path.parent} and "
            f"{parts[1].slices[0].path.parent}); convert their folders one by one"
        )
    (series,) = parts
    if series.why_unsuitable:
        return ConvertedSeries(job.seriesuid, "", len(paths), unsuitable=series.why_unsuitable)
    scan = read_dicom_series(series)
    check_hounsfield(scan, source=series.place)
    # In the order of the images' pixels, as LUNA16 has them: contours are drawn in it.
    stored = np.empty(scan.file_geometry.size_zyx, dtype=scan.volume_hu.dtype)
    to_canonical(stored, scan.file_geometry)[0][...] = scan.volume_hu
    path = write_metaimage(
        job.folder, job.seriesuid, stored, scan.file_geometry, compress=job.compress
    )
    return ConvertedSeries(
        job.seriesuid,
        f"{job.folder.name}/{path.name}",
        len(paths),
        scan.flags,
        series.patient,
    )


# Where series go that no table assigns to one of LUNA16's subsets.
SCAN_FOLDER = "scans"
TABLES = (ANNOTATION_TABLE, EXCLUDED_TABLE, SERIES_TABLE, SUBSET_TABLE)


def convert_dicom_tree(
    root: Path,
    out_dir: Path,
    make_executor: ExecutorFactory,
    *,
    workers: int = 1,
    tables: Path | None = None,
    only: Collection[str] | None = None,
    compress: bool = False,
    keep_patient_ids: bool = False,
    tell: Callable[[str], None] = print,
) -> ConversionSummary:
    """Convert every axial CT series below `root`; those in `out_dir` already are left alone.

    Each worker holds one series in memory; this process holds file names only.

    Parameters
    ----------
    root : a tree of DICOM files, ordered in any way.
    out_dir : gets ``subset<n>/`` or ``scans/`` with a .mhd file per series, ``converted.json``
        (what was repaired) and ``rejects.json`` (what was not converted, and why).
    make_executor, workers : where the work is done.
    tables : folder of LUNA16's tables: they are copied, and say which subset a series belongs to.
    only : series to convert; None for all.
    compress : write zlib-compressed pixels.
    keep_patient_ids : write ``patients.csv``, with which splits keep a patient's series together.
    tell : takes a line for the user.

    Raises
    ------
    LungDetError
        If the tree holds no DICOM images, or a folder cannot be used.
    """
    root, out_dir = Path(root).resolve(), Path(out_dir).resolve()
    if not root.is_dir():
        raise LungDetError(f"{root}: no such folder")
    if out_dir == root or root in out_dir.parents:
        raise LungDetError(
            f"{out_dir} lies inside {root}, which is searched for DICOM; choose another folder"
        )
    with only_run_in(out_dir):
        subset_of = _copy_tables(tables, out_dir) if tables else {}
        summary = ConversionSummary()
        found = _find_series(root, make_executor, workers, summary, tell)
        if summary.run.interrupted:
            return summary
        wanted = set(found) if only is None else set(only)
        summary.not_found = sorted(wanted - set(found))
        jobs = []
        for uid in sorted(wanted & set(found)):
            folder = out_dir / (f"subset{subset_of[uid]}" if uid in subset_of else SCAN_FOLDER)
            if _is_there(folder / f"{uid}.mhd"):
                summary.skipped.append(uid)
            else:
                jobs.append(SeriesJob(uid, found[uid], folder, compress))
        for folder in {job.folder for job in jobs}:
            sweep_leftovers(folder)
        summary.run = run_per_scan(
            convert_series, jobs, make_executor, max_at_work=workers, description="converting"
        )
        summary.failures += summary.run.failures
        for result in sorted(summary.run.results, key=lambda r: r.seriesuid):
            (summary.unsuitable if result.unsuitable else summary.converted).append(result)
        write_accounts(out_dir, summary, found, keep_patient_ids=keep_patient_ids)
    if not (out_dir / ANNOTATION_TABLE).is_file():
        tell(
            f"note: {out_dir} has no annotations.csv: scans can be searched for nodules, but "
            "prepared for training only with that table beside them (--tables)"
        )
    return summary


def _find_series(
    root: Path,
    make_executor: ExecutorFactory,
    workers: int,
    summary: ConversionSummary,
    tell: Callable[[str], None],
) -> dict[str, SeriesFiles]:
    """Return the files of every series of a tree; what cannot be searched goes to `summary`."""
    search = search_files(root)
    folders = [FolderJob(str(f), tuple(p.name for p in files)) for f, files in search.folders]
    indexing = run_per_scan(
        look_through, folders, make_executor, max_at_work=workers, description="finding series"
    )
    if indexing.interrupted:
        summary.run = indexing
        return {}
    # Folders that may not be searched, and files that may be slices that a series lacks, are named:
    # nothing is left out without a word.
    unsearched = [(str(root), f"{text}; check its permissions") for text in search.closed]
    unsearched += [(content.folder, content.lost) for content in indexing.results if content.lost]
    summary.failures += indexing.failures
    summary.failures += [ScanFailure(where, "input", reason) for where, reason in unsearched]
    found = series_of(indexing.results)
    if not found:
        raise LungDetError(
            f"{root}: no DICOM images in {len(folders)} folders; name a folder that holds some"
        )
    others = sum(content.others for content in indexing.results)
    tell(f"{len(found)} series in {len(folders)} folders; {others} files are no DICOM images")
    return found


def _copy_tables(tables: Path, out_dir: Path) -> dict[str, int]:
    there = [name for name in TABLES if (tables / name).is_file()]
    if ANNOTATION_TABLE not in there:
        raise LungDetError(f"{tables}: annotations.csv is missing; name the folder of the tables")
    for name in there:
        if (tables / name).resolve() != (out_dir / name).resolve():
            shutil.copyfile(tables / name, out_dir / name)
    return read_subsets(tables / SUBSET_TABLE) if SUBSET_TABLE in there else {}


def _is_there(header: Path) -> bool:
    try:
        read_metaimage_header(header)
    except LungDetError:
        return False
    return True
