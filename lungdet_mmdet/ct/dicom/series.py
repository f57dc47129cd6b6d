# SPDX-License-Identifier: Apache-2.0
"""DICOM series: the files below a folder sorted into them, what is lost, and which one to read."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.dicom.elements import DicomElements, is_dicom, walk_elements
from lungdet_mmdet.ct.dicom.header import (
    CT_SOP_CLASSES,
    DicomSlice,
    is_sharp_kernel,
    read_dicom_slices,
)
from lungdet_mmdet.errors import LungDetError, printable
from lungdet_mmdet.runs.files import search_files

_DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima"})
# What tools add to the name of a file that they pack, or have not finished.
_ADDED_SUFFIXES = frozenset(
    {".gz", ".bz2", ".xz", ".zst", ".zip", ".part", ".partial", ".tmp", ".crdownload", ".filepart"}
)
_DIGITS = re.compile(r"\d+")
_PLAIN_TEXT = re.compile(rb"[\t\n\r\x20-\x7e\x80-\xff]+")
_HEAD_BYTES = 512

# Storage classes without an image of their own: waveforms, presentation states, raw data,
# registrations, segmentations, reports, documents, radiotherapy plans and the like. DICOMDIR too.
_NO_IMAGE = re.compile(
    r"1\.2\.840\.10008\.(1\.3\.10"
    r"|5\.1\.4\.1\.1\.(9|11|66|67|68|78|79|80|81|82|88|90|91|104|131|200)(\.[\d.]+)?"
    r"|5\.1\.4\.1\.1\.481\.([2-9]|\d\d)|5\.1\.4\.34(\.[\d.]+)?)"
)


@dataclass(frozen=True)
class FolderFiles:
    """The files of one folder (not those below its subfolders).

    Parameters
    ----------
    slices : images by series UID.
    damaged : files by the UID of the series that they belong to, and cannot be read.
    strangers : files that should be images by their name, cannot be read, and do not say of which
        series they are.
    others : number of files that are no images and need not be.
    """

    slices: dict[str, list[DicomSlice]]
    damaged: dict[str, list[Path]]
    strangers: tuple[Path, ...]
    others: int


def sort_files(paths: Sequence[Path]) -> FolderFiles:
    """Sort the files of one folder.

    A file that is named as the images of a series are, digits apart, is one of them whatever is
    left of it: a slice that was emptied, cut off within its header or packed must not be missed
    without a word.
    """
    slices: dict[str, list[DicomSlice]] = defaultdict(list)
    damaged: dict[str, list[Path]] = defaultdict(list)
    series_of_pattern: dict[str, set[str]] = defaultdict(set)
    unknown = []
    others = 0
    for path in paths:
        if not is_dicom(path):
            unknown.append(path)
        elif found := read_dicom_slices(path):
            slices[found[0].series_uid] += found
            series_of_pattern[_pattern(path)].add(found[0].series_uid)
        elif _is_no_image(elements := walk_elements(path)):
            others += 1
        elif elements.series_uid:
            damaged[elements.series_uid].append(path)
        else:
            unknown.append(path)
    strangers = []
    for path in unknown:
        owners = series_of_pattern[_pattern(path)]
        claims_dicom = is_dicom(path) or _bare(path).suffix.lower() in _DICOM_SUFFIXES
        if owners and (claims_dicom or not _is_text(path)):
            for uid in owners:
                damaged[uid].append(path)
        elif claims_dicom and not _is_text(path):
            strangers.append(path)
        else:
            others += 1
    return FolderFiles(dict(slices), dict(damaged), tuple(strangers), others)


def _is_no_image(elements: DicomElements) -> bool:
    """Say whether what GDCM does not read is another object: a report, an index and the like."""
    # Cut off between two elements, a slice looks as whole as a report does.
    is_slice = elements.sop_class in CT_SOP_CLASSES and elements.modality in ("", "CT")
    has_image = elements.pixel_bytes is not None or elements.has_rows
    return bool(_NO_IMAGE.fullmatch(elements.sop_class)) or (
        elements.fit and not has_image and not is_slice
    )


def _bare(path: Path) -> Path:
    """Return a path without what packing or copying tools add to it."""
    return path.with_suffix("") if path.suffix.lower() in _ADDED_SUFFIXES else path


def _pattern(path: Path) -> str:
    """Return a file's name with every number in it made alike; a name of letters is its own."""
    return _DIGITS.sub("#", _bare(path).name.lower())


