# SPDX-License-Identifier: Apache-2.0
"""One DICOM image: what its header says, of each frame of an enhanced CT too, and its pixels."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lungdet_mmdet.ct.dicom.elements import ITEM, Tag, walk_elements
from lungdet_mmdet.ct.scan import as_int16_hu
from lungdet_mmdet.errors import LungDetError
from lungdet_mmdet.runs.files import check_input_file

# Positions are written with few digits: differences below this are rounding.
POSITION_TOLERANCE_MM = 0.02
# CT Image Storage, Enhanced CT, and the latter converted from the former; "" where it is not said.
CT_SOP_CLASSES = frozenset({"", *(f"1.2.840.10008.5.1.4.1.1.2{end}" for end in ("", ".1", ".2"))})


@dataclass(frozen=True)
class DicomSlice:
    """One DICOM image, as far as its header tells.

    ``position_xyz_mm`` is the world point of the first pixel's centre, ``orientation`` the six
    direction cosines of a row and a column, ``spacing_xy_mm`` the pixel size; all three are empty
    where the header lacks them. ``pixel_bytes`` is the length of one frame before compression,
    ``rescaling`` the text of slope and intercept, "" where there is none. ``patient`` is the
    patient's id, or a digest of name and birth date where there is none; ``frame_uid`` the frame of
    reference.
    ``thickness_mm`` and ``n_images`` (images in the acquisition) are 0 where they are not said.
    ``frame`` is the place of a slice in a file of several, from 0; None in a file of its own.
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
    patient: str = ""
    frame_uid: str = ""
    photometric: str = ""
    thickness_mm: float = 0.0
    n_images: int = 0
    frame: int | None = None

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
        slope, intercept = (numbers_of(text, 1) for text in self.rescaling)
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


def read_dicom_header(path: Path) -> DicomSlice | None:
    """Read what an image's header says; None for DICOM files that are no images, or damaged."""
    try:
        check_input_file(path)
    except LungDetError:
        return None
    if not walk_elements(path).fit:
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None

    def text(tag: str) -> str:
        return _printable(reader.GetMetaData(tag)) if reader.HasMetaDataKey(tag) else ""

    rows, columns = _integer(text("0028|0010"), 0), _integer(text("0028|0011"), 0)
    return DicomSlice(
        path=path,
        study_uid=text("0020|000d"),
        series_uid=text("0020|000e"),
        instance_uid=text("0008|0018"),
        sop_class_uid=text("0008|0016"),
        modality=text("0008|0060"),
        image_type=text("0008|0008"),
        description=text("0008|103e"),
        kernel=text("0018|1210"),
        acquisition=text("0020|0012"),
        instance_number=_integer(text("0020|0013"), 0),
        position_xyz_mm=numbers_of(text("0020|0032"), 3),
        orientation=numbers_of(text("0020|0037"), 6),
        # The tag names the distance of rows (y) first.
        spacing_xy_mm=numbers_of(text("0028|0030"), 2)[::-1],
        size_yx=(rows, columns),
        samples=_integer(text("0028|0002"), 1),
        frames=_integer(text("0028|0008"), 1),
        pixel_bytes=rows * columns * _integer(text("0028|0100"), 16) // 8,
        rescaling=(text("0028|1053"), text("0028|1052")),
        patient=text("0010|0020")
        or patient_digest(f"{text('0010|0010')} {text('0010|0030')}".strip()),
        frame_uid=text("0020|0052"),
        photometric=text("0028|0004"),
        thickness_mm=next(iter(numbers_of(text("0018|0050"), 1)), 0.0),
        n_images=_integer(text("0020|1002"), 0),
    )


_DIGEST = re.compile(r"p[0-9a-f]{12}")


