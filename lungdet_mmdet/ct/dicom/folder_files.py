# SPDX-License-Identifier: Apache-2.0
"""The files of one folder, sorted into DICOM images by series, other things, and lost images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lungdet_mmdet.ct.dicom.header import (
    CT_SOP_CLASSES,
    DicomSlice,
    is_dicom,
    walk_elements,
)
from lungdet_mmdet.ct.dicom.multiframe import read_dicom_slices

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


def pixel_damage(path: Path, *, pixel_bytes: int) -> str:
    """Return what is wrong with the amount of pixels in a file; "" where nothing is.

    Parameters
    ----------
    path : the file.
    pixel_bytes : length of its pixels before compression, by rows, columns, frames and bits.
    """
    elements = walk_elements(path)
    if not elements.fit:
        return "its pixels are cut off"
    found = elements.pixel_bytes
    if found is None:
        return "it holds no pixels"
    # A little more than needed is padding; compressed pixels have a length of their own.
    if found < 0 or pixel_bytes <= found < 2 * pixel_bytes:
        return ""
    return f"it holds {found} bytes of pixels, its rows, columns and bits ask for {pixel_bytes}"


@dataclass(frozen=True)
class UnreadDicom:
    """A DICOM file that GDCM does not read as an image.

    Parameters
    ----------
    is_other : it is another object (a report, an index, a segmentation), whole or not.
    series_uid : series that it says to belong to; "" where it does not say, or is cut off before.
    """

    is_other: bool
    series_uid: str


def what_is_unread(path: Path) -> UnreadDicom:
    """Say what a DICOM file is that is not read as an image, by its elements at the top level."""
    elements = walk_elements(path)
    # Cut off between two elements, a slice looks as whole as a report does.
    is_slice = elements.sop_class in CT_SOP_CLASSES and elements.modality in ("", "CT")
    has_image = elements.pixel_bytes is not None or elements.has_rows
    is_other = bool(_NO_IMAGE.fullmatch(elements.sop_class)) or (
        elements.fit and not has_image and not is_slice
    )
    return UnreadDicom(is_other, elements.series_uid)


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
    slices: dict[str, list[DicomSlice]] = {}
    damaged: dict[str, list[Path]] = {}
    unknown = []
    others = 0
    for path in paths:
        if not is_dicom(path):
            unknown.append(path)
            continue
        if found := read_dicom_slices(path):
            slices.setdefault(found[0].series_uid, []).extend(found)
            continue
        unread = what_is_unread(path)
        if unread.is_other:
            others += 1
        elif unread.series_uid:
            damaged.setdefault(unread.series_uid, []).append(path)
        else:
            unknown.append(path)
    series_of_pattern: dict[str, set[str]] = {}
    for uid, images in slices.items():
        for item in images:
            series_of_pattern.setdefault(_pattern(item.path), set()).add(uid)
    strangers = []
    for path in unknown:
        owners = series_of_pattern.get(_pattern(path), set())
        claims_dicom = is_dicom(path) or _bare(path).suffix.lower() in _DICOM_SUFFIXES
        if owners and (claims_dicom or not _is_text(path)):
            for uid in owners:
                damaged.setdefault(uid, []).append(path)
        elif claims_dicom and not _is_text(path):
            strangers.append(path)
        else:
            others += 1
    return FolderFiles(slices, damaged, tuple(strangers), others)


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
