"""What the header of one DICOM image says, and whether a file is such an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.elements import elements_fit
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.input_file import check_input_file

# Positions are written with few digits: differences below this are rounding.
POSITION_TOLERANCE_MM = 0.02
MAGIC_OFFSET = 128
MAGIC = b"DICM"
# CT Image Storage, Enhanced CT, and the latter converted from the former; "" where it is not said.
CT_SOP_CLASSES = frozenset({"", *(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))})
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
    "intercept": "0028|1052",
    "slope": "0028|1053",
    "kernel": "0018|1210",
}


@dataclass(frozen=True)
class DicomSlice:
    """One DICOM image, as far as its header tells.

    ``position_xyz_mm`` is the world point of the first pixel's centre, ``orientation`` the six
    direction cosines of a row and a column, ``spacing_xy_mm`` the pixel size; all three are empty
    where the header lacks them. ``pixel_bytes`` is the length of one frame before compression,
    ``rescaling`` the text of slope and intercept, "" where there is none.
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
    rescaling: tuple[str, str] = ("", "")

    @property
    def has_place(self) -> bool:
        """Whether the header says where the slice lies."""
        lengths = (len(self.position_xyz_mm), len(self.orientation), len(self.spacing_xy_mm))
        return lengths == (3, 6, 2)

    @property
    def is_ct_slice(self) -> bool:
        """Whether it can be one slice of a CT volume: it has a place, and is no overview."""
        is_overview = "LOCALIZER" in self.image_type.upper()
        return self.has_place and self.sop_class_uid in CT_SOP_CLASSES and not is_overview

    @property
    def has_sound_rescaling(self) -> bool:
        """Whether slope and intercept are numbers, where there are any; GDCM takes 0 to be 1."""
        slope, intercept = (_numbers(text, 1) for text in self.rescaling)
        slope_is_sound = not self.rescaling[0] or (bool(slope) and slope[0] != 0)
        return slope_is_sound and (not self.rescaling[1] or bool(intercept))

    @property
    def normal_xyz(self) -> np.ndarray:
        """(3,) unit normal of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """Position along the slice normal."""
        return float(self.normal_xyz @ np.asarray(self.position_xyz_mm))


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
    """Read what an image's header says; None for DICOM files that are no images, or damaged."""
    try:
        check_input_file(path)
    except LungDetError:
        return None
    if not elements_fit(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    tags = {
        name: _printable(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else ""
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
        rescaling=(tags["slope"], tags["intercept"]),
    )


def _printable(text: str) -> str:
    """Return a tag's text; letters of a character set other than UTF-8 become question marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \0")


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
