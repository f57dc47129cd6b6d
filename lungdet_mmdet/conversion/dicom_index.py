"""Which DICOM series lie below a folder, found by several workers and held in little memory."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.ct.dicom.damage import series_of_damaged_image
from lungdet_mmdet.ct.dicom.header import is_dicom, read_dicom_header


@dataclass(frozen=True)
class FolderJob:
    """One folder whose own files (not those of its subfolders) are to be looked through.

    Parameters
    ----------
    root : the tree.
    folder : path of the folder relative to it.
    """

    root: Path
    folder: str

    @property
    def seriesuid(self) -> str:
        """Name of the job in reports."""
        return self.folder


@dataclass(frozen=True)
class FolderContent:
    """The series of one folder: file names by series UID, and how many files are no images."""

    folder: str
    files_of: dict[str, tuple[str, ...]]
    others: int


def folders_with_files(root: Path) -> list[FolderJob]:
    """Return every folder of a tree that holds files, in order of its path."""
    jobs = []
    for folder, subfolders, names in os.walk(root):
        subfolders.sort()
        if names:
            jobs.append(FolderJob(root, os.path.relpath(folder, root)))
    return jobs


def look_through(job: FolderJob) -> FolderContent:
    """Sort the files of a folder by the series UID in their headers.

    A damaged image stays with its series, so that it is missed and not interpolated away.
    """
    files_of: dict[str, list[str]] = {}
    others = 0
    for entry in sorted(os.scandir(job.root / job.folder), key=lambda e: e.name):
        path = Path(entry.path)
        # Path, unlike os.DirEntry, has an answer for a link that leads to itself.
        if path.is_dir():
            continue
        uid = _series_of(path) if is_dicom(path) else None
        if uid is None:
            others += 1
        else:
            files_of.setdefault(uid, []).append(entry.name)
    return FolderContent(job.folder, {uid: tuple(n) for uid, n in files_of.items()}, others)


def _series_of(path: Path) -> str | None:
    header = read_dicom_header(path)
    return series_of_damaged_image(path) if header is None else header.series_uid


@dataclass(frozen=True)
class SeriesFiles:
    """The files of one series, packed: 100,000 series of 300 names each fit into memory."""

    packed: bytes

    @classmethod
    def pack(cls, paths: Iterable[str]) -> SeriesFiles:
        """Pack paths relative to the tree."""
        return cls(zlib.compress("\0".join(paths).encode("utf-8", "surrogateescape")))

    def paths(self) -> list[str]:
        """Return the paths as they were packed."""
        return zlib.decompress(self.packed).decode("utf-8", "surrogateescape").split("\0")


def series_of(contents: Iterable[FolderContent]) -> dict[str, SeriesFiles]:
    """Bring the folders together: a series may lie in several."""
    found: dict[str, SeriesFiles] = {}
    for content in sorted(contents, key=lambda c: c.folder):
        for uid, names in content.files_of.items():
            paths = [os.path.join(content.folder, name) for name in names]
            before = found[uid].paths() if uid in found else []
            found[uid] = SeriesFiles.pack([*before, *paths])
    return dict(sorted(found.items()))
