"""Finding the DICOM series below a folder, and the one that is a chest CT to search for nodules."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom_damage import series_of_damaged_image
from lungdet_mmdet.errors import LungDetError

MAGIC_OFFSET = 128
MAGIC = b"DICM"
# A chest CT has dozens of slices; localisers and single key images have fewer.
MIN_SLICES = 8
# The slice normal may lean this far from the body's axis in an axial series (gantry tilt is 30).
MAX_AXIAL_LEAN_DEG = 40.0
_TAGS = {
    "study": "0020|000d",
    "series": "0020|000e",
    "instance": "0008|0018",
    "sop_class": "0008|0016",
    "modality": "0008|0060",
    "image_type": "0008|0008",
    "description": "0008|103e",
    "acquisition": "0020|0012",
    "number": "0020|0013",
    "position": "0020|0032",
    "orientation": "0020|0037",
    "spacing": "0028|0030",
    "rows": "0028|0010",
    "columns": "0028|0011",
    "samples": "0028|0002",
    "frames": "0028|0008",
    "bits": "0028|0100",
    "kernel": "0018|1210",
}


@dataclass(frozen=True)
class DicomSlice:
    """One DICOM image, as far as its header tells.

    ``position_xyz_mm`` is the world point of the first pixel's centre, ``orientation`` the six
    direction cosines of a row and a column, ``spacing_xy_mm`` the pixel size; all three are empty
    where the header lacks them. ``pixel_bytes`` is the length of one frame before compression.
    """

    path: Path
    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str
    image_type: str
    description: str
    kernel: str
    acquisition: str
    instance_number: int
    position_xyz_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_xy_mm: tuple[float, ...]
    size_yx: tuple[int, int]
    samples: int
    frames: int
    pixel_bytes: int

    @property
    def has_place(self) -> bool:
        """Whether the header says where the slice lies."""
        lengths = (len(self.position_xyz_mm), len(self.orientation), len(self.spacing_xy_mm))
        return lengths == (3, 6, 2)

    @property
    def normal_xyz(self) -> np.ndarray:
        """(3,) unit normal of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """Position along the slice normal."""
        return float(self.normal_xyz @ np.asarray(self.position_xyz_mm))


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
        placed = [s for s in self.slices if s.has_place]
        if len(placed) < MIN_SLICES:
            return f"{len(placed)} slices with a position; at least {MIN_SLICES} are needed"
        lean = np.median([abs(s.normal_xyz[2]) for s in placed])
        if lean < math.cos(math.radians(MAX_AXIAL_LEAN_DEG)):
            return "not axial"
        if "LOCALIZER" in first.image_type.upper():
            return "a localizer"
        return ""

    def describe(self) -> str:
        """Return one line for the user: UID, slices, spacing, description, suitability."""
        first = self.slices[0]
        step = f"{self.step_mm:.2f} mm" if math.isfinite(self.step_mm) else "unknown spacing"
        text = f"{self.uid}  {len(self.slices)} images, {step}, {first.modality}"
        text += "".join(f", {t}" for t in (first.description, first.kernel) if t)
        if self.damaged:
            text += f", {len(self.damaged)} damaged files"
        return f"{text}  ({self.why_unsuitable})" if self.why_unsuitable else text


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do."""
    # Asking a pipe or a device could wait for ever.
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            file.seek(MAGIC_OFFSET)
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_dicom_header(path: Path) -> DicomSlice | None:
    """Read what an image's header says; None for DICOM files that are no images."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    tags = {
        name: reader.GetMetaData(tag).strip(" \0") if reader.HasMetaDataKey(tag) else ""
        for name, tag in _TAGS.items()
    }
    rows, columns = _integer(tags["rows"], 0), _integer(tags["columns"], 0)
    return DicomSlice(
        path=path,
        study_uid=tags["study"],
        series_uid=tags["series"],
        instance_uid=tags["instance"],
        sop_class_uid=tags["sop_class"],
        modality=tags["modality"],
        image_type=tags["image_type"],
        description=tags["description"],
        kernel=tags["kernel"],
        acquisition=tags["acquisition"],
        instance_number=_integer(tags["number"], 0),
        position_xyz_mm=_numbers(tags["position"], 3),
        orientation=_numbers(tags["orientation"], 6),
        # The tag names the distance of rows (y) first.
        spacing_xy_mm=_numbers(tags["spacing"], 2)[::-1],
        size_yx=(rows, columns),
        samples=_integer(tags["samples"], 1),
        frames=_integer(tags["frames"], 1),
        pixel_bytes=rows * columns * _integer(tags["bits"], 16) // 8,
    )


def _numbers(text: str, count: int) -> tuple[float, ...]:
    """Return a tag's numbers, or () where they are not `count` finite ones."""
    try:
        numbers = tuple(float(word) for word in text.split("\\"))
    except ValueError:
        return ()
    return numbers if len(numbers) == count and np.all(np.isfinite(numbers)) else ()


def _integer(text: str, default: int) -> int:
    try:
        return int(text)
    except ValueError:
        return default


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(root) / name for name in sorted(names))


def find_dicom_series(folder: Path | str) -> list[DicomSeries]:
    """Return every series of DICOM images below a folder, by UID.

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
    return [
        DicomSeries(uid, tuple(by_uid[uid]), tuple(damaged.get(uid, ()))) for uid in sorted(by_uid)
    ]


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
        raise LungDetError(f"{source}: no DICOM images here")
    if series_uid is not None:
        chosen = [series for series in found if series.uid == series_uid]
        if not chosen:
            raise LungDetError(f"{source}: no series {series_uid} here. There are:\n{listing}")
        if chosen[0].why_unsuitable:
            raise LungDetError(
                f"{source}: series {series_uid} cannot be used: {chosen[0].why_unsuitable}"
            )
        return chosen[0]
    suitable = [series for series in found if not series.why_unsuitable]
    if not suitable:
        raise LungDetError(f"{source}: no axial CT series among these:\n{listing}")
    return min(suitable, key=lambda s: (round(s.step_mm, 2), -len(s.slices), s.uid))