def patient_digest(text: str) -> str:
    """Return a digest of a patient's id or name: who is the same, not who it is; "" of "".

    A digest stays as it is.
    """
    if not text or _DIGEST.fullmatch(text):
        return text
    return f"p{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _printable(text: str) -> str:
    """Return a tag's text; letters of a character set other than UTF-8 become question marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \0")


def numbers_of(text: str, count: int) -> tuple[float, ...]:
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


_SHARED, _PER_FRAME = (0x5200, 0x9229), (0x5200, 0x9230)
_POSITION, _ORIENTATION = (0x0020, 0x0032), (0x0020, 0x0037)
_SPACING, _THICKNESS = (0x0028, 0x0030), (0x0018, 0x0050)
_INTERCEPT, _SLOPE, _FRAME_TYPE = (0x0028, 0x1052), (0x0028, 0x1053), (0x0008, 0x9007)
_LEAVES = frozenset(
    {_POSITION, _ORIENTATION, _SPACING, _THICKNESS, _INTERCEPT, _SLOPE, _FRAME_TYPE}
)


class _Groups:
    """Gathers what the functional groups say, of all frames and of each."""

    def __init__(self) -> None:
        self.shared: dict[Tag, str] = {}
        self.frames: list[dict[Tag, str]] = []
        self._sequence: Tag | None = None

    def __call__(self, tag: Tag, value: bytes, depth: int) -> None:
        if depth == 0 and tag != ITEM:
            self._sequence = tag
        elif self._sequence == _PER_FRAME and tag == ITEM and depth == 0:
            self.frames.append({})
        elif tag in _LEAVES and self._sequence in (_SHARED, _PER_FRAME):
            is_shared = self._sequence == _SHARED or not self.frames
            text = value.decode("ascii", "replace").strip("\0 ")
            (self.shared if is_shared else self.frames[-1])[tag] = text


def read_dicom_slices(path: Path) -> list[DicomSlice]:
    """Return the slices of a DICOM image: one, or one per frame of an enhanced CT.

    Returns
    -------
    list of DicomSlice
        Empty for files that are no images, or damaged. An image of several frames that does not
        place them stays one slice, without a place.
    """
    header = read_dicom_header(path)
    if header is None:
        return []
    if header.frames < 2 or header.sop_class_uid not in CT_SOP_CLASSES:
        return [header]
    groups = _Groups()
    walk_elements(path, deep=groups)
    if len(groups.frames) != header.frames:
        return [header]
    return [_frame(header, index, groups.shared | own) for index, own in enumerate(groups.frames)]


def _frame(header: DicomSlice, index: int, says: dict[Tag, str]) -> DicomSlice:
    return replace(
        header,
        frame=index,
        instance_number=index + 1,
        position_xyz_mm=numbers_of(says.get(_POSITION, ""), 3),
        orientation=numbers_of(says.get(_ORIENTATION, ""), 6),
        spacing_xy_mm=numbers_of(says.get(_SPACING, ""), 2)[::-1],
        thickness_mm=next(iter(numbers_of(says.get(_THICKNESS, ""), 1)), 0.0),
        rescaling=(says.get(_SLOPE, ""), says.get(_INTERCEPT, "")),
        image_type=says.get(_FRAME_TYPE, header.image_type),
        pixel_bytes=header.pixel_bytes * header.frames,
        n_images=0,
    )


def slice_hu(item: DicomSlice) -> np.ndarray:
    """Return a slice's Hounsfield values, int16 array (y, x); errors as `file_hu`."""
    return file_hu(item)[item.frame or 0]


def file_hu(item: DicomSlice) -> np.ndarray:
    """Return the Hounsfield values of a slice's file, slope and intercept applied.

    Returns
    -------
    int16 array (frames, y, x).

    Raises
    ------
    LungDetError
        If its pixels are cut off or damaged, its rescaling is none, or it is no grey image.
    """
    if damage := walk_elements(item.path).pixel_damage(item.pixel_bytes):
        raise LungDetError(f"{item.path}: {damage}; export or copy the series again")
    if item.photometric == "MONOCHROME1":
        raise LungDetError(
            f"{item.path}: its photometric interpretation is MONOCHROME1 (white is low), which "
            "GDCM turns over, and the Hounsfield values with it; export the series again as "
            "MONOCHROME2"
        )
    if not item.has_sound_rescaling:
        raise LungDetError(
            f"{item.path}: rescale slope '{item.rescaling[0]}' and intercept '{item.rescaling[1]}' "
            "give no Hounsfield values; export the series again"
        )
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(item.path))
    try:
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LungDetError(
            f"{item.path}: cannot be read ({reason}); the file is damaged: export it again"
        ) from error
    frames = 1 if item.frame is None else item.frames
    if values.size != frames * item.size_yx[0] * item.size_yx[1]:
        raise LungDetError(
            f"{item.path}: {values.shape} pixels; {frames} grey images of {item.size_yx} are needed"
        )
    return as_int16_hu(values, source=str(item.path)).reshape(frames, *item.size_yx)


SHARP_NAMES = ("LUNG", "BONE", "EDGE", "SHARP", "ULTRA", "DETAIL")
"""GE's names, and words that other makers use."""
SHARP_LETTERS = frozenset({"D", "E", "L", "YC", "YD", "YE"})
"""Philips' letters."""
SHARP_FROM = {"FC": (30, 99), "B": (50, 99)}
"""Numbers of Canon's kernels (FC30 bone, FC50 and up lung) and Siemens' (B50f, Br59, Bl57)."""


def is_sharp_kernel(kernel: str) -> bool:
    """Tell whether a convolution kernel is made for bone or the lung's fine texture.

    Unknown names count as smooth.
    """
    name = kernel.strip().upper()
    if name in SHARP_LETTERS or any(word in name for word in SHARP_NAMES):
        return True
    numbered = re.match(r"(FC|B)[A-Z]?(\d\d)", name)
    if not numbered:
        return False
    low, high = SHARP_FROM[numbered[1]]
    return low <= int(numbered[2]) <= high
