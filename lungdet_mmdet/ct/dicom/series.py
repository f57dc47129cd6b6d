"""Finding the DICOM series below a folder, and the one that is a chest CT to search for nodules."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.dicom.damage import series_of_damaged_image
from lungdet_mmdet.ct.dicom.header import CT_SOP_CLASSES, DicomSlice, is_dicom, read_dicom_header
from lungdet_mmdet.errors import LungDetError, printable

# A chest CT has dozens of slices; localisers and single key images have fewer.
MIN_SLICES = 8
# The slice normal may lean this far from the body's axis in an axial series (gantry tilt is 30).
MAX_AXIAL_LEAN_DEG = 40.0


@dataclass(frozen=True)
class DicomSeries:
    """The images of one series in the order in which they were found, and files beyond reading."""

    uid: str
    slices: tuple[DicomSlice, ...]
    damaged: tuple[Path, ...] = ()

    @property
    def study_uid(self) -> str:
        """UID of the study that the series belongs to."""
        return self.slices[0].study_uid

    @property
    def place(self) -> str:
        """Folder and UID, for messages."""
        return f"{self.slices[0].path.parent}: series {self.uid}"

    @property
    def step_mm(self) -> float:
        """Median distance of neighbouring slices in mm; infinite where it cannot be told."""
        heights = np.unique([round(s.height_mm, 3) for s in self.slices if s.has_place])
        return float(np.median(np.diff(heights))) if len(heights) > 1 else math.inf

    @property
    def why_unsuitable(self) -> str:
        """Return why this is no axial CT series; "" where it is one."""
        first = self.slices[0]
        if first.modality != "CT":
            return f"modality {first.modality or 'unknown'}, not CT"
        if first.samples != 1:
            return "a colour image"
        if first.frames > 1:
            return (
                "multi-frame (enhanced) CT; convert it to NIfTI or single-frame DICOM first, "
                "e.g. with dcm2niix"
            )
        usable = [s for s in self.slices if s.is_ct_slice]
        if len(usable) < MIN_SLICES:
            return self._why_too_few(len(usable))
        lean = np.median([abs(s.normal_xyz[2]) for s in usable])
        if lean < math.cos(math.radians(MAX_AXIAL_LEAN_DEG)):
            return "not axial"
        return ""

    def _why_too_few(self, n_usable: int) -> str:
        placed = [s for s in self.slices if s.has_place]
        foreign = {s.sop_class_uid for s in placed} - CT_SOP_CLASSES
        if len(placed) < MIN_SLICES:
            return f"{len(placed)} slices with a position; at least {MIN_SLICES} are needed"
        if foreign:
            return (
                f"SOP class {', '.join(sorted(foreign))}, not CT Image Storage: its values need "
                "not be Hounsfield units; export the original images"
            )
        return f"a localizer: {n_usable} other images; at least {MIN_SLICES} are needed"

    def describe(self) -> str:
        """Return one line for the user: UID, slices, spacing, description, suitability."""
        first = self.slices[0]
        step = f"{self.step_mm:.2f} mm" if math.isfinite(self.step_mm) else "unknown spacing"
        text = f"{self.uid}  {len(self.slices)} images, {step}, {first.modality}"
        text += "".join(f", {t}" for t in (first.description, first.kernel) if t)
        if self.damaged:
            text += f", {len(self.damaged)} damaged files"
        return printable(f"{text}  ({self.why_unsuitable})" if self.why_unsuitable else text)


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root) / name for name in sorted(names))


@dataclass(frozen=True)
class DicomFolder:
    """What lies below a folder.

    Parameters
    ----------
    series : every series with at least one image that can be read, by UID.
    lost : for each series of which nothing can be read, its files.
    """

    series: list[DicomSeries]
    lost: dict[str, tuple[Path, ...]]


def survey_folder(folder: Path | str) -> DicomFolder:
    """Return the DICOM series below a folder, those beyond reading included.

    Files that are not DICOM, and DICOM files that are not images, are left out.
    """
    by_uid: dict[str, list[DicomSlice]] = {}
    damaged: dict[str | None, list[Path]] = {}
    for path in filter(is_dicom, _files(Path(folder))):
        header = read_dicom_header(path)
        if header is not None:
            by_uid.setdefault(header.series_uid, []).append(header)
        else:
            damaged.setdefault(series_of_damaged_image(path), []).append(path)
    series = [
        DicomSeries(uid, tuple(by_uid[uid]), tuple(damaged.get(uid, ()))) for uid in sorted(by_uid)
    ]
    lost = {uid: tuple(p) for uid, p in damaged.items() if uid is not None and uid not in by_uid}
    return DicomFolder(series, lost)


def lost_series_message(paths: Sequence[Path]) -> str:
    """Return what to say of a series, or a folder, whose images cannot be read."""
    return (
        f"{paths[0]}: cannot be read, as all {len(paths)} DICOM images here: they are damaged, or "
        "compressed in a way that GDCM does not know; export the series again, uncompressed"
    )


def find_dicom_series(folder: Path | str) -> list[DicomSeries]:
    """Return every readable series of DICOM images below a folder, by UID.

    Raises
    ------
    LungDetError
        If there are DICOM images, and not one that can be read.
    """
    found = survey_folder(folder)
    if found.lost and not found.series:
        raise LungDetError(lost_series_message([p for paths in found.lost.values() for p in paths]))
    return found.series


def choose_series(
    found: Sequence[DicomSeries], *, source: str, series_uid: str | None = None
) -> DicomSeries:
    """Return the series to read: the one asked for, else the thinnest axial CT.

    Among equally thin ones that with most slices is taken, then the first by UID.

    Raises
    ------
    LungDetError
        If there is none, listing the series that are there.
    """
    listing = "\n".join(f"  {series.describe()}" for series in found)
    if not found:
        raise LungDetError(
            f"{source}: no DICOM images here; name a folder with the slices of a CT series"
        )
    if series_uid is not None:
        chosen = [series for series in found if series.uid == series_uid]
        if not chosen:
            raise LungDetError(
                f"{source}: no series {series_uid} here; choose one of these:\n{listing}"
            )
        if chosen[0].why_unsuitable:
            raise LungDetError(
                f"{source}: series {series_uid} cannot be used: {chosen[0].why_unsuitable}; choose "
                "another series"
            )
        return chosen[0]
    suitable = [series for series in found if not series.why_unsuitable]
    if not suitable:
        raise LungDetError(
            f"{source}: no axial CT series among these; name a folder that has one:\n{listing}"
        )
    return min(suitable, key=lambda s: (round(s.step_mm, 2), -len(s.slices), s.uid))
