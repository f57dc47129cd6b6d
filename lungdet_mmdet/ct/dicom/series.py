"""DICOM files with other pixels than their header says: GDCM cuts them off or fills them up."""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lungdet_mmdet.ct.dicom.header import CT_SOP_CLASSES, DicomSlice, is_dicom, read_dicom_header
from lungdet_mmdet.errors import LungDetError, printable

PIXEL_TAG = b"\xe0\x7f\x10\x00"
UNDEFINED_LENGTH = b"\xff\xff\xff\xff"
SEQUENCE_END = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
# What may follow the pixels: padding, a signature.
MAX_TRAILER_BYTES = 65536
# The pixels' length behind their tag: explicit ("OW" or "OB" and two bytes), or implicit.
_LENGTH_FIELDS = (b"OW\0\0", b"OB\0\0", b"")
# The series UID with its length, explicit ("UI" and two bytes) or implicit (four bytes).
_SERIES_UID = re.compile(rb"\x20\x00\x0e\x00(?:UI..|....)([0-9.]{1,64})", re.DOTALL)


def pixel_damage(path: Path, *, pixel_bytes: int) -> str:
    """Return what is wrong with the amount of pixels in a file; "" where nothing is.

    Where the pixels cannot be found (big-endian or deflated files), nothing is.

    Parameters
    ----------
    path : the file.
    pixel_bytes : length of its pixels before compression, by rows, columns and bits.
    """
    content = path.read_bytes()
    length = struct.pack("<I", pixel_bytes + pixel_bytes % 2)
    for kind in _LENGTH_FIELDS:
        start = content.find(PIXEL_TAG + kind + length)
        if start >= 0:
            is_cut = len(content) < start + len(PIXEL_TAG + kind + length) + pixel_bytes
            return "its pixels are cut off" if is_cut else ""
    if PIXEL_TAG + b"OB\0\0" + UNDEFINED_LENGTH in content:
        is_cut = SEQUENCE_END not in content[-MAX_TRAILER_BYTES:]
        return "its pixels are cut off" if is_cut else ""
    found = _uncompressed_bytes(content)
    # A little more than needed is padding.
    if found is None or pixel_bytes <= found < 2 * pixel_bytes:
        return ""
    return f"it holds {found} bytes of pixels, its rows, columns and bits ask for {pixel_bytes}"


def _uncompressed_bytes(content: bytes) -> int | None:
    """Return the length of the pixels that end where the file ends, None where there are none."""
    start = content.rfind(PIXEL_TAG)
    while start >= 0:
        for kind in _LENGTH_FIELDS:
            behind = start + len(PIXEL_TAG + kind)
            if content[start + len(PIXEL_TAG) : behind] != kind or len(content) < behind + 4:
                continue
            (length,) = struct.unpack("<I", content[behind : behind + 4])
            if 0 <= len(content) - (behind + 4 + length) <= MAX_TRAILER_BYTES:
                return length
        start = content.rfind(PIXEL_TAG, 0, start)
    return None


def series_of_damaged_image(path: Path) -> str | None:
    """Return the series UID of a file that should be an image and cannot be read as one.

    None for reports, structure sets and the like, which never held pixels.
    """
    content = path.read_bytes()
    uid = _SERIES_UID.search(content)
    return uid.group(1).decode("ascii") if uid and PIXEL_TAG in content else None


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