def _is_text(path: Path) -> bool:
    """Say whether a file holds text: notes beside images may be numbered as these are."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return bool(_PLAIN_TEXT.fullmatch(head))


# A chest CT has dozens of slices; localisers and single key images have fewer.
MIN_SLICES = 8
# The slice normal may lean this far from the body's axis in an axial series (gantry tilt is 30).
MAX_AXIAL_LEAN_DEG = 40.0


@dataclass(frozen=True)
class DicomSeries:
    """The images of one series of one patient, study and frame of reference.

    Parameters
    ----------
    uid : series UID.
    slices : in the order in which they were found.
    damaged : files beyond reading that belong to it.
    strangers : files beside its images that may or may not belong to it, and cannot be read.
    mixed_with : why it cannot be told from other images of the same series UID; "" where it can.
    """

    uid: str
    slices: tuple[DicomSlice, ...]
    damaged: tuple[Path, ...] = ()
    strangers: tuple[Path, ...] = ()
    mixed_with: str = ""

    @property
    def study_uid(self) -> str:
        """UID of the study that the series belongs to."""
        return self.slices[0].study_uid

    @property
    def patient(self) -> str:
        """Whom it shows: the patient's id, or name and birth date."""
        return self.slices[0].patient

    @property
    def identity(self) -> str:
        """What parts its images from others of the same series UID."""
        first = next((s for s in self.slices if s.is_ct_slice), self.slices[0])
        return "\n".join((first.patient, first.study_uid, self.uid, first.frame_uid))

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
    def extent_mm(self) -> float:
        """Distance of the outermost CT slices in mm."""
        heights = [s.height_mm for s in self.slices if s.is_ct_slice]
        return max(heights, default=0.0) - min(heights, default=0.0)

    @property
    def why_unsuitable(self) -> str:
        """Return why this is no axial CT series; "" where it is one."""
        first = self.slices[0]
        if self.mixed_with:
            return self.mixed_with
        if first.modality != "CT":
            return f"modality {first.modality or 'unknown'}, not CT"
        if first.samples != 1:
            return "a colour image"
        if first.frames > 1 and first.frame is None:
            return (
                "a multi-frame image that does not place its frames; convert it to NIfTI or "
                "single-frame DICOM first, e.g. with dcm2niix"
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


def series_of_slices(
    uid: str,
    slices: Sequence[DicomSlice],
    damaged: Sequence[Path] = (),
    strangers: Sequence[Path] = (),
) -> list[DicomSeries]:
    """Part the images of one series UID by patient, study and frame of reference.

    A series UID is meant to be unique and is not always: badly anonymised or exported data have it
    twice. Images of two patients in one folder are marked as mixed, for nothing else tells which
    file belongs to whom; where they lie in folders of their own, each is a series of its own.
    """
    unread = (tuple(damaged), tuple(strangers))
    frames = {s.frame_uid for s in slices if s.is_ct_slice}
    groups: dict[tuple[str, str, str], list[DicomSlice]] = {}
    for item in slices:
        # A localizer in the series may have a frame of its own: it is left out of the volume.
        frame = item.frame_uid if item.frame_uid in frames else min(frames, default="")
        groups.setdefault((item.patient, item.study_uid, frame), []).append(item)
    if len(groups) == 1:
        return [DicomSeries(uid, tuple(slices), *unread)]
    folders = [{s.path.parent for s in group} for group in groups.values()]
    apart = sum(map(len, folders)) == len(set().union(*folders))
    why = "" if apart else _why_mixed(uid, groups)
    found = []
    for _, group in sorted(groups.items()):
        here = {s.path.parent for s in group}
        lost, strange = (
            tuple(p for p in paths if not apart or p.parent in here) for paths in unread
        )
        found.append(DicomSeries(uid, tuple(group), lost, strange, why))
    return found


def _why_mixed(uid: str, groups: dict[tuple[str, str, str], list[DicomSlice]]) -> str:
    names = ("patients", "studies", "frames of reference")
    counts = [len(values) for values in map(set, zip(*groups, strict=True))]
    parts = [f"{n} {name}" for n, name in zip(counts, names, strict=True) if n > 1]
    files = [group[0].path.name for group in groups.values()][:2]
    return (
        f"series {uid} holds images of {' and '.join(parts)} (e.g. {' and '.join(files)}): put the "
        "images of each into a folder of its own"
    )


@dataclass(frozen=True)
class DicomFolder:
    """What lies below a folder.

    Parameters
    ----------
    series : every series with at least one image that can be read, by UID.
    lost : for each series of which nothing can be read, its files; for files that do not even say
        which series they are of, by their folder.
    notes : what cannot be read, and may or may not be part of a series.
    """

    series: list[DicomSeries]
    lost: dict[str, tuple[Path, ...]]
    notes: tuple[str, ...] = ()


def survey_files(folders: Iterable[FolderFiles]) -> DicomFolder:
    """Bring together what lies in several folders; a series may lie in more than one."""
    slices: dict[str, list[DicomSlice]] = defaultdict(list)
    damaged: dict[str, list[Path]] = defaultdict(list)
    strangers: dict[str, list[Path]] = defaultdict(list)
    lost: dict[str, tuple[Path, ...]] = {}
    notes = []
    for content in folders:
        for uid, found in content.slices.items():
            slices[uid] += found
            strangers[uid] += content.strangers
        for uid, paths in content.damaged.items():
            damaged[uid] += paths
        if content.strangers and content.slices:
            notes.append(strangers_note(content.strangers))
        elif content.strangers:
            lost[str(content.strangers[0].parent)] = content.strangers
    series = [
        part
        for uid in sorted(slices)
        for part in series_of_slices(uid, slices[uid], damaged[uid], strangers[uid])
    ]
    lost |= {uid: tuple(paths) for uid, paths in damaged.items() if uid not in slices}
    return DicomFolder(series, lost, tuple(notes))


def strangers_note(paths: Sequence[Path]) -> str:
    """Return what to say of unreadable files that lie beside the images of a series."""
    names = ", ".join(path.name for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    return printable(
        f"{paths[0].parent}: {len(paths)} files beside the images cannot be read and may be part "
        f"of the series ({names}); export or copy the series again if they are"
    )


def lost_series_message(paths: Sequence[Path]) -> str:
    """Return what to say of a series, or a folder, whose images cannot be read."""
    return (
        f"{paths[0]}: cannot be read, as all {len(paths)} DICOM images here: they are damaged, or "
        "compressed in a way that GDCM does not know; export the series again, uncompressed"
    )


def find_dicom_series(folder: Path | str) -> list[DicomSeries]:
    """Return every readable series of DICOM images below a folder, by UID.

    Raises LungDetError if there are DICOM images, and not one that can be read.
    """
    found = survey_files(sort_files(paths) for _, paths in search_files(Path(folder)).folders)
    if found.lost and not found.series:
        raise LungDetError(lost_series_message([p for paths in found.lost.values() for p in paths]))
    return found.series


_PROJECTION = re.compile(r"\b(MIP|MINIP|PROJECTION|AVERAGE)\b")
# A series that covers less than this share of the longest one's extent, of which no more counts
# than a chest has: what goes on to the pelvis shows no more of it.
PART_OF_A_CHEST = 0.4
CHEST_MM = 300.0


def choose_series(
    found: Sequence[DicomSeries], *, source: str, series_uid: str | None = None
) -> DicomSeries:
    """Return the series to read: the one asked for, else the thinnest axial CT.

    Projections of other slices and parts of the chest come last. As thin as a series are its slices
    or their distance, what is more. Among equally thin ones that with most slices is taken, then
    the smoother kernel (a sharp one's noise adds up in a projection), then the first by UID. Raises
    LungDetError if there is none, listing the series that are there, or if they are of several
    patients.
    """
    listing = "\n".join(f"  {series.describe()}" for series in found)
    if not found:
        raise LungDetError(
            f"{source}: no DICOM images here; name a folder with the slices of a CT series"
        )
    if series_uid is not None:
        chosen = [series for series in found if series.uid == series_uid]
        if len(chosen) > 1 and not chosen[0].mixed_with:
            folders = " and ".join(str(series.slices[0].path.parent) for series in chosen[:2])
            raise LungDetError(
                f"{source}: series {series_uid} is there {len(chosen)} times, of different "
                f"patients, studies or frames of reference ({folders}); name the folder of one"
            )
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
    mixed = [series for series in found if series.mixed_with]
    if mixed:
        raise LungDetError(f"{source}: {mixed[0].mixed_with}")
    if len({series.patient for series in suitable}) > 1:
        raise LungDetError(
            f"{source}: CT series of {len({series.patient for series in suitable})} patients; name "
            f"the folder of one of them, or a series:\n{listing}"
        )

    longest = min(max(series.extent_mm for series in suitable), CHEST_MM)

    def preference(series: DicomSeries) -> tuple:
        usable = [s for s in series.slices if s.is_ct_slice]
        thickness = float(np.median([s.thickness_mm for s in usable]))
        is_projected = bool(_PROJECTION.search(usable[0].image_type.upper()))
        is_part = series.extent_mm < PART_OF_A_CHEST * longest
        is_sharp = is_sharp_kernel(series.slices[0].kernel)
        thinness = round(max(series.step_mm, thickness), 2)
        return is_projected, is_part, thinness, -len(series.slices), is_sharp, series.uid

    return min(suitable, key=preference)
